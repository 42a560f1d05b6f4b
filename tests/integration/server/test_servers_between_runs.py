"""DBTESTCASE_STAY: the server of a run waits for the next one, which takes it over; nobody else gets it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import warnings
from pathlib import Path
from unittest import mock

import psycopg

from dbtestcase.server import staying
from tests.support.runners import run_python, start_python, write_suite

SUITE = """
    import signal, sys
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest

    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))

    class ItemTest(DatabaseTest):
        metadata = metadata

        def test_item(self):
            self.assertEqual(self.session.execute(sa.select(item)).all(), [])
            self.session.execute(sa.insert(item).values(id=1))
            self.session.commit()
            print("folder", sa.make_url(self.database_url).query["host"], flush=True)
            if "wait" in sys.argv:
                signal.pause()
"""
MAIN = "import sys, unittest, test_it; unittest.main(module=test_it, argv=['x'])"


class ServersBetweenRunsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_suite(
            self.folder, {"test_it.py": SUITE, "setup.cfg": "", "other/setup.cfg": "", "other/test_it.py": SUITE}
        )
        self.env = {"DBTESTCASE_STAY": "300s", "TMPDIR": str(self.folder)}
        self.folders: set[Path] = set()
        self.addCleanup(self.end_all)

    def end_all(self) -> None:
        for folder in self.folders:
            for path in folder.parent.glob(f"{folder.name}.*.free"):
                run_python(["-c", _END, str(path)], cwd=self.folder)
        self.assert_all_gone()

    def assert_all_gone(self) -> None:
        until = time.monotonic() + 60
        while any(folder.exists() for folder in self.folders):
            self.assertLess(time.monotonic(), until, f"left behind: {self.folders}")
            time.sleep(0.02)

    def run_suite(self, folder: str = "", **env: str) -> Path:
        """The folder of the server that a run has used; it has passed."""
        done = run_python(["-W", "error", "-c", MAIN], cwd=self.folder / folder, env=self.env | env)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return self.noted(done.stdout)

    def noted(self, output: str) -> Path:
        match = re.search("^folder (.*)$", output, re.MULTILINE)
        assert match is not None, output
        self.folders.add(Path(match[1]))
        return Path(match[1])

    def start_suite(self) -> tuple[subprocess.Popen[str], Path]:
        """A run that is in the middle of its test."""
        program = MAIN.replace("argv=", "exit=False, argv=") + " #"
        run = start_python(["-c", program, "wait"], cwd=self.folder, env=self.env)
        self.addCleanup(run.communicate)
        self.addCleanup(run.kill)
        assert run.stdout is not None
        return run, self.noted(run.stdout.readline())

    def databases(self, folder: Path) -> list[str]:
        with psycopg.connect(host=str(folder), port=5432, user="postgres", dbname="postgres") as connection:
            found = connection.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1").fetchall()
        return [name for (name,) in found]

    def wait_until_free(self, folder: Path) -> None:
        until = time.monotonic() + 60
        while not list(folder.parent.glob(f"{folder.name}.*.free")):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)

    def test_the_next_run_finds_it_without_what_the_one_before_has_made(self) -> None:
        first = self.run_suite()
        self.wait_until_free(first)
        self.assertEqual(self.databases(first), ["postgres", "template1"])
        for _ in range(2):
            self.assertEqual(self.run_suite(), first)
            self.wait_until_free(first)

    def test_a_killed_run_leaves_it_and_the_next_one_clears_up(self) -> None:
        run, folder = self.start_suite()
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        self.wait_until_free(folder)
        self.assertEqual(self.run_suite(), folder)
        self.wait_until_free(folder)
        self.assertEqual(self.databases(folder), ["postgres", "template1"])

    def test_two_runs_at_once_and_two_projects_have_one_each(self) -> None:
        _, folder = self.start_suite()
        second = self.run_suite()
        self.assertNotEqual(second, folder)
        self.wait_until_free(second)
        self.assertNotIn(self.run_suite("other"), (folder, second))

    def test_one_whose_folder_somebody_has_removed_ends_and_another_one_is_started(self) -> None:
        first = self.run_suite()
        self.wait_until_free(first)
        shutil.rmtree(first)
        second = self.run_suite()
        self.assertNotEqual(second, first)
        self.wait_until_free(second)
        self.assertEqual(self.run_suite(), second)
        until = time.monotonic() + 60
        while list(first.parent.glob(f"{first.name}*")):  # with its watcher
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)

    def test_one_whose_settings_a_killed_run_has_altered_is_not_used_again(self) -> None:
        first = self.run_suite()
        self.wait_until_free(first)
        with psycopg.connect(host=str(first), port=5432, user="postgres", dbname="postgres", autocommit=True) as judge:
            judge.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        self.assertNotEqual(self.run_suite(), first)
        until = time.monotonic() + 60
        while first.exists():
            self.assertLess(time.monotonic(), until)
            time.sleep(0.01)

    def test_one_that_does_not_answer_is_named_and_passed_over(self) -> None:
        place = self.folder / f"dbtestcase-{os.getuid()}"
        place.mkdir(mode=0o700)
        (place / "1-waits").mkdir()
        told = io.StringIO()
        with socket.socket(socket.AF_UNIX) as listening, mock.patch.object(staying, "PATIENCE", 0.05):
            listening.bind(str(place / "1-waits.name.free"))
            listening.listen()
            with warnings.catch_warnings(), contextlib.redirect_stderr(told):
                warnings.simplefilter("error")
                self.assertIsNone(staying.take([self.folder], "name"))
        self.assertRegex(told.getvalue(), "1-waits does not answer within")

    def test_who_does_not_ask_for_it_gets_none_and_leaves_none(self) -> None:
        first = self.run_suite()
        self.wait_until_free(first)
        other = self.run_suite(DBTESTCASE_STAY="")
        self.assertNotEqual(other, first)
        self.assertEqual(list(other.parent.glob(f"{other.name}.*.free")), [])

    def test_it_ends_when_the_time_is_over(self) -> None:
        self.run_suite(DBTESTCASE_STAY="0.2s")
        self.assert_all_gone()

    def test_doctor_names_it_and_prune_ends_it(self) -> None:
        folder = self.run_suite()
        self.wait_until_free(folder)
        examined = run_python(["-m", "dbtestcase", "doctor"], cwd=self.folder, env=self.env)
        self.assertIn(f"one waits for a run now: {folder}", examined.stdout)
        run_python(["-c", _END, str(next(folder.parent.glob(f"{folder.name}.*.free")))], cwd=self.folder)
        self.assert_all_gone()


# what prune does, to this one server only: others may wait on this machine for somebody else
_END = """
import sys
from pathlib import Path
from unittest import mock
from dbtestcase.server import staying
path = Path(sys.argv[1])
with mock.patch.object(staying, "waiting", lambda places: [path.with_suffix("").with_suffix("")]):
    print(*staying.end_waiting([]))
"""


if __name__ == "__main__":
    unittest.main()
