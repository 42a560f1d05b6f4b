"""The server ends the sandbox's connection, or a test's own: one test fails by name, and what comes next goes on."""

import re
import tempfile
import unittest

from tests.support.mariadb import require_mariadb
from tests.support.requirements import require_module
from tests.support.runners import Outcome, run_suite, write_suite
from tests.support.samples import a_share

SUITE = """
    import psycopg
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest

    URL = {url!r}
    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
    engine = sa.create_engine(URL)

    def kill():
        with engine.begin() as connection:
            if not URL.startswith("postgresql"):
                connection.exec_driver_sql("KILL CONNECTION_ID()")
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    def kill_from_outside():
        with engine.begin() as connection:
            pid, host, name, user = connection.exec_driver_sql(
                "SELECT pg_backend_pid(), current_setting('unix_socket_directories'), current_database(), current_user"
            ).one()
        with psycopg.connect(host=host, dbname=name, user=user) as judge:
            judge.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))

    class Case(DatabaseTest):
        metadata = metadata
        url = None if URL.startswith("postgresql") else URL
        engines = [engine]

        def put(self):
            with engine.begin() as connection:
                self.assertEqual(connection.execute(sa.select(item)).all(), [])
                connection.execute(sa.insert(item).values(id=1))

    {tests}
"""
ASYNCHRONOUS = """
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import create_async_engine
    from dbtestcase import AsyncDatabaseTest

    URL = {url!r}
    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
    engine = create_async_engine(URL)
    KILL = "SELECT pg_terminate_backend(pg_backend_pid())" if "postgres" in URL else "KILL CONNECTION_ID()"

    class ATest(AsyncDatabaseTest):
        metadata = metadata
        url = None if URL.startswith("postgresql") else URL
        engines = [engine]

        async def put(self):
            async with engine.begin() as connection:
                self.assertEqual((await connection.execute(sa.select(item))).all(), [])
                await connection.execute(sa.insert(item).values(id=1))

        async def test_a(self):
            await self.put()
            with self.assertRaises(sa.exc.DBAPIError):
                async with engine.begin() as connection:
                    await connection.exec_driver_sql(KILL)
                    await connection.exec_driver_sql("SELECT 1")

        async def test_b(self): await self.put()
        async def test_c(self): await self.put()
"""
KILLED = """
    class ATest(Case):
        def test_a(self):
            self.put()
            with self.assertRaises(sa.exc.DBAPIError):
                kill()
        def test_b(self): self.put()
        def test_c(self): self.put()

    class BTest(Case):
        def test_a(self): self.put()
"""
# An error that an application has caught would have been none on a connection of its own.
SWALLOWED = """
    code = "def quietly(work):\\n    try: work()\\n    except Exception: pass"
    exec(compile(code, "/srv/shop/application.py", "exec"), globals())

    def read():
        with engine.connect() as connection:
            connection.execute(sa.select(item)).all()

    class ATest(Case):
        def test_a(self):
            kill_from_outside()
            quietly(read)
        def test_b(self):
            kill_from_outside()
            with self.assertRaises(sa.exc.DBAPIError): read()
        def test_c(self): kill_from_outside()
        def test_d(self): self.put()
"""
IDLE = """
    class ATest(Case):
        def test_a(self): self.put()
        def test_b(self):
            self.put()
            kill_from_outside()
        def test_c(self): self.put()

        @classmethod
        def tearDownClass(cls):
            kill_from_outside()
            super().tearDownClass()

    class BTest(Case):
        def test_a(self): self.put()

    class CTest(Case):
        def test_a(self): self.put()
"""
# Rows of setUpClass() are made once: where they are lost, each test that would miss them fails; and others go on.
SET_UP = """
    class Rows(Case):
        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            with engine.begin() as connection:
                connection.execute(sa.insert(item).values(id=7))

        def count(self, expected):
            with engine.begin() as connection:
                self.assertEqual(connection.scalar(sa.select(sa.func.count()).select_from(item)), expected)

    class AtOnceTest(Rows):
        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            kill_from_outside()
        def test_a(self): raise AssertionError("it has run")

    class LaterTest(Rows):
        def test_a(self): self.count(1)
        def test_b(self):
            self.count(1)
            kill_from_outside()
        def test_c(self): raise AssertionError("it has run")
        def test_d(self): raise AssertionError("it has run")

    class ReadsTest(Case):
        @classmethod
        def setUpTestData(cls):
            cls.session.execute(sa.insert(item).values(id=8))
        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            with engine.connect() as connection:
                connection.execute(sa.select(item)).all()
            kill_from_outside()
        count = Rows.count
        def test_a(self): self.count(1)
        def test_b(self): self.count(1)
"""

CLOSING = """
    import sqlalchemy as sa
    from dbtestcase import AsyncTruncatingDatabaseTest, TruncatingDatabaseTest

    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
    engine = sa.create_engine({url!r})
    PID = sa.text("SELECT pg_backend_pid()")
    FULL = sa.text("DO $$ BEGIN RAISE 'no room' USING ERRCODE = 'disk_full'; END $$")

    def kill(pid):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({{pid}}, 60000)")

    def put():
        with engine.begin() as connection:
            assert connection.execute(sa.select(item)).all() == []
            connection.execute(sa.insert(item).values(id=1))

    class ATest(TruncatingDatabaseTest):
        metadata = metadata
        engines = [engine]
        def test_a_full(self):
            pid = self.session.scalar(PID)
            put()
            try:
                self.session.execute(FULL)
            finally:
                kill(pid)
        def test_b(self): put()
        def test_c_lost(self):
            put()
            self.connection.execute(PID)
            kill(self.session.scalar(PID))
            type(self).left = self.connection
        def test_d(self):
            put()
            self.assertTrue(self.left.closed)

    class BTest(AsyncTruncatingDatabaseTest):
        metadata = metadata
        engines = [engine]
        async def test_a_full(self):
            pid = await self.session.scalar(PID)
            put()
            try:
                await self.session.execute(FULL)
            finally:
                kill(pid)
        async def test_b(self): put()
        async def test_c_lost(self):
            put()
            kill(await self.session.scalar(PID))
        async def test_d(self): put()
"""


GONE = """
    import os

    class Files(Case):
        @property
        def file(self): return sa.make_url(self.database_url).database

    class ATest(Files):
        def test_a_deleted(self):
            os.remove(self.file)
            with self.assertRaises(sa.exc.OperationalError):
                self.put()
        def test_b(self): self.put()
        def test_c_emptied(self):
            open(self.file, "w").close()
            self.put()
        def test_d(self): self.put()
        def test_e_replaced(self):
            self.put()
            with open(self.file + "-new", "w") as new:
                new.write("not a database" * 1000)
            os.replace(self.file + "-new", self.file)
        def test_f(self): self.put()
        def test_g_deleted_without_a_statement(self): os.remove(self.file)
        def test_h(self): self.put()

        @classmethod
        def tearDownClass(cls):
            os.remove(sa.make_url(cls.database_url).database)
            super().tearDownClass()

    class BTest(Files):
        transaction_scope = "test"
        def test_a_deleted(self):
            self.put()
            os.remove(self.file)
        def test_b(self): self.put()
"""

# What no statement of the application's can do, and a bug in a driver might.
CLOSED = """
    def close():
        with engine.connect() as connection:
            connection.connection.dbapi_connection._wire.connection.close()

    class ATest(Case):
        transaction_scope = "test"
        def run(self, result=None):
            if self._testMethodName == "test_b": close_idle()
            return super().run(result)
        def test_a(self):
            self.put()
            global close_idle
            with engine.connect() as connection:
                close_idle = connection.connection.dbapi_connection._wire.connection.close
        def test_b(self): self.put()
        def test_c(self): self.put()

    class BTest(Case):
        def test_a(self):
            self.put()
            close()
            self.session.execute(sa.select(item))
        def test_b(self): self.put()
        def test_c(self):
            self.put()
            close()
        def test_d(self): self.put()
"""

# What watches over its server is killed, and the server with it.
UNWATCHED = """
    import contextlib, os, signal
    import psycopg
    import sqlalchemy as sa
    from pathlib import Path
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest

    class Case(DatabaseTest):
        metadata = sa.MetaData()

    class ATest(Case):
        def test_a(self):
            url = sa.make_url(self.database_url)
            children = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split()
            (watcher,) = (pid for pid in children if b"watcher" in Path(f"/proc/{{pid}}/cmdline").read_bytes())
            with psycopg.connect(host=url.query["host"], dbname="postgres", user=url.username) as judge:
                os.kill(int(watcher), signal.SIGKILL)
                with contextlib.suppress(psycopg.OperationalError):
                    judge.execute("SELECT pg_sleep(60)")  # the server's end is the end of this
            self.session.execute(sa.text("SELECT 1"))
        def test_b(self): self.session.execute(sa.text("SELECT 1"))

    class BTest(TruncatingDatabaseTest):
        metadata = Case.metadata
        def test_a(self): self.session.execute(sa.text("SELECT 1"))
"""


class LostConnectionsTest(unittest.TestCase):
    def run_with(self, url: str, tests: str = "", suite: str = SUITE, *, own_server: bool = False) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {"test_lost.py": suite.format(url=url, tests=tests.strip())})
            return run_suite(folder, "unittest", warnings="ignore", own_server=own_server)

    def check(self, driver: str, url: str) -> None:
        with self.subTest(driver):
            outcome = self.run_with(url, KILLED)
            outcome.expect(passed=3, errors=1)
            self.assertRegex(outcome.output, r"ATest\.test_a lost the connection of the sandbox: it was closed")

    def test_in_the_middle_of_a_test(self) -> None:
        for driver in a_share(("psycopg", "psycopg2", "pg8000"), 3):
            require_module(driver)
            self.check(driver, f"postgresql+{driver}:///app")

    def test_an_error_that_only_the_application_has_seen(self) -> None:
        for driver in a_share(("psycopg", "psycopg2"), 2):
            with self.subTest(driver):
                outcome = self.run_with(f"postgresql+{driver}:///app", SWALLOWED)
                outcome.expect(passed=3, errors=1)
                self.assertRegex(outcome.output, r"ATest\.test_a lost the connection of the sandbox: it was closed")

    def test_in_the_middle_of_a_test_on_mariadb(self) -> None:
        require_mariadb()
        for driver, module in {"pymysql": "pymysql", "mysqldb": "MySQLdb"}.items():
            require_module(module, "mysqlclient" if module == "MySQLdb" else None)
            self.check(driver, f"mariadb+{driver}:///app")

    def test_in_the_middle_of_an_async_test(self) -> None:
        require_mariadb()
        require_module("greenlet")
        for driver in a_share(("psycopg", "asyncpg", "aiomysql"), 3):
            with self.subTest(driver):
                require_module(driver)
                backend = "mariadb" if driver == "aiomysql" else "postgresql"
                outcome = self.run_with(f"{backend}+{driver}:///app", suite=ASYNCHRONOUS)
                outcome.expect(passed=2, errors=1)
                self.assertRegex(outcome.output, r"ATest\.test_a lost the connection of the sandbox: it was closed")

    def test_rows_that_a_set_up_wrote_are_missed_by_name(self) -> None:
        outcome = self.run_with("postgresql+psycopg:///app", SET_UP)
        outcome.expect(passed=3, errors=3)  # four, less the error of the class that has run no test
        for name in ("AtOnceTest", "LaterTest"):
            self.assertIn(
                f"What setUpClass() of class test_lost.{name} wrote after super().setUpClass() is lost", outcome.output
            )
        self.assertNotIn("it has run", outcome.output)

    def test_between_two_statements_and_at_the_end_of_a_class(self) -> None:
        for driver in a_share(("psycopg", "psycopg2", "pg8000"), 3):
            with self.subTest(driver):
                require_module(driver)
                outcome = self.run_with(f"postgresql+{driver}:///app", IDLE)
                outcome.expect(passed=4, errors=1)
                self.assertRegex(outcome.output, r"ATest\.test_b lost the connection of the sandbox: it was closed")

    def test_a_file_of_sqlite_that_is_deleted_or_overwritten(self) -> None:
        outcome = self.run_with("sqlite:///app.db", GONE)
        outcome.expect(passed=6, errors=4)
        failed = re.findall(r"^ERROR: (\w+) \(test_lost\.(\w+)\.", outcome.output, re.MULTILINE)
        expected = ["test_a_deleted", "test_c_emptied", "test_e_replaced"]
        self.assertEqual(failed, [*((test, "ATest") for test in expected), ("test_a_deleted", "BTest")])
        self.assertEqual(outcome.output.count("LeakError: The file of the test database was deleted or overwritten"), 4)

    def test_a_connection_of_sqlite_that_is_closed(self) -> None:
        for url in ("sqlite:///closed.db", "sqlite://"):
            with self.subTest(url):
                outcome = self.run_with(url, CLOSED)
                failed = re.findall(r"^ERROR: (\w+) \(test_lost\.(\w+)\.", outcome.output, re.MULTILINE)
                self.assertEqual({*failed}, {("test_a", "BTest"), ("test_c", "BTest")}, outcome.output)
                for name in ("test_a", "test_c"):
                    self.assertIn(f"BTest.{name} lost the connection of the sandbox: it was closed", outcome.output)

    def test_nobody_waits_for_a_server_whose_watcher_was_killed(self) -> None:
        outcome = self.run_with("", suite=UNWATCHED, own_server=True)
        self.assertEqual((outcome.returncode, outcome.errors), (1, 3))
        self.assertIn("ERROR: test_a (test_lost.ATest.test_a)", outcome.output)
        self.assertEqual(outcome.output.count("watches over the disposable server has ended, and the server"), 2)
        self.assertNotIn("waiting for the start", outcome.output)

    def test_closing_the_tests_own_session_fails_its_test_once_and_keeps_nothing_from_being_put_back(self) -> None:
        require_module("greenlet")
        outcome = self.run_with("postgresql+psycopg:///app", suite=CLOSING)
        outcome.expect(passed=4, errors=4)
        self.assertEqual(
            re.findall(r"^ERROR: (\w+) \(test_lost\.(\w+)\.", outcome.output, re.MULTILINE),
            [(test, case) for case in ("ATest", "BTest") for test in ("test_a_full", "test_c_lost")],
        )


if __name__ == "__main__":
    unittest.main()
