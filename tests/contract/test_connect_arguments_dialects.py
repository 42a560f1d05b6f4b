"""What an engine of MariaDB or SQLite gives to its driver's connect() holds there, or is refused by name."""

from __future__ import annotations

import sqlite3
import unittest
from typing import Any

import sqlalchemy as sa
from sqlalchemy import create_engine, text

from dbtestcase import DatabaseTest
from dbtestcase.errors import ConfigurationError
from tests.support.inner import InnerRuns
from tests.support.mariadb import mariadb_url
from tests.support.requirements import require_module

metadata = sa.MetaData()
sa.Table("note", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(20)))


class _Dialect(InnerRuns):
    def check(self, url: Any, engine_url: str, check: Any, *connect_args: dict[str, Any]) -> None:
        """Run ``check(test, *engines)`` in two tests, with an engine for each of ``connect_args``."""
        application = [create_engine(engine_url, connect_args=each) for each in connect_args]
        names = metadata

        class Inner(DatabaseTest):
            metadata = names
            engines = application

            def test_1(self) -> None:
                check(self, *application)

            test_2 = test_1

        Inner.url = url
        self.assertPassed(Inner, tests=2)
        for engine in application:
            engine.dispose()

    def refused(self, url: Any, engine_url: str, name: str, value: object) -> None:
        def check(test: Any) -> None:
            engine = create_engine(engine_url, connect_args={name: value})
            test.enlist(engine)
            with test.assertRaises(ConfigurationError) as caught:
                engine.connect()
            test.assertIn(name, caught.exception.what)

        with self.subTest(name):
            self.check(url, engine_url, check)


class MariaDBTest(_Dialect):
    def place(self, driver: str) -> tuple[Any, str]:
        require_module({"mysqldb": "MySQLdb"}.get(driver, driver))
        return mariadb_url().set(drivername=f"mariadb+{driver}"), f"mariadb+{driver}://nobody@localhost:1/shop"

    def test_what_is_run_and_set_when_it_connects(self) -> None:
        def check(test: unittest.TestCase, tuned: sa.Engine, plain: sa.Engine) -> None:
            with tuned.connect() as connection, plain.connect() as other:
                for _ in range(2):
                    names = ("@kept", "@@sql_mode")
                    found = [connection.execute(text(f"SELECT {name}")).scalar() for name in names]
                    test.assertEqual(found, [7, "ANSI_QUOTES"])
                    found = [other.execute(text(f"SELECT {name}")).scalar() for name in names]
                    test.assertIsNone(found[0])
                    test.assertNotEqual(found[1], "ANSI_QUOTES")
                    connection.rollback()

        given = {"init_command": "SET @kept = 7", "sql_mode": "ANSI_QUOTES"}
        for driver in ("pymysql", "mysqldb"):
            with self.subTest(driver):
                self.check(*self.place(driver), check, {**given, "charset": "utf8mb4"}, {})

    def test_autocommit(self) -> None:
        def committing(test: unittest.TestCase, engine: sa.Engine) -> None:
            raw = engine.raw_connection()
            raw.cursor().execute("INSERT INTO note VALUES (1, 'kept')")
            raw.rollback()
            cursor = raw.cursor()
            cursor.execute("SELECT * FROM note")
            test.assertEqual(cursor.fetchall(), ((1, "kept"),))
            raw.close()

        self.check(*self.place("pymysql"), committing, {"autocommit": True})

    def test_what_cannot_be_had_is_refused(self) -> None:
        for name, value in (
            ("client_flag", 65536),
            ("charset", "latin1"),
            ("use_unicode", False),
            ("conv", {}),
            ("no_such_keyword", 1),
        ):
            self.refused(*self.place("pymysql"), name, value)

    def test_what_means_nothing_here_is_harmless(self) -> None:
        def check(test: unittest.TestCase, engine: sa.Engine) -> None:
            with engine.connect() as connection:
                test.assertEqual(connection.execute(text("SELECT 1")).scalar(), 1)

        given = {"connect_timeout": 5, "read_timeout": 5, "local_infile": True, "ssl_disabled": True}
        self.check(*self.place("pymysql"), check, given)


class SQLiteTest(_Dialect):
    PLACE = ("sqlite://", "sqlite:////nowhere/shop.db")

    def test_what_cannot_be_had_is_refused(self) -> None:
        class Connection(sqlite3.Connection):
            pass

        for name, value in (("factory", Connection), ("detect_types", 1), ("no_such_keyword", 1)):
            self.refused(*self.PLACE, name, value)

    def test_what_holds_and_what_is_harmless(self) -> None:
        def check(test: unittest.TestCase, committing: sa.Engine, plain: sa.Engine) -> None:
            with committing.connect() as connection:
                driver: Any = connection.connection.driver_connection
                test.assertIsNone(driver.isolation_level)
                connection.execute(text("INSERT INTO note VALUES (1, 'kept')"))
                connection.rollback()
                test.assertEqual(connection.execute(text("SELECT count(*) FROM note")).scalar(), 1)
            with plain.connect() as connection:
                connection.execute(text("INSERT INTO note VALUES (2, 'lost')"))
                connection.rollback()
                test.assertEqual(connection.execute(text("SELECT count(*) FROM note")).scalar(), 1)

        harmless = {"timeout": 5, "check_same_thread": False, "cached_statements": 10, "factory": sqlite3.Connection}
        self.check(*self.PLACE, check, {"isolation_level": None}, harmless)


del _Dialect

if __name__ == "__main__":
    unittest.main()
