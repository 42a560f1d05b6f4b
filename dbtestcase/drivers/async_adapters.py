"""Async drivers over their synchronous twins: aiosqlite over ``sqlite3``, aiomysql and asyncmy over PyMySQL.

The twins share their types and errors, so one physical connection serves async code and sync code in one transaction,
needs no event loop, and outlives any.  A virtual connection looks like the one that SQLAlchemy adapts to the DBAPI; a
statement blocks the loop while it runs, as it does with psycopg.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Dialect

from ..errors import SandboxEscape
from ..sandbox import COMMITTING
from .dbapi import ProxyConnection, ProxyCursor
from .sqlalchemy_internals import in_greenlet

__all__ = ["TWINS", "AdaptedConnection", "TwinConnection"]

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
        self._virtual = virtual

    def __getattr__(self, name: str) -> Any:
        virtual = self._virtual
        if name not in _COROUTINES:
            raise virtual._sandbox.note(
                SandboxEscape(
                    f"{name} of the driver's own connection ({virtual.dialect.driver}) would bypass the sandbox; "
                    "nothing was sent.",
                    cause="get_raw_connection().driver_connection, or run_async()",
                    remedy=f"run it through SQLAlchemy's connection, or {COMMITTING}",
                )
            )

        async def method(*args: Any, **kwargs: Any) -> Any:
            scheduler = virtual._sandbox.scheduler
            await scheduler.acquire_async(virtual._client.ticket)  # not to block the loop: the others go on meanwhile
            scheduler.release(virtual._client.ticket)
            virtual.awaited = True
            try:
                result = getattr(virtual, name)(*args, **kwargs)
            finally:
                virtual.awaited = False
            return _AsyncCursor(result) if isinstance(result, ProxyCursor) else result

        return method


_COROUTINES = {
    *("execute", "executemany", "executescript", "commit", "rollback", "ping", "autocommit", "begin"),
    *("create_function", "create_aggregate", "create_collation", "close"),
}


class _AsyncCursor:
    """A cursor of the driver's own: its rows are there already."""

    def __init__(self, cursor: ProxyCursor) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._cursor, name)
        if name not in ("fetchone", "fetchmany", "fetchall", "close", "execute", "executemany"):
            return found

        async def method(*args: Any, **kwargs: Any) -> Any:
            return found(*args, **kwargs)

        return method

    async def __aenter__(self) -> _AsyncCursor:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._cursor.close()

    async def __aiter__(self) -> Any:
        while (row := self._cursor.fetchone()) is not None:
            yield row
