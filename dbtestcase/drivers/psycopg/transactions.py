"""psycopg: ``connection.transaction()`` on the stack of savepoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from ...sandbox import classify
from .hooks import Gen


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
        if conn._pipeline:
            yield from conn._pipeline._sync_gen()
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
            yield from conn._pipeline._sync_gen()
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
