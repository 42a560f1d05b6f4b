"""Connections of psycopg are, inside, what a connection of its own is: each case is run on both."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import unittest
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg import IsolationLevel, Rollback, generators, rows
from psycopg.pq import ConnStatus, Escaping, ExecStatus, TransactionStatus

from dbtestcase.drivers.psycopg.results import results_in_pipeline
from dbtestcase.errors import SandboxEscape
from dbtestcase.sandbox import NO_ARGUMENTS
from tests.support.sandboxes import SandboxTestCase
from tests.support.servers import postgresql_url

SHOWN = ("isolation", "read_only", "deferrable")


def one(connection: Any, sql: str) -> Any:
    return connection.execute(sql).fetchone()[0]


def outcome(work: Any, *args: Any) -> Any:
    """What it gives, or the error that it raises."""
    try:
        return work(*args)
    except Exception as error:
        return type(error).__name__, str(error).splitlines()[0]


def status(connection: Any) -> str:
    return str(connection.info.transaction_status.name)


def raw_status(connection: Any) -> str:
    return TransactionStatus(connection.pgconn.transaction_status).name


class Cases:
    """Each uses a connection and says what it saw."""

    def states(self, c: Any) -> Any:
        seen = []
        for work in ("SELECT 1", "SELECT 1 / 0", ""):
            outcome(c.execute, work) if work else c.rollback()
            seen += [status(c), repr(c).partition(" (")[0]]
        c.autocommit = True
        for work in ("SELECT 1", "SELECT 1 / 0", "SELECT 1 / 0"):
            outcome(c.execute, work)
            seen.append(status(c))
        with c.transaction():  # what the last statement has left is not the block's
            seen.append(status(c))
            c.execute("SELECT 1")
        return [*seen, status(c)]

    def closed(self, c: Any) -> Any:
        cursor = c.execute("SELECT 1")
        c.close()
        works = (c.cursor, cursor.fetchone, c.commit, c.rollback, c.fileno, c.cancel, c.close)
        seen = [outcome(work) for work in works]
        seen += [outcome(setattr, c, name, None) for name in ("autocommit", "isolation_level", "read_only")]
        seen += [outcome(lambda: c.info.dsn), outcome(lambda: c.info.backend_pid), outcome(c.execute, "SELECT 1")]
        return [*seen, c.closed, c.broken, c.info.status.name, status(c), repr(c).partition(" at ")[0]]

    def modes(self, c: Any) -> Any:
        seen = []
        for name, values in (
            ("isolation_level", (IsolationLevel.SERIALIZABLE, 2, None, 5)),
            ("read_only", (True, False, None)),
            ("deferrable", (True, False, None)),
        ):
            for value in values:
                seen += [outcome(setattr, c, name, value), str(getattr(c, name))]
                seen += [one(c, f"SHOW transaction_{each}") for each in SHOWN]
                seen.append(outcome(setattr, c, name, value))
                c.rollback()
        return seen

    def modes_in_autocommit(self, c: Any) -> Any:
        c.autocommit = c.read_only = c.deferrable = True
        c.isolation_level = IsolationLevel.REPEATABLE_READ
        seen = [one(c, f"SHOW transaction_{each}") for each in SHOWN]
        with c.transaction():
            seen += [one(c, f"SHOW transaction_{each}") for each in SHOWN]
        return seen

    def the_sessions_default(self, c: Any) -> Any:
        c.execute("SET default_transaction_read_only = on")
        c.execute("SET default_transaction_deferrable = on")
        c.commit()
        seen = [one(c, f"SHOW transaction_{each}") for each in SHOWN]
        c.rollback()
        c.read_only = c.deferrable = False
        return [*seen, *(one(c, f"SHOW transaction_{each}") for each in SHOWN)]

    def not_now(self, c: Any) -> Any:
        c.execute("SELECT 1")
        seen = [outcome(setattr, c, "autocommit", True)]
        outcome(c.execute, "SELECT 1 / 0")
        seen.append(outcome(setattr, c, "read_only", True))
        c.rollback()
        with c.transaction():
            return [*seen, outcome(setattr, c, "deferrable", True), outcome(c.commit), outcome(c.rollback)]

    def blocks(self, c: Any) -> Any:
        c.execute("CREATE TEMP TABLE log (x int)")
        c.commit()
        seen = []
        with c.transaction() as outer:
            c.execute("INSERT INTO log VALUES (1)")
            with c.transaction("mine") as inner:
                seen += [outer.savepoint_name, inner.savepoint_name, inner.connection is c]
                raise Rollback()
        with c.transaction() as outer, c.transaction():
            c.execute("INSERT INTO log VALUES (2)")
            raise Rollback(outer)
        with c.transaction(force_rollback=True):
            c.execute("INSERT INTO log VALUES (3)")
        return [*seen, status(c), c.execute("SELECT x FROM log").fetchall()]

    def told_settings(self, c: Any) -> Any:
        c.execute("SET timezone TO 'Asia/Tokyo'")
        c.execute("SET application_name TO 'mine'")
        info = c.info
        return str(info.timezone), info.parameter_status("TimeZone"), info.parameter_status("application_name")

    def notices(self, c: Any) -> Any:
        said: list[str] = []
        handler = lambda diagnostic: said.append(diagnostic.message_primary)  # noqa: E731
        c.add_notice_handler(handler)
        c.execute("DO $$ BEGIN RAISE NOTICE 'one'; END $$")
        c.remove_notice_handler(handler)
        c.execute("DO $$ BEGIN RAISE NOTICE 'two'; END $$")
        return said, outcome(c.remove_notice_handler, handler)

    def named_cursors(self, c: Any) -> Any:
        seen = []
        with c.cursor("n", row_factory=rows.scalar_row) as cursor:
            cursor.execute("SELECT generate_series(1, 7)")
            seen += [cursor.fetchone(), cursor.rownumber, cursor.fetchmany(2), cursor.fetchall(), cursor.rowcount]
        cursor = c.cursor("n", scrollable=True)
        cursor.execute("SELECT generate_series(1, 5)")
        seen += [list(cursor), outcome(cursor.scroll, 0, "absolute"), cursor.fetchone(), outcome(cursor.scroll, 5, "x")]
        cursor.close()
        cursor = c.cursor("gone")
        cursor.execute("SELECT 1")
        c.commit()
        seen += [outcome(cursor.fetchone), status(c), outcome(cursor.close)]
        c.rollback()
        c.execute("DECLARE stolen CURSOR FOR SELECT generate_series(1, 3)")
        cursor = c.cursor("stolen")
        seen += [cursor.fetchall(), outcome(cursor.close), one(c, "SELECT count(*) FROM pg_cursors")]
        return seen

    def pgconn(self, c: Any) -> Any:
        seen = [raw_status(c), type(c.pgconn.transaction_status + 0)]
        for work in ("SELECT 1", "SELECT 1 / 0", "", "SELECT 1"):
            outcome(c.execute, work) if work else c.rollback()
            seen += [raw_status(c), repr(c.pgconn).partition(" (")[0].rpartition(" ")[2]]
        c.commit()
        with c.transaction() as outer, c.transaction() as inner:
            seen += [raw_status(c), *(repr(each).partition("]")[0] for each in (outer, inner))]
        with c.pipeline() as pipeline:
            seen += [repr(pipeline).partition(" (")[0], raw_status(c)]
        cursor = c.cursor()
        seen += [repr(cursor).partition(" (")[0], Escaping(c.pgconn).escape_literal(b"it's")]
        taken = c.pgconn
        c.close()
        names = ("status", "transaction_status", "error_message", "pgconn_ptr", "pipeline_status")
        seen += [repr(getattr(taken, name)) for name in names]
        return [
            *seen,
            outcome(lambda: taken.socket),
            outcome(taken.exec_, b"SELECT 1"),
            repr(taken).rpartition(" at ")[0][-5:],
        ]

    def raw_statements(self, c: Any) -> Any:
        seen = []
        for sql in (
            b"CREATE TEMP TABLE log (x int)",
            b"INSERT INTO log VALUES (1) RETURNING x",
            b"SELECT 1 / 0",
            b"SELECT x FROM log",
            b"COPY log TO STDOUT",
        ):
            result = c.pgconn.exec_(sql)
            seen += [ExecStatus(result.status).name, result.command_status, raw_status(c)]
            c.rollback() if raw_status(c) != "ACTIVE" else None
        return [
            *seen,
            outcome(c.rollback),
            outcome(c.execute, "SELECT 1"),
            outcome(c.pgconn.finish),
            c.closed,
            c.broken,
        ]

    def raw_parameters(self, c: Any) -> Any:
        c.execute("CREATE TEMP TABLE log (x int)")
        c.pgconn.exec_params(b"INSERT INTO log VALUES ($1)", [b"5"])
        seen = [c.execute("SELECT * FROM log").fetchall(), raw_status(c)]
        c.rollback()
        return [*seen, outcome(c.execute, "SELECT * FROM log")]

    def raw_statements_in_a_block(self, c: Any) -> Any:
        seen = []
        with c.transaction():
            for sql in (b"SELECT 1", b"SELECT 2", b"CREATE TEMP TABLE log (x int)", b"SELECT x FROM log"):
                seen += [ExecStatus(c.pgconn.exec_(sql).status).name, raw_status(c)]
        return [*seen, raw_status(c)]

    def classes(self, c: Any) -> Any:
        class Own(psycopg.Cursor[Any]):
            pass

        class OwnServer(psycopg.ServerCursor[Any]):
            pass

        seen = [c.cursor_factory, c.server_cursor_factory, type(c.cursor()), type(c.execute(""))]
        c.cursor_factory, c.server_cursor_factory = Own, OwnServer
        with c.cursor("n") as named:
            seen += [c.cursor_factory is Own, type(c.cursor()) is Own, type(named) is OwnServer]
        made = [cls(c) for cls in (psycopg.ClientCursor, psycopg.RawCursor, Own)]
        for cursor in made:
            cursor.execute("SAVEPOINT mine")
            outcome(cursor.execute, "SELECT 1 / 0")
            cursor.execute("ROLLBACK TO mine")
            seen += [cursor.execute("SELECT 1").fetchall(), status(c), list(cursor.stream("SELECT 2"))]
        return seen

    def modes_by_parameter(self, c: Any) -> Any:
        names = ["transaction_isolation", "transaction_deferrable", "transaction_read_only"]
        seen = []
        for level, deferrable in ((IsolationLevel.SERIALIZABLE, True), (IsolationLevel.READ_UNCOMMITTED, False)):
            c.isolation_level, c.deferrable = level, deferrable
            seen.append(
                c.execute("SELECT current_setting(%s), current_setting(%s), current_setting(%s)", names).fetchall()
            )
            named = c.execute("SELECT current_setting(%(n)s, true) x, 1 y", {"n": "transaction_isolation"})
            seen += [named.fetchall(), [column.name for column in named.description]]
            of_rows = "SELECT n, current_setting(n::text) FROM unnest(%s::text[]) n ORDER BY 1"
            seen.append(c.execute(of_rows, [[*names, "TimeZone"]]).fetchall()[:-1])
            c.rollback()
        return seen

    def settings_by_parameter(self, c: Any) -> Any:
        c.execute("SELECT set_config(%s, %s, false)", ["default_transaction_read_only", "on"])
        c.execute("SELECT 1 WHERE %(v)s = set_config(%(n)s, %(v)s, false)", {"v": "mine", "n": "application_name"})
        c.commit()
        return [one(c, "SHOW transaction_read_only"), one(c, "SHOW application_name")]

    def prepared(self, c: Any) -> Any:
        count = "SELECT count(*) FROM pg_prepared_statements"
        c.prepare_threshold = 2
        seen = [one(c, count) for _ in range(4)]
        c.execute("SELECT %s::int + 1", [1], prepare=True)
        seen.append(one(c, count))
        c.prepared_max = 1
        for n in range(3):
            c.execute(f"SELECT {n}", prepare=True)
        return [*seen, one(c, count)]

    def two_phases_without_a_beginning(self, c: Any) -> Any:
        return [outcome(work) for work in (c.tpc_prepare, c.tpc_commit, c.tpc_rollback, c.tpc_recover)]

    def unknown_encoding(self, c: Any) -> Any:
        c.execute("SET client_encoding TO EUC_TW")
        seen = [outcome(c.execute, "SELECT 1"), outcome(lambda: c.info.encoding)]
        c.rollback()
        return [*seen, one(c, "SELECT 'ä'")]

    def closed_in_the_middle(self, c: Any) -> Any:
        def stream() -> list[Any]:
            rows = []
            for row in c.cursor().stream("SELECT generate_series(1, 3)"):
                rows.append(row)
                c.close()
            return rows

        return [outcome(stream), c.closed, c.broken]

    def closed_in_a_pipeline(self, c: Any) -> Any:
        def work() -> None:
            with c.pipeline():
                c.execute("SELECT 1")
                c.close()

        return [outcome(work)[0], c.closed, c.broken]

    def closed_in_a_copy(self, c: Any) -> Any:
        def work() -> None:
            with c.cursor().copy("COPY (SELECT generate_series(1, 9)) TO STDOUT") as copy:
                copy.read()
                c.close()

        return [(outcome(work) or ["nothing"])[0], c.closed, c.broken]

    def a_copy_that_is_not_read_to_its_end(self, c: Any) -> Any:
        """psycopg leaves its block, and the connection in the middle of it."""
        with c.cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
            seen: list[Any] = [copy.read_row()]
        seen += [outcome(c.execute, "SELECT 1"), outcome(c.rollback), outcome(c.commit), raw_status(c)]
        return [*seen, outcome(c.close)]

    def synced_pipelines(self, c: Any) -> Any:
        """With ``autocommit``, a Sync ends the transaction that PostgreSQL has begun by itself."""
        c.autocommit = True
        c.execute("CREATE TEMP TABLE synced (x text)")
        add = "INSERT INTO synced VALUES (%s)"

        def work() -> None:
            with c.pipeline() as pipeline:
                c.execute(add, ["synced"])
                pipeline.sync()
                with c.pipeline():
                    c.execute(add, ["a block's end"])
                c.execute(add, ["not synced"])
                c.execute("SELECT 1 / 0")

        def in_a_block() -> None:
            with c.pipeline() as pipeline, c.transaction():
                c.execute(add, ["a transaction's"])
                pipeline.sync()
                raise ZeroDivisionError("left")

        seen = [outcome(work), outcome(in_a_block), status(c)]
        return [*seen, c.execute("SELECT x FROM synced ORDER BY x").fetchall()]

    def locked_tables(self, c: Any) -> Any:
        c.execute("CREATE TEMP TABLE locked (x int)")
        c.commit()
        c.autocommit = True
        seen = [outcome(c.execute, "LOCK TABLE locked"), outcome(c.execute, "SELECT 1; LOCK locked")]
        with c.transaction():
            c.execute("LOCK locked")
        return [isinstance(each, psycopg.Cursor) or each for each in seen]

    def a_copy_that_a_stream_has_begun(self, c: Any) -> Any:
        """psycopg leaves the connection in the middle of it."""

        def block() -> None:
            with c.transaction():
                raise ArithmeticError("reached")

        seen = [outcome(list, c.cursor().stream("COPY (SELECT 1) TO STDOUT")), outcome(c.rollback)]
        seen += [outcome(c.commit), outcome(setattr, c, "autocommit", True), outcome(setattr, c, "read_only", True)]
        return [*seen, outcome(block), outcome(c.execute, "SELECT 1"), raw_status(c), outcome(c.close)]

    def closed_in_a_block(self, c: Any) -> Any:
        with c.transaction() as block:
            c.execute("SELECT 1")
            c.close()
        return [str(getattr(block, "status", "")), c.closed, c.broken]


class PsycopgConnectionsTest(SandboxTestCase):
    def test_as_on_a_connection_of_its_own(self) -> None:
        server = postgresql_url()
        cases = Cases()
        for name in (each for each in dir(cases) if not each.startswith("_")):
            with self.subTest(name):
                host = str(server.query["host"])
                real = psycopg.connect(host=host, user=server.username, dbname=server.database)
                virtual = self.engine.raw_connection()
                with contextlib.closing(real), contextlib.closing(virtual):
                    expected = getattr(cases, name)(real)
                    self.assertEqual(getattr(cases, name)(virtual.driver_connection), expected)
                    virtual.invalidate()
                self.sandbox.rollback_to_mark("the next case")

    def test_each_knows_its_own_encoding(self) -> None:
        fairies = [self.enterContext(contextlib.closing(self.engine.raw_connection())) for _ in range(2)]
        one, two = (each.driver_connection for each in fairies)
        one.execute("SET client_encoding TO latin1")
        self.assertEqual((one.info.encoding, two.info.encoding), ("iso8859-1", "utf-8"))
        one.rollback()
        self.assertEqual(one.info.encoding, "utf-8")

    def test_who_waits_for_a_notification_is_refused_by_name(self) -> None:
        connection: Any = self.engine.raw_connection().driver_connection
        for work in (connection.notifies, lambda: connection.add_notify_handler(print)):
            with self.assertRaisesRegex(SandboxEscape, "in vain"):
                work()
        self.sandbox.raised.clear()

    def test_a_copy_that_was_not_read_to_its_end_ends_with_its_connection(self) -> None:
        one, two = self.engine.raw_connection(), self.engine.raw_connection()
        with one.driver_connection.cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
            copy.read_row()
        one.driver_connection.close()
        self.assertEqual(two.driver_connection.execute("SELECT 1").fetchone(), (1,))
        two.close()

    def test_an_error_in_a_pipeline_that_comes_before_the_rest_of_its_answer(self) -> None:
        def early(pgconn: Any, commands: Any) -> Any:
            """psycopg's own, where the network brings the first answer while the other commands are still sent."""
            commands.popleft()()
            pgconn.send_flush_request()
            yield from generators.send(pgconn)
            answers = [(yield from generators.fetch_many(pgconn))]
            while commands:
                commands.popleft()()
            yield from generators.send(pgconn)
            return answers

        url = postgresql_url().set(drivername="postgresql")
        connection = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
        self.addCleanup(connection.close)
        with connection.pipeline() as pipeline:
            with (
                patch("psycopg._pipeline_base.pipeline_communicate", early),
                self.assertRaises(psycopg.errors.DivisionByZero),
            ):
                connection.wait(results_in_pipeline(pipeline, [b"SELECT 1 / 0", b"SELECT 1"]))
            self.assertEqual(connection.wait(results_in_pipeline(pipeline, [b"SELECT 2"])), [("2",)])

    def test_a_cancellation_that_is_itself_interrupted_reaches_nobody_else(self) -> None:
        async def read(begun: asyncio.Event | None = None) -> None:
            connection = self.wire.make(self.sandbox, NO_ARGUMENTS, asynchronous=True)
            async with connection.cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
                await copy.read_row()
                if begun is None:
                    with self.assertRaises(StopIteration):  # there is no moment at which it could be given up
                        connection.cancel_safe().send(None)
                    return
                begun.set()
                await asyncio.Event().wait()

        async def interrupt(pauses: int) -> None:
            begun = asyncio.Event()
            task = asyncio.create_task(read(begun))
            await begun.wait()
            for _ in range(2):  # as by a time limit, and by the end of the loop
                task.cancel()
                for _ in range(pauses):
                    await asyncio.sleep(0)
            with contextlib.suppress(asyncio.CancelledError):
                await task

        other = self.enterContext(contextlib.closing(self.engine.raw_connection()))
        for number in range(8):
            asyncio.run(interrupt(1 + number % 4))
            self.wire.settle()
            self.assertEqual(other.driver_connection.execute("SELECT pg_sleep(0.01)").rowcount, 1)
        asyncio.run(read())

    def test_what_the_server_has_told_is_of_this_connection(self) -> None:
        fairies: list[Any] = [self.engine.raw_connection() for _ in range(2)]
        one, other = (each.driver_connection for each in fairies)
        one.execute("SET timezone TO 'Asia/Tokyo'")
        self.assertNotEqual(other.info.parameter_status("TimeZone"), "Asia/Tokyo")
        other.execute("SET timezone TO 'Asia/Seoul'")
        self.assertEqual(one.info.parameter_status("TimeZone"), "Asia/Tokyo")

    def test_what_others_have_prepared_is_not_listed_and_not_lost(self) -> None:
        fairies: list[Any] = [self.engine.raw_connection() for _ in range(2)]
        one, other = (each.driver_connection for each in fairies)
        for c in (one, other, one):
            self.assertEqual(c.execute("SELECT %s::int", [7], prepare=True).fetchone(), (7,))
            listed = c.execute("SELECT statement FROM pg_prepared_statements", prepare=False).fetchall()
            self.assertEqual(listed, [("SELECT $1::int",)])
        for _ in range(3):
            one.execute("SELECT %s::text", ["x"], prepare=True)
            other.execute("SELECT %s::text", ["x"], prepare=True)
        one.execute("DROP TABLE IF EXISTS nothing")
        for c in (other, one):
            self.assertEqual(c.execute("SELECT %s::text", ["y"], prepare=True).fetchone(), ("y",))
        for each in fairies:
            each.close()

    def test_what_would_end_the_transaction_of_the_test_is_refused(self) -> None:
        raw = self.engine.raw_connection()
        driver: Any = raw.driver_connection
        for work, said in (
            (lambda: driver.pgconn.exec_(b"COMMIT"), "COMMIT"),
            (driver.pgconn.reset, "reset"),
            (lambda: driver.tpc_begin("x"), r"tpc_begin\(x\)"),
            (lambda: driver.tpc_commit("x"), r"tpc_commit\(x\)"),
        ):
            with self.subTest(said), self.assertRaisesRegex(SandboxEscape, said):
                work()
        self.sandbox.raised.clear()
        raw.close()

    def test_a_pgconn_does_not_outlive_its_connection(self) -> None:
        raw = self.engine.raw_connection()
        taken = raw.driver_connection.pgconn
        raw.invalidate()
        self.assertEqual(taken.status, ConnStatus.BAD)
        with self.assertRaisesRegex(psycopg.OperationalError, "closed"):
            taken.exec_(b"SELECT 1")
        del raw, taken
        gc.collect()
        self.assertEqual(self.rows(), self.BASE)


if __name__ == "__main__":
    unittest.main()
