"""The outer transaction is lost between tests and classes, or ended: what follows begins again, or is named."""

from __future__ import annotations

import tempfile
import unittest

from tests.support.mariadb import require_mariadb
from tests.support.production import MariaDBProduction, PostgreSQLProduction
from tests.support.requirements import require_module
from tests.support.runners import Outcome, run_suite, write_suite
from tests.support.samples import a_share

HEAD = """
import os, threading, time, unittest
import psycopg, pymysql
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from dbtestcase import DatabaseTest

class Base(DeclarativeBase):
    pass
class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(99))

engine = sa.create_engine(os.environ["PRODUCTION"])

def save(text):
    with Session(engine) as session:
        session.add(Note(text=text))
        session.commit()

def end_connections():
    url = sa.make_url(Case.url_of_now)
    if url.get_backend_name() == "postgresql":
        place = {"host": url.query["host"], "port": url.query.get("port", 5432), "user": url.username}
        with psycopg.connect(**place, dbname="postgres", autocommit=True) as judge:
            query = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s"
            judge.execute(query, (url.database,))
        return
    with pymysql.connect(unix_socket=url.query["unix_socket"], user=url.username, ssl_disabled=True) as judge:
        with judge.cursor() as cursor:
            query = "SELECT id FROM information_schema.processlist WHERE db = %s"
            cursor.execute(query, (url.database,))
            for number, in cursor.fetchall():
                cursor.execute(f"KILL {number}")
            while cursor.execute(query, (url.database,)):  # KILL does not wait for the end
                time.sleep(0.001)

class Case(DatabaseTest):
    metadata = Base.metadata
    url = os.environ["KIND"]
    engines = [engine]
    def setUp(self):
        Case.url_of_now = self.database_url
    def run(self, result=None):
        if self._testMethodName == "test_after_a_loss":
            end_connections()
        return super().run(result)
    def assertTexts(self, *texts):
        with Session(engine) as session:
            self.assertEqual(session.scalars(sa.select(Note.text).order_by(Note.id)).all(), list(texts))
"""

BETWEEN_TESTS = """
class ATest(Case):
    @classmethod
    def setUpTestData(cls):
        cls.session.add(Note(text="class data"))
    def test_a(self):
        save("a")
        self.assertTexts("class data", "a")
    def test_after_a_loss(self):
        save("b")
        self.assertTexts("class data", "b")
    test_c = test_a

class BTest(Case):
    transaction_scope = "test"
    def test_a(self):
        save("a")
        self.assertTexts("a")
    test_after_a_loss = test_c = test_a

class CTest(BTest):
    transaction_scope = "module"
class DTest(BTest):
    transaction_scope = "module"
class ETest(Case):
    test_a = BTest.test_a
    @classmethod
    def setUpClass(cls):
        end_connections()
        super().setUpClass()
        end_connections()
"""
SEQUENCES = """
class ATest(Case):
    reset_sequences = True
    def test_a(self):
        save("a")
        with Session(engine) as session:
            self.assertEqual(session.scalars(sa.select(Note.id)).all(), [1])
    test_after_a_loss = test_c = test_a
class BTest(ATest):
    @classmethod
    def setUpClass(cls):
        end_connections()
        super().setUpClass()
class CTest(ATest):
    transaction_scope = "test"
"""
ENDED = """
def end_it(self, engine):
    raw = engine.raw_connection()
    pgconn = raw.driver_connection.pgconn
    pgconn.exec_(b"INSERT INTO note (text) VALUES ('x')")
    pgconn.send_query(b"COMMIT; BEGIN")
    while pgconn.get_result():
        pass
    raw.close()

class ATest(Case):
    def test_a(self): end_it(self, engine)
    def test_b(self): self.assertTexts()
class BTest(ATest):
    transaction_scope = "test"
class CTest(ATest):
    transaction_scope = "module"
class DTest(Case):
    def test_b(self): self.assertTexts()
    @classmethod
    def tearDownClass(cls):
        end_it(cls, engine)
        super().tearDownClass()
class ETest(Case):
    def test_b(self): self.assertTexts()
"""
MODULE_ROWS = """
def setUpModule():
    session = ATest.enterModule()
    session.add(Note(text="of the module"))
    session.commit()
class ATest(Case):
    def test_a(self): self.assertTexts("of the module")
    def test_after_a_loss(self): self.assertTexts("of the module")
class BTest(Case):
    def test_b(self): self.assertTexts("of the module")
"""
NEXT_MODULE = """
from test_a import *
from test_a import Case
del setUpModule, ATest, BTest
class NextTest(Case):
    def test_it(self): self.assertTexts()
"""
HELD = """
held = []
class ATest(Case):
    def test_a(self):
        held.append(engine.connect())
        held[0].execute(sa.text("SELECT 1"))
class BTest(unittest.TestCase):
    def test_b(self): held[0].execute(sa.text("SELECT 1"))
class CTest(Case):
    def test_c(self): held[0].execute(sa.text("SELECT 1"))
"""
THREADS = """
go, done = threading.Event(), threading.Event()
class ATest(Case):
    def test_a_starts_it(self):
        def work():
            while not go.is_set():
                time.sleep(0.001)
            try:
                save("late")
            finally:
                done.set()
        threading.Thread(target=work, name="straggler").start()
    def test_b_is_innocent(self):
        go.set()
        done.wait(60)
        self.assertTexts()
"""


class LostTransactionsTest(unittest.TestCase):
    def run_with(self, production: object, url: str, kind: str, **modules: str) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {f"{name}.py": text for name, text in modules.items()})
            return run_suite(folder, "unittest", warnings="ignore", env={"PRODUCTION": url, "KIND": kind})

    def with_postgresql(self, *suites: str, driver: str = "psycopg") -> Outcome:
        production = PostgreSQLProduction("lost_production")
        self.addCleanup(production.close)
        modules = dict(zip(("test_a", "test_b"), suites, strict=False))
        modules["test_a"] = HEAD + modules["test_a"]
        url = production.url(driver).render_as_string(hide_password=False)
        outcome = self.run_with(production, url, f"postgresql+{driver}:///app", **modules)
        self.assertEqual((production.rows(), production.clients()), ([], 0))
        return outcome

    def test_between_tests_and_classes_everything_is_made_again(self) -> None:
        for driver in a_share(("psycopg", "psycopg2"), 2):
            with self.subTest(driver):
                require_module(driver)
                outcome = self.with_postgresql(BETWEEN_TESTS, driver=driver)
                outcome.expect(passed=13)

    def test_between_tests_and_classes_on_mariadb(self) -> None:
        require_mariadb()
        production = MariaDBProduction("lost_production")
        self.addCleanup(production.close)
        url = production.url("pymysql").render_as_string(hide_password=False)
        outcome = self.run_with(production, url, "mariadb+pymysql:///app", test_a=HEAD + BETWEEN_TESTS)
        self.assertEqual((production.rows(), production.clients()), ([], 0))
        outcome.expect(passed=13)

    def test_with_reset_sequences(self) -> None:
        self.with_postgresql(SEQUENCES).expect(passed=9)

    def test_a_transaction_that_somebody_ends_fails_its_own_test_or_class(self) -> None:
        outcome = self.with_postgresql(ENDED)
        outcome.expect(passed=4, errors=4)  # a tearDownClass that fails counts as one
        for name in ("ATest.test_a", "BTest.test_a", "CTest.test_a", "class test_a.DTest"):
            self.assertRegex(outcome.output, rf"LeakError: \S*\s?\S*{name} ended the outer transaction")

    def test_rows_of_a_module_that_are_lost_are_named_and_the_next_module_goes_on(self) -> None:
        outcome = self.with_postgresql(MODULE_ROWS, NEXT_MODULE)
        outcome.expect(passed=1, errors=2)
        self.assertRegex(outcome.output, "LeakError: The rows that module test_a was set up with are lost")

    def test_a_connection_that_is_held_beyond_its_class(self) -> None:
        outcome = self.with_postgresql(HELD)
        outcome.expect(passed=1, errors=2)
        self.assertRegex(outcome.output, "SandboxClosed: .*belongs to .*ATest.test_a, which has ended")

    def test_a_thread_that_its_test_leaves_at_work_gets_no_connection_in_the_next(self) -> None:
        outcome = self.with_postgresql(THREADS)
        outcome.expect(passed=2)
        self.assertRegex(outcome.output, "SandboxClosed: The thread 'straggler' was started by .*test_a_starts_it")


if __name__ == "__main__":
    unittest.main()
