"""Async engines of SQLite and MariaDB: contained in the sandbox, in one transaction with sync code."""

import asyncio
from contextlib import closing
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbtestcase import AsyncDatabaseTest, SandboxEscape
from tests.support.inner import InnerRuns
from tests.support.mariadb import require_mariadb
from tests.support.requirements import require_module


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)


class Judged(AsyncDatabaseTest):
    metadata = Base.metadata
    app: ClassVar[AsyncEngine]

    async def names(self) -> list[str]:
        async with self.app.connect() as connection:
            return list((await connection.scalars(text("SELECT name FROM author ORDER BY id"))).all())


async def add(app: AsyncEngine, name: str) -> None:
    async with AsyncSession(app) as session:
        session.add(Author(name=name))
        await session.commit()


class _Twins(InnerRuns):
    """The contract, for each async driver."""

    __test__ = False
    test_url: ClassVar[str]
    app_url: ClassVar[str]
    module: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_module(cls.module)
        if cls.test_url.startswith("mariadb"):
            require_mariadb()

    def case(self, **attributes: Any) -> type[Judged]:
        app = attributes.setdefault("app", create_async_engine(self.app_url))
        attributes.setdefault("engines", [app])
        return type("Case", (Judged,), {"url": self.test_url, "__module__": __name__, **attributes})

    def assertContained(self, do: Any, *, rows: int, **attributes: Any) -> None:
        async def test_1(test: Any) -> None:
            await do(test)
            test.assertEqual(len(await test.names()), rows)

        async def test_2(test: Any) -> None:
            test.assertEqual(await test.names(), [])

        self.assertPassed(self.case(test_1=test_1, test_2=test_2, test_3=test_2, **attributes), tests=3)

    def test_async_sessions_are_contained(self) -> None:
        async def do(test: Any) -> None:
            await add(test.app, "Ada")
            async with AsyncSession(test.app) as session:
                session.add(Author(name="lost"))
                await session.flush()

        self.assertContained(do, rows=1)

    def test_sync_and_async_code_share_one_transaction(self) -> None:
        async def do(test: Any) -> None:
            await add(test.app, "Ada")
            with Session(test.sync_engine) as session:
                test.assertEqual(session.scalars(sa.select(Author.name)).all(), ["Ada"])
                session.add(Author(name="Bob"))
                session.commit()
            test.sync_session.add(Author(name="Cid"))
            test.sync_session.flush()

        self.assertContained(do, rows=3)

    def test_eight_tasks_that_commit_are_contained(self) -> None:
        async def do(test: Any) -> None:
            await asyncio.gather(*(add(test.app, f"author {number}") for number in range(8)))

        self.assertContained(do, rows=8)

    def test_errors_are_those_of_the_driver_and_undo_their_statement_only(self) -> None:
        async def do(test: Any) -> None:
            async with AsyncSession(test.app) as session:
                session.add(Author(name="Ada"))
                await session.flush()
                with test.assertRaises(sa.exc.IntegrityError) as caught:
                    async with session.begin_nested():
                        session.add(Author(name="Ada"))
                test.assertIsInstance(caught.exception.orig, test.app.dialect.loaded_dbapi.IntegrityError)
                await session.commit()

        self.assertContained(do, rows=1)

    def test_streams_go_on_while_another_session_commits(self) -> None:
        async def do(test: Any) -> None:
            for name in "abc":
                await add(test.app, name)
            async with test.app.connect() as connection:
                result = await connection.stream_scalars(text("SELECT name FROM author ORDER BY id"))
                found = []
                async for name in result:
                    found.append(name)
                    if name == "a":
                        await add(test.app, "d")
            test.assertEqual(found[:3], ["a", "b", "c"])

        self.assertContained(do, rows=4)

    def test_autocommit_is_contained(self) -> None:
        async def do(test: Any) -> None:
            engine = test.app.execution_options(isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                await connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))

        self.assertContained(do, rows=1)

    def test_a_pool_outlives_the_loop_of_a_test(self) -> None:
        async def test(test: Any) -> None:
            await asyncio.gather(*(add(test.app, f"author {number}") for number in range(3)))
            test.assertEqual(len(await test.names()), 3)

        self.assertPassed(self.case(test_1=test, test_2=test, test_3=test), tests=3)


class AiosqliteTest(_Twins):
    __test__ = True
    test_url, app_url, module = "sqlite+aiosqlite://", "sqlite+aiosqlite://", "aiosqlite"

    def test_foreign_keys_of_connect_events_are_enforced(self) -> None:
        app = create_async_engine(self.app_url)

        @event.listens_for(app.sync_engine, "connect")
        def connect(connection: Any, record: Any) -> None:
            with closing(connection.cursor()) as cursor:
                cursor.execute("PRAGMA foreign_keys = ON")

        async def test_1(test: Any) -> None:
            async with test.app.connect() as connection:
                test.assertEqual((await connection.execute(text("PRAGMA foreign_keys"))).scalar(), 1)

        self.assertPassed(self.case(test_1=test_1, app=app), tests=1)

    def test_the_drivers_own_connection_is_contained(self) -> None:
        async def do(test: Any) -> None:
            async with test.app.connect() as connection:
                raw = (await connection.get_raw_connection()).driver_connection
                await raw.execute("INSERT INTO author (name) VALUES (?)", ("Ada",))
                await raw.commit()
                async with await raw.execute("SELECT name FROM author") as cursor:
                    test.assertEqual(await cursor.fetchall(), [("Ada",)])

        self.assertContained(do, rows=1)


class SyncUrlTest(AiosqliteTest):
    """The class names a sync driver, the application an async one."""

    test_url = "sqlite://"


class AiomysqlTest(_Twins):
    __test__ = True
    test_url, app_url, module = "mariadb+aiomysql://", "mariadb+aiomysql://nobody@localhost:1/shop", "aiomysql"

    def test_what_would_commit_is_refused(self) -> None:
        async def test_1(test: Any) -> None:
            async with test.app.connect() as connection:
                with test.assertRaises(SandboxEscape):
                    await connection.execute(text("TRUNCATE TABLE author"))
                raw = (await connection.get_raw_connection()).driver_connection
                async with raw.cursor() as cursor:
                    await cursor.execute("SELECT 1")
                    test.assertEqual(await cursor.fetchall(), ((1,),))
                    with test.assertRaises(SandboxEscape):
                        await cursor.execute("TRUNCATE TABLE author")
                with test.assertRaises(SandboxEscape):
                    await raw.select_db("shop")

        self.assertPassed(self.case(test_1=test_1), tests=1)


class AsyncmyTest(AiomysqlTest):
    test_url, app_url, module = "mariadb+asyncmy://", "mariadb+asyncmy://nobody@localhost:1/shop", "asyncmy"


del _Twins
