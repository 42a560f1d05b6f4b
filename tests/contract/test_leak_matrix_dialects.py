"""Doors x drivers x ends on SQLite and MariaDB: what an application sees in production, and nothing is left behind.

As :mod:`tests.contract.test_leak_matrix`: every case runs on a real database first and then in the sandbox; a second
connection is the judge, and so is the next test.
"""

from __future__ import annotations

import gc
import sqlite3
import sys
import tempfile
import unittest
import warnings
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

from sqlalchemy import URL, Engine, create_engine

from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support import doors
from tests.support.doors import DOORS, add_tests, play
from tests.support.garbage import ManyCollections
from tests.support.mariadb import connect, mariadb_url
from tests.support.requirements import require_module

ROWS = "SELECT id, name FROM item ORDER BY 1"
BASE = [(0, "class data")]
SCHEMA = (
    "CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(50) NOT NULL)",
    "INSERT INTO item VALUES (0, 'class data')",
)
CLEAN = ("DELETE FROM item", SCHEMA[1])

# What needs PostgreSQL: functions and views that write, DO, $$, IF NOT EXISTS for columns, deferrable constraints.
_POSTGRESQL = {
    *("several_statements_in_one_string", "function_that_writes", "view_that_writes", "trigger_that_keeps_no_row"),
    *("do_block", "schema_change", "deferred_constraint", "broken_deferred_constraint"),
}
# MySQL's drivers have a method of this name; sqlite3 has the attribute since Python 3.12.
_AUTOCOMMIT_ATTRIBUTE = {"autocommit_of_the_driver", "autocommit_executemany"}


class LeakMatrix(ManyCollections):
    """A test method for each door and end is made below."""

    placeholder: ClassVar[str]
    left_out: ClassVar[set[str]] = set()
    share = 1

    @classmethod
    def urls(cls) -> tuple[URL, URL]:
        """The database of the sandbox and the real one, both with the rows."""
        raise NotImplementedError

    def judged(self) -> list[Any]:
        """What a second connection sees."""
        raise NotImplementedError

    @classmethod
    def setUpClass(cls: Any) -> None:
        super().setUpClass()  # type: ignore[misc]
        text = f"INSERT INTO item (id, name) VALUES ({cls.placeholder}, {cls.placeholder})"
        cls.enterClassContext(mock.patch.object(doors, "INSERT", text))
        url, real = cls.urls()
        cls.real_engine = create_engine(real)
        cls.addClassCleanup(cls.real_engine.dispose)
        cls.run_ = cls.enterClassContext(running_sandbox(SimpleNamespace(url=url, built=True), url))
        cls.run_.sandbox.begin("the class")
        cls.run_.sandbox.mark("the first test")
        cls.engine = create_engine(url)  # the application's: it points to the test database, and nobody names it
        cls.addClassCleanup(cls.engine.dispose)

    def rows(self, engine: Engine) -> list[Any]:
        """What a connection of the application sees now."""
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(ROWS)]

    def play_really(self: Any, name: str, end: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # some doors leave a connection to the garbage collector
            try:
                return play(DOORS[name][0], self.real_engine, end), self.rows(self.real_engine)
            finally:
                gc.collect()
                with self.real_engine.begin() as connection:
                    for statement in CLEAN:
                        connection.exec_driver_sql(statement)

    def check(self: Any, name: str, end: str) -> None:
        really = self.play_really(name, end)
        sandbox = self.run_.sandbox
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            virtually = play(DOORS[name][0], self.engine, end), self.rows(self.engine)
        judged = self.judged()
        problems = sandbox.problems()
        self.run_.wire.settle()
        sandbox.rollback_to_mark("the next test")
        next_test = self.rows(self.engine)
        sandbox.rollback_to_mark("the next test")
        self.assertEqual(virtually, really, "the sandbox does not do as production does")
        self.assertEqual(judged, BASE, "a second connection sees something")
        self.assertEqual(next_test, BASE, "the next test sees something")
        self.assertEqual([str(problem) for problem in problems], [])


def _add_cases(cls: type[Any]) -> type[Any]:
    left_out = _POSTGRESQL | cls.left_out
    add_tests(cls, [name for name, (_, drivers) in DOORS.items() if drivers == doors.ALL and name not in left_out])
    return cls


class _SQLite(LeakMatrix):
    placeholder = "?"
    left_out = _AUTOCOMMIT_ATTRIBUTE if sys.version_info < (3, 12) else set()

    @classmethod
    def made(cls: Any, name: str) -> Path:
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        with closing(sqlite3.connect(folder / name)) as connection, connection:
            for statement in SCHEMA:
                connection.execute(statement)
        return folder / name


@_add_cases
class SQLiteFileLeakTest(_SQLite, unittest.TestCase):
    share = 2

    @classmethod
    def urls(cls) -> tuple[URL, URL]:
        cls.file = cls.made("sandboxed.db")
        return tuple(URL.create("sqlite", database=str(file)) for file in (cls.file, cls.made("real.db")))  # type: ignore[return-value]

    def judged(self) -> list[Any]:
        with closing(sqlite3.connect(self.file)) as judge:
            return judge.execute(ROWS).fetchall()


@_add_cases
class SQLiteMemoryLeakTest(_SQLite, unittest.TestCase):
    share = 4

    @classmethod
    def urls(cls: Any) -> tuple[URL, URL]:
        keeper = sqlite3.connect("file:/leak_matrix?vfs=memdb", uri=True)
        cls.addClassCleanup(keeper.close)
        with keeper:
            for statement in SCHEMA:
                keeper.execute(statement)
        url = URL.create("sqlite", database="file:/leak_matrix", query={"vfs": "memdb", "uri": "true"})
        return url, URL.create("sqlite", database=str(cls.made("real.db")))

    def judged(self) -> list[Any]:
        return BASE  # nobody else can read while a transaction writes


class _MariaDB(LeakMatrix):
    placeholder = "%s"
    left_out = _AUTOCOMMIT_ATTRIBUTE
    driver: ClassVar[str]
    module: ClassVar[str]

    @classmethod
    def urls(cls: Any) -> tuple[URL, URL]:
        require_module(cls.module)
        cls.server = mariadb_url()
        names = f"leaks_{cls.driver}_sandboxed", f"leaks_{cls.driver}_real"
        for name in names:
            with cls.connection(None) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            cls.addClassCleanup(cls.drop, name)
            with cls.connection(name) as connection:
                for statement in SCHEMA:
                    connection.execute(statement)
        return tuple(cls.server.set(database=name, drivername=f"mariadb+{cls.driver}") for name in names)

    @classmethod
    @contextmanager
    def connection(cls: Any, database: str | None) -> Any:
        with closing(connect(cls.server, database)) as connection, connection.cursor() as cursor:
            yield cursor

    @classmethod
    def drop(cls, name: str) -> None:
        with cls.connection(None) as connection:
            connection.execute(f"DROP DATABASE {name}")

    def judged(self) -> list[Any]:
        with self.connection(f"leaks_{self.driver}_sandboxed") as judge:
            judge.execute(ROWS)
            return list(judge.fetchall())


@_add_cases
class PyMySQLLeakTest(_MariaDB, unittest.TestCase):
    share = 2
    driver = module = "pymysql"


@_add_cases
class MySQLClientLeakTest(_MariaDB, unittest.TestCase):
    driver, module = "mysqldb", "MySQLdb"
    share = 4
