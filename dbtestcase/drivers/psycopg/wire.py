"""psycopg 3: the physical connection, one PGconn under all the virtual ones."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors as pg_errors
from psycopg import generators, waiting
from psycopg.pq import ConnStatus, TransactionStatus
from sqlalchemy import Dialect

from ...sandbox import NO_ARGUMENTS, Arguments, Rows, Sandbox
from ..arguments import asked_of
from ..own_connections import lock_holders
from ..sockets import shut_down
from ..sqlalchemy_internals import adapters_of
from .adapting import SessionPlans
from .pgconn import VirtualPGconn
from .results import drain, encoding_of, rows_of

_OK = int(ConnStatus.OK)  # each time that a member is asked of its class costs as much as a call
_INERROR, _ACTIVE = int(TransactionStatus.INERROR), int(TransactionStatus.ACTIVE)
_BETWEEN_STATEMENTS = (int(TransactionStatus.IDLE), int(TransactionStatus.INTRANS), _INERROR)
_IN_TRANSACTION = (int(TransactionStatus.INTRANS), _INERROR, _ACTIVE)


class PsycopgWire:
    """The physical connection of a sandbox, and its classes of virtual connections, synchronous and asynchronous."""

    driver = "psycopg"
    drivers = frozenset({driver})
    ended_by = ""

    def __init__(self, conninfo: str, virtual: tuple[Any, Any]) -> None:
        self.startup = asked_of("psycopg", [conninfo], {}).settings
        """The settings that it was opened with."""
        self.connection = psycopg.Connection.connect(conninfo, autocommit=True)
        self.plans = self.connection._prepared = SessionPlans()
        self.pgconn = self.connection.pgconn
        self._classes = virtual
        self._cut = ""
        self.virtual: set[weakref.ref[Any]] = set()
        self._pgconns: set[weakref.ref[VirtualPGconn]] = set()
        self._references_of_one = 0
        """To a PGconn that its connection alone has; what counts them is among them."""
        self.stream: object | None = None
        """What tells one COPY or stream from the next: those of a test that has ended are over."""
        self.notices = _Relay()
        self.pgconn.notice_handler = self.notices

    def run(self, *statements: str) -> Rows:
        pgconn = self.pgconn
        encoding = encoding_of(pgconn)
        text = ";".join(statements).encode(encoding)
        try:
            pgconn.send_query(text)
            return rows_of(waiting.wait(generators.execute(pgconn), pgconn.socket, interval=0.1), encoding)
        except psycopg.Error:
            raise
        except BaseException:
            self.cut("a signal's handler has raised in the middle of a statement of the test framework")
            raise

    def aborted(self) -> bool:
        status: int = self.pgconn.transaction_status
        return status == _INERROR

    def in_transaction(self) -> bool:
        return not self._cut and self.pgconn.transaction_status in _IN_TRANSACTION

    def forget_plans(self) -> None:
        self.plans.clear()
        self.plans._to_flush.clear()

    def test_ended(self, restart: Callable[[str], bool]) -> None:
        """The server takes everything back with its transaction."""

    def is_private(self) -> bool:
        # who has taken the PGconn from a connection has one reference more; so has a cursor that lives on
        return self._references() <= self._references_of_one

    def _references(self) -> int:
        most = 0
        for reference in list(self._pgconns):
            pgconn = reference()
            if pgconn is not None and (count := sys.getrefcount(pgconn)) > most:
                most = count
        return most

    def reset(self) -> None:
        """A rollback has undone what clients have set."""

    def settle(self) -> None:
        """Get out of a COPY, stream or pipeline that a test left in the middle; cut the wire if that cannot be done."""
        self.stream = None
        for reference in list(self.virtual):
            if (connection := reference()) is not None:
                connection.leave_blocks()
        if not self.gone and not self._is_settled():
            self.drain()

    def _is_settled(self) -> bool:
        return not self.pgconn.pipeline_status and self.pgconn.transaction_status in _BETWEEN_STATEMENTS

    def drain(self) -> None:
        """Get out of the middle of a statement: a signal's handler has raised, or a test has left it there."""
        pgconn = self.pgconn
        if self.gone or self._is_settled():
            return
        with contextlib.suppress(psycopg.Error):
            if pgconn.transaction_status == _ACTIVE:
                self.connection.cancel()
            drain(pgconn)
        if not self._is_settled():
            self.cut("it was left in the middle of a COPY, stream or pipeline that cannot be ended")

    def cut(self, why: str) -> None:
        self._cut = why
        shut_down(self.pgconn.socket)

    @property
    def gone(self) -> str:
        if self._cut:
            return self._cut
        if self.pgconn.status == _OK:
            return ""
        return f"it was closed ({' '.join(self.pgconn.get_error_message().split()) or 'no reason was given'})"

    def interrupt(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self.connection.cancel()

    def error(self, name: str, message: str) -> Exception:
        cls: type[Exception] = getattr(pg_errors, name)
        return cls(message)

    def close(self) -> None:
        for reference in list(self._pgconns):
            if (pgconn := reference()) is not None:
                pgconn.let_go()
        self.pgconn.finish()

    def lock_holders(self) -> str:
        info = self.connection.info
        return lock_holders(self.pgconn.backend_pid, info.dsn, password=info.password or None)

    def connect(self, sandbox: Sandbox, dialect: Dialect, given: Arguments = NO_ARGUMENTS, *, own: bool = False) -> Any:
        given = Arguments(given.args, {"context": adapters_of(dialect), **given.parameters})
        if not dialect.is_async:
            return self.make(sandbox, given, own=own)

        async def create(*_: Any, **__: Any) -> Any:
            return self.make(sandbox, given, own=own, asynchronous=True)

        return dialect.loaded_dbapi.connect(async_creator_fn=create)

    def make(self, sandbox: Sandbox, given: Arguments, *, own: bool = False, asynchronous: bool = False) -> Any:
        """A new virtual connection as psycopg knows it; see :meth:`connect`."""
        asked = asked_of("psycopg", *given)
        pgconn = VirtualPGconn.over(self.pgconn)
        self._pgconns.add(weakref.ref(pgconn, self._pgconns.discard))
        connection = self._classes[asynchronous](pgconn)
        connection.join(self, sandbox, asked, own=own)
        del pgconn
        self._references_of_one = self._references_of_one or self._references()
        return connection


class _Relay:
    """Notices of the server go to the connection whose statement runs."""

    def __init__(self) -> None:
        self.target: Callable[[Any], None] | None = None

    def __call__(self, result: Any) -> None:
        if self.target is not None:
            self.target(result)
