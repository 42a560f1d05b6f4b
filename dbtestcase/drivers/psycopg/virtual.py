"""psycopg: virtual connections, real ``psycopg.Connection`` and ``AsyncConnection`` objects over one PGconn."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg_errors
from psycopg import waiting
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from ...errors import SandboxBusy, SandboxEscape
from ...sandbox import COMMITTING, Client, Flow, Sandbox, Statement, classify, split
from ..arguments import Asked, settings_beyond
from .adapting import CountingAdaptersMap, SharedPrepareManager
from .cursors import query_text, sandboxed, statement_of_caller
from .hooks import Gen
from .results import results, results_in_pipeline
from .transactions import VirtualAsyncTransaction, VirtualTransaction

if TYPE_CHECKING:
    from .wire import PsycopgWire

__all__ = ["VirtualAsyncConnection", "VirtualConnection"]

_CHECKS = "SET CONSTRAINTS"


_CONTINUING = frozenset(
    ("_stream_fetchone_gen", "_read_gen", "_read_row_gen", "_end_copy_out_gen", "copy_from", "copy_to", "copy_end")
)
"""The generators that go on with a COPY or stream."""


_ASKED_CURSOR = re.compile(r'(?:FETCH|MOVE)\b[^"]*"((?:[^"]|"")*)"')


class _WireLock:
    """Stands in for ``Connection.lock``: holds the wire."""

    def __init__(self, sandbox: Sandbox, client: Client) -> None:
        self._scheduler = sandbox.scheduler
        self._ticket = client.ticket

    def __enter__(self) -> None:
        self._scheduler.acquire(self._ticket)

    def __exit__(self, *exc: object) -> None:
        self._scheduler.release(self._ticket)

    async def __aenter__(self) -> None:
        await self._scheduler.acquire_async(self._ticket)

    async def __aexit__(self, *exc: object) -> None:
        self._scheduler.release(self._ticket)

    def locked(self) -> bool:
        return False


class _Virtual:
    """What :class:`VirtualConnection` and :class:`VirtualAsyncConnection` share: the generators."""

    pgconn: Any
    _pipeline: Any
    _num_transactions: int
    _tests = 0
    """How many tests have left it in the middle of a block."""

    def _join(self, wire: PsycopgWire, sandbox: Sandbox, asked: Asked, *, own: bool) -> None:
        self._wire = wire
        self._sandbox = sandbox
        keywords = asked.driver
        if keywords.get("client_encoding"):
            asked.settings["client_encoding"] = keywords["client_encoding"]
        self._client = client = sandbox.client(own=own, settings=settings_beyond(asked.settings, wire.startup))
        self._autocommit = client.autocommit = bool(keywords.get("autocommit", False))
        # the names of prepared statements are the server session's; the rest is a connection's own
        self._prepared: Any = SharedPrepareManager(wire.connection._prepared)
        self._prepared.prepare_threshold = keywords.get("prepare_threshold", 5)
        context = keywords.get("context")
        self._adapters = CountingAdaptersMap(context.adapters) if context is not None else None
        if keywords.get("row_factory") is not None:
            self.row_factory = keywords["row_factory"]
        if keywords.get("cursor_factory") is not None:
            self.cursor_factory = keywords["cursor_factory"]
        self._pool = None  # its end is ours to watch: no ResourceWarning
        self.lock = _WireLock(sandbox, client)
        self._announced: Statement | None = None
        self._last: Statement | None = None
        self._stream: object | None = None
        wire.virtual.add(self)
        self._notice = functools.partial(psycopg.Connection._notice_handler, weakref.ref(self))  # type: ignore[arg-type]
        self.pgconn.notice_handler = wire.notices
        client.state = functools.partial(_state_of, weakref.ref(self))
        weakref.finalize(self, sandbox.abandon, client).atexit = False

    # -- attributes that applications look at

    @property
    def closed(self) -> bool:
        return bool(self._closed or super().closed)  # type: ignore[attr-defined,misc]

    def _check_connection_ok(self) -> None:
        if self._closed:  # type: ignore[attr-defined]
            raise psycopg.OperationalError("the connection is closed")
        super()._check_connection_ok()  # type: ignore[misc]

    @property
    def broken(self) -> bool:
        return bool(super().broken)  # type: ignore[misc]

    @property
    def info(self) -> psycopg.ConnectionInfo:
        return _Info(self)

    @property
    def adapters(self) -> AdaptersMap:
        if self._adapters is None:
            self._adapters = CountingAdaptersMap(psycopg.adapters)
        return self._adapters

    # an application may bring its own cursor classes: they get the sandbox's generators too

    @property
    def cursor_factory(self) -> Any:
        return self._cursor_factory

    @cursor_factory.setter
    def cursor_factory(self, value: Any) -> None:
        self._cursor_factory = sandboxed(value)

    @property
    def server_cursor_factory(self) -> Any:
        return self._server_cursor_factory

    @server_cursor_factory.setter
    def server_cursor_factory(self, value: Any) -> None:
        self._server_cursor_factory = sandboxed(value)

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
        encoded = command.encode(self.pgconn._encoding)
        if not self._pipeline:
            if command.startswith(("SAVEPOINT dbtc_", "RELEASE SAVEPOINT dbtc_")) and _CHECKS not in command:
                result = self.pgconn.exec_(encoded)  # answered at once, so there is no need to wait for the socket
                if result.status == ExecStatus.FATAL_ERROR:
                    raise pg_errors.error_from_result(result, encoding=self.pgconn._encoding)
                return []
            self.pgconn.send_query(encoded)
            return (yield from results(self.pgconn))
        commands = [part.encode(self.pgconn._encoding) for part in split(command)] if ";" in command else [encoded]
        return (yield from results_in_pipeline(self._pipeline, commands))

    def _start_query(self) -> Gen:
        if self._closed or self.pgconn.status != ConnStatus.OK:  # type: ignore[attr-defined]
            self._check_connection_ok()
        statement, self._announced = self._announced, None
        if statement is None:
            statement = statement_of_caller(sys._getframe(1), self)
        if (
            self._pipeline
            and self._pipeline.result_queue
            and self._wire.pgconn.transaction_status == TransactionStatus.INERROR
        ):
            yield from self._pipeline._sync_gen()
        self._last = statement
        self._wire.notices.target = self._notice
        command = self._sandbox.at_once(self._client, statement)
        if command is None:
            yield from self._drive(self._sandbox.before(self._client, statement))
        elif command:
            yield from self._send(command)

    def _exec_command(self, command: Any, *args: Any, **kwargs: Any) -> Gen:
        if not self._pipeline:
            asked = None if self._client.active else _ASKED_CURSOR.match(query_text(command, self))
            name = asked[1].replace('""', '"') if asked else ""
            yield from self._drive(self._sandbox.recover_for(self._client, name))
        return (yield from super()._exec_command(command, *args, **kwargs))  # type: ignore[misc]

    def _commit_gen(self) -> Gen:
        if self._closed or self.pgconn.status != ConnStatus.OK:  # type: ignore[attr-defined]
            self._check_connection_ok()
        self._refuse_in_block("commit")
        if self._pipeline:
            yield from self._pipeline._sync_gen()
        if self._sandbox.commit_at_once(self._client):
            return
        if self.status == "failed":
            yield from self._drive(self._sandbox.rollback(self._client))
        else:
            yield from self._drive(self._sandbox.commit(self._client))

    def _rollback_gen(self) -> Gen:
        self._refuse_in_block("rollback")
        if self._pipeline:
            yield from self._pipeline._sync_gen()
        if not self._sandbox.has_nothing(self._client):
            yield from self._drive(self._sandbox.rollback(self._client))

    def _refuse_in_block(self, what: str) -> None:
        if self._num_transactions:
            raise pg_errors.ProgrammingError(f"Explicit {what}() forbidden within a Transaction context.")

    @property
    def status(self) -> str:
        """``idle``, ``active`` or ``failed``."""
        return self._sandbox.status(self._client)

    def _check_intrans_gen(self, attribute: str) -> Gen:
        if self.status != "idle":
            raise pg_errors.ProgrammingError(
                f"can't change {attribute!r} now: connection in transaction status INTRANS"
            )
        return
        yield

    def _set_autocommit_gen(self, value: bool) -> Gen:
        yield from self._check_intrans_gen("autocommit")
        self._autocommit = self._client.autocommit = bool(value)

    def _set_read_only_gen(self, value: bool | None) -> Gen:
        yield from super()._set_read_only_gen(value)  # type: ignore[misc]
        self._client.set_modes(read_only=bool(value))

    def _set_isolation_level_gen(self, value: Any) -> Gen:
        yield from super()._set_isolation_level_gen(value)  # type: ignore[misc]
        level = self._isolation_level  # type: ignore[attr-defined]
        self._client.set_modes(level="" if level is None else level.name.replace("_", " ").lower())

    def _tpc_begin_gen(self, xid: object) -> Gen:
        raise self._sandbox.note(
            SandboxEscape(
                f"tpc_begin({xid!s}) would prepare the transaction that the test runs in for a two-phase commit; "
                "nothing was sent.",
                cause="two-phase transactions are the server's, not a connection's, and outlive every rollback",
                remedy=COMMITTING,
            )
        )
        yield

    _tpc_finish_gen = lambda self, action, xid: self._tpc_begin_gen(xid)  # noqa: E731

    # -- what a cursor tells

    def _announce(self, query: Any) -> Statement:
        statement = classify(query if type(query) is str else query_text(query, self))
        self._announced = statement
        return statement

    def _finish(self, rowcount: int) -> Gen:
        statement = self._last
        if self._pipeline and statement is not None and not statement.plain:
            yield from self._pipeline._sync_gen()  # what it has set or opened must be known before the next one runs
            rowcount = -1
        if statement is not None and not (self._pipeline and statement.plain):
            yield from self._drive(self._sandbox.after(self._client, statement, rowcount))
        elif self._client.each_statement and not self._pipeline:
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
            yield from self._pipeline._sync_gen()
        yield from self._drive(self._sandbox.savepoint(self._client, statement))

    def _is_over(self) -> bool:
        """Whether the wire is closed, or another process's: pools return their connections all the same."""
        if self.pgconn.status == ConnStatus.OK and not self._sandbox.scheduler.inherited_from:
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

    @property
    def _is_stale(self) -> bool:
        return self._stream is not None and self._stream is not self._wire.stream

    def _refuse_notifies(self) -> Exception:
        return self._sandbox.note(
            SandboxEscape(
                "notifies() would wait for ever: a NOTIFY is delivered when its transaction commits, "
                "which it never does here.",
                cause="LISTEN and NOTIFY in the sandbox",
                remedy=COMMITTING,
            )
        )


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


class _Info(psycopg.ConnectionInfo):
    """What SQLAlchemy asks: the status of the virtual transaction."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection.pgconn)
        self._connection = connection

    @property
    def transaction_status(self) -> TransactionStatus:
        real = TransactionStatus(self.pgconn.transaction_status)
        if real in (TransactionStatus.UNKNOWN, TransactionStatus.ACTIVE):
            return real
        statuses = {"idle": TransactionStatus.IDLE, "active": TransactionStatus.INTRANS}
        return statuses.get(self._connection.status, TransactionStatus.INERROR)


class VirtualConnection(_Virtual, psycopg.Connection[Any]):  # type: ignore[misc]
    """A synchronous connection of the application over the sandbox's wire."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        if self._stream is not self._wire.stream:
            self._refuse_stale(gen)
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.Error:
            raise
        except BaseException:
            self._wire.drain()
            raise

    @contextlib.contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Any]:
        tx = VirtualTransaction(self, savepoint_name, force_rollback)
        if self._pipeline:
            with self.pipeline(), tx, self.pipeline():
                yield tx
        else:
            with tx:
                yield tx

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            if self._pipeline is None:
                with self.lock:
                    self._sandbox.scheduler.occupy(self._client.ticket)
                self._client.piped = True
                stack.callback(self._sandbox.scheduler.vacate)
                stack.callback(self._end_pipeline)
            yield stack.enter_context(super().pipeline())

    @contextlib.contextmanager
    def _pipeline_nolock(self) -> Iterator[Any]:  # of executemany()
        with contextlib.ExitStack() as stack:
            self._client.piped = True
            stack.callback(self._commit_pipeline)
            yield stack.enter_context(super()._pipeline_nolock())

    def _end_pipeline(self) -> None:
        with self.lock:
            self._commit_pipeline()

    def _commit_pipeline(self) -> None:
        self._leave_pipeline()
        if self._client.each_statement and self._client.active:
            self.wait(self._drive(self._sandbox.commit(self._client)))

    def _try_cancel(self, *, timeout: float = 5.0) -> None:
        if not self._is_stale:  # what runs now is somebody else's
            super()._try_cancel(timeout=timeout)

    def notifies(self, **kwargs: Any) -> Any:
        raise self._refuse_notifies()

    def rollback(self) -> None:
        if self._is_over():
            return
        try:
            super().rollback()
        except SandboxBusy:
            self._sandbox.abandon(self._client)

    def close(self) -> None:
        if not self._closed:
            with contextlib.suppress(psycopg.Error):
                self._num_transactions = 0
                self.rollback()
            self._sandbox.close(self._client)
            self._closed = True


class VirtualAsyncConnection(_Virtual, psycopg.AsyncConnection[Any]):  # type: ignore[misc]
    """An asynchronous connection of the application over the sandbox's wire.

    A statement blocks the event loop while it runs: the wire is shared with synchronous code, which could not wait for
    a task that is suspended in the middle of an answer.
    """

    @contextlib.asynccontextmanager
    async def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> AsyncIterator[Any]:
        tx = VirtualAsyncTransaction(self, savepoint_name, force_rollback)
        if self._pipeline:
            async with self.pipeline(), tx, self.pipeline():
                yield tx
        else:
            async with tx:
                yield tx

    @contextlib.asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Any]:
        async with contextlib.AsyncExitStack() as stack:
            if self._pipeline is None:
                async with self.lock:
                    self._sandbox.scheduler.occupy(self._client.ticket)
                self._client.piped = True
                stack.callback(self._sandbox.scheduler.vacate)
                stack.push_async_callback(self._end_pipeline)
            yield await stack.enter_async_context(super().pipeline())

    @contextlib.asynccontextmanager
    async def _pipeline_nolock(self) -> AsyncIterator[Any]:
        async with contextlib.AsyncExitStack() as stack:
            self._client.piped = True
            stack.push_async_callback(self._commit_pipeline)
            yield await stack.enter_async_context(super()._pipeline_nolock())

    async def _end_pipeline(self) -> None:
        async with self.lock:
            await self._commit_pipeline()

    async def _commit_pipeline(self) -> None:
        self._leave_pipeline()
        if self._client.each_statement and self._client.active:
            await self.wait(self._drive(self._sandbox.commit(self._client)))

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if self._stream is not self._wire.stream:
            self._refuse_stale(gen)
        limit: dict[str, Any] = {} if timeout is None else {"timeout": timeout}  # psycopg 3.2 knows none
        try:
            return waiting.wait(gen, self.pgconn.socket, interval=interval, **limit)
        except psycopg.Error:
            raise
        except BaseException:
            self._wire.drain()
            raise

    async def _try_cancel(self, *, timeout: float = 5.0) -> None:
        if not self._is_stale:
            await super()._try_cancel(timeout=timeout)

    def notifies(self, **kwargs: Any) -> Any:
        raise self._refuse_notifies()

    async def rollback(self) -> None:
        if self._is_over():
            return
        try:
            await super().rollback()
        except SandboxBusy:
            self._sandbox.abandon(self._client)

    async def close(self) -> None:
        if not self._closed:
            with contextlib.suppress(psycopg.Error):
                self._num_transactions = 0
                await self.rollback()
            self._sandbox.close(self._client)
            self._closed = True
