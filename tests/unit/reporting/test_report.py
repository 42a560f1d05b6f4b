"""The report's parts: what a process writes, how parts are joined, what a page and a comparison say of them."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dbtestcase.errors import ConfigurationError
from dbtestcase.reporting.report import (
    Budget,
    Document,
    Recorder,
    join,
    parse_budgets,
    parts_folder,
    parts_of,
    read_document,
    summary,
    worse,
    write_outputs,
    write_report,
)
from tests.support.runners import ROOT, run_python


def sent(sql: str, line: str, seconds: float = 0.001, kind: str = "statement", connection: object = None) -> Any:
    """A recorded statement."""
    began = time.perf_counter()
    return SimpleNamespace(
        statement=sql,
        origin=line or None,
        started=began,
        ended=began + seconds,
        kind=kind,
        error=None,
        connection=connection or sent,
    )


def another_process(program: str) -> None:
    """Run a program that is no part of the run of these tests, whatever runner they have."""
    run_python(["-c", program], cwd=ROOT).check_returncode()


class PartsCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.outputs = (self.folder / "report.json", self.folder / "report.html")
        self.parts = parts_folder(self.outputs)

    def recorder(self, worker: str = "main") -> Recorder:
        return Recorder(self.parts, worker)

    def joined(self) -> Document:
        return join(parts_of(self.parts))


class RecordingTest(PartsCase):
    def test_one_process(self) -> None:
        recorder = self.recorder()
        recorder.statements("class", [sent("INSERT a", "t.py:3 in setUpTestData")], label="m.A", at=0.1, seconds=0.2)
        entries = [sent("SELECT 1", "app.py:14 in save") for _ in range(7)] + [sent("COMMIT", "", kind="transaction")]
        recorder.statements("test", entries, label="m.A.test_x", at=0.3, seconds=0.4, failed=False)
        self.assertTrue(recorder.close())
        document = self.joined()
        self.assertEqual(document["missing"], [])
        (test,) = document["tests"]
        self.assertEqual((test["statements"], test["commits"], test["errors"]), (7, 1, 0))
        self.assertAlmostEqual(test["database"], 0.007, places=5)
        (repeated,) = test["repeated"]
        self.assertEqual((repeated["count"], repeated["line"]), (7, "app.py:14 in save"))
        self.assertEqual([each["sql"] for each in document["statements"]], ["SELECT 1", "INSERT a"])

    def test_a_transaction_is_as_long_as_from_its_first_statement_to_its_end(self) -> None:
        recorder = self.recorder()
        first = sent("UPDATE a", "app.py:1 in f")
        end = sent("COMMIT", "", kind="transaction")
        end.started = first.started + 0.25
        recorder.statements("test", [first, end], label="t", at=0, seconds=0.3)
        recorder.close()
        self.assertEqual(self.joined()["tests"][0]["longest"], [0.25, "app.py:1 in f"])

    def test_no_parameter_is_written(self) -> None:
        recorder = self.recorder()
        query = sent("SELECT :p", "app.py:1 in f")
        query.parameters = {"p": "hunter2"}
        recorder.statements("test", [query], label="t", at=0, seconds=0.3)
        recorder.close()
        self.assertNotIn("hunter2", recorder.path.read_text(encoding="utf-8"))

    def test_only_the_last_process_joins(self) -> None:
        first, second = self.recorder("gw0"), self.recorder("gw1")
        self.assertFalse(first.close())
        self.assertTrue(second.close())
        self.assertEqual([process["worker"] for process in self.joined()["processes"]], ["gw0", "gw1"])

    def test_a_new_run_begins_with_an_empty_folder(self) -> None:
        old = f"""
from pathlib import Path
from dbtestcase.reporting.report import Recorder
Recorder(Path({str(self.parts)!r}), "old").close()
"""
        another_process(old)
        first = self.recorder("w1")
        first.close()  # of this run: it stays
        self.recorder("w2").close()
        self.assertEqual([process["worker"] for process in self.joined()["processes"]], ["w1", "w2"])

    def test_a_summary_in_few_lines(self) -> None:
        recorder = self.recorder()
        recorder.statements("test", [sent("SELECT 1", "a.py:1 in f")] * 4, label="m.T.test_x", at=0, seconds=1)
        recorder.write("warning", category="DirtyReadWarning", line="b.py:2 in g", text="…")
        recorder.close()
        lines = summary(self.joined())
        self.assertLessEqual(len(lines), 5)
        self.assertRegex(
            "\n".join(lines), r"(?s)1 tests in .*4 statements .*test_x \(4\.0 ms\).*4 times from a\.py:1 .*DirtyRead"
        )

    def test_a_fork_is_no_part_of_its_parent(self) -> None:
        program = f"""
import os
from pathlib import Path
from dbtestcase.reporting import report
report.start(Path({str(self.parts)!r}), "main")
child = os.fork()
if not child:
    assert report.recorder() is None
    report.start(Path({str(self.parts)!r}), "child")
    report.stop()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert report.stop()
"""
        another_process(program)
        self.assertEqual(sorted(p["worker"] for p in self.joined()["processes"]), ["child", "main"])


class JoiningTest(PartsCase):
    def test_a_killed_process_is_named_with_its_last_test(self) -> None:
        program = f"""
import time
from pathlib import Path
from dbtestcase.reporting.report import Recorder
recorder = Recorder(Path({str(self.parts)!r}), "gw3")
recorder.statements("test", [], label="m.T.test_last", at=0, seconds=0)
print("ready", flush=True)
time.sleep(60)
"""
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            (running,) = self.joined()["missing"]
            self.assertRegex(running, r"gw3 .*still running; .*m\.T\.test_last")
            process.send_signal(signal.SIGKILL)
        (killed,) = self.joined()["missing"]
        self.assertRegex(killed, r"gw3 .*without saying so.*m\.T\.test_last")

    def test_a_line_that_was_cut_off_is_named(self) -> None:
        recorder = self.recorder()
        recorder.close()
        with open(recorder.path, "a") as file:
            file.write('{"kind":"test","id":"ha')
        (said,) = self.joined()["missing"]
        self.assertRegex(said, r"Line 3 of main-\d+\.jsonl is cut off")

    def test_two_runs_at_once_are_told(self) -> None:
        one = self.recorder("gw0")
        program = f"""
from pathlib import Path
from dbtestcase.reporting.report import Recorder

Recorder(Path({str(self.parts)!r}), "gw0").close()
"""
        another_process(program)
        one.close()
        self.assertRegex(self.joined()["missing"][0], "2 runs wrote")

    def test_a_folder_without_parts(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "no parts of a report"):
            parts_of(self.folder)

    def test_a_file_that_is_no_report(self) -> None:
        path = self.folder / "other.json"
        for text, words in (("{}", "not a report"), ('{"schema": "dbtestcase-report", "version": 99}', "cannot read")):
            path.write_text(text)
            with self.subTest(text), self.assertRaisesRegex(ConfigurationError, words):
                read_document(path)

    def test_json_comes_back_as_it_was(self) -> None:
        self.recorder().close()
        document = write_report(self.parts, self.outputs[:1])
        self.assertEqual(read_document(self.outputs[0]), document)


def document_of(**tests: tuple[float, int]) -> Document:
    """Tests by name, with the time of their statements (s) and how often they repeat one."""
    return {
        "tests": [
            {
                "id": name,
                "database": seconds,
                "repeated": [{"sql": "SELECT x", "line": "app.py:3 in f", "count": count, "seconds": seconds}],
            }
            for name, (seconds, count) in tests.items()
        ]
    }


class ComparisonTest(unittest.TestCase):
    def test_budgets(self) -> None:
        self.assertEqual(parse_budgets("repeated=20, slower=1.5"), Budget(20, 1.5))
        for text in ("repeated", "slower=0.5", "slow=2", "repeated=many", "repeated=-1"):
            with self.subTest(text), self.assertRaisesRegex(ConfigurationError, re.escape(text)):
                parse_budgets(text)

    def test_what_got_slower(self) -> None:
        earlier, now = document_of(a=(0.1, 1), b=(0.1, 1)), document_of(a=(0.16, 1), b=(0.14, 1))
        self.assertEqual([each.test for each in worse(now, earlier, Budget(slower=1.5))], ["a"])

    def test_milliseconds_are_the_machine_s(self) -> None:
        self.assertEqual(worse(document_of(a=(0.003, 1)), document_of(a=(0.001, 1)), Budget(slower=1.5)), [])

    def test_what_is_newly_repeated(self) -> None:
        earlier, now = document_of(a=(0, 30), b=(0, 5)), document_of(a=(0, 30), b=(0, 25), c=(0, 40), d=(0, 19))
        self.assertEqual([each.test for each in worse(now, earlier, Budget(repeated=20))], ["b", "c"])

    def test_a_line_that_moved_is_the_same_line(self) -> None:
        now = document_of(a=(0, 30))
        now["tests"][0]["repeated"][0]["line"] = "app.py:99 in f"
        self.assertEqual(worse(now, document_of(a=(0, 30)), Budget(repeated=20)), [])


class PageTest(PartsCase):
    def page(self) -> str:
        write_report(self.parts, self.outputs)
        return self.outputs[1].read_text(encoding="utf-8")

    def test_it_needs_nothing_else_and_escapes_what_it_shows(self) -> None:
        recorder = self.recorder()
        recorder.statements("test", [sent("SELECT '<b>'", "a.py:1 in <lambda>")], label="m.T.test_x", at=0, seconds=1)
        recorder.close()
        page = self.page()
        self.assertNotRegex(page, r'(src|href)="(https?:)?//|@import|url\(')
        self.assertIn("SELECT &#39;&lt;b&gt;&#39;", page)
        self.assertNotIn("<b>'", page)

    def test_the_repeated_statement_stands_on_top_with_its_line(self) -> None:
        recorder = self.recorder()
        entries = [sent("SELECT item", "shop/views.py:31 in orders") for _ in range(40)]
        entries += [sent("SELECT other", "shop/views.py:9 in orders") for _ in range(5)]
        recorder.statements("test", entries, label="m.T.test_x", at=0, seconds=1)
        recorder.close()
        section = self.page().partition('<h2 id="repeated">')[2].partition("<h2")[0]
        first = section.partition("<tbody>")[2].partition("</tr>")[0]
        self.assertIn('<td class="n">40</td>', first)
        self.assertIn(f"vscode://file{os.getcwd()}/shop/views.py:31", first)

    def test_what_is_missing_is_said_first(self) -> None:
        recorder = self.recorder()
        with open(recorder.path, "a") as file:
            file.write("{")
        self.assertIn('role="alert"', self.page())
        recorder.close()

    def test_ten_thousand_tests(self) -> None:
        recorder = self.recorder()
        for number in range(10_000):
            entries = [sent(f"SELECT {number % 900} FROM a_table_with_a_name WHERE {'x = 1 AND ' * 30}", "a.py:1 in f")]
            recorder.statements(
                "test", entries, label=f"package.module.Class.test_{number}", at=number / 1000, seconds=0.001
            )
        recorder.close()
        page = self.page()
        self.assertLess(len(page.encode()), 5_000_000)
        self.assertIn("9000 tests that took less", page)
        self.assertIn("600 more took less", page)

    def test_classes_that_set_up_the_same_are_told(self) -> None:
        recorder = self.recorder()
        for name in "AB":
            recorder.statements("class", [sent("INSERT a", "t.py:3 in f")], label=f"m.{name}", at=0, seconds=0.5)
        recorder.close()
        self.assertRegex(self.page(), r"2 classes of m.*\(m\.A, m\.B\)")

    def test_an_earlier_run(self) -> None:
        recorder = self.recorder()
        recorder.statements("test", [sent("SELECT 1", "a.py:1 in f", 0.5)], label="m.T.test_x", at=0, seconds=1)
        recorder.close()
        now = self.joined()
        earlier = json.loads(json.dumps(now))
        earlier["tests"][0]["database"] = 0.1
        write_outputs(now, self.outputs[1:], earlier)
        self.assertIn("its statements took 500.0 ms, before 100.0 ms", self.outputs[1].read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main()
