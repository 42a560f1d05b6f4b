"""psycopg: what virtual connections of both kinds share, the generators that psycopg calls."""

from __future__ import annotations

import functools
import re
import sys
import weakref
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors as pg_errors
from psycopg import waiting
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from ...errors import SandboxBusy, SandboxEscape
from ...sandbox import COMMITTING, Flow, Sandbox, Statement, WireLock, classify, never_notified, split
from ..arguments import Asked, settings_beyond
from .adapting import CountingAdaptersMap, SharedPrepareManager
from .cursors import Led, query_text, statement_of_caller
from .hooks import Gen, sync_only
from .info import Info
from .results import encoding_of, results, results_in_pipeline
from .wire import PsycopgWire

_OK = int(ConnStatus.OK)  # each time that a member is asked of its class costs as much as a call
_CHECKS = "SET CONSTRAINTS"
_NOTHING: Any = ()  # what a generator that sends nothing would give

_CONTINUING = frozenset(
    ("_stream_fetchone_gen", "_read_gen", "_read_row_gen", "_end_copy_out_gen", "copy_from", "copy_to", "copy_end")
)
"""The generators that go on with a COPY or stream."""


_ASKED_CURSOR = re.compile(r'(?:FETCH|MOVE)\b[^"]*"((?:[^"]|"")*)"')


class Virtual(Led):
    """What ``VirtualConnection`` and ``VirtualAsyncConnection`` share: the generators."""

    pgconn: Any
    _pipeline: Any
    _num_transactions: int
    _check_connection_ok: Any
    _tests = 0
    """How many tests have left it in the middle of a block."""

    def join(self, wire: PsycopgWire, sandbox: Sandbox, asked: Asked, *, own: bool) -> None:
        self._wire = wire
        self._sandbox = sandbox
        keywords = asked.driver
        self.given = asked.given
        if keywords.get("client_encoding"):
            asked.settings["client_encoding"] = keywords["client_encoding"]
        self._client = client = sandbox.client(own=own, settings=settings_beyond(asked.settings, wire.startup))
        self._autocommit = client.autocommit = bool(keywords.get("autocommit", False))
        self._prepared: Any = SharedPrepareManager(wire.plans)
        self._prepared.prepare_threshold = keywords.get("prepare_threshold", 5)
        context = keywords.get("context")
        self._adapters = CountingAdaptersMap(context.adapters) if context is not None else None
        if keywords.get("row_factory") is not None:
            self.row_factory = keywords["row_factory"]
        if keywords.get("cursor_factory") is not None:
            self.cursor_factory = keywords["cursor_factory"]
        self._pool = None  # its end is ours to watch: no ResourceWarning
        self.lock = WireLock(sandbox.scheduler, client.ticket)
        self._announced: Statement | None = None
        self._last: Statement | None = None
        self._stream: object | None = None
        wire.virtual.add(weakref.ref(self, wire.virtual.discard))
        self._notice = functools.partial(psycopg.Connection._notice_handler, weakref.ref(self))  # type: ignore[arg-type]
        self.pgconn.belongs_to(self)
        client.state = functools.partial(_state_of, weakref.ref(self))
        weakref.finalize(self, sandbox.collected, client).atexit = False

    # -- attributes that applications look at

    @property
    def info(self) -> psycopg.ConnectionInfo:
        return Info(self)

    def settle_settings(self) -> None:
        """Give the wire what the connection has set: psycopg reads what the server has told of it."""
        if not self._client.failed and not self._pipeline:
            with self.lock:
                self._wait_here(self._drive(self._sandbox.settle_settings(self._client)))

    @property
    def adapters(self) -> AdaptersMap:
        if self._adapters is None:
            self._adapters = CountingAdaptersMap(psycopg.adapters)
        return self._adapters

    # -- generators that psycopg calls

    def _drive(self, flow: Flow) -> Gen:
        """Run a flow of the sandbox."""
        try:
            command = next(flow)
            while True:
                try:
                    rows = yield from self._send(command)
                except Exception as error:
                    command = flow.throw(error)
                else:
                    command = flow.send(rows)
        except StopIteration:
            return

    def _send(self, command: str) -> Gen:
        encoding = encoding_of(self.pgconn)
        encoded = command.encode(encoding)
        if not self._pipeline:
            if command.startswith(("SAVEPOINT dbtc_", "RELEASE SAVEPOINT dbtc_")) and _CHECKS not in command:
                result = self._wire.pgconn.exec_(encoded)  # answered at once: no need to wait for the socket
                if result.status == ExecStatus.FATAL_ERROR:
                    raise pg_errors.error_from_result(result, encoding=encoding)
                return []
            self.pgconn.send_query(encoded)
            return (yield from results(self.pgconn))
        commands = [part.encode(encoding) for part in split(command)] if ";" in command else [encoded]
        return (yield from results_in_pipeline(self._pipeline, commands))

    def _start_query(self) -> Gen:
        if self.pgconn.status != _OK:
            self._check_connection_ok()
        statement, self._announced = self._announced, None
        if statement is None:
            statement = statement_of_caller(sys._getframe(1), self)
        pipeline = self._pipeline
        if pipeline and pipeline.result_queue and self._wire.aborted():
            return self._start_after(sync_only(pipeline), statement)
        self._last = statement
        self._wire.notices.target = self._notice
        command = self._sandbox.at_once(self._client, statement)
        if command is None:
            return self._drive(self._sandbox.before(self._client, statement))
        return self._send(command) if command else _NOTHING

    def _start_after(self, sync: Gen, statement: Statement) -> Gen:
        yield from sync
        self._announced = statement
        yield from self._start_query()

    def _exec_command(self, command: Any, *args: Any, **kwargs: Any) -> Gen:
        if not self._pipeline:
            asked = _ASKED_CURSOR.match(query_text(command, self))
            name = asked[1].replace('""', '"') if asked else ""
            yield from self._drive(self._sandbox.recover_for(self._client, name))
        return (yield from super()._exec_command(command, *args, **kwargs))  # type: ignore[misc]

    def _commit_gen(self) -> Gen:
        if self._commit_at_once():
            return
        if self.pgconn.status != _OK:
            self._check_connection_ok()
        self._refuse_end("commit")
        if self._pipeline:
            yield from sync_only(self._pipeline)
        if self.status == "failed":
            yield from self._drive(self._sandbox.rollback(self._client))
        else:
            yield from self._drive(self._sandbox.commit(self._client))

    def _commit_at_once(self) -> bool:
        """The common case of a commit, in little time; whether it is done."""
        if self._stream is not None or self._pipeline is not None or self._num_transactions:
            return False
        there: bool = self.pgconn.status == _OK
        return there and self._sandbox.commit_at_once(self._client, aborted=self._wire.aborted())

    def _rollback_gen(self) -> Gen:
        self._refuse_end("rollback")
        if self._pipeline:
            yield from sync_only(self._pipeline)
        sandbox, client = self._sandbox, self._client
        aborted = self._wire.aborted()
        if not (sandbox.has_nothing(client, aborted=aborted) or sandbox.rollback_at_once(client, aborted=aborted)):
            yield from self._drive(self._sandbox.rollback(self._client))

    def _refuse_end(self, what: str) -> None:
        if self._num_transactions:
            raise pg_errors.ProgrammingError(
                f"Explicit {what}() forbidden within a Transaction context. {_IN_BLOCK[what]}"
            )

        self.refuse_in_stream()

    def refuse_in_stream(self) -> None:
        if self._is_streaming:
            raise psycopg.OperationalError("sending query failed: another command is already in progress")

    @property
    def _is_streaming(self) -> bool:
        streams = self._stream is not None and not self._is_stale
        return streams and self.pgconn.transaction_status == TransactionStatus.ACTIVE

    @property
    def status(self) -> str:
        """``idle``, ``active`` or ``failed``."""
        return self._sandbox.status(self._client)

    def _check_intrans_gen(self, attribute: str) -> Gen:
        self._check_connection_ok()
        if self.status != "idle" or self._is_streaming:
            why = (
                "connection.transaction() context in progress"
                if self._num_transactions
                else f"connection in transaction status {self.info.transaction_status.name}"
            )
            raise pg_errors.ProgrammingError(f"can't change {attribute!r} now: {why}")
        return
        yield

    def _set_autocommit_gen(self, value: bool) -> Gen:
        yield from self._check_intrans_gen("autocommit")
        self._autocommit = self._client.autocommit = bool(value)

    def _set_read_only_gen(self, value: bool | None) -> Gen:
        yield from super()._set_read_only_gen(value)  # type: ignore[misc]
        self._client.set_modes(read_only=value)

    def _set_isolation_level_gen(self, value: Any) -> Gen:
        yield from super()._set_isolation_level_gen(value)  # type: ignore[misc]
        level = self._isolation_level  # type: ignore[attr-defined]
        self._client.set_modes(level="" if level is None else level.name.replace("_", " ").lower())

    def _set_deferrable_gen(self, value: bool | None) -> Gen:
        yield from super()._set_deferrable_gen(value)  # type: ignore[misc]
        self._client.set_modes(deferrable=self._deferrable)  # type: ignore[attr-defined]

    def _tpc_begin_gen(self, xid: object) -> Gen:
        raise self._two_phase(f"tpc_begin({xid!s}) would prepare the transaction that the test runs in")
        yield

    def _tpc_finish_gen(self, action: str, xid: object) -> Gen:
        if xid is not None:
            raise self._two_phase(f"tpc_{action.lower()}({xid!s}) would end a transaction that was prepared")
        yield from super()._tpc_finish_gen(action, xid)  # type: ignore[misc]

    def _two_phase(self, what: str) -> Exception:
        return self._sandbox.note(
            SandboxEscape(
                f"{what} for a two-phase commit; nothing was sent.",
                cause="two-phase transactions are the server's, not a connection's, and outlive every rollback",
                remedy=COMMITTING,
            )
        )

    # -- what a cursor tells

    def _announce(self, query: Any) -> Statement:
        statement = classify(query if type(query) is str else query_text(query, self))
        self._announced = statement
        return statement

    def _finish(self, rowcount: int) -> Gen:
        statement = self._last
        if self._pipeline and statement is not None and not statement.plain:
            yield from sync_only(self._pipeline)  # what it has set or opened must be known before the next one runs
            rowcount = -1
        if statement is not None and not (self._pipeline and statement.plain):
            yield from self._drive(self._sandbox.after(self._client, statement, rowcount))
        elif self._client.each_statement and not self._pipeline:
            yield from self._drive(self._sandbox.commit(self._client))

    def _show_own_plans(self) -> Gen:
        """The list of prepared statements is about to be read: others' are none of this connection's."""
        if self.status != "failed":
            for name in self._prepared.drop_others():
                yield from self._deallocate(name)  # type: ignore[attr-defined]

    def _commit_synced(self) -> Gen:
        if self._client.each_statement and self._client.active:
            yield from self._drive(self._sandbox.commit(self._client))

    def _leave_pipeline(self) -> None:
        self._client.piped = False
        if self._wire.aborted():
            # psycopg takes a statement for prepared that an error in a pipeline kept from being so; if it were left to
            # deallocate all, it would do so after the next statement, with what that one has prepared
            self._prepared.clear()
            self._prepared._to_flush.clear()
            self._sandbox.plans_doubtful = True

    def _control(self, statement: Statement) -> Gen:
        """SAVEPOINT, RELEASE and ROLLBACK TO as SQL text."""
        if self._pipeline:
            yield from sync_only(self._pipeline)
        yield from self._drive(self._sandbox.savepoint(self._client, statement))

    def _is_over(self) -> bool:
        if self._closed:  # type: ignore[attr-defined]
            self._check_connection_ok()
        return self._has_ended()

    def end(self) -> None:
        """Roll back and leave whatever it is in the middle of: the connection is about to be closed.

        What keeps it from that comes to the next use of the wire; a server would not tell the client either.
        """
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None or (self._stream is not None and not self._is_stale):
            self._wire.drain()
            self._end_stream(self._stream)
        self._client.piped = False
        self._num_transactions = self._client.block = 0
        try:
            if not self._has_ended():
                with self.lock:
                    self._wait_here(self._drive(self._sandbox.rollback(self._client)))
        except SandboxBusy:
            self._sandbox.abandon(self._client)
        except psycopg.Error:
            pass
        finally:
            self._pipeline = pipeline
        self._sandbox.close(self._client)

    def run_raw(self, command: bytes, execute: Callable[[bytes], Any]) -> Any:
        """A statement that went to ``pgconn`` itself, before which psycopg does not begin a transaction.

        :raises SandboxEscape: it would end the transaction of the test.
        """
        client = self._client
        with self.lock:
            autocommit = client.autocommit
            client.autocommit = autocommit or self.status == "idle"
            try:
                self._announced = statement = classify(command.decode(self.pgconn._encoding))
                replacement = None if statement.plain else self._sandbox.replacement(client, statement)
                self._wait_here(self._start_query())
                result = execute(command if replacement is None else replacement.encode(self.pgconn._encoding))
                if self._wire.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    self._begin_stream()
                elif result.status != ExecStatus.FATAL_ERROR:
                    self._wait_here(self._finish(-1))
                elif client.each_statement:
                    self._wait_here(self._drive(self._sandbox.recover_for(client)))
                return result
            finally:
                client.autocommit = autocommit

    def _wait_here(self, gen: Gen) -> None:
        if gen:  # not _NOTHING, which others delegate to
            waiting.wait(gen, self.pgconn.socket, interval=0.1)

    def refuse_reset(self) -> Exception:
        return self._sandbox.note(
            SandboxEscape(
                "pgconn.reset() would make the physical connection of the sandbox anew.",
                cause="in the sandbox all connections share it",
                remedy="close the connection and open another one, or " + COMMITTING,
            )
        )

    def _has_ended(self) -> bool:
        """Whether the wire is closed, or another process's: pools return their connections all the same."""
        if self.pgconn.status == _OK and not self._sandbox.scheduler.inherited_from:
            return False
        self._client.end()
        return True

    def _lock_timeout(self, error: Exception) -> Exception:
        return self._sandbox.lock_timeout(error, self._wire.lock_holders())

    # -- a COPY or stream, which may be left in the middle and ended by the collector in another test

    def _begin_stream(self) -> None:
        self._stream = self._wire.stream = object()

    def _end_stream(self, stream: object) -> None:
        if self._stream is stream:
            self._stream = None
        if self._wire.stream is stream:
            self._wire.stream = None

    def _end_copy(self, stream: object) -> None:
        """The block of a COPY has ended; one that was not read to its end goes on, and psycopg leaves it so."""
        if self._wire.stream is not stream or self.pgconn.transaction_status != TransactionStatus.ACTIVE:
            self._end_stream(stream)

    def _leave_copy(self) -> None:
        """Get out of a COPY that a method has begun which cannot go on with it."""
        if not self._pipeline and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            self._wire.drain()

    def _refuse_stale(self, gen: Any) -> None:
        if self._is_stale and getattr(gen, "__name__", "") in _CONTINUING:
            raise psycopg.OperationalError("the COPY or stream has ended with its test")

    def leave_blocks(self) -> None:
        """A test has ended: what it has entered and not left (a pipeline, a transaction block) is over."""
        if self._pipeline is not None or self._num_transactions:
            self._tests += 1
            if self._pipeline is not None:
                self._pipeline.level += 1  # whoever leaves it in another test is not the last one, who would miss it
                self._pipeline = None
            self._num_transactions = 0
            self._client.piped = False

    def _should_cancel(self) -> bool:
        if (self._stream is None or self._is_stale) and not self._sandbox.scheduler.has_wire(self._client.ticket):
            return False  # what runs now is somebody else's
        return bool(super()._should_cancel())  # type: ignore[misc]

    @property
    def _is_stale(self) -> bool:
        return self._stream is not None and self._stream is not self._wire.stream

    def notifies(self, **kwargs: Any) -> Any:
        """Refused: there would never be any."""
        raise self._sandbox.note(never_notified("notifies()"))

    def add_notify_handler(self, callback: Any) -> None:
        """Refused: it would never be called."""
        raise self._sandbox.note(never_notified("add_notify_handler()"))


def _state_of(reference: weakref.ref[Any]) -> object:
    """How a connection behaves: what the application can change of it, besides the server's settings."""
    connection = reference()
    if connection is None:
        return None
    adapters = connection._adapters
    return (
        *(connection._autocommit, connection.row_factory, connection.cursor_factory, connection.server_cursor_factory),
        *(connection.prepare_threshold, connection.isolation_level, connection.read_only, connection.deferrable),
        adapters.changes if adapters is not None else 0,
    )


_IN_BLOCK = {
    "commit": "(Transaction will be automatically committed on successful exit from context.)",
    "rollback": "(Either raise Rollback() or allow an exception to propagate out of the context.)",
}
