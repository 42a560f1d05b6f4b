"""A server without room for one more connection is waited for; any other refusal is told at once."""

from __future__ import annotations

import contextlib
import unittest
from unittest import mock

from psycopg import OperationalError
from sqlalchemy import make_url

from dbtestcase.drivers import patience
from dbtestcase.errors import ServerUnreachable

URL = make_url("postgresql:///shop")


class PatienceTest(unittest.TestCase):
    def tries(self, refusal: Exception) -> int:
        """How often it connects until it has a connection: once refused, it would be given one."""
        connect = mock.Mock(side_effect=[refusal, "connected"])
        with mock.patch.object(patience.time, "sleep"):
            self.assertEqual(patience.patiently(connect, URL), "connected")
        return connect.call_count

    def test_a_machine_that_has_no_process_left(self) -> None:
        words = "connection failed: could not fork new process for connection: Resource temporarily unavailable"
        self.assertEqual(self.tries(OperationalError(words)), 2)

    def test_what_pg8000_makes_of_that(self) -> None:
        self.assertEqual(self.tries(BrokenPipeError(32, "Broken pipe")), 2)

    def test_a_server_that_has_no_connection_left(self) -> None:
        self.assertEqual(self.tries(Exception({"C": "53300", "M": "sorry, too many clients already"})), 2)

    def test_who_has_waited_in_vain_waits_less_until_there_was_room(self) -> None:
        full = Exception({"C": "53300", "M": "sorry, too many clients already"})
        clock = iter(range(10_000))
        with (
            mock.patch.object(patience.time, "sleep"),
            mock.patch.object(patience.time, "monotonic", lambda: float(next(clock))),
            mock.patch.object(patience, "doing", lambda _: contextlib.nullcontext()),
        ):
            for database, least, most in (("one", 60, 65), ("two", 5, 10), ("two", 5, 10), ("", 0, 0), ("one", 60, 65)):
                began = next(clock)
                if database:
                    with self.assertRaises(ServerUnreachable):
                        patience.patiently(mock.Mock(side_effect=full), URL.set(database=database))
                    self.assertTrue(least <= next(clock) - began <= most, database)
                else:
                    self.assertEqual(patience.patiently(lambda: "connected", URL), "connected")
        patience._in_vain.clear()

    def test_a_wrong_password_is_told_at_once(self) -> None:
        with self.assertRaises(OperationalError):
            self.tries(OperationalError("password authentication failed"))


if __name__ == "__main__":
    unittest.main()
