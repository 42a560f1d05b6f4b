"""Which statements change a session of MySQL: read by their text, without a server."""

from __future__ import annotations

import unittest

from dbtestcase.drivers.mysql.watching import changes_session

ROWS = (
    "SELECT 1",
    "-- why\nSELECT 1",
    "--\nSELECT 1",
    "# why\n( SELECT 1 )",
    "/* why */ INSERT INTO note (text) VALUES ('SET names')",
    "CREATE TABLE note (id int)",
)
SESSION = (
    "SET NAMES latin1",
    "-- why\nSET NAMES latin1",
    "--\nSET NAMES\nlatin1",
    "--\nUSE\n shop",
    "--select\nSET NAMES latin1",
    "/*! SET NAMES latin1 */",
    "SELECT get_lock('a', 1)",
    "SELECT 1 INTO @a",
    "CREATE TEMPORARY TABLE note (id int)",
    "LOCK TABLES note READ",
)


class SessionChangesTest(unittest.TestCase):
    def test_what_leaves_a_session_as_it_was(self) -> None:
        for text in ROWS:
            with self.subTest(text):
                self.assertFalse(changes_session(text))

    def test_what_a_session_keeps(self) -> None:
        for text in SESSION:
            with self.subTest(text):
                self.assertTrue(changes_session(text))


if __name__ == "__main__":
    unittest.main()
