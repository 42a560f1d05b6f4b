"""A sandbox without a test case: a database of its own, an engine of the application, and the judge."""

from __future__ import annotations

import unittest
import warnings
from types import SimpleNamespace
from typing import Any, ClassVar

import psycopg
from sqlalchemy import URL, create_engine

from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.requirements import require_module
from tests.support.scratch import connect
from tests.support.servers import postgresql_url

__all__ = ["SandboxTestCase", "count_clients"]


def count_clients(judge: psycopg.Connection[Any]) -> int:
    """How many connections the server has to the judge's database, without workers such as autovacuum's."""
    row = judge.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    ).fetchone()
    assert row is not None
    return int(row[0])


class SandboxTestCase(unittest.TestCase):
    """Each test is a test in the sandbox; after it the judge and the next test must see :attr:`BASE`.

    ``engine`` is the application's: it points to the test database, and nobody names it.
    """

    driver: ClassVar[str] = "psycopg"
    SCHEMA: ClassVar[str] = "CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item VALUES (0, 'base')"
    ROWS: ClassVar[str] = "SELECT id, name FROM item ORDER BY 1, 2"
    BASE: ClassVar[list[Any]] = [(0, "base")]
    url: ClassVar[URL]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_module(cls.driver)
        server = postgresql_url()
        name = f"verify_{cls.__name__.lower()}"
        with connect(server, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            admin.execute(f"CREATE DATABASE {name}".encode())
        cls.addClassCleanup(cls._drop, name)
        cls.url = server.set(drivername=f"postgresql+{cls.driver}", database=name)
        with connect(cls.url, autocommit=True) as connection:
            connection.execute(cls.SCHEMA.encode())
        cls.judge = cls.enterClassContext(connect(cls.url, autocommit=True, options="-c lock_timeout=100ms"))
        cls.run_ = cls.enterClassContext(running_sandbox(SimpleNamespace(url=cls.url), cls.url))
        cls.sandbox, cls.wire = cls.run_.sandbox, cls.run_.wire
        cls.sandbox.begin("the class")
        cls.sandbox.mark("the first test")
        cls.engine = create_engine(cls.url)
        cls.addClassCleanup(cls.engine.dispose)

    @staticmethod
    def _drop(name: str) -> None:
        with connect(postgresql_url(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("error")
        self.expected_problems: list[str] = []
        self.left_open: list[Any] = []
        self.sandbox.relabel(self.id())
        self.addCleanup(self.check_next_test)

    def check_next_test(self) -> None:
        """The end of the test, as an isolation does it; then the judge and the next test look."""
        self.wire.settle()
        problems = [str(problem) for problem in self.sandbox.problems(frozenset([__file__, self.source_file()]))]
        judged = self.judged()
        self.sandbox.rollback_to_mark("the next test")
        next_test = self.rows()
        self.sandbox.rollback_to_mark("the next test")
        for each in self.left_open:
            each.close()
        self.assertEqual(judged, self.BASE, "a second connection sees something")
        self.assertEqual(self.judged(), self.BASE, "a second connection sees something afterwards")
        self.assertEqual(next_test, self.BASE, "the next test sees something")
        self.assertEqual(len(problems), len(self.expected_problems), problems)
        for problem, pattern in zip(problems, self.expected_problems, strict=True):
            self.assertRegex(problem, pattern)

    def source_file(self) -> str:
        code: Any = getattr(self, self._testMethodName).__func__.__code__
        return str(code.co_filename)

    def rows(self) -> list[Any]:
        """What a new connection of the application sees."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(self.ROWS)]

    def judged(self) -> list[Any]:
        """What another process sees."""
        try:
            return [tuple(row) for row in self.judge.execute(self.ROWS.encode()).fetchall()]
        except psycopg.errors.LockNotAvailable:
            return self.BASE  # a schema change locks the table: nobody sees anything

    def clients(self) -> int:
        """How many connections the server has to the database, the judge's among them."""
        return count_clients(self.judge)

    def put(self, number: int, name: str = "put") -> None:
        """A committed row of the application."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO item VALUES (%s, %s)", (number, name))
