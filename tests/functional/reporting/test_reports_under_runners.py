"""DBTESTCASE_REPORT and DBTESTCASE_SUMMARY under the runners: one report, whatever processes there were."""

import json
import tempfile
import textwrap
import unittest
from pathlib import Path
from typing import Any

from tests.support.runners import PARALLEL_RUNNERS, SERIAL_RUNNERS, Outcome, run_python, run_suite, some_of, write_suite
from tests.support.samples import a_share

SUITE = {
    "app.py": """
        from sqlalchemy import create_engine, text

        engine = create_engine("postgresql+psycopg://app@db.invalid/app")

        def one_by_one(n):
            with engine.begin() as connection:
                for number in range(n):
                    connection.execute(text("SELECT :n"), {"n": f"secret {number}"})
    """,
    **{
        f"test_{name}.py": f"""
        from dbtestcase import DatabaseTest
        from app import engine, one_by_one

        class {name.title()}Test(DatabaseTest):
            engines = [engine]
            def test_few(self): one_by_one(1)
            def test_many(self): one_by_one(7)
    """
        for name in ("first", "second")
    },
}


class ReportTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_suite(self.folder, SUITE)

    def run_with_report(self, runner: str, **more: str) -> tuple[Outcome, dict[str, Any]]:
        environment = {"DBTESTCASE_REPORT": str(self.folder / "report.json"), **more}
        new = runner in PARALLEL_RUNNERS  # and with it its processes, which are what is tested
        outcome = run_suite(self.folder, runner, env=environment, new=new)
        return outcome, json.loads((self.folder / "report.json").read_text(encoding="utf-8"))

    def test_a_run_writes_one_report_of_all_its_processes(self) -> None:
        for runner in (*some_of(SERIAL_RUNNERS, "report"), *a_share(PARALLEL_RUNNERS, 4)):
            with self.subTest(runner):
                outcome, document = self.run_with_report(runner)
                outcome.expect(passed=4)
                self.assertEqual(document["missing"], [])
                self.assertEqual(sum(test["statements"] for test in document["tests"]), 16)
                self.assertEqual(len(document["tests"]), 4)
                worst = max((each for test in document["tests"] for each in test["repeated"]), key=lambda e: e["count"])
                self.assertEqual((worst["count"], worst["line"]), (7, "app.py:9 in one_by_one"))
                self.assertNotIn("secret", json.dumps(document))

    def test_a_page_and_a_summary(self) -> None:
        report = f"{self.folder / 'report.html'},{self.folder / 'report.json'}"
        outcome, _ = self.run_with_report("unittest", DBTESTCASE_REPORT=report, DBTESTCASE_SUMMARY="1")
        self.assertIn("app.py:9 in one_by_one", (self.folder / "report.html").read_text(encoding="utf-8"))
        self.assertRegex(
            outcome.stderr, r"dbtestcase: 4 tests in .*\n  16 statements in .*\n.*\n  most repeated: 7 times"
        )
        self.assertFalse((self.folder / "report.parts").exists())

    def test_a_summary_alone_leaves_no_file(self) -> None:
        outcome = run_suite(self.folder, "unittest", env={"DBTESTCASE_SUMMARY": "1", "TMPDIR": str(self.folder)})
        self.assertRegex(outcome.stderr, r"dbtestcase: 4 tests in ")
        self.assertEqual(list(self.folder.glob("*.parts")), [])

    def test_a_run_that_is_killed_is_joined_by_the_command(self) -> None:
        (self.folder / "test_third.py").write_text(
            "import os, signal\nfrom dbtestcase import DatabaseTest\n"
            "class ThirdTest(DatabaseTest):\n    def test_it(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        environment = {"DBTESTCASE_REPORT": str(self.folder / "report.json")}
        self.assertLess(run_suite(self.folder, "unittest", env=environment).returncode, 0)
        self.assertFalse((self.folder / "report.json").exists())
        output = str(self.folder / "joined.json")
        done = run_python(["-m", "dbtestcase", "report", "report.parts", "--output", output], cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        (missing,) = json.loads(Path(output).read_text(encoding="utf-8"))["missing"]
        self.assertRegex(missing, "ended without saying so .* the last it told of was test_third.ThirdTest")

    def test_leaks_and_warnings_stand_by_their_place(self) -> None:
        (self.folder / "app.py").write_text(
            textwrap.dedent(SUITE["app.py"]) + "\nkept = []\ndef forget():\n    connection = engine.connect()\n"
            "    connection.execute(text('CREATE TABLE left_open (id int)'))\n    kept.append(connection)\n"
        )
        for name in ("first", "second"):
            (self.folder / f"test_{name}.py").unlink()
        (self.folder / "test_leak.py").write_text(
            "from dbtestcase import DatabaseTest\nfrom app import engine, forget\n"
            "class LeakTest(DatabaseTest):\n    engines = [engine]\n    def test_it(self): forget()\n"
        )
        outcome, document = self.run_with_report("unittest")
        outcome.expect(passed=0, errors=1)
        (warning,) = document["warnings"]
        self.assertEqual((warning["category"], warning["count"]), ("LeakError", 1))
        self.assertRegex(
            warning["text"], r"left with unfinished writes by .*test_it; .* began at app\.py:\d+ in forget"
        )

    def test_pytest_s_plugin_asks_for_the_summary(self) -> None:
        outcome = run_suite(self.folder, "pytest", "-p", "dbtestcase.pytest_plugin")
        self.assertRegex(outcome.expect(passed=4).stderr, r"dbtestcase: 4 tests in ")

    def test_budgets(self) -> None:
        _, now = self.run_with_report("unittest")
        earlier = {**now, "tests": [{**test, "repeated": []} for test in now["tests"]]}
        (self.folder / "before.json").write_text(json.dumps(earlier))
        for against, budget, status in (
            ("before", "repeated=7", 1),
            ("before", "repeated=8", 0),
            ("report", "repeated=7", 0),
        ):
            with self.subTest(against=against, budget=budget):
                command = [
                    "-m",
                    "dbtestcase",
                    "report",
                    "report.json",
                    "--against",
                    f"{against}.json",
                    "--fail-on",
                    budget,
                ]
                done = run_python(command, cwd=self.folder)
                self.assertEqual(done.returncode, status, done.stdout + done.stderr)
                self.assertEqual("worse: " in done.stdout, bool(status))

    def test_another_ending_is_refused(self) -> None:
        outcome = run_suite(self.folder, "unittest", env={"DBTESTCASE_REPORT": "report.xml"})
        self.assertIn("'report.xml', which ends in neither .html nor .json", outcome.output)


if __name__ == "__main__":
    unittest.main()
