"""``DBTESTCASE_KEEP=fail``: the rows of a failing test outlive the run, and nothing else does."""

from __future__ import annotations

import re
import shlex
import unittest
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from tests.support.disposable import left_in, scratch, seed
from tests.support.requirements import require_module
from tests.support.runners import PARALLEL_RUNNERS, SERIAL_RUNNERS, Outcome, run_python, run_suite, some_of, write_suite
from tests.support.samples import a_share

# Servers of this suite have a place of their own: prune ends all that it finds.
SITE = """
    import os, pathlib
    from dbtestcase.server import folders

    if "PLACE" in os.environ:
        folders.RAM = pathlib.Path(os.environ["PLACE"])
"""
MODELS = """
    from sqlalchemy import create_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]

    engine = create_engine("postgresql+psycopg://nobody@nowhere.invalid/production")

    def add(body):
        with Session(engine) as session, session.begin():
            session.add(Note(body=body))
"""
TESTS = """
    import app
    from app import Note
    from dbtestcase import DatabaseTest
    from sqlalchemy.orm import Session

    class KeptTest(DatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]

        @classmethod
        def load_base_data(cls, session):
            session.add(Note(body="base"))

        @classmethod
        def setUpTestData(cls):
            cls.session.add(Note(body="of the class"))

        def test_fails(self):
            app.add("committed")
            self.session.add(Note(body="flushed"))
            self.session.flush()
            unfinished = Session(app.engine)
            self.addCleanup(unfinished.close)
            unfinished.add(Note(body="unfinished"))
            unfinished.flush()
            self.fail("as it must")

        def test_passes(self):
            app.add("of a test that passes")
"""
KEPT = ["base", "committed", "flushed", "of the class", "unfinished"]
LINE = r"(?m)^dbtestcase: PostgreSQL stays for \d+ hours .*python -m dbtestcase prune$"


class KeptRowsTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.cache = Path(self.enterContext(scratch()))
        self.place = Path(self.enterContext(scratch()))
        self.place.chmod(0o755)
        seed(self.cache)
        self.folder = Path(self.enterContext(scratch()))
        self.addCleanup(self.prune)  # before the folder goes, whose sitecustomize names the place
        write_suite(self.folder, {"sitecustomize.py": SITE, "app.py": MODELS})
        self.env = {"DBTESTCASE_CACHE": str(self.cache), "PLACE": str(self.place), "DBTESTCASE_KEEP": "fail"}
        self.env["PYTHONPATH"] = f"{self.folder}:{Path(__file__).parents[3]}"

    def run_tests(self, tests: str = TESTS, runner: str = "unittest", **env: str) -> Outcome:
        write_suite(self.folder, {"test_notes.py": tests})
        return run_suite(self.folder, runner, env=self.env | env)

    def prune(self) -> str:
        done = run_python(["-W", "error", "-m", "dbtestcase", "prune"], cwd="/", env=self.env)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def commands(self, outcome: Outcome) -> list[str]:
        """The command lines that the notes of the failures give."""
        return list(dict.fromkeys(re.findall(r"^E? +(psql .*)$", outcome.output, re.MULTILINE)))

    def ask(self, command: str, query: str = "SELECT body FROM notes ORDER BY 1") -> list[Any]:
        """What a connection from outside sees at the place that a note names."""
        with psycopg.connect(shlex.split(command)[1]) as connection:
            return connection.execute(query.encode()).fetchall()

    def bodies(self, command: str) -> list[str]:
        return [body for (body,) in self.ask(command)]


class EveryRunnerTest(KeptRowsTestCase):
    def test_the_rows_of_the_failing_test_outlive_the_run_until_prune(self) -> None:
        for runner in some_of(SERIAL_RUNNERS, "kept rows"):
            with self.subTest(runner):
                outcome = self.run_tests(runner=runner).expect(passed=1, failed=1)
                (command,) = self.commands(outcome)
                self.assertEqual(self.bodies(command), KEPT)
                databases = "SELECT datname FROM pg_database WHERE datname LIKE '%kept%'"
                self.assertRegex(str(self.ask(command, databases)), r"^\[\('test_kept_test_fails_[0-9a-f]{6}',\)\]$")
                self.assertEqual(len(re.findall(LINE, outcome.stderr)), 1, outcome.stderr)
                ((postmaster,),) = self.ask(command, "SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)")
                (second,) = self.commands(self.run_tests())
                self.assertEqual((self.bodies(command), self.bodies(second)), (KEPT, KEPT), "the next run leaves them")
                self.assertRegex(self.prune(), rf"(?m)^removed server with the rows of failing tests: {self.place}")
                self.assertFalse(Path(f"/proc/{postmaster}").exists())
                self.assertEqual(left_in(self.place), [])
                seed(self.cache)

    def test_each_worker_of_a_parallel_run_keeps_its_own(self) -> None:
        for runner in some_of(sorted(set(PARALLEL_RUNNERS) - {"unittest-parallel-test"}), "kept rows"):
            with self.subTest(runner):
                more = TESTS + "\n    class OtherTest(KeptTest):\n        pass\n"
                commands = self.commands(self.run_tests(more, runner).expect(passed=2, failed=2))
                self.assertEqual([self.bodies(command) for command in commands], [KEPT, KEPT])
                self.prune()
                seed(self.cache)

    def test_nothing_stays_without_the_variable_nor_of_a_run_that_passes(self) -> None:
        for keep in a_share(("", "never"), 2):
            outcome = self.run_tests(DBTESTCASE_KEEP=keep).expect(passed=1, failed=1)
            self.assertEqual(left_in(self.place), [])
            self.assertNotIn("kept", outcome.output.replace("KeptTest", ""))
        outcome = self.run_tests(TESTS.replace('self.fail("as it must")', "unfinished.rollback()"))
        outcome.expect(passed=2)
        self.assertEqual(left_in(self.place), [])
        self.assertNotRegex(outcome.stderr, LINE)


CLASSES = """
    import app
    import app_by_psycopg2
    from app import Note
    from dbtestcase import AsyncDatabaseTest, DatabaseTest, TruncatingDatabaseTest
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    class CommittingTest(TruncatingDatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]

        def test_committing(self):
            app.add("committed")
            self.fail("as it must")

    class InTheLoop:
        metadata = app.Base.metadata

        async def flush_and_fail(self):                 # in the middle of the loop
            self.session.add(Note(body="flushed"))
            await self.session.flush()
            with self.subTest():
                self.fail("as it must")

    class PsycopgTest(InTheLoop, AsyncDatabaseTest):
        engines = [create_async_engine("postgresql+psycopg://nobody@nowhere.invalid/production")]

        async def test_async(self):
            await self.flush_and_fail()

    class AsyncpgTest(InTheLoop, AsyncDatabaseTest):
        engines = [create_async_engine("postgresql+asyncpg://nobody@nowhere.invalid/production")]

        async def test_asyncpg(self):
            await self.flush_and_fail()

    class OtherDriverTest(DatabaseTest):
        metadata = app_by_psycopg2.Base.metadata
        engines = [app_by_psycopg2.engine]

        def test_psycopg2(self):
            app_by_psycopg2.add("committed")
            self.fail("as it must")

    class ErrorTest(DatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]

        def test_error(self):                           # is as a rollback leaves it
            app.add("committed")
            self.session.add(Note(body="flushed"))
            self.session.flush()
            self.session.execute(text("SELECT 1 / 0"))
"""


class EveryClassTest(KeptRowsTestCase):
    def test_the_failing_test_of_each_kind_of_class_keeps_its_rows(self) -> None:
        for driver in ("asyncpg", "psycopg2"):
            require_module(driver)
        write_suite(self.folder, {"app_by_psycopg2.py": MODELS.replace("+psycopg", "+psycopg2")})
        outcome = self.run_tests(CLASSES).expect(passed=0, failed=5)
        self.assertNotIn("Not among them", outcome.output)
        found = {}
        for command in self.commands(outcome):
            [name] = re.findall(r"_kept_test_(\w+)_[0-9a-f]{6}", command)
            found[name] = self.bodies(command)
            self.assertEqual(self.ask(command, "SELECT nspname FROM pg_namespace WHERE nspname = '_dbtestcase'"), [])
        committed, flushed = ["committed"], ["flushed"]
        self.assertEqual(
            found,
            {
                "committing": committed,
                "async": flushed,
                "asyncpg": flushed,
                "psycopg2": committed,
                "error": committed,
            },
        )

    def test_a_lock_that_a_committing_test_holds_does_not_hang_it(self) -> None:
        outcome = self.run_tests(
            """
            import app
            from dbtestcase import TruncatingDatabaseTest
            from sqlalchemy import text

            class CommittingTest(TruncatingDatabaseTest):
                metadata = app.Base.metadata
                engines = [app.engine]

                def test_fails(self):
                    with app.engine.connect() as connection:
                        connection.execute(text("LOCK TABLE notes"))
                        with self.subTest():
                            self.fail("as it must")
            """
        ).expect(passed=0, failed=1)
        self.assertRegex(outcome.output, r"AssertionError: as it must(?s:.*)rows of this test were not kept: LockNotAv")
        self.assertEqual(left_in(self.place), [])

    def test_a_database_that_is_only_lent(self) -> None:
        (command,) = self.commands(self.run_tests())
        ((base,),) = self.ask(command, "SELECT datname FROM pg_database WHERE datname ~ '^test_[^k]' LIMIT 1")
        url = re.sub(r"/test_kept\w+", f"/{base}", shlex.split(command)[1]).replace(
            "postgresql:", "postgresql+psycopg:"
        )
        tests = TESTS.replace("engines =", 'database = "existing"\n        engines =')
        (lent,) = self.commands(self.run_tests(tests, DBTESTCASE_URL=url).expect(passed=1, failed=1))
        self.assertEqual(self.bodies(lent), KEPT)


class LimitsTest(KeptRowsTestCase):
    def test_many_failures_keep_the_rows_of_the_first_ten(self) -> None:
        loop = "for number in range(12):\n                with self.subTest(number):\n                    self.fail"
        tests = TESTS.replace("self.fail", loop)
        outcome = self.run_tests(tests)
        self.assertEqual(len(self.commands(outcome)), 10)
        self.assertEqual(outcome.output.count("not kept: 10 failures of this run have kept theirs"), 2)

    def test_another_database_says_that_it_cannot(self) -> None:
        models = MODELS.replace("postgresql+psycopg://nobody@nowhere.invalid/", "sqlite:///")
        write_suite(self.folder, {"app.py": models})
        outcome = self.run_tests(DBTESTCASE_URL="sqlite://").expect(passed=1, failed=1)
        self.assertRegex(outcome.output, r"as it must(?s:.*)not kept: DBTESTCASE_KEEP=fail .* not on sqlite\.")


class ServerByUrlTest(KeptRowsTestCase):
    def setUp(self) -> None:
        super().setUp()
        (command,) = self.commands(self.run_tests(runner="unittest"))
        self.url = make_url(shlex.split(command)[1]).set(drivername="postgresql+psycopg", database="shop")

    def run_there(self, user: str = "postgres") -> Outcome:
        url = self.url.set(username=user, password="secret").render_as_string(hide_password=False)
        return self.run_tests(DBTESTCASE_URL=url)

    def test_the_rows_stay_there_until_prune_and_the_password_is_not_shown(self) -> None:
        outcome = self.run_there().expect(passed=1, failed=1)
        (command,) = self.commands(outcome)
        self.assertEqual(self.bodies(command), KEPT)
        self.assertIn("/shop_kept_test_fails_", command)
        self.assertIn("The password is that of DBTESTCASE_URL: export PGPASSWORD=... first.", outcome.output)
        self.assertNotIn("secret", outcome.output)
        self.assertNotRegex(outcome.stderr, LINE)
        done = self.prune_databases(self.url.set(database="shop").render_as_string())
        self.assertRegex(done, r"shop_kept_test_fails_[0-9a-f]{6}")
        with self.assertRaises(psycopg.OperationalError):
            self.ask(command)

    def prune_databases(self, url: str) -> str:
        """Not the command: it would end the server first, which is one that stays."""
        script = f"import dbtestcase.backends as d, sqlalchemy; print(d.prune(sqlalchemy.make_url({url!r})))"
        done = run_python(["-W", "error", "-c", script], cwd="/", env=self.env)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_a_role_that_may_not_create_databases_is_told_why_and_its_failure_is_seen(self) -> None:
        admin = self.url.set(drivername="postgresql", database="postgres").render_as_string()
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute("CREATE ROLE plain LOGIN")
            connection.execute("CREATE DATABASE lent_test OWNER plain")
        url = self.url.set(username="plain", database="lent_test").render_as_string()
        tests = TESTS.replace("engines =", 'database = "existing"\n        engines =')
        outcome = self.run_tests(tests, DBTESTCASE_URL=url).expect(passed=1, failed=1)
        self.assertRegex(
            outcome.output,
            r"AssertionError: as it must(?s:.*)not kept: CannotCreateDatabase: The role 'plain' may not create",
        )


if __name__ == "__main__":
    unittest.main()
