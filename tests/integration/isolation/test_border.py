"""While a class runs, no engine of the process reaches a database that is not the test's; somebody else judges."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import unittest
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import create_engine, event, select
from sqlalchemy.ext.asyncio import create_async_engine

from dbtestcase import (
    AsyncDatabaseTest,
    AsyncTruncatingDatabaseTest,
    ConfigurationError,
    DatabaseTest,
    LeakError,
    OutsideDatabase,
    TruncatingDatabaseTest,
)
from tests.support.border import ASYNC_DOORS, COUNT, DOORS, INSERT, Base, BorderCase, Note, by_pool, by_session
from tests.support.mariadb import require_mariadb
from tests.support.production import MariaDBProduction, PostgreSQLProduction, SQLiteProduction
from tests.support.requirements import require_module
from tests.support.runners import run_suite, write_suite
from tests.support.samples import a_share

KINDS = (DatabaseTest, TruncatingDatabaseTest)
ASYNC_KINDS = (AsyncDatabaseTest, AsyncTruncatingDatabaseTest)


class Doors:
    """The contract of every dialect."""

    def test_an_engine_that_nobody_has_named_is_refused_at_every_door(self: Any) -> None:
        for number, driver in enumerate(self.drivers(self.production.drivers), 1):
            engine, filled = self.engine(driver), self.engine(driver)
            with filled.connect() as connection:
                connection.execute(select(Note))
            filled_clients = self.production.clients(number)
            for kind in KINDS:

                class Inner(kind):  # type: ignore[misc,valid-type]
                    metadata = Base.metadata
                    url = self.kind_url

                    def test_doors(self) -> None:
                        for each in (engine, filled):  # noqa: B023
                            for door in a_share(DOORS, 3):
                                with self.subTest(door=door.__name__), self.assertRaises(OutsideDatabase):
                                    door(each)
                        self.assertRowCount(Note, 0)

                self.assertPassed(Inner, tests=1)
            self.assertLessEqual(self.production.clients(filled_clients), filled_clients)
            self.check()
            with filled.connect() as connection:  # between classes an engine is what it was
                self.assertEqual(connection.execute(select(Note)).all(), [])

    def test_a_second_engine_of_the_same_database_is_led_at_every_door(self: Any) -> None:
        for driver in self.drivers(self.production.drivers):
            # pg8000 names a socket in its own way, which the committing classes' own engines do not speak
            kinds = KINDS[:1] if driver == "pg8000" else KINDS
            writer, reader = self.engine(driver), self.engine(driver)
            with reader.connect() as connection:
                connection.execute(select(Note))
            for kind in kinds:

                class Inner(kind):  # type: ignore[misc,valid-type]
                    metadata = Base.metadata
                    url = self.kind_url
                    engines = [writer]

                    def test_doors(self) -> None:
                        by_session(writer)  # noqa: B023
                        for number, door in enumerate(DOORS[:4]):
                            door(reader)  # noqa: B023
                            self.assertRowCount(Note, number + 2)
                            self.session.rollback()  # a new snapshot on MariaDB

                    def test_made_in_the_test(self) -> None:
                        for door in DOORS:
                            engine = create_engine(writer_url)  # noqa: B023
                            if door is by_pool:
                                with engine.connect():
                                    pass
                            door(engine)
                            engine.dispose()
                        self.assertRowCount(Note, len(DOORS))

                writer_url = self.production.url(driver)
                self.assertPassed(Inner, Inner, tests=4)
            self.check()

    def test_async_engines(self: Any) -> None:
        for driver in self.drivers(self.production.async_drivers):
            url = self.production.url(driver)
            engine, other = create_async_engine(url), create_async_engine(url)
            for kind in ASYNC_KINDS:

                class Refused(kind):  # type: ignore[misc,valid-type]
                    metadata = Base.metadata
                    url = self.kind_url

                    async def test_doors(self) -> None:
                        for door in ASYNC_DOORS:
                            with self.assertRaises(OutsideDatabase):
                                await door(engine)  # noqa: B023

                class Led(kind):  # type: ignore[misc,valid-type]
                    metadata = Base.metadata
                    url = self.kind_url
                    engines = [engine]

                    async def test_doors(self) -> None:
                        for number, door in enumerate(ASYNC_DOORS):
                            await door(other)  # noqa: B023
                            self.assertEqual(await self.session.scalar(COUNT), number + 1)
                            await self.session.rollback()

                self.assertPassed(Refused, Led, tests=2)
            self.check()

    def test_a_connection_that_is_held_from_before_sends_nothing(self: Any) -> None:
        for driver in self.drivers(self.production.drivers):
            for kind in KINDS:
                engine = self.engine(driver)
                held = engine.connect()
                held.execute(select(Note))

                class Inner(kind):  # type: ignore[misc,valid-type]
                    metadata = Base.metadata
                    url = self.kind_url

                    def test_held(self) -> None:
                        with self.assertRaisesRegex(OutsideDatabase, "open before .*Inner began"):
                            held.execute(INSERT)  # noqa: B023

                self.assertPassed(Inner, tests=1)
                held.rollback()
                self.assertEqual(held.execute(select(Note)).all(), [])
                held.close()
                self.check()


class PostgreSQLTest(Doors, BorderCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.production = PostgreSQLProduction("border_production")
        cls.addClassCleanup(cls.production.close)

    def test_what_a_driver_connects_by_itself_is_refused(self) -> None:
        import asyncpg
        import pg8000.dbapi
        import psycopg
        import psycopg2

        url = self.production.url("psycopg")
        place = {"host": url.query["host"], "user": url.username, "port": int(url.query.get("port", 5432))}
        engine = self.engine("psycopg")
        calls = (
            lambda: psycopg.connect(dbname=url.database, **place),
            lambda: psycopg.connect(f"dbname={url.database} user={url.username} host={url.query['host']}", port=5432),
            lambda: asyncio.run(psycopg.AsyncConnection.connect(dbname=url.database, **place)),
            lambda: psycopg2.connect(dbname=url.database, **place),
            lambda: asyncio.run(asyncpg.connect(database=url.database, **place)),
            lambda: pg8000.dbapi.connect(
                user=url.username, database=url.database, unix_sock=f"{place['host']}/.s.PGSQL.{place['port']}"
            ),
        )

        class Inner(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]

            def test_drivers(self) -> None:
                for call in calls:
                    with self.assertRaisesRegex(OutsideDatabase, "border_production.*test_border.py"):
                        call()
                with psycopg.connect(dbname="postgres", **place) as connection:  # another database of that server
                    connection.execute("SELECT 1")

        self.assertPassed(Inner, tests=1)
        self.assertEqual(self.production.clients(), 0)

    def test_what_a_driver_has_connected_before_the_class_sends_nothing(self) -> None:
        import asyncpg
        import psycopg
        import psycopg_pool

        url = self.production.url("psycopg")
        place = {"host": url.query["host"], "user": url.username, "port": int(url.query.get("port", 5432))}
        named, passes = self.engine("psycopg"), self.engine("psycopg")
        insert = "INSERT INTO note (text) VALUES ('escaped')"
        held = self.enterContext(psycopg.connect(dbname=url.database, **place))
        begun = self.enterContext(psycopg.connect(dbname=url.database, **place))
        begun.execute("SELECT 1")
        auto = self.enterContext(psycopg.connect(dbname=url.database, autocommit=True, **place))
        cursor = auto.cursor()
        pool = psycopg_pool.ConnectionPool(kwargs={"dbname": url.database, **place}, min_size=1, max_size=1, open=True)
        self.addCleanup(pool.close)
        pool.wait()  # it connects in a thread of its own
        loop = self.enterContext(asyncio.Runner())
        asynchronous = loop.run(psycopg.AsyncConnection.connect(dbname=url.database, autocommit=True, **place))
        asyncpgs = loop.run(asyncpg.connect(database=url.database, **place))

        def in_pool() -> None:
            with pool.connection() as connection:
                connection.execute(insert)

        uses = (
            lambda: held.execute(insert),
            lambda: begun.commit(),
            lambda: cursor.execute(insert),
            lambda: cursor.executemany(insert, [()]),
            lambda: cursor.copy("COPY note (text) FROM STDIN").__enter__(),
            in_pool,
            lambda: loop.run(asynchronous.execute(insert)),
            lambda: loop.run(asyncpgs.execute(insert)),
            lambda: loop.run(asyncpgs.fetch(insert)),
        )

        class Inner(DatabaseTest):
            metadata = Base.metadata
            engines = [named]

            def test_refused(self) -> None:
                for use in uses:
                    with self.assertRaisesRegex(OutsideDatabase, "open before.*border_production.*test_border.py"):
                        use()

        class Outside(Inner):
            outside = [passes]

            def test_refused(self) -> None:
                self.assertEqual(auto.execute("SELECT 1").fetchone(), (1,))

        class Truncating(Inner, TruncatingDatabaseTest): ...

        self.assertPassed(Inner, Outside, Truncating, tests=3)
        self.assertEqual(auto.execute("SELECT 1").fetchone(), (1,))
        loop.run(asynchronous.close())
        loop.run(asyncpgs.close())

    def test_a_creator_is_led_where_its_engine_is_and_not_called_elsewhere(self) -> None:
        made: list[str] = []
        named = self.engine("psycopg")
        url = self.production.url("psycopg")

        def connect(name: str) -> Any:
            made.append(name)
            return psycopg.connect(host=str(url.query["host"]), user=url.username, dbname=url.database)

        same = create_engine(url, creator=lambda: connect("same"))
        unknown = create_engine("postgresql+psycopg://", creator=lambda: connect("unknown"))

        class Inner(DatabaseTest):
            metadata = Base.metadata
            engines = [named]

            def test_it(self) -> None:
                by_session(same)
                self.assertRowCount(Note, 1)
                with self.assertRaises(OutsideDatabase):
                    by_session(unknown)

        self.assertPassed(Inner, tests=1)
        self.assertEqual(made, ["same"])

    def test_outside_takes_engines_and_functions_and_only_these_pass(self) -> None:
        log, other = self.engine("psycopg"), self.engine("psycopg", poolclass=sa.NullPool)
        for value in ([log], [lambda: log], log, lambda: [log], {"log": log}):

            class Inner(DatabaseTest):
                metadata = Base.metadata
                outside: Any = value

                def test_it(self) -> None:
                    with log.connect() as connection:
                        self.assertEqual(connection.scalar(sa.text("SELECT current_database()")), "border_production")
                    log.dispose()
                    with log.connect() as connection:
                        self.assertEqual(connection.scalar(sa.text("SELECT current_database()")), "border_production")
                    with self.assertRaises(OutsideDatabase):
                        other.connect()

            with self.subTest(value=value):
                self.assertPassed(Inner, tests=1)

    def test_a_misused_outside_is_named(self) -> None:
        for value in ("sqlite://", [1], lambda: "sqlite://"):

            class Inner(DatabaseTest):
                metadata = Base.metadata
                outside: Any = value

                def test_it(self) -> None:
                    self.fail("it must not run")

            with self.subTest(value=value):
                self.assertFailed(Inner, pattern=f"{ConfigurationError.__name__}.* is not an engine")

    def test_the_message_names_everything_and_no_password(self) -> None:
        url = self.production.url("psycopg").set(password="s3cret")
        globals()["reader"] = create_engine(url)
        self.addCleanup(globals().pop, "reader")
        globals()["readers"] = {"inner": create_engine(url)}
        self.addCleanup(globals().pop, "readers")
        engines = [globals()["reader"], globals()["readers"]["inner"], create_engine(url)]
        caught: list[str] = []

        class Inner(DatabaseTest):
            metadata = Base.metadata

            def test_it(self) -> None:
                for engine in engines:
                    with self.assertRaises(OutsideDatabase) as context:
                        by_session(engine)
                    caught.append(str(context.exception))

        self.assertPassed(Inner, tests=1)
        text, of_a_dictionary, of_nothing = caught
        self.assertIn(f"`engines = [{__name__}.readers['inner']]`", of_a_dictionary)
        self.assertRegex(of_nothing, r"`engines = \[the engine\]` .*makes it: `self\.enlist\(engine\)`")
        self.assertNotIn("enlist(", text)
        self.assertNotIn("s3cret", text)
        for pattern in (
            r"engine postgresql\+psycopg://\S+:\*\*\*@\S*/border_production",
            r"support/border\.py:\d+ in by_session",
            r"made at \S*test_border\.py:\d+ in test_the_message",
            rf"It is {__name__}\.reader\.",
            rf"`engines = \[{__name__}\.reader\]`",
            rf"`outside = \[{__name__}\.reader\]`",
        ):
            self.assertRegex(text, pattern)

    def test_an_error_that_the_application_swallows_fails_the_test(self) -> None:
        engine = self.engine("psycopg")
        application: dict[str, Any] = {"save": by_session, "engine": engine}
        exec(  # an application is in another file than its test
            compile(
                "def careless():\n    try:\n        save(engine)\n    except Exception:\n        pass",
                "shop.py",
                "exec",
            ),
            application,
        )
        for kind in KINDS:

            class Inner(kind):  # type: ignore[misc,valid-type]
                metadata = Base.metadata

                def test_it(self) -> None:
                    application["careless"]()

            with self.subTest(kind=kind.__name__):
                self.assertFailed(Inner, pattern=rf"{LeakError.__name__}: OutsideDatabase was raised and swallowed")

    def test_every_pool_has_its_engine_back_after_the_class(self) -> None:
        pools = (sa.pool.QueuePool, sa.pool.NullPool, sa.pool.StaticPool, sa.pool.SingletonThreadPool)
        for poolclass in pools:
            named, same = (self.engine("psycopg", poolclass=poolclass) for _ in range(2))
            before = named.pool, same.pool, named.url

            class Inner(DatabaseTest):
                metadata = Base.metadata
                engines = [named]

                def test_it(self) -> None:
                    by_session(named)  # noqa: B023
                    by_session(same)  # noqa: B023
                    same.dispose()  # noqa: B023
                    self.assertRowCount(Note, 2)

            with self.subTest(poolclass=poolclass.__name__):
                self.assertPassed(Inner, tests=1)
                self.assertEqual((named.pool, same.pool, named.url), before)

    def test_a_class_that_cannot_begin_leaves_no_border_behind(self) -> None:
        engine = self.engine("psycopg")

        class Broken(DatabaseTest):
            metadata = Base.metadata

            @classmethod
            def setUpTestData(cls) -> None:
                raise RuntimeError("no rows today")

            def test_it(self) -> None:
                self.fail("it must not run")

        self.assertFailed(Broken, pattern="no rows today")
        with engine.connect() as connection:
            self.assertEqual(connection.execute(select(Note)).all(), [])


class SQLiteTest(Doors, BorderCase):
    def setUp(self) -> None:
        self.production = SQLiteProduction(self.enterContext(tempfile.TemporaryDirectory()))
        super().setUp()

    kind_url = "sqlite://"

    def test_what_the_driver_opens_by_itself_is_refused(self) -> None:
        import sqlite3

        engine = self.engine("pysqlite")
        file = self.production.file
        link, in_letters = file.with_name("link.db"), str(file).replace("r", "%72")
        os.link(file, link)
        uris = [f"file:{file}?mode=ro", f"file://localhost{file}#part", f"file://{in_letters}", f"file:{in_letters}"]
        uris.append(f"file:{file}%00rest")

        class Inner(DatabaseTest):
            metadata = Base.metadata
            url = "sqlite://"
            engines = [engine]

            def test_it(self) -> None:
                for name in (str(file), str(link), *uris):
                    with self.subTest(name), self.assertRaisesRegex(OutsideDatabase, "real.db|link.db"):
                        sqlite3.connect(name, uri=name.startswith("file:"))
                sqlite3.connect(":memory:").close()

            def test_an_engine_of_the_same_file(self) -> None:
                by_session(create_engine(f"sqlite:///{link}"))
                by_session(create_engine(f"sqlite:///{uris[-1]}?uri=true"))
                self.assertRowCount(Note, 2)

        self.assertPassed(Inner, tests=2)

    def test_the_real_file_is_not_attached(self) -> None:
        import sqlite3

        engine, file = self.engine("pysqlite"), str(self.production.file)
        quoted = f"ATTACH '{file}' AS shelf"

        def by_a_listener() -> None:
            other = create_engine(f"sqlite:///{file}")
            event.listen(other, "connect", lambda connection, _: connection.execute(quoted))
            other.connect()

        def by_the_driver(name: str, *args: Any) -> None:
            with closing(engine.raw_connection()) as connection:
                getattr(connection.driver_connection, name)(*args)

        def by_statement(*args: Any) -> None:
            with engine.connect() as connection:
                connection.exec_driver_sql(*args)

        attempts: dict[str, Callable[[], None]] = {
            "literal": lambda: by_statement(quoted),
            "uri": lambda: by_statement(f"/* x */ attach database 'file:{file}?mode=rw' as shelf"),
            "parameter": lambda: by_statement("ATTACH ? AS shelf", (file,)),
            "named": lambda: by_statement("ATTACH DATABASE :file AS shelf", {"file": file}),
            "by itself": lambda: by_the_driver("execute", quoted),
            "script": lambda: by_the_driver("executescript", f"SELECT 1; {quoted}; DELETE FROM shelf.note"),
            "listener": by_a_listener,
        }
        beside = file + ".beside"
        with closing(sqlite3.connect(beside)) as connection:
            connection.execute("CREATE TABLE thing (x)")
        for kind, url in itertools.product(KINDS, ("sqlite://", f"sqlite:///{file}.test")):

            class Inner(kind):  # type: ignore[misc,valid-type]
                metadata = Base.metadata
                engines = [engine]

                def test_refused(self) -> None:
                    for name, attempt in attempts.items():
                        with self.subTest(name), self.assertRaisesRegex(OutsideDatabase, "ATTACH was about to open"):
                            attempt()

                def test_by_the_tests_own(self) -> None:
                    for use in (self.session.execute, self.enterContext(self.engine.connect()).execute):
                        with self.assertRaisesRegex(OutsideDatabase, "ATTACH was about to open"):
                            use(sa.text(quoted))

                def test_another_file(self) -> None:
                    with engine.connect() as connection:
                        connection.exec_driver_sql("ATTACH ? AS beside", (beside,))
                        self.assertEqual(connection.exec_driver_sql("SELECT * FROM beside.thing").all(), [])

            Inner.url = url
            with self.subTest(kind=kind.__name__, url=url):
                self.assertPassed(Inner, tests=3)

    def test_an_application_on_sqlite_beside_a_test_database_on_postgresql(self) -> None:
        engine = self.engine("pysqlite")
        for kind in KINDS:

            class Inner(kind):  # type: ignore[misc,valid-type]
                metadata = Base.metadata

                def test_it(self) -> None:
                    with self.assertRaisesRegex(OutsideDatabase, "real.db"):
                        by_session(engine)

            self.assertPassed(Inner, tests=1)


class MariaDBTest(Doors, BorderCase):
    kind_url = "mariadb+pymysql://"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_mariadb()
        cls.production = MariaDBProduction("border_production")
        cls.addClassCleanup(cls.production.close)

    def naming(self) -> tuple[str, ...]:
        """Statements that name the real database."""
        name = self.production.name
        return (
            f"INSERT INTO {name}.note (text) VALUES ('escaped')",
            f"insert /* x */ `{name}` . `note` (text) values ('escaped')",
            f"UPDATE note, {name}.note SET {name}.note.text = 'escaped'",
            f"USE {name}",
            f"DROP TABLE IF EXISTS {name}.note",
            f"DROP DATABASE {name}",
        )

    def test_a_statement_of_an_async_engine_that_names_the_real_database(self) -> None:
        name, statements = self.production.name, self.naming()
        for driver in self.drivers(self.production.async_drivers):
            engine = create_async_engine(self.production.url(driver))

            class Inner(AsyncTruncatingDatabaseTest):
                metadata = Base.metadata
                url = self.production.url(driver).set(database="beside")
                engines = [engine]
                to_real = engine

                async def test_named(self) -> None:
                    for statement in statements:
                        with self.subTest(statement):
                            async with self.to_real.connect() as connection:
                                with self.assertRaisesRegex(OutsideDatabase, f"names the database '{name}'"):
                                    await connection.exec_driver_sql(statement)

                async def test_words_alone(self) -> None:
                    async with self.to_real.begin() as connection:
                        await connection.execute(sa.insert(Note).values(text=f"INSERT INTO {name}.note"))
                        query = f"SELECT {name}.id FROM note AS {name} WHERE {name}.text LIKE 'INSERT%%'"
                        self.assertEqual(len((await connection.exec_driver_sql(query)).all()), 1)

            self.assertPassed(Inner, tests=2)

    def test_a_statement_that_names_the_real_database_on_the_tests_own_server(self) -> None:
        name, statements = self.production.name, self.naming()
        for driver in self.drivers(self.production.drivers):
            engine = self.engine(driver)

            class Inner(TruncatingDatabaseTest):
                metadata = Base.metadata
                url = self.production.url(driver).set(database="beside")
                engines = [engine]
                to_real = engine

                def test_named(self) -> None:
                    for statement in statements:
                        with self.subTest(statement), self.to_real.connect() as connection:
                            with self.assertRaisesRegex(OutsideDatabase, f"names the database '{name}'"):
                                connection.exec_driver_sql(statement)

                def test_chosen(self) -> None:
                    with self.to_real.connect() as connection, self.assertRaisesRegex(OutsideDatabase, name):
                        connection.connection.driver_connection.select_db(name)

                def test_by_the_driver_itself(self) -> None:
                    url = self.url.set(database="")
                    args, parameters = self.to_real.dialect.create_connect_args(url)
                    connection = self.to_real.dialect.loaded_dbapi.connect(*args, **parameters)
                    self.addCleanup(connection.close)
                    with self.assertRaisesRegex(OutsideDatabase, name):
                        connection.cursor().execute(statements[0])

                def test_words_alone(self) -> None:
                    with self.to_real.begin() as connection:
                        connection.execute(sa.insert(Note).values(text=f"INSERT INTO {name}.note"))
                        query = f"SELECT {name}.id FROM note AS {name} WHERE {name}.text LIKE 'INSERT%%'"
                        self.assertEqual(len(connection.exec_driver_sql(query).all()), 1)

            self.assertPassed(Inner, tests=4)

    def test_a_drivers_function_that_the_application_has_taken_before_is_refused(self) -> None:
        require_module("asyncmy")
        folder = self.enterContext(tempfile.TemporaryDirectory())
        suite = {
            "shop.py": """
                from asyncmy import connect
                from sqlalchemy.ext.asyncio import create_async_engine

                engine = create_async_engine("mysql+asyncmy://shop@db.invalid/shop")
            """,
            "test_shop.py": """
                import os
                import shop
                import sqlalchemy as sa
                from dbtestcase import AsyncTruncatingDatabaseTest, OutsideDatabase

                class ShopTest(AsyncTruncatingDatabaseTest):
                    metadata = sa.MetaData()
                    url = os.environ["SHOPS_SERVER"]
                    engines = [shop.engine]

                    async def test_it(self):
                        with self.assertRaisesRegex(OutsideDatabase, r"asyncmy\\.connect\\(\\) was about to connect"):
                            await shop.connect(host="db.invalid", user="shop", db="shop")
            """,
        }
        server = self.production.url("asyncmy").set(database="beside").render_as_string(False)
        run_suite(write_suite(folder, suite), "unittest", env={"SHOPS_SERVER": server}, new=True).expect(passed=1)

    def test_what_is_reflected_is_the_test_database(self) -> None:
        production = self.production
        for driver in self.drivers(production.drivers):
            for kind, is_early in itertools.product(KINDS, (True, False)):
                engine = self.engine(driver)
                if is_early:
                    engine.connect().close()  # its dialect asks for the database's name once, and for good

                class Inner(kind):  # type: ignore[misc,valid-type]
                    metadata = Base.metadata
                    url = production.url(driver).set(database="beside")
                    engines = [engine]
                    app = engine

                    def test_it(self) -> None:
                        with self.app.connect() as connection:
                            here = connection.exec_driver_sql("SELECT DATABASE()").scalar()
                        self.assertEqual(sa.inspect(self.app).default_schema_name, here)
                        self.assertEqual(sa.inspect(self.app).get_table_names(), ["note"])
                        sa.MetaData().reflect(self.app)

                with self.subTest(kind=kind.__name__, is_early=is_early):
                    self.assertPassed(Inner, tests=1)
                    if not is_early:
                        engine.connect().close()
                    self.assertEqual(engine.dialect.default_schema_name, production.name)


del Doors, BorderCase

if __name__ == "__main__":
    unittest.main()
