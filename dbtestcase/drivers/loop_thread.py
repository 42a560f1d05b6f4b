"""Async drivers on a wire that sync code can use too: the connection lives in an event loop of its own, on a thread.

SQLAlchemy adapts every async driver to the DBAPI by switching greenlets.  Here the adapted connection runs in a private
loop, and a blocking wrapper of it is what the virtual connections share.  So nothing depends on the loop of a test, a
sync session works beside an async one, and a statement blocks the loop that runs it, as it does with psycopg.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from sqlalchemy import URL, Dialect
from sqlalchemy.util import greenlet_spawn

from ..sandbox import Rules
from . import dbapi
from .async_adapters import AdaptedConnection
from .dbapi import CursorOver, ProxyConnection
from .proxy_wire import ProxyWire


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._cut_off = False
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def runs_here(self) -> bool:
        """Whether the caller is in the loop_thread's own thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop_thread's loop and wait for its result."""
        over = threading.Event()

        async def supervised() -> Any:
            try:
                return await coroutine
            finally:
                over.set()

        future = asyncio.run_coroutine_threadsafe(supervised(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not over.is_set():  # a signal's handler has raised
                self._cut_off = True
                future.cancel()
                over.wait()
            raise

    def start(self, function: Callable[[], object]) -> None:
        """Let a function run in the loop_thread's loop, without waiting for it."""
        self._loop.call_soon_threadsafe(function)

    def was_cut_off(self) -> bool:
        """Whether a coroutine was cancelled since this was last asked."""
        found, self._cut_off = self._cut_off, False
        return found

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of SQLAlchemy's adapters, which await by switching greenlets."""
        return self.run(greenlet_spawn(function, *args, **kwargs))

    def close(self) -> None:
        """Stop the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingConnection:
    """An adapted connection whose methods block until they are done."""

    def __init__(self, loop_thread: LoopThread, real: Any) -> None:
        self.loop_thread = loop_thread
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return _BlockingCursor(self.loop_thread, self.loop_thread.call(self.real.cursor, *args, **kwargs))

    def commit(self) -> None:
        self.loop_thread.call(self.real.commit)

    def rollback(self) -> None:
        self.loop_thread.call(self.real.rollback)

    def close(self) -> None:
        self.loop_thread.call(self.real.close)

    def ping(self, *args: Any) -> Any:
        return self.loop_thread.call(self.real.ping, *args)


class _BlockingCursor(CursorOver):
    def __init__(self, loop_thread: LoopThread, real: Any) -> None:
        super().__init__(real)
        object.__setattr__(self, "_loop_thread", loop_thread)

    _loop_thread: LoopThread

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop_thread.call(self._real.execute, *args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop_thread.call(self._real.executemany, *args, **kwargs)

    def nextset(self) -> Any:
        return self._loop_thread.call(self._real.nextset)

    def setinputsizes(self, *args: Any) -> Any:
        return self._loop_thread.call(self._real.setinputsizes, *args)

    def close(self) -> None:
        self._loop_thread.call(self._real.close)

    async def _async_soft_close(self) -> None:
        close = getattr(self._real, "_async_soft_close", None)
        if close is not None:
            self._loop_thread.run(close())

    def _fetch(self, name: str, *args: Any, **kwargs: Any) -> Any:
        method = getattr(self._real, name)
        if getattr(self._real, "server_side", False):
            return self._loop_thread.call(method, *args, **kwargs)
        return method(*args, **kwargs)  # the rows are there already


class LoopWire(ProxyWire):
    """The wire of a sandbox that speaks an async driver."""

    connection: BlockingConnection

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        """What the driver is told beside the URL."""
        return {}

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return LoopConnection

    def close(self) -> None:
        loop_thread = self.connection.loop_thread
        try:
            self.connection.close()
        finally:
            loop_thread.close()


class LoopConnection(AdaptedConnection):
    """A virtual connection that looks like SQLAlchemy's adapted one."""

    in_use = False
    """Whether a coroutine of the driver's own connection is about to run a statement."""

    @property
    def driver_connection(self) -> Any:
        return _DriverConnection(self)

    def state(self) -> tuple[object, ...]:
        return (*super().state(), self.isolation_level, self.deferrable)

    def own_method(self, name: str) -> Any:
        """The connection's own variant of a method of the driver's connection; None where it has none."""
        return None

    def await_(self, awaitable: Any) -> Any:
        """Await something of the driver; in SQLAlchemy 2.0 the dialect does this when it connects."""
        return self._wire.connection.loop_thread.run(awaitable)

    def ping(self, *args: Any) -> Any:
        with self._held():
            return None

    def set_isolation_level(self, level: str) -> None:
        """Of the transactions to come; ``autocommit`` is none."""
        if self._sandbox.status(self._client) != "idle":
            self.rollback()
        self.set_autocommit(level == "autocommit")
        self.__dict__["isolation_level"] = level
        self._client.set_modes(level="" if level == "autocommit" else str(level or "").replace("_", " ").lower())

    @property
    def isolation_level(self) -> Any:
        return self.__dict__.get("isolation_level")

    autocommit = dbapi.autocommit

    @property
    def readonly(self) -> bool:
        return bool(self._client.read_only)

    @readonly.setter
    def readonly(self, value: bool) -> None:
        self._client.set_modes(read_only=True if value else None)

    @property
    def deferrable(self) -> bool:
        return bool(self._client.deferrable)

    @deferrable.setter
    def deferrable(self, value: bool) -> None:
        self._client.set_modes(deferrable=True if value else None)


_ALLOWED = {
    *("reload_schema_state", "create_function", "create_collation"),
    *("get_server_version", "get_server_pid", "get_settings", "is_closed", "is_in_transaction"),
}


class _DriverConnection:
    """The driver's own connection, as far as it can be contained."""

    def __init__(self, connection: LoopConnection) -> None:
        self._virtual = connection

    def __getattr__(self, name: str) -> Any:
        wire: Any = self._virtual._wire
        own = self._virtual.own_method(name)
        if own is not None:
            return own
        real = getattr(wire.connection.real._connection, name)
        if name in _ALLOWED:
            if not inspect.iscoroutinefunction(real):
                return real

            async def allowed(*args: Any, **kwargs: Any) -> Any:
                loop_thread = wire.connection.loop_thread
                called = real(*args, **kwargs)
                return await called if loop_thread.runs_here else loop_thread.run(called)

            return allowed
        if name in ("execute", "fetch", "fetchrow", "fetchval", "executemany") and wire.driver == "asyncpg":
            return self._contained(name, real)
        if not callable(real):
            return real
        raise self._virtual.refusal(f"{name}()")

    def _contained(self, name: str, real: Any) -> Any:
        virtual = self._virtual

        async def contained(query: str, *args: Any, **kwargs: Any) -> Any:
            import asyncpg

            if virtual.in_use:
                raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
            virtual.in_use = True
            try:
                await asyncio.sleep(0)  # whoever uses the connection beside it must be seen, as in production
                await virtual.wait_for_turn()
                # the adapter begins a transaction with its first statement; before that each commits by itself
                if virtual._client.active:
                    return run(query, *args, **kwargs)
                try:
                    return alone(query, *args, **kwargs)
                except asyncpg.InvalidCachedStatementError:  # outside of a transaction asyncpg tries once more
                    virtual._wire.forget_plans()
                    return alone(query, *args, **kwargs)
            finally:
                virtual.in_use = False

        def run(query: str, *args: Any, **kwargs: Any) -> Any:
            loop_thread = virtual._wire.connection.loop_thread
            return virtual._run(query, lambda new: loop_thread.run(real(new or query, *args, **kwargs)), None)

        def alone(query: str, *args: Any, **kwargs: Any) -> Any:
            try:
                result = run(query, *args, **kwargs)
            except BaseException:
                virtual.rollback()
                raise
            virtual.commit()
            return result

        return contained


def open_loop_wire(dialect: Dialect, url: URL, rules: Rules, wire_class: type[LoopWire]) -> LoopWire:
    """Connect with an async driver, in a loop of its own."""
    loop_thread = LoopThread(f"dbtestcase {dialect.driver}")
    try:
        args, parameters = dialect.create_connect_args(url)
        real = loop_thread.call(dialect.connect, *args, **parameters, **wire_class.parameters())
        loop_thread.call(dialect.set_isolation_level, real, "AUTOCOMMIT")
        on_connect = dialect.on_connect()
        if on_connect is not None:
            loop_thread.call(on_connect, real)
    except BaseException:
        loop_thread.close()
        raise
    return wire_class(dialect, BlockingConnection(loop_thread, real), rules, url)
