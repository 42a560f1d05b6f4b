"""Engines whose connections a function of the application's makes: it is called, and led to the test database."""

from __future__ import annotations

import asyncio
import functools
import importlib
import sqlite3
import tempfile
import unittest
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, NullPool, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from dbtestcase.errors import ConfigurationError
from dbtestcase.isolation.reroute import Rerouting
from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.mariadb import connect as connect_mariadb
from tests.support.mariadb import mariadb_url
from tests.support.requirements import require_module
from tests.support.runners import run_suite, write_suite
from tests.support.scratch import connect
from tests.support.servers import postgresql_url

MODULES = {"pysqlite": "sqlite3", "mysqldb": "MySQLdb"}
PRODUCTION = {"host": "db.example.org", "user": "shop", "password": "secret"}


def drivers_connect(driver: str) -> Callable[[], Any]:
    """A creator as an application has it: it connects to production and sets up the session."""
    if driver == "psycopg":
        import psycopg

        def create() -> Any:
            made = psycopg.connect(dbname="shop", options="-c app.tenant=acme", **PRODUCTION)
            made.execute("SET search_path = tenant")
            made.commit()
            return made

    elif driver == "psycopg2":
        import psycopg2

        def create() -> Any:
            made = psycopg2.connect(dbname="shop", options="-c app.tenant=acme", **PRODUCTION)
            with made.cursor() as cursor:
                cursor.execute("SET search_path = tenant")
            made.commit()
            return made

    elif driver == "pg8000":
        import pg8000.dbapi

        def create() -> Any:
            startup = {"options": "-c app.tenant=acme"}
            made = pg8000.dbapi.connect("shop", "db.example.org", "shop", password="secret", startup_params=startup)
            made.cursor().execute("SET search_path = tenant")
            made.commit()
            return made

    elif driver in ("pymysql", "mysqldb"):
        module: Any = importlib.import_module(MODULES.get(driver, driver))

        def create() -> Any:
            made = module.connect(database="shop", init_command="SET @tenant = 'acme'", **PRODUCTION)
            with closing(made.cursor()) as cursor:
                cursor.execute("SET @search = 'tenant'")
            return made

    else:

        def create() -> Any:
            made = sqlite3.connect("/var/lib/shop/shop.db", timeout=3)
            made.create_function("tenant", 0, lambda: "acme")
            made.create_function("search", 0, lambda: "tenant")
            return made

    return create


def drivers_async_connect(driver: str) -> Callable[[], Awaitable[Any]]:
    """The same for ``async_creator=``."""
    if driver == "psycopg":
        import psycopg

        async def create() -> Any:
            made = await psycopg.AsyncConnection.connect(dbname="shop", options="-c app.tenant=acme", **PRODUCTION)
            await made.execute("SET search_path = tenant")
            await made.commit()
            return made

    elif driver == "asyncpg":
        import asyncpg

        async def create() -> Any:
            settings = {"app.tenant": "acme"}
            made = await asyncpg.connect(database="shop", server_settings=settings, **PRODUCTION)
            await made.execute("SET search_path = tenant")
            return made

    elif driver == "aiosqlite":
        import aiosqlite

        async def create() -> Any:
            made = await aiosqlite.connect("/var/lib/shop/shop.db")
            await made.create_function("tenant", 0, lambda: "acme")
            await made.create_function("search", 0, lambda: "tenant")
            return made

    else:
        module: Any = __import__(driver)

        async def create() -> Any:
            made = await module.connect(db="shop", init_command="SET @tenant = 'acme'", **PRODUCTION)
            cursor = await made.cursor() if driver == "aiomysql" else made.cursor()
            await cursor.execute("SET @search = 'tenant'")
            await cursor.close()
            return made

    return create


ASKED = {
    "postgresql": "SELECT current_setting('app.tenant'), current_setting('search_path')",
    "mysql": "SELECT @tenant, @search",
    "sqlite": "SELECT tenant(), search()",
}
SYNC = ("psycopg", "psycopg2", "pg8000", "pymysql", "mysqldb", "pysqlite")
ASYNC = ("psycopg", "asyncpg", "aiomysql", "asyncmy", "aiosqlite")


class _Databases(unittest.TestCase):
    """One on each server with a table, and the rows that an independent connection finds there."""

    name = "creators"

    @contextmanager
    def database(self, driver: str) -> Iterator[tuple[URL, Callable[[], int]]]:
        require_module(MODULES.get(driver, driver))
        if driver in ("pysqlite", "aiosqlite"):
            with (
                tempfile.TemporaryDirectory() as folder,
                closing(sqlite3.connect(Path(folder, "creators.db"))) as judge,
            ):
                judge.execute("CREATE TABLE item (id INTEGER PRIMARY KEY)")
                count = functools.partial(lambda: judge.execute("SELECT count(*) FROM item").fetchone()[0])
                yield URL.create(f"sqlite+{driver}", database=str(Path(folder, "creators.db"))), count
        elif driver in ("pymysql", "mysqldb", "aiomysql", "asyncmy"):
            server = mariadb_url()
            with closing(connect_mariadb(server, None)) as judge, judge.cursor() as cursor:
                cursor.execute(f"CREATE OR REPLACE DATABASE {self.name}")
                cursor.execute(f"CREATE TABLE {self.name}.item (id INTEGER PRIMARY KEY) ENGINE=InnoDB")

                def count() -> int:
                    cursor.execute(f"SELECT count(*) FROM {self.name}.item")
                    return int(cursor.fetchone()[0])

                yield server.set(drivername=f"mysql+{driver}", database=self.name), count
                cursor.execute(f"DROP DATABASE {self.name}")
        else:
            server = postgresql_url()
            with connect(server, autocommit=True) as admin:
                admin.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)".encode())
                admin.execute(f"CREATE DATABASE {self.name}".encode())
                url = server.set(drivername=f"postgresql+{driver}", database=self.name)
                with connect(url, autocommit=True) as judge:
                    judge.execute(b"CREATE SCHEMA tenant; CREATE TABLE tenant.item (id INTEGER PRIMARY KEY)")
                    yield url, lambda: int(judge.execute("SELECT count(*) FROM tenant.item").fetchone()[0])
                admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)".encode())

    @contextmanager
    def sandboxed(self, driver: str) -> Iterator[tuple[Any, Callable[[], int]]]:
        with (
            self.database(driver) as (url, count),
            running_sandbox(SimpleNamespace(url=url, built=True), url) as run,
        ):
            run.sandbox.begin("class")
            run.sandbox.mark("test")
            yield run, count

    @staticmethod
    def url_of(driver: str) -> str:
        kind = "sqlite" if "sqlite" in driver else "mysql" if driver in (*ASYNC[2:4], *SYNC[3:5]) else "postgresql"
        return f"{kind}+{driver}://"

    def look(self, connection: sa.Connection) -> None:
        """What the creator has asked for holds, and the row goes where all others go."""
        asked = connection.exec_driver_sql(ASKED[connection.dialect.name]).one()
        self.assertEqual(tuple(asked), ("acme", "tenant"))
        connection.exec_driver_sql("INSERT INTO item VALUES (1)")
        connection.commit()

    async def look_async(self, engine: Any) -> None:
        async with engine.connect() as connection:
            await connection.run_sync(self.look)
        await engine.dispose()


class SandboxedCreatorsTest(_Databases):
    def test_what_a_creator_asks_for_holds(self) -> None:
        for driver in SYNC:
            with self.subTest(driver), self.sandboxed(driver) as (run, count):
                calls: list[Any] = []
                create = drivers_connect(driver)
                engine = create_engine(self.url_of(driver), creator=lambda: calls.append(1) or create())  # noqa: B023
                run.board.lead(engine)
                with engine.connect() as connection:
                    self.look(connection)
                with engine.connect() as connection:
                    self.assertEqual(connection.exec_driver_sql("SELECT count(*) FROM item").scalar(), 1)
                self.assertEqual(len(calls), 1)
                self.assertEqual(count(), 0)
                engine.dispose()

    def test_what_an_async_creator_asks_for_holds(self) -> None:
        for driver in ASYNC:
            for how in ("async_creator", "async_creator_fn"):
                with self.subTest(driver, how=how), self.sandboxed(driver) as (run, count):
                    create = drivers_async_connect(driver)
                    given: dict[str, Any] = {"async_creator": create}
                    if how == "async_creator_fn":
                        given = {"connect_args": {how: lambda *_, create=create, **__: create()}}
                    engine = create_async_engine(self.url_of(driver), **given)
                    run.board.lead(engine)
                    asyncio.run(self.look_async(engine))
                    self.assertEqual(count(), 0)

    def test_a_listener_that_connects_by_itself_is_led(self) -> None:
        for driver in SYNC:
            with self.subTest(driver), self.sandboxed(driver) as (run, count):
                engine, create = create_engine(self.url_of(driver)), drivers_connect(driver)
                event.listen(engine, "do_connect", lambda dialect, record, args, parameters: create())  # noqa: B023
                run.board.lead(engine)
                with engine.connect() as connection:
                    self.look(connection)
                self.assertEqual(count(), 0)
                engine.dispose()

    def test_a_creator_and_a_listener_are_given_the_record(self) -> None:
        with self.sandboxed("psycopg") as (run, _):
            records: list[Any] = []
            create = drivers_connect("psycopg")
            engine = create_engine("postgresql+psycopg://", creator=lambda record: records.append(record) or create())
            listening = create_engine("postgresql+psycopg://shop")
            event.listen(listening, "do_connect", lambda dialect, record, *_: records.append(record))
            for each in (engine, listening):
                run.board.lead(each)
                with each.connect() as connection:
                    self.assertIs(records[-1].dbapi_connection, connection.connection.dbapi_connection)
                each.dispose()

    def test_a_connection_from_elsewhere_is_refused_before_it_is_used(self) -> None:
        import psycopg

        class Own(psycopg.Connection[Any]):
            pass

        with self.sandboxed("psycopg") as (run, _):
            arguments: Any = {"host": run.url.query["host"], "user": run.url.username, "dbname": "creators"}
            ready = psycopg.connect(**arguments)
            self.addCleanup(ready.close)
            for why, create in {
                "from before": lambda: ready,
                "of a class of its own": lambda: Own.connect(**arguments),
                "of none": lambda: None,
                "of another driver": lambda: sqlite3.connect(":memory:"),
            }.items():
                with self.subTest(why):
                    engine = create_engine("postgresql+psycopg://", creator=create)
                    run.board.lead(engine)
                    with self.assertRaisesRegex(ConfigurationError, r"not made by psycopg.connect\(\) within it"):
                        engine.connect()
            self.assertTrue(ready.closed)

    def test_a_pool_of_the_drivers_own_gives_what_it_would_make(self) -> None:
        import psycopg2.pool
        import psycopg_pool

        def configure(made: Any) -> None:
            made.execute("SET search_path = tenant")
            made.commit()

        options = {"options": "-c app.tenant=acme", **PRODUCTION}
        pools: dict[str, Any] = {
            "psycopg": self.enterContext(
                psycopg_pool.ConnectionPool(kwargs=options, configure=configure, min_size=0, max_size=1, open=False)
            ),
            "psycopg2": psycopg2.pool.ThreadedConnectionPool(
                0, 5, **options | {"options": "-c app.tenant=acme -c search_path=tenant"}
            ),
        }
        for driver, pool in pools.items():
            with self.subTest(driver), self.sandboxed(driver) as (run, count):
                engine = create_engine(self.url_of(driver), creator=pool.getconn, poolclass=NullPool)
                run.board.lead(engine)
                with engine.connect() as connection:
                    self.look(connection)
                self.assertEqual(count(), 0)

    def test_a_creators_own_error_is_its_own_and_says_who_has_called(self) -> None:
        def create() -> Any:
            raise KeyError("DATABASE_TOKEN")

        with self.sandboxed("psycopg") as (run, _):
            engine = create_engine("postgresql+psycopg://", creator=create)
            run.board.lead(engine)
            with self.assertRaises(KeyError) as caught:
                engine.connect()
            self.assertIn("psycopg's connect() leads to the test database", caught.exception.__notes__[0])

    def test_what_cannot_hold_is_refused_by_name(self) -> None:
        import psycopg

        with self.sandboxed("psycopg") as (run, _):
            create = functools.partial(psycopg.connect, replication="database", **PRODUCTION)
            engine = create_engine("postgresql+psycopg://", creator=create)
            run.board.lead(engine)
            with self.assertRaisesRegex(ConfigurationError, "'replication'"):
                engine.connect()


class ReroutedCreatorsTest(_Databases):
    """Real connections, as a committing class has them."""

    @contextmanager
    def rerouted(self, driver: str, engine: Any) -> Iterator[Callable[[], int]]:
        with self.database(driver) as (url, count):
            if driver == "pg8000":
                host = url.query["host"]
                url = url.difference_update_query(["host"]).update_query_dict({"unix_sock": f"{host}/.s.PGSQL.5432"})
            leads = Rerouting(url, lambda *_: None, lambda _: None)
            leads.lead(engine)
            yield count

    def test_a_creator_connects_to_the_test_database(self) -> None:
        for driver in SYNC:
            with self.subTest(driver):
                require_module(MODULES.get(driver, driver))
                engine = create_engine(self.url_of(driver), creator=drivers_connect(driver))
                with self.rerouted(driver, engine) as count:
                    with engine.connect() as connection:
                        self.look(connection)
                    engine.dispose()
                    self.assertEqual(count(), 1)

    def test_an_async_creator_connects_to_the_test_database(self) -> None:
        for driver in ASYNC:
            engine = create_async_engine(self.url_of(driver), async_creator=drivers_async_connect(driver))
            with self.subTest(driver), self.rerouted(driver, engine) as count:
                asyncio.run(self.look_async(engine))
                self.assertEqual(count(), 1)


del _Databases


class TakenBeforeTest(unittest.TestCase):
    def test_a_drivers_own_function_that_an_engine_has_taken_before_any_test_is_led(self) -> None:
        for module in ("psycopg", "psycopg2", "aiosqlite"):
            require_module(module)
        folder = self.enterContext(tempfile.TemporaryDirectory())
        suite = {
            "app.py": """
                import functools, sqlite3
                import aiosqlite, psycopg, psycopg2
                from sqlalchemy import create_engine
                from sqlalchemy.ext.asyncio import create_async_engine

                shop = {"host": "db.invalid", "user": "shop", "dbname": "shop"}
                first = {"application_name": "first"}
                by_psycopg = [
                    create_engine("postgresql+psycopg://", creator=functools.partial(psycopg.connect, **shop, **first)),
                    create_engine("postgresql+psycopg://", creator=psycopg.connect),
                    create_engine(
                        "postgresql+psycopg://",
                        creator=functools.partial(functools.partial(psycopg.Connection.connect, **shop), **first),
                    ),
                ]
                create = functools.partial(psycopg2.connect, **shop)
                by_psycopg2 = [create_engine("postgresql+psycopg2://", creator=create)]
                by_sqlite = [create_engine("sqlite://", creator=functools.partial(sqlite3.connect, "/no/shop.db"))]
                by_aiosqlite = create_async_engine(
                    "sqlite+aiosqlite:////no/shop.db",
                    connect_args={"async_creator_fn": functools.partial(aiosqlite.connect, timeout=9)},
                )
            """,
            "test_early.py": """
                import app
                import sqlalchemy as sa
                from dbtestcase import AsyncDatabaseTest, DatabaseTest, TruncatingDatabaseTest

                metadata = sa.MetaData()
                note = sa.Table("note", metadata, sa.Column("id", sa.Integer, primary_key=True))

                class Rows:
                    metadata = metadata
                    def test_rows(self):
                        for number, engine in enumerate(self.engines):
                            with engine.begin() as connection:
                                connection.execute(note.insert())
                            self.assertRowCount(note, number + 1)

                class ByPsycopg(Rows):
                    engines = app.by_psycopg
                    def test_what_it_gives(self):
                        with self.engines[0].connect() as connection:
                            name = connection.exec_driver_sql("SHOW application_name").scalar()
                        self.assertEqual(name, "first")

                class ByPsycopg2(Rows):
                    engines = app.by_psycopg2
                class BySQLite(Rows):
                    engines, url = app.by_sqlite, "sqlite://"

                class PsycopgTest(ByPsycopg, DatabaseTest): pass
                class Psycopg2Test(ByPsycopg2, DatabaseTest): pass
                class SQLiteTest(BySQLite, DatabaseTest): pass
                class CommittingPsycopgTest(ByPsycopg, TruncatingDatabaseTest): pass
                class CommittingPsycopg2Test(ByPsycopg2, TruncatingDatabaseTest): pass
                class CommittingSQLiteTest(BySQLite, TruncatingDatabaseTest): pass
                class AsyncTest(AsyncDatabaseTest):
                    metadata = metadata
                    engines, url = [app.by_aiosqlite], "sqlite://"
                    async def test_rows(self):
                        async with app.by_aiosqlite.begin() as connection:
                            await connection.execute(note.insert())
                        self.assertRowCount(note, 1)
            """,
        }
        run_suite(write_suite(folder, suite), "unittest", new=True).expect(passed=9)


if __name__ == "__main__":
    unittest.main()
