"""A server that was told to stay outlives its owner, and nothing else does; it ends when it is asked to, or in time."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

import psycopg

from dbtestcase.server.folders import sweep
from dbtestcase.server.staying import end_kept, end_oldest
from tests.support.disposable import Owner, owner, scratch, wait_for_end
from tests.support.runners import inner_environment

CLOSE = "server.keep(); server.close(); say('closed'); signal.pause()"


class StayingServersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.place = Path(self.enterContext(scratch()))
        self.place.chmod(0o755)
        self.addCleanup(lambda: list(end_kept([self.place])))

    def owner(self, more: str) -> contextlib.AbstractContextManager[Owner]:
        return owner(more, env={"PLACE": str(self.place)})

    def assertRuns(self, run: Owner) -> None:
        psycopg.connect(host=str(run.folder), port=5432, user="postgres", dbname="postgres").close()

    def assertAllGone(self, run: Owner) -> None:
        wait_for_end(run.watcher, run.server)
        self.assertEqual(run.traces(), [])
        self.assertEqual(list(self.place.rglob("*.kept")), [])

    def test_it_goes_on_however_its_owner_ends_until_somebody_ends_it(self) -> None:
        endings = {
            "closed": ("server.keep(); server.close()", None),
            "left": ("server.keep(); os._exit(0)", None),
            "killed": ("server.keep(); say('go'); signal.pause()", signal.SIGKILL),
        }
        for name, (more, number) in endings.items():
            with self.subTest(name), self.owner(more) as run:
                if number is not None:
                    run.line()
                    run.kill(number)
                run.process.communicate(timeout=60)  # nothing holds its output open any more
                self.assertRuns(run)
                self.assertEqual(sweep([self.place]), [])
                self.assertEqual(list(end_kept([self.place], dry=True)), [run.folder])
                self.assertEqual(list(end_kept([self.place])), [run.folder])
                self.assertAllGone(run)

    def test_what_an_owner_asked_for_just_before_its_end_is_not_lost(self) -> None:
        """The watcher may notice the end before it has read the order."""
        script = """
            from dbtestcase.server.watcher import Watcher
            watcher = Watcher(1, "", "", -1, -1)  # lives, and is not the owner any more
            watcher.watch()
            print(watcher.keep_seconds)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            input='{"do": "keep", "seconds": 5}\n',
            env=inner_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.stdout.strip(), done.stderr), ("5", ""))

    def test_closing_waits_until_it_can_be_ended_and_leaves_it(self) -> None:
        with self.owner(CLOSE) as run:
            self.assertEqual(run.line(), "closed")
            self.assertRuns(run)
            self.assertEqual(list(end_kept([self.place])), [run.folder])
            self.assertEqual(list(self.place.iterdir()), [], "it did not wait for the end")

    def test_while_the_owner_lives_prune_leaves_it(self) -> None:
        with self.owner("server.keep(); say('go'); signal.pause()") as run:
            run.line()
            self.assertEqual(list(end_kept([self.place])), [])
            self.assertRuns(run)
            os.kill(run.watcher, signal.SIGTERM)
            wait_for_end(run.server)
            run.kill(signal.SIGKILL)
            self.assertAllGone(run)

    def test_it_ends_when_its_time_is_up(self) -> None:
        with self.owner("server._watcher.order('keep', seconds=0.2); os._exit(0)") as run:
            self.assertAllGone(run)

    def test_it_ends_with_a_signal_to_its_watcher(self) -> None:
        with self.owner(CLOSE) as run:
            run.line()
            os.kill(run.watcher, signal.SIGTERM)
            run.kill(signal.SIGKILL)  # the watcher's parent lives: it would stay a zombie
            self.assertAllGone(run)

    def test_one_whose_watcher_was_killed_is_swept(self) -> None:
        with self.owner(CLOSE) as run:
            run.line()
            os.kill(run.watcher, signal.SIGKILL)
            wait_for_end(run.server)
            self.assertEqual(list(end_kept([self.place])), [])
            self.assertEqual(sweep([self.place]), [run.folder])
            run.kill(signal.SIGKILL)
            self.assertAllGone(run)

    def test_a_server_that_has_ended_of_itself_does_not_stay(self) -> None:
        with self.owner("os.kill(int(postmaster), signal.SIGQUIT); server.keep(); server.close()") as run:
            self.assertAllGone(run)

    def test_the_oldest_ends_for_a_new_one(self) -> None:
        with self.owner(CLOSE) as first, self.owner(CLOSE) as second:
            first.line()
            second.line()
            os.utime(first.folder.with_suffix(".kept"), (0, 0))
            end_oldest([self.place], spared=1)
            first.kill(signal.SIGKILL)
            wait_for_end(first.watcher, first.server)
            self.assertEqual(first.traces(), [])
            self.assertRuns(second)
