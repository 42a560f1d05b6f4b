"""Doors to a database, through which an application would write to its real one; and what the judge found there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.support.inner import InnerRuns
from tests.support.requirements import require_module
from tests.support.samples import a_share

MODULES = {"mysqldb": ("MySQLdb", "mysqlclient"), "pysqlite": ("sqlite3", "python")}


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(99))


COUNT = select(sa.func.count()).select_from(Note)
INSERT = sa.insert(Note).values(text="escaped")


def by_session(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Note(text="escaped"))
        session.commit()


def by_core(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(INSERT)


def by_options(engine: Engine) -> None:
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(INSERT)


def by_raw_connection(engine: Engine) -> None:
    with contextlib.closing(engine.raw_connection()) as connection:
        connection.cursor().execute("INSERT INTO note (text) VALUES ('escaped')")
        connection.commit()


def by_pool(engine: Engine) -> None:
    with contextlib.closing(engine.pool.connect()) as connection:
        connection.cursor().execute("INSERT INTO note (text) VALUES ('escaped')")
        connection.commit()


def by_thread(engine: Engine) -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            by_core(engine)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


DOORS: tuple[Callable[[Engine], None], ...] = (
    by_session,
    by_core,
    by_options,
    by_raw_connection,
    by_pool,
    by_thread,
)


async def by_async_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Note(text="escaped"))
        await session.commit()


async def by_async_core(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(INSERT)


async def by_gather(engine: AsyncEngine) -> None:
    await asyncio.gather(by_async_core(engine))


ASYNC_DOORS: tuple[Callable[[AsyncEngine], Awaitable[None]], ...] = (by_async_session, by_async_core, by_gather)


class BorderCase(InnerRuns):
    """``self.production`` is the application's real database."""

    production: Any
    kind_url: str | None = None

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.check)

    def check(self) -> None:
        self.assertEqual(self.production.rows(), [])

    def drivers(self, names: tuple[str, ...]) -> Iterator[str]:
        for driver in a_share(names, 2):
            with self.subTest(driver=driver):
                require_module(*MODULES.get(driver, (driver,)))
                yield driver

    def engine(self, driver: str, **options: Any) -> Engine:
        engine = create_engine(self.production.url(driver), **options)
        self.addCleanup(engine.dispose)
        return engine
