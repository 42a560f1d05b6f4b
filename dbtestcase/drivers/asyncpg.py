"""asyncpg: a wire over SQLAlchemy's adapted connection, in a loop of its own."""

from __future__ import annotations

import contextlib
import functools
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ..reporting import says
from ..sandbox import Client, Kind, Rows, characteristics, classify
from .dbapi import ProxyConnection, ProxyCursor
from .loop_thread import LoopConnection, LoopWire

_EXECUTE = re.compile(r"\s*execute\b", re.IGNORECASE)

_LISTENERS = frozenset(("add_log_listener", "remove_log_listener", "add_query_logger", "remove_query_logger"))

_OUTER = SimpleNamespace(_managed=False, _isolation=None)
"""Stands in for a transaction that asyncpg has begun."""


class AsyncpgWire(LoopWire):
    """The wire of a sandbox that speaks asyncpg."""

    asked = LoopWire.asked_of_postgresql

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.codecs = Codecs(self._asyncpg)
        self.executing: Callable[[], Client | None] = lambda: None
        """Whose ``EXECUTE`` the driver has described last."""

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        import asyncpg

        class Connection(asyncpg.Connection):  # type: ignore[misc]
            __slots__ = ()

            def _cancel_current_command(self: Any, *waiters: Any) -> None:
                # asyncpg ends a connection whose cancellation takes as long as a statement may; there is only this one
                self._config = self._config._replace(command_timeout=None)
                asyncpg.Connection._cancel_current_command(self, *waiters)

        Connection.__module__ = asyncpg.Connection.__module__
        return {"connection_class": Connection}

    def execute_for(self, client: Client) -> None:
        """Forget how another connection's ``EXECUTE`` was described: of that name it may have nothing, or another."""
        self._forget_statements()
        self.executing = weakref.ref(client)

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return _Connection

    def become(self, connection: _Connection) -> None:
        """Behave as a virtual connection: with its codecs, timeout and listeners."""
        driver, command_timeout = self._asyncpg, connection._command_timeout
        self.listen_for(connection)
        if driver._config.command_timeout != command_timeout:
            driver._config = driver._config._replace(command_timeout=command_timeout)
        if self.codecs.current is not connection._codecs:
            self.connection.loop_thread.run(self.codecs.apply(connection._codecs))
            self._forget_statements()

    def listen_for(self, connection: _Connection) -> None:
        """What the server says from now on is said to this connection's listeners."""
        driver = self._asyncpg
        driver._log_listeners, driver._query_loggers = connection.log_listeners, connection.query_loggers

    @property
    def _asyncpg(self) -> Any:
        return self.connection.real._connection

    def run(self, *statements: str) -> Rows:
        rows = super().run(*statements)
        # asyncpg below 0.32 opens a cursor only in a transaction that it has begun itself
        self._asyncpg._top_xact = _OUTER if self.in_transaction() else None
        return rows

    def send(self, command: str) -> Rows:
        loop_thread = self.connection.loop_thread
        if command.lstrip().partition(" ")[0].upper() in ("SELECT", "WITH"):
            return [tuple(row) for row in loop_thread.run(self._asyncpg.fetch(command))]
        loop_thread.run(self._asyncpg.execute(command))
        return []

    def in_transaction(self) -> bool:
        return bool(self._asyncpg.is_in_transaction()) and not self.gone

    def cut(self, why: str) -> None:
        self._gone = why
        self.connection.loop_thread.start(self._asyncpg.terminate)

    @property
    def gone(self) -> str:
        return self._gone or ("it was closed" if self._asyncpg.is_closed() else "")

    def error(self, name: str, message: str) -> Exception:
        from asyncpg import exceptions

        cls = getattr(exceptions, f"{name.replace('Sql', 'SQL')}Error", None)
        if cls is None:
            return super().error(name, message)
        try:
            self.connection.real._handle_exception(cls(message))
        except Exception as error:  # as SQLAlchemy's adapter gives it
            return error
        raise AssertionError("an error of asyncpg's is translated by raising another")

    def failed(self, error: BaseException) -> None:
        cause = error.__cause__ or error
        if getattr(cause, "severity", None):  # the server's: it has not heard of a wrong argument
            self.broken = True
        if says(cause, {"34000"}):  # FETCH from a cursor that is not there has a plan without columns
            self._forget_statements()

    def cut_off(self, error: BaseException) -> None:
        if self.connection.loop_thread.was_cut_off() or isinstance(error, TimeoutError):
            self.broken = True  # the driver has cancelled the statement

    def forget_plans(self) -> None:
        self._forget_statements()
        self.connection.loop_thread.run(self._asyncpg.reload_schema_state())

    def _forget_statements(self) -> None:
        cache = self.connection.real._prepared_statement_cache
        if cache is not None:
            cache.clear()


class _Stream(ProxyCursor):
    """A cursor whose rows are fetched from a portal of the server."""

    def _fetch(self, name: str, *args: Any, **kwargs: Any) -> Any:
        connection = self.connection
        client, sandbox = connection._client, connection._sandbox
        with connection._held():
            portal = self._real._cursor
            if portal is None or self._has_buffered(name, *args, **kwargs):
                return super()._fetch(name, *args, **kwargs)
            if not client.active:
                raise _no_transaction()
            if portal._exhausted:
                return super()._fetch(name, *args, **kwargs)
            connection._drive(sandbox.recover_for(client))
            if portal._portal_name not in client.cursors:  # its transaction has ended, and another has begun
                raise sandbox.fail(client, "InvalidCursorName", f'portal "{portal._portal_name}" does not exist')
            try:
                return super()._fetch(name, *args, **kwargs)
            except Exception as error:
                connection._wire.failed(error)
                raise

    def _has_buffered(self, name: str, size: int | None = None) -> bool:
        """Whether the adapter gives rows that it has already, and asks nobody."""
        rows = len(self._real._rowbuffer or ())  # of early releases of SQLAlchemy 2.0: None before the first fetch
        return rows > 0 and (name == "fetchone" or (name == "fetchmany" and 0 < (size or 0) <= rows))


def _no_transaction() -> Exception:
    """What asyncpg says of a cursor whose transaction is not there (any more)."""
    from asyncpg import NoActiveSQLTransactionError

    return NoActiveSQLTransactionError("cursor cannot be created outside of a transaction")  # type: ignore[no-any-return]


class _Connection(LoopConnection):
    """Looks like SQLAlchemy's adapted connection of asyncpg."""

    _wire: AsyncpgWire

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._codecs: Registrations = self._wire.codecs.interned({})
        self._command_timeout: float | None = None
        self.log_listeners: set[Any] = set()
        self.query_loggers: set[Any] = set()

    def state(self) -> tuple[object, ...]:
        return (*super().state(), id(self._codecs))

    def configure(self, parameters: Mapping[str, Any]) -> None:
        given = parameters.get("command_timeout")
        if given is not None:
            try:
                self._command_timeout = 0.0 if isinstance(given, bool) else float(given)
            except ValueError:
                self._command_timeout = 0.0
            if self._command_timeout <= 0:  # as asyncpg says it
                raise ValueError(f"invalid command_timeout value: expected greater than 0 float (got {given!r})")

    def _run(self, text: Any, call: Any, real: Any, *, many: bool = False, parameters: Any = None) -> Any:
        if type(text) is str and _EXECUTE.match(text) and self._wire.executing() is not self._client:
            self._wire.execute_for(self._client)
        streams = getattr(real, "server_side", False)
        half_sent, self._half_sent = self._half_sent, streams and self._client.each_statement
        if self._half_sent:
            raise _no_transaction()
        if half_sent and type(text) is str:
            self._refuse_level(text)

        def as_mine(replacement: str | None) -> Any:
            self._wire.become(self)
            result = call(replacement)
            if streams:
                # the server keeps a portal until the outer transaction ends: it ends with this one's, like any cursor
                self._sandbox.opened_cursor(self._client, real._cursor._portal_name)
            return result

        return super()._run(text, as_mine, real, many=many, parameters=parameters)

    _half_sent = False
    """Whether asyncpg has refused a stream after it had sent the half of it: the next statement is not its first."""

    def _refuse_level(self, text: str) -> None:
        level, _ = characteristics(text) if classify(text).kind is Kind.CHARACTERISTICS else ("", None)
        if level and level != self._sandbox.rules.level_of(self._client):
            what = "SET TRANSACTION ISOLATION LEVEL must be called before any query"
            raise self._wire.error("ActiveSqlTransaction", what)

    def _cursor(self, real: Any) -> ProxyCursor:
        return (_Stream if getattr(real, "server_side", False) else ProxyCursor)(self, real)

    def own_method(self, name: str) -> Any:
        if name == "is_in_transaction":
            return lambda: self._sandbox.status(self._client) != "idle"
        if name == "is_closed":
            return lambda: self._closed
        if name in ("close", "terminate"):
            return self._close_async if name == "close" else self.close
        if name in _LISTENERS:
            return functools.partial(self._change_listeners, name)
        return functools.partial(self._register, name) if name in _METHODS else super().own_method(name)

    async def _close_async(self, *, timeout: float | None = None) -> None:
        await self.wait_for_turn()
        self.close()

    def _change_listeners(self, method: str, callback: Any) -> None:
        self._check_open()
        with self._wire.lock:
            self._wire.listen_for(self)
            getattr(self._wire.connection.real._connection, method)(callback)

    async def _register(self, method: str, typename: str, *, schema: str = "public", **arguments: Any) -> None:
        """``set_type_codec()`` and its kind, for this connection only."""
        before = self._codecs
        wanted = {key: value for key, value in before.items() if key != (schema, typename)}
        if method != "reset_type_codec":
            wanted[schema, typename] = Registration(method, arguments)
        self._codecs = self._wire.codecs.interned(wanted)
        if self._wire.connection.loop_thread.runs_here or self._wire.codecs.current is self._codecs:
            return  # with the next statement
        scheduler = self._sandbox.scheduler
        await scheduler.acquire_async(self._client.ticket)
        try:
            self._drive(self._sandbox.recover_for(self._client))
            self._wire.become(self)
        except BaseException:
            self._codecs = before
            raise
        finally:
            scheduler.release(self._client.ticket)


_METHODS = frozenset(("set_type_codec", "set_builtin_type_codec", "reset_type_codec"))

Key = tuple[str, str]
"""A type's schema and name."""


@dataclass(frozen=True, eq=False)
class Registration:
    """A call of one of asyncpg's methods."""

    method: str
    arguments: Mapping[str, Any] = field(hash=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registration) and self._essence == other._essence

    def __hash__(self) -> int:
        return hash(self.method)

    @property
    def _essence(self) -> tuple[object, ...]:
        return self.method, tuple(sorted((name, _essence(value)) for name, value in self.arguments.items()))


Registrations = Mapping[Key, Registration]


class Codecs:
    """The codecs of a physical connection of asyncpg's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._known: list[Registrations] = []
        self.current: Registrations = self.interned({})
        """What the physical connection has."""

    def interned(self, registrations: Registrations) -> Registrations:
        """The one object that stands for equal registrations."""
        for each in self._known:
            if each == registrations:
                return each
        self._known.append(registrations)
        return registrations

    async def apply(self, wanted: Registrations) -> None:
        """Register what is wanted, and take back what is not."""
        had = dict(self.current)
        for schema, typename in list(had):
            if (schema, typename) not in wanted:
                del had[schema, typename]
                with contextlib.suppress(ValueError):  # the type was rolled back
                    await self._connection.reset_type_codec(typename, schema=schema)
        for (schema, typename), registration in wanted.items():
            if had.get((schema, typename)) != registration:
                self.current = self.interned(had)  # should it fail
                call = getattr(self._connection, registration.method)
                await call(typename, schema=schema, **registration.arguments)
                had = {**had, (schema, typename): registration}
        self.current = wanted


def _essence(value: object) -> object:
    """What makes two functions the same: SQLAlchemy defines its own anew for each connection."""
    code = getattr(value, "__code__", None)
    if code is None or getattr(value, "__defaults__", None) or getattr(value, "__kwdefaults__", None):
        return repr(value) if isinstance(value, str) else (id(value), value)
    cells = tuple(id(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ())
    return id(code), cells
