"""The sockets of drivers' connections."""

from __future__ import annotations

import os
import socket
import unittest
from types import SimpleNamespace

from dbtestcase.drivers.sockets import closing_files


class ClosingFilesTest(unittest.TestCase):
    def test_a_socket_is_closed_though_somebody_holds_the_file_over_it(self) -> None:
        for name in ("_rfile", "_sock"):  # PyMySQL's, pg8000's
            with self.subTest(name):
                wire, other = socket.socketpair()
                self.addCleanup(other.close)
                held = wire.makefile("rb")
                descriptor = wire.fileno()
                with closing_files(SimpleNamespace(**{name: held})):
                    wire.close()
                    os.fstat(descriptor)
                with self.assertRaises(OSError):
                    os.fstat(descriptor)


if __name__ == "__main__":
    unittest.main()
