"""What fails a test carries its evidence out: the statements, as notes of the exception."""

import io
import threading
import traceback
import unittest
from collections.abc import Iterable
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from dbtestcase.reporting.failures import FailureEvidence, SQLLog, add_evidence


class LogCase(unittest.TestCase):
    def setUp(self) -> None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        self.addCleanup(engine.dispose)
        self.connection = self.enterContext(engine.connect())

    def run_sql(self, statement: str, **parameters: Any) -> None:
        self.connection.execute(text(statement), parameters)


class SQLLogTest(LogCase):
    def test_statements_have_number_time_and_line(self) -> None:
        with SQLLog().recording_class() as log:
            log.begin_test()
            self.run_sql("SELECT\n  :a", a=1)
            with self.connection.begin_nested():
                self.run_sql("SELECT 2")
            with self.assertRaisesRegex(Exception, "nonsense"):
                self.run_sql("SELECT nonsense")
            self.connection.rollback()
            where = r"tests/unit/reporting/test_diagnostics.py:\d+ in"
            self.assertRegex(
                log.text(),
                r"^Statements of this test \(number, ms, SQL, parameters; the line that sent it\):\n"
                rf"  1\. +\d+\.\d\d  SELECT \?  \(1,\)\n +{where} run_sql\n"
                rf" +\d+\.\d\d  SAVEPOINT \S+\n +{where} test_statements_have_number_time_and_line\n"
                rf"  2\. +\d+\.\d\d  SELECT 2\n +{where} run_sql\n"
                rf" +\d+\.\d\d  RELEASE SAVEPOINT \S+\n +{where} \S+\n"
                rf"  3\. +failed  SELECT nonsense  OperationalError\n +{where} run_sql\n"
                rf" +ROLLBACK\n +{where} \S+$",
            )

    def test_each_test_has_its_own(self) -> None:
        with SQLLog().recording_class() as log:
            self.run_sql("SELECT 1")
            log.begin_test()
            self.assertEqual(log.text(), "No statements were sent by this test.")
            self.run_sql("SELECT 2")
            self.assertNotIn("SELECT 1", log.text())

    def test_the_last_statements_are_shown_of_many(self) -> None:
        with SQLLog().recording_class() as log:
            for number in range(60):
                self.run_sql(f"SELECT {number}")
            shown = log.text()
        self.assertIn("… 10 earlier ones left out; DBTESTCASE_SQL=all shows them", shown)
        self.assertNotIn("SELECT 9 ", shown + " ")
        self.assertIn(" 11. ", shown)
        self.assertIn("SELECT 59", shown)

    def test_what_a_loop_sends_is_shown_once_with_its_number(self) -> None:
        with SQLLog().recording_class() as log:
            self.run_sql("SELECT 'before'")
            for number in range(60):
                self.run_sql("SELECT :a", a=number)
            for number in range(3):
                self.run_sql("SELECT 1, :a", a=number)
                self.run_sql("SELECT 2, :a", a=number)
            self.run_sql("SELECT 'after'")
            shown, everything = log.text(), log.text(shown=None)
        where = r"tests/unit/reporting/test_diagnostics.py:\d+ in run_sql"
        self.assertRegex(
            shown,
            rf"  1\. +\S+  SELECT 'before'\n +{where}\n"
            rf"  2\. +\d+\.\d\d  SELECT \?  \(59,\)\n +60 times, {where}\n"
            rf" 62\. +\d+\.\d\d  SELECT 1, \?  \(2,\)\n +3 times, {where}\n"
            rf" 63\. +\d+\.\d\d  SELECT 2, \?  \(2,\)\n +3 times, {where}\n"
            rf" 68\. +\S+  SELECT 'after'\n +{where}$",
        )
        self.assertNotIn("left out", shown)
        self.assertEqual(everything.count("in run_sql"), 68)

    def test_long_statements_and_parameters_are_shortened(self) -> None:
        with SQLLog().recording_class() as log:
            self.run_sql(f"SELECT :a, '{'x' * 5000}'", a="y" * 5000)
            self.assertRegex(log.text(), r"xxx… \(50\d\d characters\)  \('yyy.*… \(5005 characters\)")

    def test_another_thread_is_named(self) -> None:
        with SQLLog().recording_class() as log:
            log.begin_test()
            thread = threading.Thread(target=self.run_sql, args=("SELECT 1",), name="worker")
            thread.start()
            thread.join()
            self.assertRegex(log.text(), r"in run_sql, thread (worker|\d+)")

    def test_all_prints_every_test(self) -> None:
        stream = io.StringIO()
        with SQLLog("all").recording_class() as log:
            log.begin_test()
            for number in range(60):
                self.run_sql(f"SELECT {number}")
            log.end_test("blog.PublishTest.test_publish", stream)
        self.assertTrue(stream.getvalue().startswith("blog.PublishTest.test_publish\nStatements of this test"))
        self.assertIn("SELECT 0", stream.getvalue())

    def test_fail_prints_nothing_for_a_test_that_passes(self) -> None:
        stream = io.StringIO()
        with SQLLog().recording_class() as log:
            self.run_sql("SELECT 1")
            log.end_test("test", stream)
        self.assertEqual(stream.getvalue(), "")

    def test_off_records_nothing(self) -> None:
        with SQLLog("off").recording_class() as log:
            self.assertIsNone(log.recording)
            self.run_sql("SELECT 1")
            log.begin_test()
            log.end_test("test")
            self.assertEqual(log.text(), "")


class Sample(FailureEvidence):
    """Fails where it is told to."""

    where = ""
    asked = 0

    @property
    def _dbtestcase(self) -> "Sample":  # type: ignore[override]
        return self

    def evidence(self, error: BaseException) -> Iterable[str]:
        type(self).asked += 1
        return (f"evidence for {error}", "")

    def fail_in(self, place: str) -> None:
        if self.where == place:
            raise ZeroDivisionError(place)

    def setUp(self) -> None:
        self.addCleanup(self.fail_in, "cleanup")
        self.fail_in("setUp")

    def tearDown(self) -> None:
        self.fail_in("tearDown")

    def runTest(self) -> None:
        with self.subTest("one", number=1):
            self.fail_in("subTest")
        if self.where == "skip":
            self.skipTest("skip")
        self.fail_in("test")


class AsyncSample(Sample, unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.fail_in("asyncSetUp")

    async def runTest(self) -> None:  # type: ignore[override]
        super().runTest()


class FailureEvidenceTest(unittest.TestCase):
    def run_sample(self, sample: type[Sample], where: str) -> unittest.TestResult:
        test = sample()
        test.where = where
        result = unittest.TestResult()
        test.run(result)
        return result

    def test_wherever_a_test_fails_its_evidence_is_shown_once(self) -> None:
        for sample, places in (
            (Sample, ["setUp", "test", "tearDown", "cleanup", "subTest"]),
            (AsyncSample, ["setUp", "asyncSetUp", "test", "tearDown", "cleanup", "subTest"]),
        ):
            for where in places:
                with self.subTest(sample=sample.__name__, where=where):
                    result = self.run_sample(sample, where)
                    ((_, shown),) = result.errors
                    self.assertEqual(shown.count(f"evidence for {where}"), 1, shown)
                    self.assertNotIn("dbtestcase/diagnostics.py", shown)

    def test_a_skip_has_none(self) -> None:
        Sample.asked = 0
        self.assertEqual([reason for _, reason in self.run_sample(Sample, "skip").skipped], ["skip"])
        self.assertEqual(Sample.asked, 0)

    def test_an_expected_failure_has_none(self) -> None:
        class Expected(Sample):
            where = "test"
            asked = 0

            @unittest.expectedFailure
            def runTest(self) -> None:
                super().runTest()

        self.assertEqual(len(self.run_sample(Expected, "test").expectedFailures), 1)
        self.assertEqual(Expected.asked, 0)

    def test_failfast_in_a_sub_test_is_no_failure_of_its_own(self) -> None:
        test = Sample()
        test.where = "subTest"
        result = unittest.TestResult()
        result.failfast = True
        test.run(result)
        self.assertEqual(len(result.errors), 1)

    def test_debug_shows_it_too(self) -> None:
        test = Sample()
        test.where = "test"
        with self.assertRaises(ZeroDivisionError) as raised:
            test.debug()
        self.assertEqual(raised.exception.__notes__, ["evidence for test"])

    def test_an_exception_that_passes_twice_is_noted_once(self) -> None:
        with self.assertRaises(ZeroDivisionError) as raised:
            try:
                raise ZeroDivisionError
            except ZeroDivisionError as error:
                for note in ("inner", "outer"):
                    add_evidence(error, lambda error, note=note: [note])
                raise
        self.assertEqual(raised.exception.__notes__, ["inner"])
        self.assertIn("inner", "".join(traceback.format_exception(raised.exception)))

    def test_the_hooks_of_unittest_that_it_overrides_are_there(self) -> None:
        for name in ("_callSetUp", "_callTestMethod", "_callTearDown", "_callCleanup"):
            with self.subTest(name):
                self.assertTrue(callable(getattr(unittest.TestCase, name)))


if __name__ == "__main__":
    unittest.main()
