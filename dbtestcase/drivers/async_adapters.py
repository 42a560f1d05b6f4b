"""Async drivers over their synchronous twins: aiosqlite over ``sqlite3``, aiomysql and asyncmy over PyMySQL.

The twins share their types and errors, so one physical connection serves async code and sync code in one transaction,
needs no event loop, and outlives any.  A virtual connection looks like the one that SQLAlchemy adapts to the DBAPI; a
statement blocks the loop while it runs, as it does with psycopg.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from typing import Any

from sqlalchemy import Dialect

from ..errors import SandboxEscape
from ..sandbox import COMMITTING
from .dbapi import ProxyConnection, ProxyCursor
from .led_connections import Opening
from .sqlalchemy_internals import in_greenlet

TWINS = {"aiosqlite": "pysqlite", "aiomysql": "pymysql", "asyncmy": "pymysql"}
"""The synchronous driver that the wire speaks for each."""


class AdaptedConnection(ProxyConnection):
    """What SQLAlchemy's adapted connections have beside the DBAPI's methods, in async code and in sync code."""

    dialect: Dialect

    blocking = False
    """Whether it is a synchronous engine's: then it may be used where nothing can be awaited."""

    awaited = False
    """Whether a coroutine of the driver's own connection runs."""

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        from sqlalchemy.util import await_only

        scheduler = self._sandbox.scheduler
        if in_greenlet():
            await_only(scheduler.acquire_async(self._client.ticket))
        else:
            scheduler.acquire(self._client.ticket)
        try:
            yield
        finally:
            scheduler.release(self._client.ticket)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """A cursor; outside of SQLAlchemy's greenlet ``MissingGreenlet``, as in production: here it would work."""
        from sqlalchemy.util import await_only

        if not (self.blocking or self.awaited or in_greenlet()):
            await_only(self._sandbox.scheduler.acquire_async(self._client.ticket))
        return super().cursor(*args, **kwargs)

    @property
    def _connection(self) -> Any:
        return self.driver_connection

    @property
    def driver_connection(self) -> Any:
        """The driver's own connection, as far as it can be contained."""
        raise NotImplementedError

    def await_(self, awaitable: Any) -> Any:
        """Await something, as the adapted connection does."""
        from sqlalchemy.util import await_only

        return await_only(awaitable)

    def run_async(self, function: Callable[[Any], Any]) -> Any:
        """Call an async function with the driver's connection."""
        return self.await_(function(self.driver_connection))

    def terminate(self) -> None:
        """Close without waiting."""
        self.close()

    async def wait_for_turn(self) -> None:
        """For a coroutine of the driver's own: not to block the loop, so that the others go on meanwhile."""
        scheduler = self._sandbox.scheduler
        await scheduler.acquire_async(self._client.ticket)
        scheduler.release(self._client.ticket)

    def refusal(self, name: str) -> Exception:
        """The error for what of the driver's own connection nobody can contain."""
        return self._sandbox.note(
            SandboxEscape(
                f"{name} of the driver's own connection ({self.dialect.driver}) would bypass the sandbox; "
                "nothing was sent.",
                cause="get_raw_connection().driver_connection, or run_async()",
                remedy=f"run it through SQLAlchemy's connection, or {COMMITTING}",
            )
        )


class TwinConnection(AdaptedConnection):
    """A connection of an async driver over the wire of its synchronous twin."""

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """A cursor; one that streams fetches at once: nobody else could use the wire meanwhile."""
        kwargs.pop("server_side", None)
        return super().cursor(*args, **kwargs)

    def _run(self, text: Any, call: Any, real: Any, *, many: bool = False, parameters: Any = None) -> Any:
        try:
            return super()._run(text, call, real, many=many, parameters=parameters)
        except Exception as error:
            own = self._translated(error)
            if own is error:
                raise
            raise own from error

    def _translated(self, error: Exception) -> Exception:
        """The error of the async driver, where that has errors of its own (asyncmy)."""
        module: Any = self.dialect.loaded_dbapi
        theirs: Any = self._wire.dialect.loaded_dbapi
        if isinstance(error, module.Error) or not isinstance(error, theirs.Error):
            return error
        cls: type[Exception] = getattr(module, type(error).__name__, module.Error)
        return cls(*error.args)

    @property
    def driver_connection(self) -> Any:
        return _DriverConnection(self)


class _DriverConnection:
    """The driver's own connection: its coroutines are the virtual connection's methods."""

    def __init__(self, virtual: TwinConnection) -> None:
        object.__setattr__(self, "_virtual", virtual)

    _virtual: TwinConnection

    def __getattr__(self, name: str) -> Any:
        virtual = self._virtual
        if name in _ATTRIBUTES:
            return getattr(virtual, name)
        if name not in _COROUTINES:
            raise virtual.refusal(name)
        if name == "cursor":
            return lambda *args, **kwargs: _AsyncCursor(
                virtual, lambda: _awaited(virtual, virtual.cursor, *args, **kwargs)
            )

        async def method(*args: Any, **kwargs: Any) -> Any:
            if name == "close" and virtual._closed:
                return None
            result = await _turn(virtual, functools.partial(getattr(virtual, name), *args, **kwargs))
            return _AsyncCursor(virtual, lambda: result) if isinstance(result, ProxyCursor) else result

        return lambda *args, **kwargs: Opening(method(*args, **kwargs))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _ATTRIBUTES:
            raise self._virtual.refusal(name)
        setattr(self._virtual, name, value)

    async def __aenter__(self) -> _DriverConnection:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


_COROUTINES = {
    *("execute", "executemany", "executescript", "commit", "rollback", "ping", "autocommit", "begin"),
    *("create_function", "create_aggregate", "create_collation", "close", "cursor"),
}
_ATTRIBUTES = {"row_factory", "text_factory", "isolation_level", "in_transaction", "total_changes"}
"""Those of aiosqlite, which are no coroutines."""


_OF_CURSORS = {
    *("fetchone", "fetchmany", "fetchall", "close", "execute", "executemany", "executescript", "callproc", "nextset")
}


class _AsyncCursor:
    """A cursor of the driver's own: its rows are there already; awaited or not, as the driver has it."""

    def __init__(self, virtual: TwinConnection, open: Callable[[], ProxyCursor]) -> None:
        object.__setattr__(self, "_virtual", virtual)
        object.__setattr__(self, "_open", functools.cache(open))

    _virtual: TwinConnection
    _open: Callable[[], ProxyCursor]

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._open(), name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_CURSORS:
            return getattr(self._open(), name)

        async def method(*args: Any, **kwargs: Any) -> Any:
            return await _turn(self._virtual, lambda: self._run(name, *args, **kwargs))

        return method

    def _run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        cursor = self._open()
        result = getattr(cursor, name)(*args, **kwargs)
        return self if result is cursor else result

    def __await__(self) -> Generator[Any, None, Any]:
        return self
        yield

    async def __aenter__(self) -> _AsyncCursor:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def __aiter__(self) -> Any:
        while (row := self._open().fetchone()) is not None:
            yield row


async def _turn(virtual: TwinConnection, work: Callable[[], Any]) -> Any:
    """Do something with the wire, from a coroutine of the driver's own."""
    if virtual._closed and virtual.dialect.driver == "aiosqlite":
        raise ValueError("Connection closed")
    await virtual.wait_for_turn()
    return _awaited(virtual, work)


def _awaited(virtual: TwinConnection, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Do something as a coroutine of the driver's own does it."""
    before, virtual.awaited = virtual.awaited, True
    try:
        return work(*args, **kwargs)
    finally:
        virtual.awaited = before
