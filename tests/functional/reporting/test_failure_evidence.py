"""Under every runner, a failing test shows the statements it ran, and a passing one does not."""

import tempfile
import unittest
from pathlib import Path

from tests.support.runners import PARALLEL_RUNNERS, SERIAL_RUNNERS, run_suite, some_of, write_suite
from tests.support.samples import a_share

SUITE = """
    from sqlalchemy import create_engine, text
    from dbtestcase.reporting.failures import FailureEvidence, SQLLog

    engine = create_engine("sqlite://")


    class BlogTest(FailureEvidence):
        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            cls.log = cls.enterClassContext(SQLLog().recording_class())
            cls.addClassCleanup(engine.dispose)

        def setUp(self):
            self.log.begin_test()

        @property
        def _dbtestcase(self):
            return self

        def evidence(self, error):
            return [self.log.text()]

        def run_sql(self, number):
            with engine.connect() as connection:
                connection.execute(text(f"SELECT {number}"))

        def test_passes(self):
            self.run_sql(111)

        def test_fails(self):
            self.run_sql(222)
            self.assertEqual(1, 2)

        def test_fails_in_a_sub_test(self):
            for number in (333, 444):
                with self.subTest(number=number):
                    self.run_sql(number)
                    self.assertEqual(number, 333)
"""


class FailureEvidenceTest(unittest.TestCase):
    def test_the_statements_of_a_failing_test_are_shown(self) -> None:
        parallel = sorted(set(PARALLEL_RUNNERS) - {"unittest-parallel-test"})  # which never calls setUpClass
        for runner in (*a_share(SERIAL_RUNNERS, 2), *some_of(parallel, "evidence")):
            with self.subTest(runner), tempfile.TemporaryDirectory() as folder:
                write_suite(folder, {"test_blog.py": SUITE})
                output = run_suite(Path(folder), runner).output
                self.assertIn("SELECT 222", output)
                self.assertIn("SELECT 444", output)
                self.assertRegex(output, r"test_blog\.py:\d+ in run_sql")
                self.assertNotIn("SELECT 111", output)


if __name__ == "__main__":
    unittest.main()
