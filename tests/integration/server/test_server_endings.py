"""However a run ends, its server and its data are gone soon after; nothing that is alive is touched."""

import contextlib
import os
import signal
import unittest
from pathlib import Path
from unittest import mock

from dbtestcase.server import disposable_server, folders
from dbtestcase.server.folders import sweep
from dbtestcase.settings import read_settings
from tests.support.disposable import Owner, owner, scratch, wait_for_end

FORKED_CHILD = """
    if os.fork() == 0:  # as a worker that outlives its parent
        os.close(1); os.close(2)
        signal.pause()
    signal.pause()
"""
CHILDS_END = """
    events = server._watcher._events
    pid = os.fork()
    if pid == 0:
        server.persist()
        server.close()
        try:
            os.fstat(events)
        except OSError:  # closed: a watcher must not take the child for its owner
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    import psycopg
    psycopg.connect(host=str(server.data.parent), port=5432, user="postgres", dbname="postgres").close()
    say("still there")
    signal.pause()
"""


class EndOfTheOwnerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.place = Path(self.enterContext(scratch()))
        self.place.chmod(0o755)

    def owner(self, more: str = "signal.pause()") -> contextlib.AbstractContextManager[Owner]:
        return owner(more, env={"PLACE": str(self.place)})

    def assertAllGone(self, run: Owner) -> None:
        wait_for_end(run.watcher, run.server)
        self.assertEqual(run.traces(), [])

    def test_signals_that_end_the_owner_end_everything(self) -> None:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number.name), self.owner() as run:
                self.assertEqual(len(run.traces()), 4)
                run.kill(number)
                self.assertAllGone(run)

    def test_ctrl_c_that_the_owner_survives_leaves_the_server_alone(self) -> None:
        more = """
            try:
                say("go"); signal.pause()
            except KeyboardInterrupt:
                import psycopg
                psycopg.connect(host=str(server.data.parent), port=5432, user="postgres", dbname="postgres").close()
                say("connected")
        """
        with self.owner(more) as run:
            run.line()
            os.killpg(run.process.pid, signal.SIGINT)  # as a terminal sends it: to the whole group
            self.assertEqual(run.line(), "connected")

    def test_an_owner_that_leaves_without_closing_takes_it_along(self) -> None:
        with self.owner("os._exit(0)") as run:
            self.assertAllGone(run)

    def test_a_forked_child_that_lives_on_does_not_keep_the_server(self) -> None:
        with self.owner(FORKED_CHILD) as run:
            run.kill(signal.SIGKILL)
            self.assertAllGone(run)

    def test_a_forked_child_that_ends_does_not_end_the_server(self) -> None:
        with self.owner(CHILDS_END) as run:
            self.assertEqual(run.line(), "still there")

    def test_the_server_dies_with_its_watcher_and_the_next_run_sweeps_its_folder(self) -> None:
        with self.owner() as run:
            os.kill(run.watcher, signal.SIGKILL)
            wait_for_end(run.server)
            self.assertTrue(run.folder.exists())
            with mock.patch.object(folders, "RAM", self.place), disposable_server(read_settings()):
                self.assertEqual([trace for trace in run.traces() if trace.startswith("/")], [])

    def test_closing_clears_up_even_if_the_watcher_was_killed(self) -> None:
        with self.owner(
            "sys.stdin.close(); signal.signal(signal.SIGUSR1, lambda *_: server.close()); signal.pause()"
        ) as run:
            os.kill(run.watcher, signal.SIGKILL)
            wait_for_end(run.server)
            os.kill(run.process.pid, signal.SIGUSR1)
            run.process.wait(60)
            self.assertEqual(run.traces(), [])

    def test_a_watcher_that_is_asked_to_end_clears_up(self) -> None:
        with self.owner() as run:
            os.kill(run.watcher, signal.SIGTERM)
            wait_for_end(run.watcher, run.server)
            self.assertEqual([trace for trace in run.traces() if trace.startswith("/")], [])

    def test_two_runs_at_once_have_nothing_to_do_with_each_other(self) -> None:
        with self.owner() as one, self.owner() as other:
            self.assertNotEqual(one.folder, other.folder)
            one.kill(signal.SIGKILL)
            self.assertAllGone(one)
            self.assertEqual(len(other.traces()), 4)

    def test_a_sweep_leaves_the_folders_of_the_living_alone(self) -> None:
        with self.owner() as run:
            self.assertNotIn(run.folder, sweep([self.place]))
            self.assertEqual(len(run.traces()), 4)


class CloseTest(unittest.TestCase):
    def test_closing_stops_the_server_and_removes_its_folder(self) -> None:
        with disposable_server(read_settings()) as server:
            postmaster = int((server.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
            self.assertTrue(Path(f"/proc/{postmaster}").exists())
        self.assertFalse(Path(f"/proc/{postmaster}").exists())
        self.assertFalse(server.data.parent.exists())
        server.close()

    def test_no_descriptor_and_no_child_is_left(self) -> None:
        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))

        def children() -> set[str]:
            tasks = Path("/proc/self/task").glob("*/children")
            return {pid for task in tasks for pid in task.read_text().split()}

        disposable_server(read_settings()).close()
        before = descriptors(), children()  # other tests of this process may have a server of their own
        disposable_server(read_settings()).close()
        self.assertEqual((descriptors(), children()), before)
