"""What a forked process lets go of what its parent holds: each thing, though another one fails."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from sqlalchemy import URL

from dbtestcase.backends.admin_connections import AdminConnection
from dbtestcase.backends.filelocks import FileLock


class _Connection(AdminConnection):
    def __init__(self, descriptor: int) -> None:
        super().__init__(URL.create("postgresql"))
        self.descriptor = descriptor
        AdminConnection._all.add(self)

    def _close(self) -> None:
        AdminConnection._all.discard(self)
        os.close(self.descriptor)

    def _descriptor(self) -> int:
        if self.descriptor < 0:
            raise RuntimeError("the driver fails")
        return self.descriptor


class ForkTest(unittest.TestCase):
    def test_one_that_fails_keeps_none_of_the_others(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        locks = [FileLock(folder / f"lock{number}") for number in range(8)]
        for lock in locks:
            self.assertTrue(lock.acquire(wait=False))
            self.addCleanup(lock.release)
        connections = [_Connection(os.open(folder, os.O_RDONLY) if number % 2 else -1) for number in range(8)]
        for connection in connections[1::2]:
            self.addCleanup(connection.close)
        open_files = [each.descriptor for each in connections[1::2]] + [each._descriptor for each in locks[1::2]]
        for lock in locks[::2]:
            self.addCleanup(setattr, lock, "_descriptor", lock._descriptor)
            lock._descriptor = 1 << 20  # as if somebody else had closed it

        reading, writing = os.pipe()
        told: list[str] = []
        with mock.patch.object(sys, "unraisablehook", lambda what: told.append(str(what.exc_value))):
            pid = os.fork()
            if pid == 0:
                found = [os.path.realpath(f"/proc/self/fd/{each}") for each in open_files]
                os.write(writing, repr((sorted(set(found) - {os.devnull}), sorted(told))).encode())
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            left, errors = eval(answer.read())
        self.assertEqual([each for each in left if str(folder) in each], [])
        self.assertEqual(errors, ["[Errno 9] Bad file descriptor", "the driver fails"])
