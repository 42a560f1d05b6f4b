"""Threads of the application that never rest, while tests begin and end: no test hangs, none sees another's rows."""

import re
import tempfile
import time
import unittest

import psycopg

from tests.support.mariadb import require_mariadb
from tests.support.requirements import require_module
from tests.support.runners import run_suite, write_suite
from tests.support.samples import a_share

RESTLESS = """
    import threading
    import sqlalchemy as sa
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
    from dbtestcase import DatabaseTest

    class Base(DeclarativeBase): pass

    class Item(Base):
        __tablename__ = "item"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(sa.String(50))

    engine = sa.create_engine({url!r})
    stop = threading.Event()
    refused = []

    def work():
        while not stop.is_set():
            try:
                with engine.begin() as connection:
                    connection.execute(sa.insert(Item).values(name="restless"))
            except Exception as error:
                refused.append(type(error).__name__)

    class RestlessTest(DatabaseTest):
        metadata = Base.metadata
        url = {class_url!r}
        engines = [engine]

        threads = []

        def setUp(self):
            while len(self.threads) < 2:
                self.threads.append(threading.Thread(target=work))
                self.threads[-1].start()

        @classmethod
        def tearDownClass(cls):
            stop.set()
            for thread in cls.threads: thread.join()
            super().tearDownClass()
            print("refused:", *sorted(set(refused)))

    def make_test(number):
        def test(self):
            with Session(engine) as session:
                session.add(Item(name=f"item {{number}}"))
                session.commit()
                names = session.scalars(sa.select(Item.name).where(Item.name != "restless")).all()
                self.assertEqual(names, [f"item {{number}}"])
        return test

    for number in range(40):
        setattr(RestlessTest, f"test_{{number:02}}", make_test(number))
"""

COMMITTING = """
    import threading
    import sqlalchemy as sa
    from dbtestcase import TruncatingDatabaseTest

    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(50)))
    engine = sa.create_engine({url!r})
    stop, threads = threading.Event(), []

    def add(name):
        with engine.begin() as connection:
            connection.execute(sa.insert(item).values(name=name))

    def work():
        while not stop.is_set():
            try:
                add("restless")
            except Exception:
                pass

    class Case(TruncatingDatabaseTest):
        metadata = metadata
        url = {class_url!r}
        engines = [engine]

        def look(self):
            with engine.connect() as connection:
                self.assertEqual(connection.execute(sa.select(item)).all(), [])

    class RestlessTest(Case):
        def setUp(self):
            while len(threads) < 2:
                threads.append(threading.Thread(target=work, daemon=True))
                threads[-1].start()

        @classmethod
        def tearDownClass(cls):
            stop.set()
            for thread in threads: thread.join()
            super().tearDownClass()

        def add(self):
            for _ in range(50):
                try:
                    return add("of the test")
                except sa.exc.DBAPIError:  # SQLite's lock
                    pass

        test_1 = add

        def test_2(self):
            self.look()
            add("of the test")
        test_3 = test_2

    class ZAfterTest(Case):
        def test_1(self):
            self.look()
            add("of the test")
        test_2 = Case.look
"""

BETWEEN_WRITES = """
    import queue, threading, time
    from concurrent.futures import ThreadPoolExecutor
    import sqlalchemy as sa
    from dbtestcase import TruncatingDatabaseTest

    threading.excepthook = lambda error: None  # a thread that is refused would print into the runner's summary
    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(50)))
    engine = sa.create_engine({url!r})
    stop, written, pool = threading.Event(), threading.Event(), ThreadPoolExecutor(1)
    jobs, done, refused = queue.Queue(), queue.Queue(), queue.Queue()
    late = threading.Event()

    def add():
        try:
            with engine.begin() as connection:
                connection.execute(sa.insert(item).values(name="of a thread"))
        except Exception:
            refused.put(1)
            raise
        written.set()

    def sleeps():
        while True:
            add()
            time.sleep(0.15)

    def waits():
        while True:
            add()
            stop.wait(0.15)

    def comes_late():
        late.wait(60)
        add()

    class Time(threading.Event):  # lets a timer run at once when its test has ended
        def is_set(self): return False

    def serves():
        while True:
            try:
                jobs.get(timeout=0.05)
            except queue.Empty:
                continue
            add()
            done.put(1)

    time_is_up = Time()

    class Case(TruncatingDatabaseTest):
        metadata = metadata
        url = {class_url!r}
        engines = [engine]

        def setUp(self):
            self.look()
            written.clear()

        def look(self):
            with engine.connect() as connection:
                self.assertEqual(connection.execute(sa.select(item)).all(), [])

        def start(self, work):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
            written.wait()

        def test_a_idle_pool(self): pool.submit(add).result()
        def test_b_sleeps(self): self.start(sleeps)
        def test_c_waits(self): self.start(waits)
        def test_d_in_the_pool(self):
            pool.submit(sleeps)
            written.wait()
        def test_e_the_same_pool(self):
            for _ in range(3):
                refused.get()
            pool.submit(add).result()
        def test_f_late(self):
            threading.Thread(target=comes_late, name="late", daemon=True).start()
        def test_g_timer(self):
            late.set()
            refused.get()
            timer = threading.Timer(60, add)
            timer.finished = time_is_up
            timer.start()
        def test_h_after_it(self):
            time_is_up.set()
            refused.get()
        def test_i_serves(self):
            threading.Thread(target=serves, daemon=True).start()
            self.test_j_serves_still()
        def test_j_serves_still(self):
            jobs.put(1)
            done.get()
        def test_k_nothing(self): pass
"""

SLEEPING = """
    import threading
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest

    engine = sa.create_engine({url!r})
    woken = []

    def sleep():
        try:
            with engine.begin() as connection:
                begun.set()
                connection.exec_driver_sql("SELECT pg_sleep(300)")
        except sa.exc.DBAPIError as error:
            woken.append(type(error.orig).__name__)

    begun = threading.Event()

    class SleepingTest(DatabaseTest):
        engines = [engine]

        def test_a(self):
            type(self).thread = threading.Thread(target=sleep)
            self.thread.start()
            begun.wait()

        def test_b(self):
            self.thread.join()
            self.assertIn(woken, (["QueryCanceled"], ["QueryCanceledError"]))
            with engine.begin() as connection:
                self.assertEqual(connection.scalar(sa.text("SELECT 1")), 1)
"""


UNINTERRUPTIBLE = """
    import threading
    import pymysql
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest
    from dbtestcase.sandbox import scheduler

    scheduler.PATIENCE = scheduler.INTERRUPT_TIMEOUT = 0.5
    URL = {url!r}
    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
    engine = sa.create_engine(URL)
    begun, never = threading.Event(), threading.Event()

    def work():
        with engine.connect() as connection:
            if URL.startswith("postgresql"):
                with connection.connection.cursor().copy("COPY item FROM STDIN") as copy:
                    begun.set()
                    never.wait()
            send = pymysql.connections.Connection._execute_command
            def sends(connection, command, text):
                send(connection, command, text)
                if "sleep(300)" in str(text):
                    begun.set()
            pymysql.connections.Connection._execute_command = sends
            connection.exec_driver_sql("SELECT sleep(300)")

    class UninterruptibleTest(DatabaseTest):
        metadata = metadata
        url = None if URL.startswith("postgresql") else URL
        engines = [engine]

        def put(self):
            with engine.begin() as connection:
                self.assertEqual(connection.execute(sa.select(item)).all(), [])
                connection.execute(sa.insert(item).values(id=1))

        def test_a(self):
            self.put()
            threading.Thread(target=work, daemon=True).start()
            begun.wait()

        def test_b(self): self.put()
        def test_c(self): self.put()
"""


class RestlessThreadsTest(unittest.TestCase):
    def run_source(self, source: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {"test_restless.py": source})
            begun = time.monotonic()
            outcome = run_suite(folder, "unittest", warnings="ignore")
            self.output = outcome.output
            outcome.expect(passed=source.count("def test_") or 40)
            return time.monotonic() - begun

    def check(self, url: str) -> None:
        self.run_source(RESTLESS.format(url=url, class_url=None if url.startswith("postgresql") else url))
        self.assertRegex(self.output, r"refused: .*SandboxClosed")

    def test_on_postgresql(self) -> None:
        for driver in a_share(("psycopg", "psycopg2", "pg8000"), 3):
            with self.subTest(driver):
                require_module(driver)
                self.check(f"postgresql+{driver}:///app")

    def test_on_sqlite(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for url in a_share(("sqlite://", f"sqlite:///{folder}/app.db"), 2):
                with self.subTest(url):
                    self.check(url)

    def test_on_mariadb(self) -> None:
        require_mariadb()
        for driver in a_share(("pymysql", "mysqldb"), 2):
            with self.subTest(driver):
                require_module({"mysqldb": "MySQLdb"}.get(driver, driver), "mysqlclient")
                self.check(f"mariadb+{driver}:///app")

    def test_beside_tests_that_commit(self) -> None:
        """The test that started them fails by name; they get nothing more, and every other test finds all as it was."""
        require_mariadb()
        with tempfile.TemporaryDirectory() as folder:
            urls = (
                "postgresql+psycopg:///app",
                "mariadb+pymysql:///app",
                f"sqlite:///{folder}/app.db?timeout=0.2",
                "sqlite://",
            )
            for url in a_share(urls, 3):
                with self.subTest(url):
                    class_url = None if url.startswith("postgresql") else url
                    write_suite(folder, {"test_restless.py": COMMITTING.format(url=url, class_url=class_url)})
                    outcome = run_suite(folder, "unittest", warnings="ignore")
                    self.assertIn("Ran 5 tests", outcome.output)
                    self.assertEqual(re.findall(r"^(?:ERROR|FAIL): (\w+)", outcome.output, re.M), ["test_1"])
                    self.assertRegex(outcome.output, r"RestlessTest.test_1 left (behind a connection|'Thread-)")

    def test_what_sleeps_between_its_writes_beside_tests_that_commit(self) -> None:
        """It fails the test that began it, or its class where it had not written yet; what serves all of them stays."""
        require_mariadb()
        for url in a_share(("postgresql+psycopg:///app", "mariadb+pymysql:///app", "sqlite://"), 3):
            with self.subTest(url), tempfile.TemporaryDirectory() as folder:
                class_url = None if url.startswith("postgresql") else url
                write_suite(folder, {"test_restless.py": BETWEEN_WRITES.format(url=url, class_url=class_url)})
                outcome = run_suite(folder, "unittest", warnings="ignore")
                self.assertIn("Ran 11 tests", outcome.output)
                failed = re.findall(r"^(?:ERROR|FAIL): (\w+)", outcome.output, re.M)
                self.assertEqual(failed, ["test_b_sleeps", "test_c_waits", "test_d_in_the_pool", "tearDownClass"])
                self.assertRegex(outcome.output, "Case.test_b_sleeps left 'sleeps' at work")
                self.assertRegex(outcome.output, r"Case.test_f_late, \S+Case.test_g_timer left 'late', 'Thread-")

    def test_a_statement_that_runs_when_its_test_ends_is_interrupted(self) -> None:
        for driver in a_share(("psycopg", "psycopg2"), 2):
            with self.subTest(driver):
                require_module(driver)
                self.run_source(SLEEPING.format(url=f"postgresql+{driver}:///app"))

    def test_what_cannot_be_interrupted_costs_one_test_its_connection(self) -> None:
        require_mariadb()
        for url in a_share(("postgresql+psycopg:///app", "mariadb+pymysql:///app"), 2):
            with self.subTest(url), tempfile.TemporaryDirectory() as folder:
                write_suite(folder, {"test_restless.py": UNINTERRUPTIBLE.format(url=url)})
                outcome = run_suite(folder, "unittest", warnings="ignore")
                outcome.expect(passed=2, errors=1)
                # psycopg 3.2 does not keep its connection locked during a COPY: what it left behind is drained at once
                is_drained = url.startswith("postgresql") and psycopg.__version__ < "3.3"
                self.assertRegex(
                    outcome.output,
                    r"connection \d+ was left with unfinished writes by .*test_a"
                    if is_drained
                    else r"test_a lost the connection .*Thread-.* was in the middle of",
                )


if __name__ == "__main__":
    unittest.main()
