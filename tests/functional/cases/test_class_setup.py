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

    class NextTest(DatabaseTest):
        def test_anything(self): print("the next class has run")
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
                self.assertIn("LoadedTest.setUpClass() or setUpTestData() called sys.exit(0)", outcome.output)
                self.assertIn("MadeTest.setUpClass() or setUpTestData() called sys.exit()", outcome.output)
