"""Connections of pools that are in use: none is closed by its thread while another uses it in that thread's place."""

import sqlite3
import threading
import unittest

import sqlalchemy as sa

from dbtestcase.isolation.pool_checkouts import Checkouts


class KeptOpenTest(unittest.TestCase):
    def test_a_pool_waits_with_the_end_of_a_connection_for_who_uses_it(self) -> None:
        engine = sa.create_engine("sqlite://", poolclass=sa.QueuePool, connect_args={"check_same_thread": False})
        self.addCleanup(engine.dispose)
        closing = threading.Event()
        sa.event.listen(engine, "close", lambda *_: closing.set())
        checkouts = Checkouts()
        checkouts.watch(engine, engine.pool)
        connection = engine.connect()
        (opened,) = checkouts.left_open().values()
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        thread = threading.Thread(target=connection.invalidate)
        with opened.kept_open() as is_open:
            thread.start()
            self.assertTrue(is_open and closing.wait(60))
            thread.join(0.05)  # what it does not do cannot be awaited
            self.assertEqual(raw.execute("SELECT 1").fetchall(), [(1,)])
        thread.join()
        with self.assertRaises(sqlite3.ProgrammingError):
            raw.execute("SELECT 1")
        with opened.kept_open() as is_open:
            self.assertFalse(is_open)


if __name__ == "__main__":
    unittest.main()
