"""Doors x drivers x ends: in the sandbox an application sees what it sees in production, and nothing is left behind.

Every case runs on a real database first and then in the sandbox.  A second connection to the sandbox's database is
the judge, and so is the next test.
"""

from __future__ import annotations

import gc
import unittest
import warnings
from types import SimpleNamespace
from typing import Any, ClassVar

import psycopg
from sqlalchemy import Engine, create_engine

from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.doors import DOORS, add_tests, play
from tests.support.garbage import ManyCollections
from tests.support.production import once_at_most
from tests.support.requirements import require_module
from tests.support.sandboxes import count_clients
from tests.support.scratch import connect
from tests.support.servers import postgresql_url

SCHEMA = """
CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE part (id int PRIMARY KEY, item int REFERENCES item DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION add_item(id int) RETURNS int LANGUAGE sql AS 'INSERT INTO item VALUES ($1, ''function'') RETURNING id';
CREATE VIEW writing_view AS SELECT add_item(current_setting('app.next')::int);
CREATE TABLE diverted (id int);
CREATE FUNCTION divert() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO item VALUES (NEW.id, ''diverted''); RETURN NULL; END';
CREATE TRIGGER divert BEFORE INSERT ON diverted FOR EACH ROW EXECUTE FUNCTION divert();
INSERT INTO item VALUES (0, 'class data');
"""
ROWS = "SELECT id, name, '' FROM item UNION ALL SELECT id, item::text, 'part' FROM part ORDER BY 1, 2, 3"
BASE = [(0, "class data", "")]
CLEAN = "DELETE FROM part; DELETE FROM item; INSERT INTO item VALUES (0, 'class data')"


class LeakMatrix(ManyCollections):
    """A test method for each door and end is made below."""

    driver: ClassVar[str]
    share = 1

    @classmethod
    def setUpClass(cls: Any) -> None:
        super().setUpClass()  # type: ignore[misc]
        require_module(cls.driver)
        server = postgresql_url()
        with connect(server, autocommit=True) as admin:
            for side in ("sandboxed", "real"):
                name = f"verify_{cls.__name__.lower()}_{side}"
                admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
                admin.execute(f"CREATE DATABASE {name}")
                cls.addClassCleanup(cls._drop, name)
                with connect(server.set(database=name), autocommit=True) as connection:
                    connection.execute(SCHEMA)
        url = server.set(drivername=f"postgresql+{cls.driver}", database=f"verify_{cls.__name__.lower()}_sandboxed")
        cls.judge = cls.enterClassContext(connect(url, autocommit=True, options="-c lock_timeout=100ms"))
        cls.real_engine = create_engine(url.set(database=f"verify_{cls.__name__.lower()}_real"))
        cls.addClassCleanup(cls.real_engine.dispose)
        cls.run_ = cls.enterClassContext(running_sandbox(SimpleNamespace(url=url), url))
        cls.run_.sandbox.begin("the class")
        cls.run_.sandbox.mark("the first test")
        cls.engine = create_engine(url)  # the application's: it points to the test database, and nobody names it
        cls.addClassCleanup(cls.engine.dispose)

    @staticmethod
    def _drop(name: str) -> None:
        with connect(postgresql_url(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def rows(self, engine: Engine) -> list[Any]:
        """What a connection of the application sees now."""
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(ROWS)]

    def judged(self: Any) -> list[Any]:
        try:
            return [tuple(row) for row in self.judge.execute(ROWS).fetchall()]
        except psycopg.errors.LockNotAvailable:
            return BASE  # a schema change locks the table: nobody sees anything

    def play_really(self, name: str, end: str) -> Any:
        opened, _ = DOORS[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # some doors leave a connection to the garbage collector
            try:
                return play(opened, self.real_engine, end), self.rows(self.real_engine)
            finally:
                gc.collect()
                with self.real_engine.begin() as connection:
                    connection.exec_driver_sql(CLEAN)

    def check(self: Any, name: str, end: str) -> None:
        really = self.play_really(name, end)
        sandbox = self.run_.sandbox
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            virtually = play(DOORS[name][0], self.engine, end), self.rows(self.engine)
        judged = self.judged()
        problems = sandbox.problems()
        clients = once_at_most(2, lambda: count_clients(self.judge))
        self.run_.wire.settle()
        sandbox.rollback_to_mark("the next test")
        next_test = self.rows(self.engine)
        sandbox.rollback_to_mark("the next test")
        self.assertEqual(virtually, really, "the sandbox does not do as production does")
        self.assertEqual(judged, BASE, "a second connection sees something")
        self.assertEqual(self.judged(), BASE, "a second connection sees something afterwards")
        self.assertEqual(next_test, BASE, "the next test sees something")
        self.assertEqual([str(problem) for problem in problems], [])
        self.assertEqual(clients, 2, "one connection for the sandbox and one for the judge")


def _add_cases(cls: type[Any]) -> type[Any]:
    add_tests(cls, [name for name, (_, drivers) in DOORS.items() if cls.driver in drivers])
    return cls


@_add_cases
class PsycopgLeakTest(LeakMatrix, unittest.TestCase):
    driver = "psycopg"


@_add_cases
class Psycopg2LeakTest(LeakMatrix, unittest.TestCase):
    driver = "psycopg2"
    share = 4
