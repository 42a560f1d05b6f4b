"""What is refused, what belongs to a connection, and what of the server's session must end with the test."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import unittest
import warnings
from typing import Any
from unittest import mock

import psycopg
import sqlalchemy as sa
from sqlalchemy import create_engine, event, orm

from dbtestcase.errors import DirtyReadWarning, SandboxConflict, SandboxEscape
from dbtestcase.isolation.engines import Until
from dbtestcase.sandbox import scheduler, statement_flows
from tests.support.production import once_at_most
from tests.support.requirements import require_module
from tests.support.sandboxes import SandboxTestCase

ESCAPES = {
    "COMMIT": "COMMIT",
    "ROLLBACK": "ROLLBACK",
    "BEGIN": "BEGIN",
    "START TRANSACTION READ ONLY": "START TRANSACTION READ ONLY",
    "END": "END",
    "ABORT": "ABORT",
    "-- nightly\nCOMMIT": "COMMIT",
    "/* a /* nested */ comment */ commit;": "commit",
    "INSERT INTO item VALUES (1, 'lost'); COMMIT": "COMMIT",
    "SELECT $$ ; $$; ROLLBACK AND CHAIN": "ROLLBACK AND CHAIN",
    "PREPARE TRANSACTION 'x'": "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'": "COMMIT PREPARED 'x'",
}


class _Doors(SandboxTestCase):
    # -- refused

    def test_transaction_control_as_text_is_refused_by_name_before_it_is_sent(self) -> None:
        for text, name in ESCAPES.items():
            with self.subTest(text), self.engine.connect() as connection:
                connection.exec_driver_sql("INSERT INTO item VALUES (7, 'before')")
                with self.assertRaises(SandboxEscape) as caught:
                    connection.exec_driver_sql(text)
                self.assertIn(f"The statement {name!r} would end or begin", caught.exception.what)
                self.assertEqual(connection.exec_driver_sql("SELECT count(*) FROM item").scalar(), 2)

    def test_what_only_looks_like_a_write_or_a_lock_is_none(self) -> None:
        for text in (
            "WITH t AS (SELECT replace(name, 'a', 'b') AS n FROM item) SELECT n FROM t",
            "SELECT name FROM item WHERE name = 'ready for update'",
            "EXPLAIN (COSTS OFF) UPDATE item SET name = 'x'",
            'SELECT id AS "insert into" FROM item -- for update',
        ):
            with self.subTest(text), self.engine.connect() as reader:
                reader.exec_driver_sql(text).all()
                self.assertFalse(self.sandbox.stack.unfinished())
                with self.engine.begin() as writer:  # nothing holds it back
                    writer.exec_driver_sql("UPDATE item SET name = name")
                self.assertFalse(self.sandbox._lockers())

    def test_it_is_refused_on_the_drivers_own_connection_too(self) -> None:
        raw = self.engine.raw_connection()
        for autocommit in (False, True):
            raw.driver_connection.autocommit = autocommit
            for text in ("COMMIT", b"ROLLBACK", "select 1; begin"):
                with self.subTest(text, autocommit=autocommit), self.assertRaises(SandboxEscape):
                    raw.driver_connection.cursor().execute(text)
        raw.driver_connection.autocommit = False
        raw.close()

    def test_an_application_that_swallows_the_refusal_is_reported(self) -> None:
        self.expected_problems = ["SandboxEscape was raised and swallowed"]
        swallow = compile(
            "try:\n    with engine.connect() as c: c.exec_driver_sql('COMMIT')\nexcept Exception: pass",
            "app.py",
            "exec",
        )
        exec(swallow, {"engine": self.engine})

    def test_two_phase_transactions_are_refused(self) -> None:
        with self.assertRaises(SandboxEscape), orm.Session(self.engine, twophase=True) as session:
            session.execute(sa.text("INSERT INTO item VALUES (1, 'two-phase')"))
            session.commit()
        raw = self.engine.raw_connection()
        with self.assertRaises(SandboxEscape):
            raw.driver_connection.tpc_begin("an id")
        raw.close()

    def test_commit_inside_a_block_or_procedure_is_the_servers_error(self) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE PROCEDURE ends() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO item VALUES (1, 'p'); COMMIT; END $$"
            )
        for text in ("DO $$ BEGIN INSERT INTO item VALUES (2, 'do'); COMMIT; END $$", "CALL ends()"):
            with self.subTest(text), self.engine.connect() as connection:
                with self.assertRaisesRegex(sa.exc.DBAPIError, "invalid transaction termination"):
                    connection.exec_driver_sql(text)
        self.assertEqual(self.rows(), self.BASE)

    def test_what_cannot_run_in_a_transaction_says_which_class_can_do_it(self) -> None:
        for text in ("VACUUM item", "CREATE DATABASE verify_never"):
            with self.engine.connect() as connection, self.assertRaises(sa.exc.DBAPIError) as caught:
                connection.exec_driver_sql(text)
            notes = getattr(caught.exception.orig, "__notes__", [])
            self.assertIn("TruncatingDatabaseTest", " ".join(notes))

    def test_a_connection_made_by_an_engines_own_creator_is_refused(self) -> None:
        module: Any = __import__(self.driver)
        made = []

        def creator() -> Any:
            made.append(module.connect(host=self.url.query["host"], user="postgres", dbname=self.url.database))
            return made[-1]

        engine = create_engine(f"postgresql+{self.driver}://", creator=creator)
        with self.assertRaisesRegex(SandboxEscape, "by its own means"):
            engine.connect()
        self.assertTrue(made[0].closed)

    def test_an_engine_with_a_creator_is_led_once_it_is_named(self) -> None:
        module: Any = __import__(self.driver)
        engine = create_engine(
            f"postgresql+{self.driver}://", creator=lambda: module.connect(host="db.example.org", dbname="shop")
        )
        seen: list[str] = []
        event.listen(engine, "connect", lambda *_: seen.append("connect"))
        event.listen(engine.pool, "checkout", lambda *_: seen.append("checkout"))
        self.run_.board.lead(engine, until=Until.TEST)
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql("INSERT INTO item VALUES (1, 'created')")
            engine.dispose()
            with engine.connect() as connection:
                self.assertEqual(connection.exec_driver_sql("SELECT count(*) FROM item").scalar(), 2)
        finally:
            self.run_.board.release(Until.TEST)
        self.assertEqual(seen, ["connect", "checkout"] * 2)

    def test_an_engine_of_another_driver_is_refused_by_name(self) -> None:
        other = {"psycopg": "psycopg2", "psycopg2": "psycopg"}[self.driver]
        require_module(other)
        engine = create_engine(self.url.set(drivername=f"postgresql+{other}"))
        with self.assertRaisesRegex(SandboxEscape, f"'{other}'.*'{self.driver}'"):
            engine.connect()

    def test_an_engine_of_another_database_is_none_of_our_business(self) -> None:
        engine = create_engine(self.url.set(database="postgres"))
        with engine.connect() as connection:
            self.assertEqual(connection.exec_driver_sql("SELECT current_database()").scalar(), "postgres")
        engine.dispose()

    # -- several transactions

    def test_a_reader_that_stays_open_does_not_take_anothers_rows_with_it(self) -> None:
        reader = self.engine.connect()
        reader.exec_driver_sql("SELECT * FROM item").all()
        self.put(1)
        reader.close()
        self.assertEqual(self.rows(), [*self.BASE, (1, "put")])

    def test_a_writer_that_rolls_back_below_a_commit_is_a_conflict(self) -> None:
        first = self.engine.connect()
        first.exec_driver_sql("INSERT INTO item VALUES (1, 'first')")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DirtyReadWarning)
            self.put(2)
        with self.assertRaisesRegex(SandboxConflict, r"cannot be rolled back"):
            first.rollback()
        first.close()

    def test_writers_that_end_in_the_reverse_order_are_as_in_production(self) -> None:
        first, second = self.engine.connect(), self.engine.connect()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DirtyReadWarning)
            first.exec_driver_sql("INSERT INTO item VALUES (1, 'first')")
            second.exec_driver_sql("INSERT INTO item VALUES (2, 'second')")
            second.rollback()
            first.commit()
        first.close()
        second.close()
        self.assertEqual(self.rows(), [*self.BASE, (1, "first")])

    def test_an_error_in_one_session_does_not_poison_the_other(self) -> None:
        good, bad = orm.Session(self.engine), orm.Session(self.engine)
        good.execute(sa.text("SELECT 1"))
        with self.assertRaises(sa.exc.IntegrityError):
            bad.execute(sa.text("INSERT INTO item VALUES (0, 'twice')"))
        good.execute(sa.text("INSERT INTO item VALUES (1, 'good')"))
        good.commit()
        with self.assertRaises(sa.exc.DBAPIError):
            bad.execute(sa.text("SELECT 1"))
        bad.rollback()
        bad.execute(sa.text("INSERT INTO item VALUES (2, 'better')"))
        bad.commit()
        good.close()
        bad.close()
        self.assertEqual(self.rows(), [*self.BASE, (1, "good"), (2, "better")])

    def test_commit_hooks_and_events_fire(self) -> None:
        seen: list[str] = []
        engine = create_engine(self.url)
        event.listen(engine, "begin", lambda *_: seen.append("begin"))
        event.listen(engine, "commit", lambda *_: seen.append("commit"))
        event.listen(engine, "rollback", lambda *_: seen.append("rollback"))
        event.listen(engine.pool, "checkin", lambda *_: seen.append("checkin"))
        with orm.Session(engine) as session:
            event.listen(session, "after_commit", lambda *_: seen.append("after_commit"))
            session.execute(sa.text("INSERT INTO item VALUES (1, 'x')"))
            session.commit()
            session.execute(sa.text("SELECT 1"))
        engine.dispose()
        self.assertEqual(seen, ["begin", "commit", "after_commit", "checkin", "begin", "rollback", "checkin"])

    def test_what_a_session_has_numbered_last_is_known_to_itself_alone(self) -> None:
        currval = "SELECT currval('number')"
        with self.engine.connect() as mine, self.engine.connect() as other:
            mine.exec_driver_sql("CREATE SEQUENCE number START 5")
            mine.exec_driver_sql("CREATE TABLE numbered (id int DEFAULT nextval('number'))")
            mine.exec_driver_sql("INSERT INTO numbered DEFAULT VALUES")
            mine.commit()
            for asked in (currval, "SELECT lastval()", "UPDATE numbered SET id = lastval() RETURNING id"):
                with self.subTest(asked):
                    self.assertEqual(mine.exec_driver_sql(asked).scalar(), 5)
                    mine.rollback()
                    with self.assertRaisesRegex(SandboxConflict, r"asks (curr|last)val\(\) .* has written since"):
                        other.exec_driver_sql(asked)
                    other.rollback()
            self.assertEqual(other.exec_driver_sql("SELECT nextval('number')").scalar(), 6)
            with self.assertRaises(SandboxConflict):
                mine.exec_driver_sql(currval)
            mine.rollback()
            self.assertEqual(other.exec_driver_sql("SELECT nextval('number'), currval('number')").all(), [(7, 7)])
            other.rollback()
            self.assertEqual(other.exec_driver_sql(currval).scalar(), 7)
            for changed in ("UPDATE numbered SET id = 1", "DELETE FROM numbered"):
                with self.subTest(changed):
                    mine.exec_driver_sql(changed)
                    with self.assertRaisesRegex(SandboxConflict, "others have written before"):
                        mine.exec_driver_sql(currval)
                    mine.rollback()
            mine.exec_driver_sql("INSERT INTO numbered DEFAULT VALUES")
            mine.exec_driver_sql("DELETE FROM numbered")
            self.assertEqual(mine.exec_driver_sql(currval).scalar(), 8)
            mine.rollback()

    def test_who_numbers_a_row_may_ask_in_the_same_string_and_a_quoted_question_is_none(self) -> None:
        with self.engine.connect() as mine, self.engine.connect() as other:
            mine.exec_driver_sql("CREATE SEQUENCE number START 5")
            mine.exec_driver_sql("CREATE TABLE numbered (id int DEFAULT nextval('number'), text text)")
            mine.commit()
            insert = "INSERT INTO numbered (text) VALUES ('lastval()')"
            for number, asks in (
                (5, "; SELECT lastval()"),
                (7, "; SELECT currval('number')"),
                (9, " RETURNING lastval()"),
            ):
                with self.subTest(asks):
                    cursor = other.connection.cursor()
                    cursor.execute(insert + asks)
                    while self.driver == "psycopg" and cursor.nextset():
                        pass
                    self.assertEqual(cursor.fetchall(), [(number,)])
                    other.connection.rollback()
                    mine.exec_driver_sql(insert)  # the last one who has written is another again
                    mine.rollback()
            for quoted in ("SELECT 'lastval()'", "SELECT 1 -- lastval()", 'SELECT 1 AS "currval(x)"'):
                with self.subTest(quoted):
                    other.exec_driver_sql(quoted).all()
            for asked in (
                "INSERT INTO numbered (id) VALUES (lastval())",
                "SELECT 'insert ;', lastval()",
                "DO $$ BEGIN PERFORM lastval(); END $$",
                "SELECT E'\\' -- ', lastval()",
            ):
                with self.subTest(asked), self.assertRaises(SandboxConflict):
                    other.exec_driver_sql(asked)

    def test_an_error_in_autocommit_mode_is_over_when_the_mode_changes(self) -> None:
        raw: Any = self.engine.raw_connection()
        connection = raw.driver_connection
        connection.autocommit = True
        with self.assertRaisesRegex(Exception, "nothing"):
            connection.cursor().execute("INSERT INTO nothing VALUES (1)")
        connection.autocommit = False
        connection.cursor().execute("INSERT INTO item VALUES (7, 'kept')")
        connection.commit()
        raw.close()
        self.assertEqual(len(self.rows()), len(self.BASE) + 1)

    def test_a_cancel_reaches_the_statement_of_its_own_connection_alone(self) -> None:
        mine, other = self.engine.connect(), self.engine.connect()
        found: list[Any] = []
        sleep = "SELECT 'slept' FROM pg_sleep(0.2)"
        thread = threading.Thread(target=lambda: found.append(mine.exec_driver_sql(sleep).scalar()))
        thread.start()
        while thread.is_alive():
            other.connection.driver_connection.cancel()
            thread.join(0.05)
        self.assertEqual(found, ["slept"])
        mine.close()
        other.close()

    def test_a_connection_that_was_garbage_collected_is_rolled_back(self) -> None:
        connection: Any = self.engine.raw_connection()
        connection.cursor().execute("INSERT INTO item VALUES (1, 'lost')")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)  # SQLAlchemy: garbage-collected while checked out
            del connection
            gc.collect()
        self.assertEqual(self.rows(), self.BASE)

    def test_a_forgotten_commit_is_reported_with_the_place_where_it_began(self) -> None:
        self.expected_problems = [rf"left with unfinished writes.*{os.path.basename(__file__)}:\d+"]
        connection = self.engine.connect()
        self.left_open.append(connection)
        connection.exec_driver_sql("INSERT INTO item VALUES (1, 'forgotten')")

    # -- what belongs to a connection

    def setting(self, connection: Any, name: str = "app.x") -> Any:
        return connection.exec_driver_sql(f"SELECT coalesce(current_setting('{name}', true), '')").scalar()

    def test_set_belongs_to_the_connection_that_ran_it(self) -> None:
        one, two = self.engine.connect(), self.engine.connect()
        one.exec_driver_sql("SET app.x = 'one'")
        two.exec_driver_sql("SET app.x = 'two'")
        one.exec_driver_sql("SET search_path TO pg_catalog")
        self.assertEqual([self.setting(one), self.setting(two)], ["one", "two"])
        self.assertEqual(two.exec_driver_sql("SELECT count(*) FROM item").scalar(), 1)
        with self.assertRaises(sa.exc.ProgrammingError):
            one.exec_driver_sql("SELECT count(*) FROM item")
        one.close()
        two.close()
        self.wire.settle()
        self.sandbox.rollback_to_mark("the next test")
        with self.engine.connect() as connection:
            self.assertEqual(self.setting(connection), "")

    def test_what_would_end_the_one_session_is_not_kept(self) -> None:
        """The outer transaction lasts as long as a class, and is idle whenever a test is busy with something else."""
        names = ["idle_in_transaction_session_timeout"]
        if self.judge.info.server_version >= 170000:
            names.append("transaction_timeout")
        for name in names:
            for text, parameters in (
                (f"SET {name} = '1h'", ()),
                (f"SET LOCAL {name} = '1h'", ()),
                ("SELECT set_config(%s, '1h', false)", (name,)),
            ):
                with self.subTest(text), self.engine.begin() as connection:
                    connection.exec_driver_sql(text, parameters)
                    self.assertEqual(self.setting(connection, name), "0")
        self.put(1)

    def test_a_forked_process_is_refused_and_spoils_nothing(self) -> None:
        self.put(1)
        with self.engine.connect() as connection:
            rows = connection.exec_driver_sql(self.ROWS)
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                with os.fdopen(writing, "w") as output:
                    for use in (lambda: self.put(2), lambda: connection.exec_driver_sql("SELECT 1"), connection.commit):
                        try:
                            use()
                        except BaseException as error:
                            output.write(f"{type(error).__name__}: {error}\n")
                    connection.rollback()
                    connection.close()
                    gc.collect()
                os._exit(0)
            os.close(writing)
            with os.fdopen(reading) as output:
                said = output.read()
            os.waitpid(pid, 0)
            self.assertEqual(len(rows.all()), 2)
        self.assertEqual(said.count("SandboxClosed"), 3, said)
        self.assertIn(f"belongs to process {os.getpid()}, from which process {pid} was forked", said)
        self.put(3)
        self.assertEqual(len(self.rows()), 3)

    def test_a_frozen_clock_hangs_nobody(self) -> None:
        """Libraries that freeze the time replace the functions of the module ``time``."""
        self.expected_problems = ["unfinished writes"]
        now = time.monotonic()
        first = self.engine.connect()
        self.left_open.append(first)
        first.exec_driver_sql("INSERT INTO item VALUES (1, 'unfinished')")
        with (
            mock.patch.object(scheduler, "PATIENCE", 0.1),
            mock.patch.object(time, "monotonic", lambda: now),
            self.assertWarns(DirtyReadWarning),
        ):
            other = threading.Thread(target=self.rows)
            other.start()
            other.join(60)
        self.assertFalse(other.is_alive())

    def test_a_signals_handler_that_raises_before_a_statement_is_sent_leaves_nothing_half_done(self) -> None:
        class TimeIsOver(BaseException):
            pass

        self.put(1)
        with self.engine.connect() as connection:
            with mock.patch.object(statement_flows, "where", side_effect=TimeIsOver):
                with self.assertRaises(TimeIsOver):
                    connection.exec_driver_sql("INSERT INTO item VALUES (2, 'lost')")
            connection.rollback()
            self.assertEqual(connection.exec_driver_sql("SELECT count(*) FROM item").scalar(), 2)

    def test_set_local_ends_with_the_applications_transaction(self) -> None:
        for text in ("SET LOCAL app.x = 'on'", "SELECT set_config('app.x', 'on', true)"):
            for end in ("commit", "rollback"):
                with self.subTest(text, end=end), self.engine.connect() as connection:
                    connection.exec_driver_sql(text)
                    self.assertEqual(self.setting(connection), "on")
                    getattr(connection, end)()
                    self.assertEqual(self.setting(connection), "")

    def test_a_rollback_takes_a_set_back_and_a_commit_keeps_it(self) -> None:
        with self.engine.connect() as connection:
            connection.exec_driver_sql("SET app.x = 'kept'")
            connection.commit()
            connection.exec_driver_sql("SET app.x = 'undone'")
            connection.rollback()
            self.assertEqual(self.setting(connection), "kept")
            nested = connection.begin_nested()
            connection.exec_driver_sql("SET app.x = 'nested'")
            nested.rollback()
            self.assertEqual(self.setting(connection), "kept")
            connection.invalidate()

    def test_set_config_with_parameters_is_followed(self) -> None:
        one, two = self.engine.connect(), self.engine.connect()
        one.execute(sa.text("SELECT set_config(:n, :v, :local)"), {"n": "app.x", "v": "one", "local": False})
        self.assertEqual([self.setting(one), self.setting(two)], ["one", ""])
        one.close()
        two.close()

    def test_roles_belong_to_the_connection(self) -> None:
        self.judge.execute("DROP ROLE IF EXISTS verify_guest")
        self.judge.execute("CREATE ROLE verify_guest")
        self.addCleanup(self.judge.execute, "DROP ROLE verify_guest")
        one, two = self.engine.connect(), self.engine.connect()
        one.exec_driver_sql("SET ROLE verify_guest")
        self.assertEqual(one.exec_driver_sql("SELECT current_user").scalar(), "verify_guest")
        self.assertEqual(two.exec_driver_sql("SELECT current_user").scalar(), "postgres")
        self.assertEqual(one.exec_driver_sql("SELECT current_user").scalar(), "verify_guest")
        one.close()
        two.close()

    def test_a_read_only_session_refuses_to_write(self) -> None:
        with self.engine.connect().execution_options(postgresql_readonly=True) as connection:
            with self.assertRaisesRegex(sa.exc.DBAPIError, "read-only"):
                connection.exec_driver_sql("INSERT INTO item VALUES (1, 'x')")
        for text in ("SET TRANSACTION READ ONLY", "SET transaction_read_only = on"):
            with self.subTest(text), self.engine.connect() as connection:
                connection.exec_driver_sql(text)
                with self.assertRaisesRegex(sa.exc.DBAPIError, "read-only"):
                    connection.exec_driver_sql("INSERT INTO item VALUES (1, 'x')")
                connection.rollback()
                connection.exec_driver_sql("INSERT INTO item VALUES (1, 'x')")
                connection.rollback()
        self.engine.dispose()  # after postgresql_readonly a connection says READ WRITE at each BEGIN, as in production
        with self.engine.connect() as connection:
            connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            connection.commit()
            with self.assertRaisesRegex(sa.exc.DBAPIError, "read-only"):
                connection.exec_driver_sql("INSERT INTO item VALUES (1, 'x')")
            connection.rollback()
            connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
            connection.commit()
        self.put(1)

    def test_isolation_levels_are_accepted(self) -> None:
        for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "AUTOCOMMIT"):
            with self.subTest(level), self.engine.connect().execution_options(isolation_level=level) as connection:
                connection.exec_driver_sql("SELECT 1")
        for text in ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET transaction_isolation = 'serializable'"):
            with self.subTest(text), self.engine.connect() as connection:
                connection.exec_driver_sql(text)
                self.assertEqual(connection.exec_driver_sql("SHOW transaction_isolation").scalar(), "serializable")
                connection.rollback()
                connection.exec_driver_sql("SELECT 1")
                with self.assertRaisesRegex(Exception, "must be called before any query"):
                    connection.exec_driver_sql(text)

    # -- what belongs to the server's session

    def test_advisory_locks_end_with_the_test(self) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_lock(7)")
        free = "SELECT pg_try_advisory_lock(7)"
        self.assertEqual(self.judge.execute(free.encode()).fetchone(), (False,))
        self.sandbox.rollback_to_mark("the next test")
        self.assertEqual(self.judge.execute(free.encode()).fetchone(), (True,))
        self.judge.execute("SELECT pg_advisory_unlock_all()")

    def test_an_advisory_lock_gives_what_the_server_gives(self) -> None:
        sql = "SELECT pg_advisory_lock(7), pg_advisory_xact_lock_shared(1, 2), pg_advisory_unlock(7)"
        sql += ", pg_advisory_unlock_all(), pg_advisory_lock(null)"
        with self.engine.begin() as connection:
            self.assertEqual(tuple(connection.exec_driver_sql(sql).one()), self.judge.execute(sql.encode()).fetchone())

    def test_temporary_tables_end_with_the_test(self) -> None:
        for _ in range(2):
            with self.engine.begin() as connection:
                connection.exec_driver_sql("CREATE TEMP TABLE scratchpad (id int)")
                connection.exec_driver_sql("INSERT INTO scratchpad VALUES (1)")
            self.sandbox.rollback_to_mark("the next test")

    def test_temporary_tables_by_the_name_of_their_schema_end_as_those_with_the_word(self) -> None:
        for name in ("pg_temp.scratchpad", "pg_temp . scratchpad", '"pg_temp".scratchpad'):
            for create in (f"CREATE TABLE {name}", f"CREATE TABLE IF NOT EXISTS {name}"):
                with self.subTest(create), self.engine.connect() as connection, self.engine.connect() as other:
                    connection.exec_driver_sql(f"{create} (id int) ON COMMIT DELETE ROWS")
                    connection.exec_driver_sql("INSERT INTO scratchpad VALUES (1)")
                    connection.commit()
                    self.assertEqual(connection.exec_driver_sql("SELECT count(*) FROM pg_temp.scratchpad").scalar(), 0)
                    with self.assertRaisesRegex(sa.exc.DBAPIError, "does not exist"):
                        other.exec_driver_sql("SELECT * FROM pg_temp.scratchpad")
                    connection.exec_driver_sql("DROP TABLE scratchpad")
                    connection.exec_driver_sql(f"{create} (id int) ON COMMIT DROP")
                    self.assertEqual(connection.exec_driver_sql("SELECT count(*) FROM scratchpad").scalar(), 0)
                    connection.commit()
                    with self.assertRaisesRegex(sa.exc.DBAPIError, "does not exist"):
                        connection.exec_driver_sql("SELECT * FROM pg_temp.scratchpad")

    def test_a_snapshot_of_another_transaction_is_refused(self) -> None:
        for text in ("SET TRANSACTION SNAPSHOT '00000003-0000001B-1'", "set local\ntransaction /* x */ snapshot '1'"):
            with self.subTest(text), self.engine.connect() as connection:
                with self.assertRaisesRegex(SandboxEscape, r"(?is)snapshot.*TruncatingDatabaseTest"):
                    connection.exec_driver_sql(text)

    def test_indexes_are_created_concurrently_without_the_word(self) -> None:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("CREATE INDEX CONCURRENTLY by_name ON item (name)")
            self.assertIn("by_name", [i["name"] for i in sa.inspect(connection).get_indexes("item")])
            connection.exec_driver_sql("DROP INDEX CONCURRENTLY by_name")

    def test_nor_with_it_in_a_transaction_where_production_refuses_it(self) -> None:
        for sql in ("CREATE INDEX CONCURRENTLY by_name ON item (name)", "REINDEX TABLE CONCURRENTLY item"):
            with self.subTest(sql), self.engine.connect() as connection:
                with self.assertRaisesRegex(sa.exc.DBAPIError, "cannot run inside a transaction block"):
                    connection.exec_driver_sql(sql)

    def test_listen_and_notify_do_no_harm(self) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql("LISTEN news")
            connection.exec_driver_sql("NOTIFY news, 'x'")
            connection.exec_driver_sql("SELECT pg_notify('news', 'y')")

    def test_plans_that_were_prepared_for_another_schema_are_forgotten(self) -> None:
        def columns() -> int:
            with self.engine.connect() as connection:
                for _ in range(8):
                    row = connection.exec_driver_sql("SELECT * FROM item WHERE id = %s", (0,)).one()
            return len(row)

        self.assertEqual(columns(), 2)
        with self.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE item ADD COLUMN extra int")
        self.sandbox.rollback_to_mark("the next test")
        self.assertEqual(columns(), 2)
        with self.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE item DROP COLUMN name")
        self.sandbox.rollback_to_mark("the next test")
        self.assertEqual(columns(), 2)

    def test_the_one_connection_is_all_that_there_is(self) -> None:
        engines = [create_engine(self.url) for _ in range(5)]
        connections = [engine.connect() for engine in engines for _ in range(3)]
        self.assertEqual(once_at_most(2, self.clients), 2, "the sandbox's and the judge's")
        for connection in connections:
            connection.close()
        for engine in engines:
            engine.dispose()

    def test_flask_sqlalchemy_is_contained(self) -> None:
        require_module("flask_sqlalchemy", "flask-sqlalchemy")
        import flask
        from flask_sqlalchemy import SQLAlchemy

        app = flask.Flask("verify")
        app.config["SQLALCHEMY_DATABASE_URI"] = self.url.render_as_string()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            db = SQLAlchemy(app)
        with app.app_context():
            db.session.execute(sa.text("INSERT INTO item VALUES (1, 'flask')"))
            db.session.commit()
            db.session.execute(sa.text("INSERT INTO item VALUES (2, 'lost')"))
            db.session.rollback()
            with db.engine.begin() as connection:
                connection.exec_driver_sql("INSERT INTO item VALUES (3, 'engine')")
            db.session.remove()
            self.assertEqual(self.rows(), [*self.BASE, (1, "flask"), (3, "engine")])
            db.engine.dispose()


class PsycopgDoorsTest(_Doors):
    driver = "psycopg"

    def test_an_engine_over_a_pool_of_psycopg_is_led_once_it_is_named(self) -> None:
        require_module("psycopg_pool", "psycopg-pool")
        from psycopg_pool import ConnectionPool

        conninfo = f"host={self.url.query['host']} user=postgres dbname={self.url.database}"
        with ConnectionPool(conninfo, open=False) as pool:
            engine = create_engine("postgresql+psycopg://", creator=pool.getconn, poolclass=sa.NullPool)
            self.run_.board.lead(engine, until=Until.TEST)
            with engine.begin() as connection:
                connection.exec_driver_sql("INSERT INTO item VALUES (1, 'pooled')")
            self.run_.board.release(Until.TEST)

    def test_waiting_for_a_notification_is_refused(self) -> None:
        with contextlib.closing(self.engine.raw_connection()) as raw, self.assertRaises(SandboxEscape):
            next(iter(raw.driver_connection.notifies()))

    def test_an_error_in_a_pipeline_does_not_spoil_the_plans_of_others(self) -> None:
        insert = "INSERT INTO item VALUES (%s, 'x')"
        for number in range(1, 8):
            self.put(number)
        with contextlib.closing(self.engine.raw_connection()) as raw:
            for number in range(10, 14):
                raw.driver_connection.execute(insert, (number,))
            with self.assertRaises(psycopg.errors.DivisionByZero), raw.driver_connection.pipeline():
                raw.driver_connection.execute("SELECT 1 / 0")
                for number in range(20, 24):
                    raw.driver_connection.execute(insert, (number,), prepare=True)
        with contextlib.closing(self.engine.raw_connection()) as raw:
            raw.driver_connection.execute(insert, (30,), prepare=True)

    def test_a_savepoint_by_a_cursor_of_the_applications_own_making_is_one_of_its_connection(self) -> None:
        with contextlib.closing(self.engine.raw_connection()) as raw:
            cursor = psycopg.ClientCursor(raw.driver_connection)
            cursor.execute("SAVEPOINT x")
            cursor.execute("INSERT INTO item VALUES (%s, %s)", (9, "undone"))
            cursor.execute("ROLLBACK TO x")
            raw.commit()
        self.assertEqual(self.rows(), self.BASE)


class Psycopg2DoorsTest(_Doors):
    driver = "psycopg2"

    def test_large_objects_by_the_drivers_own_interface_are_refused(self) -> None:
        with contextlib.closing(self.engine.raw_connection()) as raw:
            with self.assertRaisesRegex(SandboxEscape, "lo_from_bytea"):
                raw.driver_connection.lobject(0, "wb")
            raw.cursor().execute("SELECT lo_from_bytea(0, 'contained')")
            raw.commit()

    def test_errors_carry_the_servers_codes(self) -> None:
        with contextlib.closing(self.engine.raw_connection()) as raw:
            cursor = raw.cursor()
            with self.assertRaises(Exception) as caught:
                cursor.execute("RELEASE SAVEPOINT nothing")
            self.assertEqual(caught.exception.pgcode, "3B001")  # type: ignore[attr-defined]
            with self.assertRaises(Exception) as caught:
                cursor.execute("SELECT 1")
            self.assertEqual(caught.exception.pgcode, "25P02")  # type: ignore[attr-defined]


del _Doors

if __name__ == "__main__":
    unittest.main()
