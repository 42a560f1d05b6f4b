"""setUpClass() under runners that call it, and under one that does not."""

import tempfile
import unittest

from tests.support.runners import run_suite, write_suite

OVERRIDDEN = """
    from dbtestcase import DatabaseTest

    class OverriddenTest(DatabaseTest):
        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            cls.number = cls.engine.connect().exec_driver_sql("SELECT 1").scalar()

        def test_anything(self):
            self.assertTrue(self.engine)
"""
FORGOTTEN = """
    from dbtestcase import DatabaseTest

    class Base(DatabaseTest):
        @classmethod
        def setUpClass(cls):
            pass

    class ForgottenTest(Base):
        def test_anything(self):
            pass
"""
EXITING = """
    import sys
    from dbtestcase import DatabaseTest

    class LoadedTest(DatabaseTest):
        @classmethod
        def setUpTestData(cls):
            sys.exit(0)
        def test_anything(self): pass

    class MadeTest(DatabaseTest):
        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            sys.exit()
        def test_anything(self): pass

    class LeavingTest(DatabaseTest):
        @classmethod
        def tearDownClass(cls):
            sys.exit(0)
        def test_anything(self): self.addClassCleanup(sys.exit, "tidied")

    class Mixin:
        @classmethod
        def tearDownClass(cls):
            super().tearDownClass()
            sys.exit(2)

    class MixedTest(Mixin, DatabaseTest):
        def test_anything(self): pass

    class NextTest(DatabaseTest):
        def test_anything(self): print("the next class has run")
"""
EXITING_MODULE = """
    import sys, unittest
    from dbtestcase import DatabaseTest

    class ModuleTest(DatabaseTest):
        def test_anything(self): print("a class has run")
"""


class ClassSetupTest(unittest.TestCase):
    def run_inner(self, source: str, runner: str):
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {"test_inner.py": source})
            return run_suite(folder, runner)

    def test_a_runner_that_never_calls_it_is_not_its_authors_fault(self):
        self.run_inner(OVERRIDDEN, "unittest-parallel-test").expect(passed=1)

    def test_a_forgotten_super_is_named_with_the_class_that_forgot_it(self):
        for runner in ("unittest", "pytest"):
            with self.subTest(runner):
                outcome = self.run_inner(FORGOTTEN, runner)
                self.assertEqual(outcome.passed, 0)
                self.assertIn("Base.setUpClass() ran without calling super().setUpClass()", outcome.output)

    def test_what_would_end_the_process_does_not(self):
        for runner in ("unittest", "pytest"):
            with self.subTest(runner):
                outcome = self.run_inner(EXITING, runner)
                self.assertNotEqual(outcome.returncode, 0)
                self.assertIn("the next class has run", outcome.output)
                for said in (
                    "LoadedTest.setUpClass() or setUpTestData() called sys.exit(0)",
                    "MadeTest.setUpClass() or setUpTestData() called sys.exit()",
                    "LeavingTest.tearDownClass() called sys.exit(0)",
                    "LeavingTest: the cleanup called sys.exit('tidied')",
                    "MixedTest.tearDownClass() called sys.exit(2)",
                ):
                    self.assertIn(said, outcome.output)

    def test_nor_what_belongs_to_a_module(self):
        hooks = {
            "setUpModule": "def setUpModule(): sys.exit(0)",
            "tearDownModule": "def tearDownModule(): sys.exit(0)",
            "test_a_cleanup: the cleanup exit": "def setUpModule(): unittest.addModuleCleanup(sys.exit, 0)",
            "test_a_late_cleanup: the cleanup exit": "    def setUp(self): unittest.addModuleCleanup(sys.exit, 0)",
            "test_a_failed_set_up: the cleanup exit": "def setUpModule(): unittest.addModuleCleanup(sys.exit, 0); 1/0",
            "test_a_coroutine.tearDownModule is a coroutine function": "async def tearDownModule(): pass",
        }
        names = ("a_set_up", "a_tear_down", "a_cleanup", "a_late_cleanup", "a_failed_set_up", "a_coroutine")
        files = {
            f"test_{name}.py": f"{EXITING_MODULE}\n    {hook}" for name, hook in zip(names, hooks.values(), strict=True)
        }
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, files)
            outcome = run_suite(folder, "unittest")
        self.assertNotEqual(outcome.returncode, 0)
        self.assertEqual(outcome.output.count("a class has run"), 3)  # none where the set-up has failed
        for said in hooks:
            self.assertIn(said, outcome.output)

    def test_a_hook_of_a_module_that_pytest_calls_and_drops_is_refused(self):
        outcome = self.run_inner(f"{EXITING_MODULE}\n    def setUpModule(): yield", "pytest")
        outcome.expect(passed=0, errors=1)
        self.assertIn("test_inner.setUpModule is a generator function", outcome.output)

    def test_a_patchers_start_is_a_hook_and_another_base_takes_arguments(self):
        source = """
            import time, unittest
            from unittest import mock
            from dbtestcase import DatabaseTest

            setUpModule = mock.patch("time.monotonic_ns", lambda: 0).start
            tearDownModule = mock.patch.stopall

            class WithParameter(unittest.TestCase):
                def __init__(self, methodName="runTest", parameter=0):
                    super().__init__(methodName)
                    self.parameter = parameter

            class PatchedTest(DatabaseTest, WithParameter):
                def test_time(self):
                    self.assertEqual((time.monotonic_ns(), self.parameter), (0, 5))

            def load_tests(loader, tests, pattern):
                return unittest.TestSuite([PatchedTest("test_time", parameter=5)])
        """
        self.run_inner(source, "unittest").expect(passed=1)
