"""The owner's end of a watcher: one that still writes to the cache is left to finish, with a line that says so."""

import json
import os
import unittest
from unittest import mock

from dbtestcase.errors import ServerError
from dbtestcase.server import postgresql, process
from dbtestcase.server.postgresql import PostgreSQLServer
from dbtestcase.server.process import WatcherProcess


class WatcherProcessTest(unittest.TestCase):
    def watcher(self) -> tuple[WatcherProcess, int]:
        """One without a process, and the end of the pipe into which its process would write."""
        made = WatcherProcess.__new__(WatcherProcess)
        made._owner, made._pid, made._received, made._publishing = os.getpid(), 4711, b"", 0
        made._connection = None
        made._folder = mock.Mock()
        reading, made._orders = os.pipe()
        self.addCleanup(os.close, reading)
        made._events, events = os.pipe()
        self.addCleanup(os.close, events)
        return made, events

    def test_one_that_publishes_is_neither_killed_nor_swept_away(self) -> None:
        watcher, _ = self.watcher()
        watcher.order("run", command=["postgres"])
        with mock.patch.object(process, "say") as said, mock.patch("os.kill") as kill, mock.patch("os.waitpid"):
            watcher.close(timeout=0.01)
        kill.assert_not_called()
        watcher._folder.remove.assert_not_called()  # type: ignore[attr-defined]
        self.assertRegex(said.call_args[0][0], "still being written to the cache; process 4711")

    def test_one_that_has_published_and_hangs_is_killed_with_a_line(self) -> None:
        watcher, events = self.watcher()
        watcher.order("run", command=["postgres"])
        os.write(events, json.dumps({"event": "published", "problem": ""}).encode() + b"\n")
        with mock.patch.object(process, "say") as said, mock.patch("os.kill") as kill, mock.patch("os.waitpid"):
            self.assertEqual([event["event"] for event in watcher.close(timeout=0.01)], ["published"])
        kill.assert_called_once()
        watcher._folder.remove.assert_called_once()  # type: ignore[attr-defined]
        self.assertRegex(said.call_args[0][0], "process 4711 .*killed")

    def test_what_could_not_be_copied_after_the_start_is_told_to_every_class_at_once(self) -> None:
        watcher, events = self.watcher()
        text = "/place/data: No space left on device"
        os.write(events, json.dumps({"event": "incomplete", "text": text}).encode() + b"\n")
        server = PostgreSQLServer.__new__(PostgreSQLServer)
        server._watcher, server._closed = watcher, False
        server._is_complete, server._completed = False, None
        with mock.patch.object(postgresql, "START_SECONDS", 0.01):
            for _ in range(2):
                with self.assertRaisesRegex(ServerError, f"{text}[\\s\\S]*a file system is full"):
                    server._complete_start()


if __name__ == "__main__":
    unittest.main()
