"""Several hosts and many processes on one server: leases that are lost, restarts, and too few connections."""

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from typing import ClassVar

from tests.support.farm import END_ADMINS, SharedServer, finish, require_namespaces, shared_server, start_run
from tests.support.runners import inner_environment, run_suite, without_progress, write_suite

SUITE = """
    import os, subprocess, sys, unittest
    import psycopg
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest

    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
    other = sa.MetaData()
    sa.Table("thing", other, sa.Column("id", sa.Integer, primary_key=True))
    SOCKET = {socket!r}

    def judge(query):
        with psycopg.connect(host=SOCKET, user="postgres", dbname="postgres", autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def end_admins():
        assert judge({end_admins!r})

    def run_elsewhere():
        "Another host starts and ends a run on the same server, and sweeps what it takes for left behind."
        command = ["unshare", "--uts", "sh", "-c", "hostname elsewhere; exec " + sys.executable + " -m unittest short"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    class Base(DatabaseTest):
        metadata = metadata

        def put(self):
            self.assertEqual(self.session.execute(sa.select(item)).all(), [])
            self.session.execute(sa.insert(item).values(id=1))
            self.session.commit()
"""
SHORT = """
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest

    class Short(DatabaseTest):
        metadata = sa.MetaData()
        sa.Table("short", metadata, sa.Column("id", sa.Integer, primary_key=True))
        def test(self): self.session.execute(sa.text("SELECT * FROM short"))

    if __name__ == "__main__":
        import sys, psycopg
        with psycopg.connect(host={socket!r}, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{{sys.argv[1]}}" WITH (FORCE)')
"""


class FarmTestCase(unittest.TestCase):
    settings: ClassVar[dict[str, object]] = {}
    server: SharedServer

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = cls.enterClassContext(shared_server(**cls.settings))

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.env = {"DBTESTCASE_URL": self.server.url}

    def write(self, tests: str) -> None:
        head = SUITE.format(socket=str(self.server.folder), end_admins=END_ADMINS)
        write_suite(self.folder, {"short.py": SHORT.format(socket=str(self.server.folder)), "test_it.py": head})
        with (self.folder / "test_it.py").open("a", encoding="utf-8") as stream:
            stream.write(textwrap.dedent(tests))

    def tearDown(self) -> None:
        self.assertEqual(self.server.databases(), [], "databases were left behind")
        super().tearDown()


class LeaseTest(FarmTestCase):
    def test_another_host_never_drops_the_database_of_a_run_that_has_lost_its_lease(self) -> None:
        require_namespaces("--uts")
        self.write("""
            class ATest(Base):
                def test_a(self): self.put()
                def test_b(self):
                    end_admins()
                    run_elsewhere()
                    self.put()
                def test_c(self): self.put()
            class BTest(Base):
                def test_a(self): self.put()
                def test_the_lease_was_taken_again(self):
                    self.assertEqual(judge("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), [(1,)])
            class CTest(TruncatingDatabaseTest):
                metadata = metadata
                def test_a(self):
                    end_admins()
                    run_elsewhere()
                    with self.engine.begin() as connection:
                        connection.execute(sa.insert(item).values(id=1))
                def test_b(self): self.assertRowCount(item, 0)
        """)
        outcome = run_suite(self.folder, "unittest", env=self.env).expect(passed=7)
        self.assertNotIn("Exception ignored", outcome.output)

    def test_a_run_whose_lease_is_lost_at_its_end_leaves_nothing_and_says_nothing(self) -> None:
        self.write("""
            class ATest(Base):
                def test_a(self): self.put()
                @classmethod
                def tearDownClass(cls): end_admins()
        """)
        outcome = run_suite(self.folder, "unittest", env=self.env).expect(passed=1)
        self.assertNotRegex(without_progress(outcome.output), "Traceback|dbtestcase:")

    def test_a_database_that_was_dropped_all_the_same_is_made_again_for_the_next_class(self) -> None:
        self.write("""
            class ATest(Base):
                def test_a(self): self.put()
                @classmethod
                def tearDownClass(cls):
                    name = cls.engine.url.database
                    super().tearDownClass()
                    end_admins()
                    subprocess.run([sys.executable, "short.py", name], check=True)
            class BTest(Base):
                def test_a(self): self.put()
                def test_b(self): self.put()
        """)
        run_suite(self.folder, "unittest", env=self.env).expect(passed=3)

    def test_a_process_has_two_connections_whatever_number_of_schemas_it_has_used(self) -> None:
        self.write("""
            class ATest(Base):
                def test_a(self): self.put()
            class BTest(DatabaseTest):
                metadata = other
                def test_a(self): self.session.execute(sa.text("SELECT * FROM thing"))
            class CTest(Base):
                def test_a(self): self.put()
                def test_the_connections(self):
                    query = "SELECT datname FROM pg_stat_activity WHERE backend_type = 'client backend'"
                    names = [name for (name,) in judge(query + " AND pid <> pg_backend_pid()")]
                    self.assertEqual(sorted(names), sorted(["postgres", self.engine.url.database]))
        """)
        run_suite(self.folder, "unittest", env=self.env).expect(passed=4)


class RestartTest(FarmTestCase):
    def test_a_restart_in_the_middle_fails_one_test_and_the_rest_goes_on(self) -> None:
        self.write("""
            class ATest(Base):
                @classmethod
                def setUpTestData(cls): cls.session.execute(sa.text("CREATE TABLE of_class AS SELECT 1"))
                def test_a(self): self.put()
                def test_b(self):
                    self.put()
                    print("restart", flush=True)
                    input()
                    self.session.execute(sa.select(item)).all()
                def test_c(self):
                    self.put()
                    self.session.execute(sa.text("SELECT * FROM of_class"))
                def test_d(self): self.put()
            class BTest(Base):
                def test_a(self): self.put()
            class CTest(TruncatingDatabaseTest):
                metadata = metadata
                @classmethod
                def setUpTestData(cls): cls.session.execute(sa.insert(item).values(id=7))
                def test_a(self):
                    self.session.execute(sa.insert(item).values(id=1))
                    self.session.commit()
                    print("restart", flush=True)
                    input()
                    self.session.execute(sa.select(item)).all()
                def test_b(self): self.assertEqual(self.session.execute(sa.select(item.c.id)).scalars().all(), [7])
        """)
        command = [sys.executable, "-W", "error", "-m", "unittest"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=self.folder, env=inner_environment(self.env), stdin=pipe, stdout=pipe, stderr=pipe, text=True
        ) as run:
            assert run.stdout is not None and run.stdin is not None
            for how in (signal.SIGINT, signal.SIGQUIT):  # in order, and as in a crash
                self.assertEqual(run.stdout.readline(), "restart\n")
                self.server.stop(how)
                self.server.start()
                run.stdin.write("\n")
                run.stdin.flush()
            _, said = run.communicate(timeout=300)
        self.assertIn("Ran 7 tests", said)
        found = set(re.findall(r"ERROR: \S+ \S+", said))
        self.assertEqual(found, {"ERROR: test_b (test_it.ATest.test_b)", "ERROR: test_a (test_it.CTest.test_a)"}, said)
        self.assertRegex(said, "terminating connection due to administrator command")


class FewConnectionsTest(FarmTestCase):
    settings: ClassVar[dict[str, object]] = {"max_connections": 20}

    def test_eight_processes_of_two_hosts_all_pass(self) -> None:
        require_namespaces("--uts")
        self.write("""
            class ATest(Base):
                def test_a(self): self.put()
                def test_b(self): self.put()
            class BTest(DatabaseTest):
                metadata = other
                def test_a(self): self.session.execute(sa.text("SELECT * FROM thing"))
            class CTest(TruncatingDatabaseTest):
                metadata = metadata
                def test_a(self):
                    with self.engine.begin() as connection:
                        connection.execute(sa.insert(item).values(id=1))
                def test_b(self): self.assertRowCount(item, 0)
        """)
        with contextlib.ExitStack() as stack:
            runs = [
                stack.enter_context(start_run(self.folder, host=host, env=self.env))
                for host in ("one", "two")
                for _ in range(4)
            ]
            for run in runs:
                status, output = finish(run)
                self.assertEqual(status, 0, output)
                self.assertIn("Ran 5 tests", output)

    def test_a_server_without_a_free_connection_is_named_after_a_while(self) -> None:
        self.write("""
            from dbtestcase.drivers import patience
            patience.FULL_SECONDS = 0.3
            class ATest(Base):
                def test_a(self): self.put()
        """)
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(contextlib.closing(self.server.connect()))
            outcome = run_suite(self.folder, "unittest", env=self.env).expect(passed=0, errors=1)
        self.assertRegex(
            outcome.output,
            r"(?s)ServerUnreachable: The server postgresql\S+ has no connection left \(.*too many clients.*"
            r"max_connections.*each process of a run holds 2 at rest.*run fewer processes",
        )


if __name__ == "__main__":
    unittest.main()
