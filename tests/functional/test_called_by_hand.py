"""Runners that call tests by themselves: ``debug()``, and those that know no hooks of modules; a patched process."""

import tempfile
import unittest

from tests.support.pytest_runs import MODELS
from tests.support.runners import run_python, run_suite, without_progress, write_suite
from tests.support.servers import inner_url

DEBUGGED = """
    import unittest
    from sqlalchemy import select
    from sqlalchemy.orm import Session
    from dbtestcase import (
        AsyncDatabaseTest, AsyncTruncatingDatabaseTest, DatabaseTest, LeakError, TruncatingDatabaseTest,
    )
    from models import Base, Note, async_engine, engine, forget, kept, save

    class Sync(DatabaseTest):
        metadata = Base.metadata
        engines = [engine]

        def test_1_fails(self):
            save("left by a failing test")
            self.addCleanup(print, "cleanup of", self._testMethodName)
            self.assertRowCount(Note, 2)

        def test_2_skips(self):
            forget("left by a skipped test")
            self.skipTest("in the middle")

        def test_3_runs(self):
            self.assertRowCount(Note, 0)

    class Committing(Sync, TruncatingDatabaseTest):
        pass

    class Async(AsyncDatabaseTest):
        metadata = Base.metadata
        engines = [async_engine]

        async def test_1_fails(self):
            self.session.add(Note(text="left by a failing test"))
            await self.session.commit()
            self.addCleanup(print, "cleanup of", self._testMethodName)
            self.assertRowCount(Note, 2)

        async def test_2_runs(self):
            self.assertRowCount(Note, 0)

    class AsyncCommitting(Async, AsyncTruncatingDatabaseTest):
        pass

    for case in (Sync, Committing, Async, AsyncCommitting):
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
            try:
                test.debug()
            except Exception as error:
                print(test._testMethodName, type(error).__name__)
                if not isinstance(error, LeakError) and isinstance(test.session, Session):
                    print("looked at:", test.session.scalars(select(Note.text)).all())
            else:
                print(test._testMethodName, "passed")
"""


class DebugTest(unittest.TestCase):
    def test_a_test_that_fails_can_be_looked_at_and_leaves_the_next_one_nothing(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {"models.py": MODELS, "debugged.py": DEBUGGED})
            done = run_python(
                ["-W", "error", "debugged.py"],
                cwd=folder,
                env={"DBTESTCASE_URL": inner_url().render_as_string(hide_password=False)},
            )
        sync = [
            "test_1_fails AssertionError",
            "looked at: ['left by a failing test']",
            "cleanup of test_1_fails",
            "test_2_skips LeakError",
            "test_3_runs passed",
        ]
        asynchronous = ["test_1_fails AssertionError", "cleanup of test_1_fails", "test_2_runs passed"]
        self.assertEqual(without_progress(done.stderr), "")
        self.assertEqual(done.stdout.splitlines(), [*sync, *sync, *asynchronous, *asynchronous])


class WithoutPollTest(unittest.TestCase):
    def test_a_process_that_eventlet_has_patched(self) -> None:
        module = """
            import select
            del select.poll  # as eventlet.monkey_patch() does

            from dbtestcase import DatabaseTest, TruncatingDatabaseTest
            from models import Base, Note, engine, save

            class Sandboxed(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

                def test_one(self):
                    save("one")
                    self.assertRowCount(Note, 1)

                test_two = test_one

            class Committing(Sandboxed, TruncatingDatabaseTest):
                pass
        """
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {"models.py": MODELS, "test_it.py": module})
            run_suite(folder, "unittest").expect(passed=4)


class NeverCalledTest(unittest.TestCase):
    def test_a_set_up_of_a_module_that_the_runner_does_not_call_is_named(self) -> None:
        module = """
            from dbtestcase import DatabaseTest
            from models import Base, Note, engine

            class Case(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

            def setUpModule():
                Case.enterModule().add(Note(text="one"))

            class OfModule(Case):
                def test(self):
                    pass
        """
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {"models.py": MODELS, "test_it.py": module})
            run_suite(folder, "unittest").expect(passed=1)
            for runner in ("zope.testrunner", "unittest-parallel-test"):
                with self.subTest(runner):
                    outcome = run_suite(folder, runner).expect(passed=0, errors=1)
                    self.assertIn("test_it.setUpModule() has not been called before test_it.OfModule.", outcome.output)
