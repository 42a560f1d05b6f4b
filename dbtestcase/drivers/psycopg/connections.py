"""psycopg: virtual connections, real ``psycopg.Connection`` and ``AsyncConnection`` objects over one PGconn."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
from psycopg import waiting

from ...errors import SandboxBusy
from ...sandbox import classify
from .hooks import Gen, sync_only
from .virtual import Virtual

_psycopgs_wait = psycopg.Connection.wait


class VirtualConnection(Virtual, psycopg.Connection[Any]):  # type: ignore[misc]
    """A synchronous connection of the application over the sandbox's wire."""

    __module__, __qualname__ = "psycopg", "Connection"  # as it is written down

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if self._stream is not self._wire.stream:
            self._refuse_stale(gen)
        try:
            if timeout is None:  # psycopg 3.2 knows none
                return _psycopgs_wait(self, gen, interval)
            return _psycopgs_wait(self, gen, interval, timeout)
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
        self.wait(self._commit_synced())

    def commit(self) -> None:
        with self.lock:
            if not self._commit_at_once():
                self.wait(self._commit_gen())

    def rollback(self) -> None:
        if self._is_over():
            return
        sandbox, client = self._sandbox, self._client
        try:
            with self.lock:
                aborted = self._wire.aborted()
                if (
                    self._num_transactions
                    or self._stream is not None
                    or self._pipeline is not None
                    or not sandbox.has_nothing(client, aborted=aborted)
                ):
                    self.wait(self._rollback_gen())
        except SandboxBusy:
            sandbox.abandon(client)

    def close(self) -> None:
        if not self.closed:
            self._closed = True
            self.pgconn.finish()


class VirtualAsyncConnection(Virtual, psycopg.AsyncConnection[Any]):  # type: ignore[misc]
    """An asynchronous connection of the application over the sandbox's wire.

    A statement blocks the event loop while it runs: the wire is shared with synchronous code, which could not wait for
    a task that is suspended in the middle of an answer.
    """

    __module__, __qualname__ = "psycopg", "AsyncConnection"

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
        await self.wait(self._commit_synced())

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

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        # not given up in the middle: what is on its way to the server would end whatever statement runs next
        psycopg.Connection.cancel_safe(self, timeout=timeout)  # type: ignore[arg-type]

    async def rollback(self) -> None:
        if self._is_over():
            return
        try:
            await super().rollback()
        except SandboxBusy:
            self._sandbox.abandon(self._client)

    async def close(self) -> None:
        if not self.closed:
            self._closed = True
            self.pgconn.finish()


class _TransactionGenerators:
    """``connection.transaction()`` on the stack of savepoints."""

    _conn: Any
    _outer_transaction: bool
    _savepoint_name: str
    status: Any
    force_rollback: bool
    _entered: bool
    _exited: bool
    _test: int

    def _push_savepoint(self) -> None:
        super()._push_savepoint()  # type: ignore[misc]
        self._test = self._conn._tests

    def _enter_gen(self) -> Gen:
        conn = self._conn
        conn.refuse_in_stream()
        if conn._pipeline:
            yield from sync_only(conn._pipeline)
        if conn._client.each_statement:  # what the last statement has left is not the block's
            yield from conn._drive(conn._sandbox.recover_for(conn._client))
        self._push_savepoint()
        conn._client.block += 1
        if self._outer_transaction:
            conn._announced = _PLAIN
            yield from conn._start_query()
        if self._savepoint_name:
            yield from self._label("SAVEPOINT")
        self._is_now("ACTIVE")

    @property
    def _is_left(self) -> bool:
        """Whether the test that has entered it is over, and what it has done is undone."""
        return bool(self._test != self._conn._tests)

    def _commit_gen(self) -> Gen:
        if self._is_left:
            raise psycopg.OperationalError("the transaction block has ended with its test")
        error = self._pop_savepoint("commit")  # type: ignore[attr-defined]
        self._is_now("COMMITTED")
        yield from self._end_gen(error, self._conn._commit_gen, "RELEASE")

    def _rollback_gen(self, exc_val: BaseException | None) -> Gen:
        if self._is_left:
            return False
        error = self._pop_savepoint("rollback")  # type: ignore[attr-defined]
        explicit = isinstance(exc_val, psycopg.Rollback) or self.force_rollback
        self._is_now("ROLLED_BACK_EXPLICITLY" if explicit else "ROLLED_BACK_WITH_ERROR")
        yield from self._end_gen(error, self._conn._rollback_gen, "ROLLBACK TO", "RELEASE")
        if isinstance(exc_val, psycopg.Rollback):
            transaction: Any = exc_val.transaction
            return transaction is None or transaction is self
        return False

    def _end_gen(self, error: Exception | None, end_outer: Callable[[], Gen], *verbs: str) -> Gen:
        conn = self._conn
        if conn._pipeline:
            yield from sync_only(conn._pipeline)
        try:
            if error:
                raise error
            if self._outer_transaction:
                yield from end_outer()
            else:
                for verb in verbs:
                    yield from self._label(verb)
        finally:
            conn._client.block -= 1

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


_PLAIN = classify("")


class VirtualTransaction(_TransactionGenerators, psycopg.Transaction):
    __module__, __qualname__ = "psycopg", "Transaction"


class VirtualAsyncTransaction(_TransactionGenerators, psycopg.AsyncTransaction):
    __module__, __qualname__ = "psycopg", "AsyncTransaction"
