"""Server-side cursors of several connections on one wire: each ends with its own transaction, and not before."""

from __future__ import annotations

import contextlib
import unittest
import warnings
from typing import Any

from dbtestcase.errors import DirtyReadWarning, SandboxConflict
from tests.support.sandboxes import SandboxTestCase

NUMBERS = "SELECT generate_series(1, 5)"
OPENERS = """
CREATE FUNCTION open_cursor(c refcursor) RETURNS refcursor LANGUAGE plpgsql STABLE
    AS $$ BEGIN OPEN c FOR SELECT generate_series(1, 3); RETURN c; END $$;
CREATE PROCEDURE open_by_procedure(INOUT c refcursor) LANGUAGE plpgsql
    AS $$ BEGIN OPEN c FOR SELECT generate_series(1, 3); END $$;
"""


class _ServerCursors(SandboxTestCase):
    def setUp(self) -> None:
        super().setUp()
        warnings.simplefilter("ignore", DirtyReadWarning)  # these tests overlap on purpose
        warnings.simplefilter("ignore", ResourceWarning)  # psycopg's, of cursors that were ended by a rollback

    def connect(self) -> Any:
        """A connection of the driver that the sandbox has made."""
        return self.enterContext(contextlib.closing(self.engine.raw_connection())).driver_connection

    def run_on(self, connection: Any, *statements: str) -> None:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)

    def declare(self, connection: Any, name: str, **options: bool) -> Any:
        cursor = connection.cursor(name, **options)
        cursor.execute(NUMBERS)
        return cursor

    def open_on(self, connection: Any) -> list[str]:
        """The names of the cursors that the server has open."""
        cursor = connection.cursor()
        cursor.execute("SELECT name FROM pg_cursors WHERE name <> '' ORDER BY name")
        return [name for (name,) in cursor.fetchall()]

    def test_a_string_of_several_statements_is_a_transaction_of_its_own(self) -> None:
        one, two = self.connect(), self.connect()
        one.autocommit = True
        # those without HOLD end with it
        self.run_on(one, f"DECLARE a CURSOR WITH HOLD FOR {NUMBERS}; DECLARE b CURSOR FOR {NUMBERS}; FETCH 2 FROM b")
        self.run_on(one, f"SELECT 1; DECLARE c CURSOR WITH HOLD FOR {NUMBERS}; CLOSE a; DECLARE a CURSOR FOR {NUMBERS}")
        self.assertEqual(self.open_on(one), ["c"])
        for statement, error in (
            (f"DECLARE d CURSOR WITH HOLD FOR {NUMBERS}; SELECT 1 / 0", "division by zero"),
            (f"DECLARE d CURSOR FOR {NUMBERS}", "DECLARE CURSOR can only be used in transaction blocks"),
            ("FETCH 2 FROM d", 'cursor "d" does not exist'),
        ):
            with self.assertRaisesRegex(Exception, error):
                self.run_on(one, statement)
        with self.assertRaisesRegex(SandboxConflict, "'c' cannot be declared"):
            self.run_on(two, f"DECLARE e CURSOR FOR {NUMBERS}; DECLARE c CURSOR FOR {NUMBERS}")
        with self.assertRaisesRegex(Exception, 'cursor "c" does not exist'):
            self.run_on(two, f"DECLARE e CURSOR FOR {NUMBERS}; FETCH 1 FROM c")
        two.rollback()
        self.run_on(one, "CLOSE c; SELECT 1")
        self.run_on(two, f"DECLARE c CURSOR FOR {NUMBERS}; FETCH 1 FROM c; CLOSE c; DECLARE d CURSOR FOR {NUMBERS}")
        self.assertEqual(self.open_on(two), ["d"])
        two.commit()
        self.assertEqual(self.open_on(two), [])

    def test_a_rollback_to_a_savepoint_closes_what_was_declared_since(self) -> None:
        one, two = self.connect(), self.connect()
        self.run_on(one, "INSERT INTO item VALUES (1, 'one')")
        self.run_on(two, "INSERT INTO item VALUES (2, 'two')")
        before = self.declare(one, "before")
        self.run_on(one, "SAVEPOINT a")
        since = self.declare(one, "since")
        self.run_on(two, "SELECT 1")
        two.commit()  # the savepoint of the cursor is merged into what stays
        self.run_on(one, "INSERT INTO item VALUES (3, 'one')", "ROLLBACK TO a")
        self.assertEqual(self.open_on(one), ["before"])
        self.assertEqual(before.fetchmany(1), [(1,)])
        with self.assertRaises(Exception) as caught:
            since.fetchmany(1)
        self.assertIn('cursor "since" does not exist', str(caught.exception))
        self.run_on(one, "ROLLBACK TO a")
        one.commit()
        self.assertEqual(self.rows(), [*self.BASE, (1, "one"), (2, "two")])

    def test_a_released_savepoint_leaves_its_cursors_to_the_one_below(self) -> None:
        one = self.connect()
        self.run_on(one, "SAVEPOINT a", "SAVEPOINT b")
        cursor = self.declare(one, "kept")
        self.run_on(one, "RELEASE b", "SAVEPOINT b", "ROLLBACK TO b")
        self.assertEqual(cursor.fetchmany(1), [(1,)])
        self.run_on(one, "ROLLBACK TO a")
        self.assertEqual(self.open_on(one), [])

    def test_a_cursor_is_closed_although_somebody_else_has_failed(self) -> None:
        one, two = self.connect(), self.connect()
        cursor = self.declare(one, "mine")
        with self.assertRaisesRegex(Exception, "division by zero"):
            self.run_on(two, "SELECT 1 / 0")
        cursor.close()
        self.assertEqual(self.open_on(one), [])
        two.rollback()

    def test_cursors_end_with_their_transaction(self) -> None:
        for end in ("commit", "rollback"):
            with self.subTest(end):
                one, two = self.connect(), self.connect()
                self.declare(one, "one")
                self.declare(two, "two")
                getattr(one, end)()
                self.assertEqual(self.open_on(two), ["two"])
                two.rollback()

    def test_a_cursor_with_hold_outlives_the_commit_and_not_the_rollback(self) -> None:
        one = self.connect()
        cursor = self.declare(one, "held", withhold=True)
        one.commit()
        self.assertEqual(cursor.fetchmany(1), [(1,)])
        cursor.close()
        two = self.connect()
        self.run_on(two, "INSERT INTO item VALUES (2, 'two')")
        self.declare(one, "gone", withhold=True)
        two.commit()
        one.rollback()
        self.assertEqual(self.open_on(one), [])

    def test_cursors_that_a_function_has_opened_end_as_well(self) -> None:
        one = self.connect()
        self.run_on(one, OPENERS)
        one.commit()
        for call in ("SELECT open_cursor('c')", "CALL open_by_procedure('c')", 'CALL "public".open_by_procedure(%s)'):
            for end in ("commit", "rollback"):
                with self.subTest(call, end=end):
                    cursor = one.cursor()
                    cursor.execute(call, ("c",) if "%s" in call else None)
                    cursor.execute("FETCH ALL IN c")
                    self.assertEqual(cursor.fetchall(), [(1,), (2,), (3,)])
                    getattr(one, end)()
                    self.assertEqual(self.open_on(one), [])
                    one.rollback()

    def test_a_second_cursor_of_the_same_name_is_refused_by_name(self) -> None:
        one, two = self.connect(), self.connect()
        cursor = self.declare(one, "export")
        with self.assertRaises(SandboxConflict) as caught:
            self.declare(two, "export")
        self.assertRegex(caught.exception.what, r"The cursor 'export' .*connection \d+ \(began at .* has an open one")
        self.assertEqual(cursor.fetchmany(1), [(1,)])
        self.run_on(one, "CLOSE export")
        self.assertEqual(self.declare(two, "export").fetchmany(1), [(1,)])
        two.rollback()

    def test_close_all_in_a_longer_string_closes_nobody_elses(self) -> None:
        one, two = self.connect(), self.connect()
        cursor = self.declare(one, "export")
        for statement in ("CLOSE ALL; SELECT 1", f"DECLARE mine CURSOR FOR {NUMBERS}; close all"):
            with self.assertRaisesRegex(SandboxConflict, r"CLOSE ALL .*connection \d+ \(began at "):
                self.run_on(two, statement)
        self.run_on(two, "CLOSE ALL")
        self.assertEqual(cursor.fetchmany(1), [(1,)])
        self.run_on(one, "CLOSE ALL; SELECT 1")
        self.assertEqual(self.open_on(one), [])
        two.rollback()


class PsycopgCursorsTest(_ServerCursors):
    driver = "psycopg"

    def test_to_close_one_that_is_gone_fails_as_on_a_connection_of_its_own(self) -> None:
        one, two = self.connect(), self.connect()
        self.run_on(one, "SAVEPOINT a")
        cursor = self.declare(one, "gone")
        self.run_on(one, "ROLLBACK TO a")
        with self.assertRaisesRegex(Exception, "division by zero"):
            self.run_on(two, "SELECT 1 / 0")
        with self.assertRaisesRegex(Exception, 'cursor "gone" does not exist'):
            cursor.close()
        self.assertEqual(one.info.transaction_status.name, "INERROR")


class Psycopg2CursorsTest(_ServerCursors):
    driver = "psycopg2"

    def test_what_is_done_with_one_that_is_gone_fails_as_on_a_connection_of_its_own(self) -> None:
        one = self.connect()
        self.run_on(one, "SAVEPOINT a")
        cursor = self.declare(one, "gone")
        self.run_on(one, "ROLLBACK TO a")
        with self.assertRaisesRegex(Exception, 'cursor "gone" does not exist'):
            cursor.close()
        self.assertEqual(one.get_transaction_status(), 3)
        cursor.close()
        one.rollback()
        cursor = self.declare(one, "gone")
        one.commit()
        for use in (cursor.fetchone, cursor.close):
            with self.assertRaisesRegex(Exception, "named cursor isn't valid anymore"):
                use()

    def test_one_that_a_test_has_left_open_spoils_no_connection_in_its_pool(self) -> None:
        fairy: Any = self.engine.raw_connection()
        cursor = self.declare(fairy.driver_connection, "left")
        self.sandbox.rollback_to_mark("the next test")
        fairy.close()
        with self.assertRaisesRegex(Exception, "named cursor isn't valid anymore"):
            cursor.fetchone()
        self.assertEqual(self.open_on(self.connect()), [])


del _ServerCursors

if __name__ == "__main__":
    unittest.main()
