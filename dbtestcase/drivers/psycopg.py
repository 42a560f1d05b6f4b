"""psycopg 3: virtual connections that are real ``psycopg.Connection`` and ``AsyncConnection`` objects over one PGconn.

This is the only module that opens psycopg's private doors: the generators of its connections and cursors, through which
the sync and the async classes alike do everything.  :data:`HOOKS` lists them; a missing one is an error at import.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Iterator
from typing import Any, cast

import psycopg
from psycopg import errors as pg_errors
from psycopg import generators, sql, waiting
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from ..connections import Client
from ..errors import ConfigurationError, SandboxBusy, SandboxEscape
from ..parameters import Flow, Rows
from ..rules import COMMITTING
from ..sandbox import Sandbox
from ..statements import Kind, Statement, classify, with_parameter_names

__all__ = ["HOOKS", "PsycopgWire", "VirtualAsyncConnection", "VirtualConnection", "check_hooks"]

Gen = Generator[Any, Any, Any]

HOOKS: dict[str, tuple[str, ...]] = {
    "Connection": (
        "_start_query",
        "_exec_command",
        "_commit_gen",
        "_rollback_gen",
        "_set_autocommit_gen",
        "_check_intrans_gen",
        "_tpc_begin_gen",
        "_check_connection_ok",
        "_connect_gen",
    ),
    "Cursor": (
        "_start_query",
        "_execute_gen",
        "_executemany_gen_pipeline",
        "_executemany_gen_no_pipeline",
        "_stream_send_gen",
        "_start_copy_gen",
        "_reset",
    ),
    "ServerCursor": ("_declare_gen", "_close_gen", "_fetch_gen"),
    "Transaction": ("_enter_gen", "_commit_gen", "_rollback_gen", "_push_savepoint", "_pop_savepoint"),
}
"""The private methods that are overridden or called, by class."""


def check_hooks(module: Any = psycopg) -> None:
    """Make sure that this psycopg has the methods that the sandbox needs.

    :raises ConfigurationError: naming what is missing and the version to install.
    """
    for name, methods in HOOKS.items():
        missing = [m for m in methods if not hasattr(getattr(module, name, None), m)]
        if missing:
            raise ConfigurationError(
                f"psycopg {module.__version__} has no {name}.{missing[0]}, which the sandbox needs.",
                cause="a version of psycopg that dbtestcase does not know",
                remedy="pip install 'psycopg[binary]>=3.2,<3.4'",
            )


check_hooks()

_CHECKS = "SET CONSTRAINTS"
_TRACELESS = getattr(pg_errors, "_NO_TRACEBACK", ())


class PsycopgWire:
    """The physical connection of a sandbox.

    :param conninfo: libpq's connection string.
    :raises psycopg.OperationalError: nobody answers.
    """

    driver = "psycopg"

    def __init__(self, conninfo: str, **parameters: Any) -> None:
        self.connection = psycopg.Connection.connect(conninfo, autocommit=True, **parameters)
        self.pgconn = self.connection.pgconn
        self.notices = _Relay()
        self.pgconn.notice_handler = self.notices

    def run(self, *statements: str) -> Rows:
        rows: Rows = []
        self.pgconn.send_query(";".join(statements).encode(self.pgconn._encoding))
        rows = waiting.wait(_results(self.pgconn), self.pgconn.socket, interval=0.1)
        return rows

    def aborted(self) -> bool:
        return self.pgconn.transaction_status == TransactionStatus.INERROR

    def in_transaction(self) -> bool:
        return self.pgconn.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
            TransactionStatus.ACTIVE,
        )

    def forget_plans(self) -> None:
        prepared = self.connection._prepared
        prepared.clear()
        prepared._to_flush.clear()
        self.run("DEALLOCATE ALL")

    def reset(self) -> None:
        """A rollback has undone what clients have set."""

    def settle(self) -> None:
        """Get out of a COPY, stream or pipeline that a test left in the middle."""
        pgconn = self.pgconn
        if pgconn.pipeline_status:
            with contextlib.suppress(psycopg.Error):
                pgconn.pipeline_sync()
                while pgconn.get_result() is not None or (pgconn.pipeline_status and pgconn.is_busy()):
                    pass
                pgconn.exit_pipeline_mode()
        if pgconn.transaction_status == TransactionStatus.ACTIVE:
            self.connection.cancel()
            while (result := pgconn.get_result()) is not None:
                if result.status == ExecStatus.COPY_IN:
                    pgconn.put_copy_end(b"the test has ended")

    def error(self, name: str, message: str) -> Exception:
        cls: type[Exception] = getattr(pg_errors, name)
        return cls(message)

    def close(self) -> None:
        self.pgconn.finish()

    # -- virtual connections

    def connect(
        self, sandbox: Sandbox, *, own: bool = False, adapters: AdaptersMap | None = None, autocommit: bool = False
    ) -> VirtualConnection:
        """A new synchronous virtual connection."""
        connection = VirtualConnection(self.pgconn)
        connection._join(self, sandbox, own=own, adapters=adapters, autocommit=autocommit)
        return connection

    async def connect_async(
        self, sandbox: Sandbox, *, own: bool = False, adapters: AdaptersMap | None = None, autocommit: bool = False
    ) -> VirtualAsyncConnection:
        """A new asynchronous virtual connection over the same wire."""
        connection = VirtualAsyncConnection(self.pgconn)
        connection._join(self, sandbox, own=own, adapters=adapters, autocommit=autocommit)
        return connection


class _Relay:
    """Notices of the server go to the connection whose statement runs."""

    def __init__(self) -> None:
        self.target: Callable[[Any], None] | None = None

    def __call__(self, result: Any) -> None:
        if self.target is not None:
            self.target(result)


def _results(pgconn: Any) -> Gen:
    """Receive the answer to a query of ours; the rows of the last result that has any."""
    rows: Rows = []
    failure: Exception | None = None
    for result in (yield from generators.execute(pgconn)):
        if result.status == ExecStatus.FATAL_ERROR:
            failure = pg_errors.error_from_result(result, encoding=pgconn._encoding)
        elif result.status == ExecStatus.TUPLES_OK:
            rows = [
                tuple(_text(result.get_value(i, j), pgconn._encoding) for j in range(result.nfields))
                for i in range(result.ntuples)
            ]
    if failure is not None:
        raise failure
    return rows


def _text(value: bytes | None, encoding: str) -> str | None:
    return None if value is None else bytes(value).decode(encoding)


class _TurnLock:
    """Stands in for ``Connection.lock``: a turn on the wire."""

    def __init__(self, sandbox: Sandbox, client: Client) -> None:
        self._turns = sandbox.turns
        self._turn = client.turn

    def __enter__(self) -> None:
        self._turns.acquire(self._turn)

    def __exit__(self, *exc: object) -> None:
        self._turns.release()

    async def __aenter__(self) -> None:
        await self._turns.acquire_async(self._turn)

    async def __aexit__(self, *exc: object) -> None:
        self._turns.release()

    def locked(self) -> bool:
        return False


class _Virtual:
    """What :class:`VirtualConnection` and :class:`VirtualAsyncConnection` share: the generators."""

    pgconn: Any
    _pipeline: Any

    def _join(
        self, wire: PsycopgWire, sandbox: Sandbox, *, own: bool, adapters: AdaptersMap | None, autocommit: bool
    ) -> None:
        self._wire = wire
        self._sandbox = sandbox
        self._client = client = sandbox.client(own=own)
        client.autocommit = autocommit
        self._autocommit = autocommit
        self._prepared = wire.connection._prepared  # the names of prepared statements are the server session's
        self._adapters = AdaptersMap(adapters) if adapters is not None else None
        self._pool = None  # its end is ours to watch: no ResourceWarning
        self.lock = _TurnLock(sandbox, client)
        self._announced: Statement | None = None
        self._last: Statement | None = None
        self._notice = functools.partial(psycopg.Connection._notice_handler, weakref.ref(self))  # type: ignore[arg-type]
        self.pgconn.notice_handler = wire.notices
        weakref.finalize(self, sandbox.abandon, client).atexit = False

    # -- attributes that applications look at

    @property
    def closed(self) -> bool:
        return bool(self._closed or super().closed)  # type: ignore[attr-defined,misc]

    @property
    def broken(self) -> bool:
        return bool(super().broken)  # type: ignore[misc]

    @property
    def info(self) -> psycopg.ConnectionInfo:
        return _Info(self)

    # an application may bring its own cursor classes: they get the sandbox's generators too

    @property
    def cursor_factory(self) -> Any:
        return self._cursor_factory

    @cursor_factory.setter
    def cursor_factory(self, value: Any) -> None:
        self._cursor_factory = _sandboxed(value)

    @property
    def server_cursor_factory(self) -> Any:
        return self._server_cursor_factory

    @server_cursor_factory.setter
    def server_cursor_factory(self, value: Any) -> None:
        self._server_cursor_factory = _sandboxed(value)

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
            return (yield from _results(self.pgconn))
        for part in encoded.split(b";"):
            yield from super()._exec_command(part)  # type: ignore[misc]
        yield from self._pipeline._sync_gen()
        return []

    def _start_query(self) -> Gen:
        statement, self._announced = self._announced, None
        if statement is None:
            statement = _statement_of_caller(sys._getframe(1), self)
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
            yield from self._drive(self._sandbox.recover_for(self._client))
        return (yield from super()._exec_command(command, *args, **kwargs))  # type: ignore[misc]

    def _commit_gen(self) -> Gen:
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
        yield from self._drive(self._sandbox.rollback(self._client))

    def _refuse_in_block(self, what: str) -> None:
        if self._num_transactions:  # type: ignore[attr-defined]
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
        self._client.read_only = bool(value)

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
        statement = classify(query if type(query) is str else _query_text(query, self))
        self._announced = statement
        return statement

    def _finish(self, rowcount: int) -> Gen:
        statement = self._last
        if statement is not None and not self._pipeline:
            yield from self._drive(self._sandbox.after(self._client, statement, rowcount))
        elif self._client.each_statement and not self._pipeline:
            yield from self._drive(self._sandbox.commit(self._client))

    def _leave_pipeline(self) -> None:
        self._client.piped = False
        if self._wire.aborted():
            # psycopg takes a statement for prepared that an error in a pipeline kept from being so
            self._prepared.clear()

    def _control(self, statement: Statement) -> Gen:
        """SAVEPOINT, RELEASE and ROLLBACK TO as SQL text."""
        if self._pipeline:
            yield from self._pipeline._sync_gen()
        yield from self._drive(self._sandbox.savepoint(self._client, statement))

    def _is_over(self) -> bool:
        """Whether the wire is closed, or another process's: pools return their connections all the same."""
        if self.pgconn.status == ConnStatus.OK and not self._sandbox.turns.inherited_from:
            return False
        self._client.end()
        return True

    def _lock_timeout(self, error: Exception) -> Exception:
        return self._sandbox.lock_timeout(error, _lock_holders(self._wire))

    def _refuse_notifies(self) -> Exception:
        return self._sandbox.note(
            SandboxEscape(
                "notifies() would wait for ever: a NOTIFY is delivered when its transaction commits, "
                "which it never does here.",
                cause="LISTEN and NOTIFY in the sandbox",
                remedy=COMMITTING,
            )
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

    @contextlib.contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Any]:
        tx = _VirtualTransaction(self, savepoint_name, force_rollback)
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
                    self._sandbox.turns.occupy(self._client.turn)
                self._client.piped = True
                stack.callback(self._sandbox.turns.vacate)
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
            self._closed = True


class VirtualAsyncConnection(_Virtual, psycopg.AsyncConnection[Any]):  # type: ignore[misc]
    """An asynchronous connection of the application over the sandbox's wire.

    A statement blocks the event loop while it runs: the wire is shared with synchronous code, which could not wait for
    a task that is suspended in the middle of an answer.
    """

    @contextlib.asynccontextmanager
    async def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> AsyncIterator[Any]:
        tx = _VirtualAsyncTransaction(self, savepoint_name, force_rollback)
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
                    self._sandbox.turns.occupy(self._client.turn)
                self._client.piped = True
                stack.callback(self._sandbox.turns.vacate)
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
        limit: dict[str, Any] = {} if timeout is None else {"timeout": timeout}  # psycopg 3.2 knows none
        try:
            return waiting.wait(gen, self.pgconn.socket, interval=interval, **limit)
        except (KeyboardInterrupt, SystemExit):
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._wire.connection.cancel()
                with contextlib.suppress(psycopg.Error):
                    waiting.wait(gen, self.pgconn.socket, interval=interval, **limit)
            raise

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
            self._closed = True


class _TransactionGenerators:
    """``connection.transaction()`` on the stack of savepoints."""

    _conn: Any
    _savepoint_name: str
    status: Any
    force_rollback: bool
    _entered: bool
    _exited: bool

    def _push_savepoint(self) -> None:
        conn = self._conn
        self._outer_transaction = conn.status == "idle"
        if not self._outer_transaction and not self._savepoint_name:
            self._savepoint_name = f"_pg3_{conn._num_transactions + 1}"
        self._stack_index = conn._num_transactions
        conn._num_transactions += 1

    def _enter_gen(self) -> Gen:
        conn = self._conn
        if conn._pipeline:
            yield from conn._pipeline._sync_gen()
        self._push_savepoint()
        conn._client.block += 1
        if self._outer_transaction:
            conn._announced = _PLAIN
            yield from conn._start_query()
        if self._savepoint_name:
            yield from self._label("SAVEPOINT")
        self._is_now("ACTIVE")

    def _commit_gen(self) -> Gen:
        error = self._pop_savepoint("commit")  # type: ignore[attr-defined]
        self._is_now("COMMITTED")
        conn = self._conn
        if conn._pipeline:
            yield from conn._pipeline._sync_gen()
        try:
            if error:
                raise error
            if self._outer_transaction:
                yield from conn._commit_gen()
            else:
                yield from self._label("RELEASE")
        finally:
            conn._client.block -= 1

    def _rollback_gen(self, exc_val: BaseException | None) -> Gen:
        error = self._pop_savepoint("rollback")  # type: ignore[attr-defined]
        explicit = isinstance(exc_val, psycopg.Rollback) or self.force_rollback
        self._is_now("ROLLED_BACK_EXPLICITLY" if explicit else "ROLLED_BACK_WITH_ERROR")
        conn = self._conn
        if conn._pipeline:
            yield from conn._pipeline._sync_gen()
        try:
            if error:
                raise error
            if self._outer_transaction:
                yield from conn._rollback_gen()
            else:
                yield from self._label("ROLLBACK TO")
                yield from self._label("RELEASE")
        finally:
            conn._client.block -= 1
        if isinstance(exc_val, psycopg.Rollback):
            transaction: Any = exc_val.transaction
            return transaction is None or transaction is self
        return False

    def _is_now(self, status: str) -> None:
        statuses = getattr(self, "Status", None)
        if statuses is not None:
            self.status = statuses[status]
        else:  # psycopg 3.2 keeps two flags, and checks the first one where it enters
            if status == "ACTIVE" and self._entered:
                raise TypeError("transaction blocks can be used only once")
            self._entered, self._exited = True, status != "ACTIVE"

    def _label(self, verb: str) -> Gen:
        quoted = self._savepoint_name.replace('"', '""')
        yield from self._conn._control(
            classify(f'{verb} SAVEPOINT "{quoted}"' if verb != "SAVEPOINT" else f'{verb} "{quoted}"')
        )


_PLAIN = classify("SELECT 1")


class _VirtualTransaction(_TransactionGenerators, psycopg.Transaction):
    pass


class _VirtualAsyncTransaction(_TransactionGenerators, psycopg.AsyncTransaction):
    pass


class _CursorGenerators:
    """What is mixed into a class of cursors: each statement is announced to its connection."""

    __slots__ = ()

    _conn: Any
    _rowcount: int

    def _start_query(self, query: Any = None) -> Gen:
        if query is not None and self._conn._announced is None:
            self._conn._announce(query)
        yield from super()._start_query(query)  # type: ignore[misc]

    def _execute_gen(self, query: Any, params: Any = None, **kwargs: Any) -> Gen:
        conn = self._conn
        statement = conn._announce(query)
        if not statement.plain:
            if statement.kind in _CONTROL:
                conn._announced = None
                self._reset()  # type: ignore[attr-defined]
                yield from conn._control(statement)
                return
            replacement = conn._sandbox.rules.replace(statement)
            if replacement is not None:
                query = replacement
            if "?" in statement.settings:
                conn._announced = statement = with_parameter_names(statement, params)
        try:
            yield from super()._execute_gen(query, params, **kwargs)  # type: ignore[misc]
        except pg_errors.LockNotAvailable as error:
            raise conn._lock_timeout(error) from error
        except pg_errors.Error as error:
            conn._sandbox.rules.annotate(error)
            raise
        if not conn._sandbox.is_over(conn._client, statement, self._rowcount):
            yield from conn._finish(self._rowcount)

    def _executemany_gen_pipeline(self, query: Any, *args: Any, **kwargs: Any) -> Gen:
        self._conn._announce(query)
        yield from super()._executemany_gen_pipeline(query, *args, **kwargs)  # type: ignore[misc]

    def _executemany_gen_no_pipeline(self, query: Any, *args: Any, **kwargs: Any) -> Gen:
        self._conn._announce(query)
        yield from super()._executemany_gen_no_pipeline(query, *args, **kwargs)  # type: ignore[misc]
        yield from self._conn._finish(-1)

    def _start_copy_gen(self, statement: Any, *args: Any, **kwargs: Any) -> Gen:
        self._conn._announce(statement)
        yield from super()._start_copy_gen(statement, *args, **kwargs)  # type: ignore[misc]

    def _declare_gen(self, query: Any, *args: Any, **kwargs: Any) -> Gen:
        yield from super()._declare_gen(query, *args, **kwargs)  # type: ignore[misc]
        yield from self._conn._finish(-1)

    def _close_gen(self) -> Gen:
        # psycopg asks the wire's transaction, but it is the virtual one that the cursor has ended with
        status = self._conn.status
        if status == "active" or (status == "idle" and self._withhold):  # type: ignore[attr-defined]
            # an error of somebody else would let psycopg pass over it
            yield from self._conn._drive(self._conn._sandbox.recover_for(self._conn._client))
            yield from super()._close_gen()  # type: ignore[misc]


class _SyncCursor(_CursorGenerators):
    __slots__ = ()

    @contextlib.contextmanager
    def copy(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with super().copy(*args, **kwargs) as copy:  # type: ignore[misc]
            yield copy
        with self._conn.lock:
            self._conn.wait(self._conn._finish(-1))


class _AsyncCursor(_CursorGenerators):
    __slots__ = ()

    @contextlib.asynccontextmanager
    async def copy(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with super().copy(*args, **kwargs) as copy:  # type: ignore[misc]
            yield copy
        async with self._conn.lock:
            await self._conn.wait(self._conn._finish(-1))


_CONTROL = (Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)


@functools.cache
def _sandboxed(cls: type[Any]) -> type[Any]:
    """The class of cursors with the sandbox's generators mixed in."""
    if issubclass(cls, _CursorGenerators):
        return cls
    mixin = _AsyncCursor if issubclass(cls, psycopg.AsyncCursor) else _SyncCursor
    return type(cls.__name__, (mixin, cls), {"__slots__": (), "__module__": cls.__module__})


def _query_text(query: Any, connection: Any) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode(connection.pgconn._encoding)
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return sql.as_string(query, connection)


def _statement_of_caller(frame: Any, connection: Any) -> Statement:
    """The statement of a cursor that was made without ``connection.cursor()``, such as ``ClientCursor(connection)``."""
    for _ in range(16):  # other watchers and recorders may stand in between
        if frame is None:
            break
        for name in ("query", "statement"):
            query = frame.f_locals.get(name)
            if isinstance(query, (str, bytes, sql.Composable)):
                found = classify(_query_text(query, connection))
                if found.kind in _CONTROL and isinstance(connection, _Virtual):
                    raise connection._sandbox.note(
                        SandboxEscape(
                            f"The statement {found.text!r} was run by a cursor that the sandbox did not make; "
                            "it was not sent.",
                            cause="a cursor class called directly with the connection",
                            remedy="use connection.cursor(), or set connection.cursor_factory",
                        )
                    )
                cursor = frame.f_locals.get("self")
                if isinstance(connection, _Virtual) and isinstance(cursor, (psycopg.Cursor, psycopg.AsyncCursor)):
                    cursor.__class__ = _sandboxed(cast(Hashable, type(cursor)))  # what it does next is announced
                return found
        frame = frame.f_back
    return classify("CALL unknown()")


def _lock_holders(wire: PsycopgWire) -> str:
    """Who holds locks in this database besides the sandbox: asked over a connection of its own."""
    from .bystanders import harness_connections

    info = wire.connection.info
    try:
        with harness_connections(), psycopg.connect(info.dsn, password=info.password or None, autocommit=True) as judge:
            rows = judge.execute(
                "SELECT DISTINCT a.pid, a.usename, a.application_name, a.state, left(a.query, 200) "
                "FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                "WHERE l.granted AND l.locktype IN ('relation', 'transactionid', 'tuple', 'advisory') "
                "AND a.datname = current_database() AND a.pid NOT IN (%s, pg_backend_pid()) "
                "AND a.xact_start IS NOT NULL",
                (wire.pgconn.backend_pid,),
            ).fetchall()
    except psycopg.Error as error:
        return f"(who holds it could not be found out: {error})"
    if not rows:
        return "(the holder has ended meanwhile)"
    return "\n".join(
        f"Held by process {pid} ({user}{', ' + name if name else ''}, {state}): {query}"
        for pid, user, name, state, query in rows
    )


_Watcher = tuple[Callable[[Any], bool], Callable[[Statement], None]]
_watchers: list[_Watcher] = []


@contextlib.contextmanager
def watching_connections(watched: Callable[[Any], bool], refuse: Callable[[Statement], None]) -> Iterator[None]:
    """Watch what psycopg connects by itself, sync and async: each statement of a watched one is shown to ``refuse``."""
    watcher = (watched, refuse)
    base: Any = psycopg.BaseConnection
    original = base.__dict__["_connect_gen"]
    if not hasattr(original.__func__, "_dbtestcase"):
        base._connect_gen = _watching(original)
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def _watching(original: Any) -> Any:
    def _connect_gen(cls: Any, conninfo: str = "", **kwargs: Any) -> Gen:
        connection = yield from original.__get__(None, cls)(conninfo, **kwargs)
        for watched, refuse in () if getattr(cls, "dbtestcase_own", False) else reversed(_watchers):
            if watched(connection):
                connection.__class__ = _watched(cast(Hashable, type(connection)), refuse)
                break
        return connection

    _connect_gen._dbtestcase = True  # type: ignore[attr-defined]
    return classmethod(cast(Any, _connect_gen))


@functools.cache
def _watched(base: Any, refuse: Callable[[Statement], None]) -> Any:
    class Watched(base):  # type: ignore[misc]
        __slots__ = ()

        def _start_query(self) -> Gen:
            refuse(_statement_of_caller(sys._getframe(1), self))
            yield from super()._start_query()

    Watched.__name__ = base.__name__
    return Watched
