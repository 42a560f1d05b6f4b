"""libpq's service files are read as libpq reads them."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from dbtestcase.drivers.endpoints import service_of

MINE = """
stray
[broken]
; no comment, and no setting
[shop] # the real one
  # indented
  host=shop.example
    options=-c search_path=a=b
host=second.example

[shop]
port=7
"""


class ServiceFilesTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "mine.conf").write_text(MINE)
        (folder / "pg_service.conf").write_text("[shop]\nhost=system.example\n[system]\nhost=system.example\n")
        variables = {"PGSERVICEFILE": str(folder / "mine.conf"), "PGSYSCONFDIR": str(folder)}
        self.enterContext(mock.patch.dict(os.environ, variables))

    def test_the_first_section_of_the_users_file_counts_whatever_stands_elsewhere(self) -> None:
        self.assertEqual(service_of("shop"), {"host": "shop.example", "options": "-c search_path=a=b"})

    def test_then_the_systems(self) -> None:
        self.assertEqual(service_of("system"), {"host": "system.example"})

    def test_one_that_nobody_describes_is_a_host_of_its_own(self) -> None:
        self.assertEqual(service_of("sho"), {"host": "service sho"})
        self.assertEqual(service_of(""), {})


if __name__ == "__main__":
    unittest.main()
