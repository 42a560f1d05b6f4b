"""Any other DBAPI driver: virtual connections as proxies over one physical connection.

What a driver adds to PEP 249 lives in a subclass of :class:`ProxyWire` and of :class:`ProxyConnection` in a module of
its own; this module knows only the standard.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import Dialect

from ..errors import SandboxBusy, SandboxEscape
from ..sandbox import COMMITTING, Client, Flow, Kind, Sandbox, Statement, WireLock, classify, with_parameter_names
from .proxy_wire import ProxyWire

_CONTROL = (Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)


class GenericWire(ProxyWire):
    """The wire of a sandbox that speaks a driver that has no module of its own."""

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return ProxyConnection


class ProxyConnection:
    """A connection of the application over the sandbox's wire; what is not standard goes to the physical one."""

    dialect: Dialect
    passed_on: ClassVar[frozenset[str] | None] = None
    """The methods of the driver's own that send no statement past the sandbox; None where they are not known."""

    def __init__(self, wire: ProxyWire, sandbox: Sandbox, client: Client) -> None:
        self._wire = wire
        self._sandbox = sandbox
        self._client = client
        self._closed = False
        client.state = functools.partial(_state_of, weakref.ref(self))
        weakref.finalize(self, sandbox.collected, client).atexit = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wire.connection, name)
        known = self.passed_on
        if known is None or name in known or name[:1] == "_" or not callable(found) or isinstance(found, type):
            return found
        return functools.partial(self._refuse, name)

    def _refuse(self, name: str, *args: object, **kwargs: object) -> None:
        raise self._sandbox.note(
            SandboxEscape(
                f"{name}() of the driver's own connection ({self._wire.driver}) would bypass the sandbox; "
                "nothing was sent.",
                cause="a method that sends something past the cursors, or changes what all connections share",
                remedy=f"use a cursor, or {COMMITTING}",
            )
        )

    def state(self) -> tuple[object, ...]:
        """How it behaves: what the application can change of it, besides the server's settings."""
        return (self._client.autocommit, self._client.read_only)

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take over what the arguments of the driver's ``connect()`` say about the connection's own behaviour."""

    def cursor(self, *args: Any, **kwargs: Any) -> ProxyCursor:
        """A new cursor of the physical connection, for one client at a time."""
        self._check_open()
        with self._held():
            return self._cursor(self._wire.connection.cursor(*args, **kwargs))

    def _cursor(self, real: Any) -> ProxyCursor:
        return ProxyCursor(self, real)

    def commit(self) -> None:
        """Keep this connection's work until the test ends."""
        self._check_open()
        scheduler = self._sandbox.scheduler
        scheduler.acquire(self._client.ticket)
        try:
            if self._sandbox.commit_at_once(self._client, aborted=self._wire.aborted()):
                return
            if self._sandbox.status(self._client) == "failed":
                self._drive(self._sandbox.rollback(self._client))
            else:
                self._drive(self._sandbox.commit(self._client))
        finally:
            scheduler.release(self._client.ticket)

    def rollback(self) -> None:
        """Undo this connection's work."""
        self._check_open()
        self._rollback()

    def close(self) -> None:
        """Roll back and close; the wire stays open."""
        if not self._closed:
            self._rollback()
            self._sandbox.close(self._client)
            self._closed = True

    def _rollback(self) -> None:
        sandbox, client = self._sandbox, self._client
        if sandbox.scheduler.inherited_from or self._wire.gone:
            return  # it is the other process's, or nobody's; a pool rolls back whatever it is given back
        scheduler = sandbox.scheduler
        try:
            scheduler.acquire(client.ticket)
            try:
                aborted = self._wire.aborted()
                if not (
                    sandbox.has_nothing(client, aborted=aborted) or sandbox.rollback_at_once(client, aborted=aborted)
                ):
                    self._drive(sandbox.rollback(client))
            finally:
                scheduler.release(client.ticket)
        except SandboxBusy:  # the collector closes it in the middle of another statement: with the next one, then
            self._sandbox.abandon(self._client)

    def set_autocommit(self, value: bool) -> None:
        """Let each statement commit by itself, or not; to be called by the driver's own spelling of it."""
        if value != self._client.autocommit:
            if self._client.active and not self._client.each_statement:
                raise self._wire.error("ProgrammingError", "autocommit cannot be changed inside a transaction")
            self._client.autocommit = value

    def refuse_two_phase(self, *args: object, **kwargs: object) -> None:
        """``tpc_begin`` and its family."""
        raise self._sandbox.note(
            SandboxEscape(
                "A two-phase transaction would outlive the transaction that the test runs in; nothing was sent.",
                cause="tpc_begin() or create_engine(..., twophase=True)",
                remedy=COMMITTING,
            )
        )

    tpc_begin = tpc_prepare = tpc_commit = tpc_rollback = tpc_recover = refuse_two_phase

    def __enter__(self) -> Any:
        return self

    def __exit__(self, exc_type: object, *exc: object) -> None:
        if exc_type is None:
            self.commit()
        else:
            self.rollback()

    def _check_open(self) -> None:
        if self._closed:
            raise self._wire.error("InterfaceError", "connection already closed")

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return WireLock(self._sandbox.scheduler, self._client.ticket)

    def _drive(self, flow: Flow) -> None:
        """Run a flow of the sandbox."""
        wire = self._wire
        wire.check_connection()
        try:
            command = next(flow)
            while True:
                try:
                    rows = wire.send(command)
                except BaseException as error:
                    if wire.gone:
                        raise
                    wire.failed(error)
                    command = flow.throw(error)
                else:
                    if command.lstrip()[:11].upper() == "ROLLBACK TO":
                        wire.broken = False
                    command = flow.send(rows)
        except StopIteration:
            return

    def _run(self, text: Any, call: Any, real: Any, *, many: bool = False, parameters: Any = None) -> Any:
        """Run a statement of the application; ``call`` sends it (``None`` for its text as it is)."""
        self._check_open()
        statement = self._classify(text)
        if "?" in statement.settings:
            statement = with_parameter_names(statement, parameters)
        sandbox, client = self._sandbox, self._client
        sandbox.scheduler.acquire(client.ticket)
        try:
            self._wire.check_connection()
            replacement = None
            command = sandbox.at_once(client, statement)
            if command:
                self._wire.send(command)
            elif command is None:
                if statement.kind in _CONTROL:
                    self._drive(sandbox.savepoint(client, statement))
                    if getattr(real, "description", None) is not None and not many:
                        call(sandbox.rules.nothing)  # the rows of its last statement are not those of this one
                    return None
                replacement = sandbox.replacement(client, statement)
                self._drive(sandbox.before(client, statement))
            try:
                result = call(replacement)
            except BaseException as error:
                if self._wire.is_cut_off(error) or not isinstance(error, Exception):
                    raise
                self._wire.failed(error)
                if not sandbox.rules.error_aborts:
                    self._drive(sandbox.failed(client, partly=many or self._keeps_part(statement)))
                self._explain(error)
                raise
            finally:
                if client.each_statement and self._wire.broken and not self._wire.gone:
                    self._drive(sandbox._recover(client))
            rowcount = -1 if many else getattr(real, "rowcount", -1)
            if not sandbox.is_over(client, statement, rowcount):
                self._drive(sandbox.after(client, statement, rowcount))
            return result
        finally:
            sandbox.scheduler.release(client.ticket)

    def _explain(self, error: Exception) -> None:
        """Add to a driver's error what the sandbox knows; one of a lock outside of it is a :exc:`SandboxTimeout`."""
        self._sandbox.explain(self._client, error)
        if self._wire.is_lock_timeout(error):
            raise self._sandbox.lock_timeout(error, self._wire.lock_holders()) from error

    def _keeps_part(self, statement: Statement) -> bool:
        """Whether the statement, when it fails, keeps the rows that it has written already."""
        return False

    def _classify(self, text: Any) -> Statement:
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        return classify(text if isinstance(text, str) else str(text))


autocommit = property(
    lambda connection: connection._client.autocommit, lambda connection, value: connection.set_autocommit(bool(value))
)
"""``autocommit`` of a connection, where the driver has it as an attribute."""


def _state_of(reference: weakref.ref[ProxyConnection]) -> object:
    connection = reference()
    return None if connection is None else connection.state()


class CursorOver:
    """Hands on to another cursor what it does not do itself."""

    def __init__(self, real: Any) -> None:
        object.__setattr__(self, "_real", real)

    _real: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)

    def fetchone(self) -> Any:
        return self._fetch("fetchone")

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return self._fetch("fetchmany", *args, **kwargs)

    def fetchall(self) -> Any:
        return self._fetch("fetchall")

    def _fetch(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._real, name)(*args, **kwargs)


class ProxyCursor(CursorOver):
    """A cursor over a cursor of the physical connection."""

    def __init__(self, connection: ProxyConnection, real: Any) -> None:
        super().__init__(real)
        object.__setattr__(self, "connection", connection)

    connection: ProxyConnection

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def execute(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement, inside the sandbox."""
        return self._returned(
            self.connection._run(
                operation,
                lambda replacement: self._real.execute(replacement or operation, *args, **kwargs),
                self._real,
                parameters=args[0] if args else next(iter(kwargs.values()), None),
            )
        )

    def executemany(self, operation: Any, parameters: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Run a statement for each set of parameters, inside the sandbox."""
        return self._returned(
            self.connection._run(
                operation,
                lambda replacement: self._real.executemany(replacement or operation, parameters, *args, **kwargs),
                self._real,
                many=True,
            )
        )

    def callproc(self, name: str, *args: Any) -> Any:
        """Call a procedure, inside the sandbox."""
        return self.connection._run(f"CALL {name}()", lambda _: self._real.callproc(name, *args), self._real)

    def close(self) -> None:
        self._real.close()

    async def _async_soft_close(self) -> None:
        """An async engine over a synchronous wire: the rows must outlive this."""

    def _returned(self, result: Any) -> Any:
        return self if result is self._real else result
