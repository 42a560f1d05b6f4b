"""Operations that an async test leaves half-finished, and its loop with them: the next test passes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sqlite3
import tempfile
import unittest
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from dbtestcase.isolation.rollback import SandboxIsolation
from dbtestcase.isolation.sandbox_run import running_sandbox
from dbtestcase.sandbox import scheduler
from tests.support.garbage import ManyCollections
from tests.support.mariadb import connect as connect_mariadb
from tests.support.mariadb import mariadb_url
from tests.support.requirements import require_module
from tests.support.samples import LONG
from tests.support.scratch import connect
from tests.support.servers import postgresql_url

ROUNDS = int(os.environ.get("ROUNDS", 2_000)) if LONG else 5
TABLE = "CREATE TABLE item (id int PRIMARY KEY, name varchar(20))"
ROWS = "INSERT INTO item VALUES " + ", ".join(f"({n}, 'base')" for n in range(1, 301))
DRIVERS = {"asyncpg", "psycopg", "aiosqlite", "sqlite3", "aiomysql", "pymysql", "sqlalchemy", "dbtestcase", "asyncio"}

Left = Callable[[], Awaitable[Any]]
"""Goes on with what was left, or ends it, in a later test and another loop."""


class Boom(Exception):
    pass


class Operations:
    """Each leaves something in the middle and gives back how it could go on."""

    def __init__(self, engine: AsyncEngine, kept: list[Any]) -> None:
        self.engine, self.kept = engine, kept
        """``kept`` keeps what would otherwise be ended by the collector."""

    async def stream(self) -> Left:
        connection = await self.engine.connect()
        self.kept.append(connection)
        result = await connection.stream(sa.text("SELECT id FROM item ORDER BY id"))
        await result.fetchmany(2)
        return result.fetchall

    async def generator(self) -> Left:
        async def rows() -> AsyncIterator[Any]:
            async with AsyncSession(self.engine) as session:
                async for row in await session.stream(sa.text("SELECT id FROM item ORDER BY id")):
                    yield row

        half = rows()
        await half.__anext__()
        return half.__anext__

    async def session(self) -> Left:
        session = AsyncSession(self.engine)
        self.kept.append(session)
        await session.execute(sa.text("SELECT count(*) FROM item"))
        return session.commit

    async def writes(self) -> Left:
        session = AsyncSession(self.engine)
        self.kept.append(session)
        await session.execute(sa.text("INSERT INTO item VALUES (1000, 'left')"))
        return session.commit

    async def nested(self) -> Left:
        session = AsyncSession(self.engine)
        self.kept.append(session)
        await session.execute(sa.text("SELECT 1"))
        nested = await session.begin_nested()
        await session.execute(sa.text("UPDATE item SET name = 'nested' WHERE id = 1"))
        return nested.rollback

    async def failed(self) -> Left:
        connection = await self.engine.connect()
        self.kept.append(connection)
        with contextlib.suppress(sa.exc.DBAPIError):
            await connection.execute(sa.text("SELECT * FROM nowhere"))
        return connection.rollback

    async def task(self) -> Left:
        """One that the end of the loop cancels in the middle of its transaction."""
        begun = asyncio.Event()

        async def work() -> None:
            async with self.engine.begin() as connection:
                await connection.execute(sa.text("UPDATE item SET name = 'task' WHERE id = 2"))
                begun.set()
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(work()), asyncio.create_task(begun.wait())]
        self.kept.extend(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)  # it may be refused beside another's
        return lambda: asyncio.sleep(0)

    async def cancelled(self) -> Left:
        async def work() -> None:
            async with AsyncSession(self.engine) as session:
                for n in range(20):
                    await session.execute(sa.text(f"UPDATE item SET name = 'cancelled' WHERE id = {10 + n}"))
                    await asyncio.sleep(0)

        task = asyncio.create_task(work())
        for _ in range(random.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return lambda: asyncio.sleep(0)

    async def gathered(self) -> Left:
        async def one(n: int) -> None:
            async with self.engine.begin() as connection:
                await connection.execute(sa.text(f"UPDATE item SET name = 'gathered' WHERE id = {40 + n}"))
                if n == 1:
                    raise Boom

        with contextlib.suppress(Boom):
            await asyncio.gather(*(one(n) for n in range(3)))
        return lambda: asyncio.sleep(0)

    async def timed_out(self) -> Left:
        session = AsyncSession(self.engine)
        self.kept.append(session)

        async def work() -> None:
            for _ in range(50):
                await session.execute(sa.text("SELECT count(*) FROM item"))
                await asyncio.sleep(0.01)

        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(work(), 0.02)
        return session.rollback


class PostgreSQLOperations(Operations):
    async def temporary(self) -> Left:
        connection = await self.engine.connect()
        self.kept.append(connection)
        await connection.execute(sa.text("CREATE TEMP TABLE staging (id int) ON COMMIT DROP"))
        return lambda: connection.execute(sa.text("SELECT * FROM staging"))

    async def modes(self) -> Left:
        connection = await self.engine.connect()
        self.kept.append(connection)
        await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"))
        await connection.execute(sa.text("SELECT pg_advisory_lock(1)"))
        return connection.commit

    async def schema(self) -> Left:
        connection = await self.engine.connect()
        self.kept.append(connection)
        await connection.execute(sa.text("ALTER TABLE item ADD COLUMN extra int DEFAULT 5"))
        for _ in range(7):
            (await connection.execute(sa.text("SELECT * FROM item WHERE id = 1"))).all()
        return connection.rollback


class PsycopgOperations(PostgreSQLOperations):
    async def raw(self) -> Any:
        connection = await self.engine.raw_connection()
        self.kept.append(connection)
        return connection.driver_connection

    async def copy_out(self) -> Left:
        copy = (await self.raw()).cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT")
        inner = await copy.__aenter__()
        await inner.read_row()
        return inner.read_row  # type: ignore[no-any-return]

    async def copy_in(self) -> Left:
        copy = (await self.raw()).cursor().copy("COPY item FROM STDIN")
        inner = await copy.__aenter__()
        await inner.write_row((2000, "left"))
        return lambda: copy.__aexit__(None, None, None)  # type: ignore[no-any-return]

    async def pipeline(self) -> Left:
        connection = await self.raw()
        pipeline = connection.pipeline()
        await pipeline.__aenter__()
        await connection.execute("INSERT INTO item VALUES (3000, 'left')")
        return lambda: pipeline.__aexit__(None, None, None)  # type: ignore[no-any-return]

    async def block(self) -> Left:
        connection = await self.raw()
        block = connection.transaction()
        await block.__aenter__()
        await connection.execute("SELECT 1")
        return lambda: block.__aexit__(None, None, None)  # type: ignore[no-any-return]

    async def driver_stream(self) -> Left:
        rows = (await self.raw()).cursor().stream("SELECT * FROM item, generate_series(1, 1000)")
        await rows.__anext__()
        return rows.__anext__  # type: ignore[no-any-return]


class AsyncpgOperations(PostgreSQLOperations):
    async def driver(self) -> Left:
        connection: Any = await self.engine.connect()
        self.kept.append(connection)
        await connection.execute(sa.text("SELECT 1"))
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.execute("UPDATE item SET name = 'driver' WHERE id = 3")
        return lambda: driver.fetch("SELECT 1")  # type: ignore[no-any-return]


class AsyncHalfFinishedTest(ManyCollections, unittest.TestCase):
    """One isolation for all rounds, as a class of many tests has it."""

    def check(self, url: sa.URL, made: type[Operations]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pools warn of what nobody has closed
            self.run_rounds(url, made)
            gc.collect()

    def run_rounds(self, url: sa.URL, made: type[Operations]) -> None:
        names = [n for n in dir(made) if not n.startswith("_") and n != "raw"]
        counts: Counter[str] = Counter()
        database = SimpleNamespace(url=url, built=True, reclone=lambda: None, renew_lease=lambda: None)
        patience = mock.patch.object(scheduler, "PATIENCE", 0.1)  # of one task with another's transaction
        # and of a task that waits for another of its own, beside a pipeline that stays open
        busy = mock.patch.object(scheduler, "WIRE_TIMEOUT", 1.0)
        with patience, busy, running_sandbox(database, url) as run:
            isolation = SandboxIsolation(run, "class")
            engine = create_async_engine(url)
            isolation.begin_class("the class", [engine])
            kept: list[tuple[str, Left]] = []
            objects: list[Any] = []
            for seed in range(ROUNDS):
                r = random.Random(seed)
                random.seed(seed)
                chosen = [r.choice(names) for _ in range(r.choice((1, 1, 2, 3)))]
                said = f"{url.drivername}, round {seed}: {chosen}"
                isolation.begin_test(f"round {seed}")
                self.run_loop(run, self.leave(made(engine, objects), chosen, kept, said))
                counts.update(chosen)
                isolation.end_test(failed=False, test_files=frozenset([__file__]))
                if isolation.needs_rebuild:
                    counts["connections renewed"] += 1
                    isolation.begin_class("the class", [engine])
                isolation.begin_test(f"after round {seed}")
                going = []
                while kept and r.random() < 0.6:
                    going.append(kept.pop(r.randrange(len(kept))))
                self.run_loop(run, self.go_on(going, said))
                del going
                if r.random() < 0.3:
                    objects.clear()
                    gc.collect()
                run.sandbox.raised.clear()
                self.look(run.engine, said)
                self.run_loop(run, self.look_async(engine, said))
                problems = isolation.end_test(failed=False, test_files=frozenset([__file__]))
                self.assertEqual(problems, [], said)
                if isolation.needs_rebuild:
                    counts["connections renewed late"] += 1
                    isolation.begin_class("the class", [engine])
            kept.clear()
            objects.clear()
            gc.collect()
            isolation.end_class()
        if LONG:
            print(f"\n{url.drivername}: {ROUNDS} rounds, {dict(counts)}")

    @staticmethod
    def run_loop(run: Any, work: Any) -> None:
        asyncio.run(asyncio.wait_for(work, 60))
        run.board.end_loop()

    async def leave(self, operations: Operations, chosen: list[str], kept: list[tuple[str, Left]], said: str) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        for name in chosen:
            with self.failing_as_expected(f"{said}: {name}"):
                kept.append((name, await getattr(operations, name)()))

    async def go_on(self, going: list[tuple[str, Left]], said: str) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        for name, left in going:
            with self.failing_as_expected(f"{said}: {name} goes on"):
                await left()

    @contextlib.contextmanager
    def failing_as_expected(self, said: str) -> Any:
        """It works, or it fails with an error of the driver's, of the loop's or the library's."""
        try:
            yield
        except (StopAsyncIteration, RuntimeError, asyncio.CancelledError):
            pass  # the loop, or the generator, has ended
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in DRIVERS:
                raise AssertionError(f"{said}: {error!r}") from error

    def look(self, engine: sa.Engine, said: str) -> None:
        """A test that must pass."""
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT count(*), min(name), max(name) FROM item").one()
            self.assertEqual(tuple(found), (300, "base", "base"), said)
            connection.exec_driver_sql("UPDATE item SET name = 'looked'")
            connection.commit()

    async def look_async(self, engine: AsyncEngine, said: str) -> None:
        async with engine.connect() as one, engine.connect() as other:
            found = (await one.execute(sa.text("SELECT count(*), min(name) FROM item"))).one()
            self.assertEqual(tuple(found), (300, "looked"), said)
            await one.commit()
            await other.execute(sa.text("DELETE FROM item"))
            await other.commit()

    def postgresql(self, driver: str) -> sa.URL:
        require_module(driver)
        server = postgresql_url()
        name = f"half_finished_async_{driver}"
        with connect(server, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            admin.execute(f"CREATE DATABASE {name}".encode())
        self.addCleanup(self.drop, name)
        url = server.set(drivername=f"postgresql+{driver}", database=name)
        with connect(url, autocommit=True) as connection:
            connection.execute(f"{TABLE}; {ROWS}".encode())
        return url

    @staticmethod
    def drop(name: str) -> None:
        with connect(postgresql_url(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def test_asyncpg(self) -> None:
        self.check(self.postgresql("asyncpg"), AsyncpgOperations)

    def test_psycopg(self) -> None:
        self.check(self.postgresql("psycopg"), PsycopgOperations)

    def test_aiosqlite(self) -> None:
        require_module("aiosqlite")
        folder = self.enterContext(tempfile.TemporaryDirectory())
        path = Path(folder, "half.db")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"{TABLE}; {ROWS};")
        self.check(sa.make_url(f"sqlite+aiosqlite:///{path}"), Operations)

    def test_aiomysql(self) -> None:
        require_module("aiomysql")
        url = mariadb_url()
        with contextlib.closing(connect_mariadb(url, None)) as connection, connection.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS half_finished")
            cursor.execute("CREATE DATABASE half_finished")
            cursor.execute("USE half_finished")
            cursor.execute(TABLE)
            cursor.execute(ROWS)
        self.check(url.set(drivername="mariadb+aiomysql", database="half_finished"), Operations)


if __name__ == "__main__":
    unittest.main()
