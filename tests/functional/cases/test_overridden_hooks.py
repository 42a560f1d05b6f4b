"""Classes that override unittest's own hooks, with and without super(), under every runner."""

import tempfile
import unittest

from tests.support.runners import PARALLEL_RUNNERS, SERIAL_RUNNERS, run_suite, some_of, write_suite

BASE = """
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest

    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
"""
OVERRIDDEN = {
    "base.py": BASE,
    "test_inner.py": """
        from base import *

        class Parent(DatabaseTest):
            metadata = metadata

            @classmethod
            def setUpClass(cls):
                super().setUpClass()
                cls.session.execute(item.insert())

            @classmethod
            def setUpTestData(cls):
                cls.session.execute(item.insert())

            @classmethod
            def tearDownClass(cls):
                cls.session.execute(sa.select(item))

        class Child(Parent):
            def setUp(self):  # without super()
                self.session.execute(item.insert())

            def tearDown(self):
                self.session.execute(item.insert())

            def check(self):
                # two of the class where the runner calls setUpClass(), else one; one of setUp()
                self.assertIn(self.session.scalar(sa.select(sa.func.count()).select_from(item)), (2, 3))

            test_1 = test_2 = test_3 = check
    """,
}
FORGOTTEN = {
    "base.py": BASE,
    "test_inner.py": """
        from base import *

        class Forgetful(DatabaseTest):
            metadata = metadata

            @classmethod
            def setUpClass(cls):
                pass

            def test_1(self): ...
    """,
}


class OverriddenHooksTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def test_a_set_up_of_the_class_that_calls_super_is_fine(self) -> None:
        write_suite(self.folder, OVERRIDDEN)
        for runner in (*some_of(SERIAL_RUNNERS, "hooks"), *some_of(PARALLEL_RUNNERS, "hooks")):
            with self.subTest(runner):
                run_suite(self.folder, runner).expect(passed=3)

    def test_a_set_up_of_the_class_that_forgets_super_is_named(self) -> None:
        write_suite(self.folder, FORGOTTEN)
        for runner in some_of(SERIAL_RUNNERS, "forgotten"):
            with self.subTest(runner):
                outcome = run_suite(self.folder, runner).expect(passed=0, errors=1)
                self.assertIn("Forgetful.setUpClass() ran without calling super().setUpClass()", outcome.output)

    def test_a_runner_that_never_calls_the_set_up_of_the_class_accuses_nobody(self) -> None:
        write_suite(self.folder, FORGOTTEN)
        run_suite(self.folder, "unittest-parallel-test").expect(passed=1)


if __name__ == "__main__":
    unittest.main()
