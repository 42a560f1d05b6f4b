"""How an application's engines are led into the sandbox.

Engines that point to the test database, present and future, are led by SQLAlchemy's class-level events; those that the
test class names have the creator of their pool replaced, whatever their URL.  The pools stay what they are: their
class, size, timeouts, options and events.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool, QueuePool

from ..drivers import connect_virtual
from ..drivers.direct_connections import watching
from ..drivers.endpoints import Target, target_of_arguments, target_of_connection
from ..errors import SandboxEscape
from ..reporting.urls import shown
from ..sandbox.connections import Client
from ..sandbox.transaction import Sandbox
from .connect_arguments import ask_listeners, connect_arguments
from .named_engines import call_for_engines, is_engine, not_an_engine

__all__ = ["Switchboard", "blocking_engine", "initialize_dialect", "resolve_engines", "sync_engine_of"]


def sync_engine_of(engine: Any) -> Engine:
    """The synchronous engine inside an ``AsyncEngine``, or the engine itself.

    :raises ConfigurationError: it is no engine.
    """
    if not is_engine(engine):
        raise not_an_engine(engine)
    inner: Engine = getattr(engine, "sync_engine", engine)
    return inner


def resolve_engines(engines: Any) -> list[Any]:
    """The engines that a class attribute names: engines, or functions that return one or several.

    :raises ConfigurationError: something else is in it.
    """
    if engines is None:
        return []
    found: list[Any] = []
    for each in _members(engines):
        value = call_for_engines(each) if callable(each) and not is_engine(each) else each
        for engine in _members(value):
            sync_engine_of(engine)
            found.append(engine)
    return found


def _members(value: Any) -> list[Any]:
    """What is in a collection, or the one thing that is none."""
    if isinstance(value, Mapping):
        return list(value.values())
    is_collection = isinstance(value, Sequence | Set | ValuesView | Iterator) and not isinstance(value, str | bytes)
    return list(value) if is_collection else [value]


class Switchboard:
    """Leads engines to the wire of one sandbox while it is active.

    :param wire: the physical connection.
    :param sandbox: what runs on it.
    :param targets: the databases whose engines are led.
    """

    def __init__(self, wire: Any, sandbox: Sandbox, targets: Iterable[Target | None]) -> None:
        self.wire = wire
        self.sandbox = sandbox
        self.targets = frozenset(t for t in targets if t is not None)
        self._led: list[tuple[Engine, Pool, Pool]] = []
        self.used: set[Pool] = set()
        self.lent: dict[Any, Client] = {}  # what the pools have handed out, by their records

    def __enter__(self) -> Switchboard:
        _registry.add(self)
        self._watch = watching(self.sandbox, lambda connection: target_of_connection(connection) in self.targets)
        self._watch.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._watch.__exit__(None, None, None)
        _registry.remove(self)
        self.release(0)

    @property
    def count(self) -> int:
        """How many engines are led by name; to be given to :meth:`release`."""
        return len(self._led)

    def lead(self, engine: Any, *, own: bool = False) -> None:
        """Lead one engine, whatever its URL.

        :raises SandboxEscape: it speaks another driver than the wire.
        """
        engine = sync_engine_of(engine)
        if any(led is engine or led.pool is engine.pool for led, _, _ in self._led):
            return
        self._refuse_other_driver(engine.dialect, shown(engine.url))
        original = engine.pool
        pool = original.recreate()
        args, parameters = connect_arguments(original)

        def create(record: Any = None) -> Any:
            arguments, chosen = list(args), dict(parameters)
            if not own:
                ask_listeners(engine.dialect, record, arguments, chosen, engine=shown(engine.url))
            return connect_virtual(self.wire, self.sandbox, engine.dialect, own=own, args=arguments, parameters=chosen)

        pool._creator = create
        engine.pool = pool
        self._led.append((engine, original, pool))

    def greet(self, engines: Iterable[Any]) -> None:
        """Let the connect events of ``engines`` run now, where what they ask for is too late once rows are written."""
        if self.sandbox.rules.connects_early:
            for engine in engines:
                if not engine.dialect.is_async:
                    engine.connect().close()

    def release(self, count: int) -> None:
        """Give back their pools to the engines that were led after the first ``count``."""
        while len(self._led) > count:
            engine, original, pool = self._led.pop()
            # whatever became of the pool meanwhile (dispose() recreates it), the original comes back
            engine.pool.dispose()
            pool.dispose()
            engine.pool = original

    def take_back(self) -> None:
        """A test has ended: what it has left checked out must not be missing in the pools of the next one."""
        for record, client in list(self.lent.items()):
            if client.own or self.sandbox.is_open(client):
                continue
            self.lent.pop(record, None)
            fairy = record.fairy_ref() if record.fairy_ref is not None else None
            if fairy is not None and isinstance(fairy._pool, QueuePool) and not fairy._pool._is_asyncio:
                fairy.detach()

    def end_loop(self) -> None:
        """An event loop has ended: the queues of asynchronous pools are bound to it once they made a task wait."""
        for pool in self.used:
            _renew_queue(pool)
        self.used.clear()

    # -- events

    def connect(self, dialect: sa.Dialect, record: Any, args: list[Any], parameters: dict[str, Any]) -> Any:
        """A virtual connection for an engine that points to the test database; None for any other."""
        if target_of_arguments(dialect, args, parameters) not in self.targets:
            return None
        self._refuse_other_driver(
            dialect,
            f"{dialect.name}+{dialect.driver}://…/{parameters.get('dbname') or parameters.get('database') or ''}",
        )
        ask_listeners(dialect, record, args, parameters, after=_registry._do_connect)
        return connect_virtual(self.wire, self.sandbox, dialect, args=args, parameters=parameters)

    def _refuse_other_driver(self, dialect: sa.Dialect, name: str) -> None:
        if dialect.driver not in getattr(self.wire, "drivers", (self.wire.driver,)):
            raise self.sandbox.note(
                SandboxEscape(
                    f"The engine {name} reaches the test database with the driver {dialect.driver!r}, but the sandbox "
                    f"speaks {self.wire.driver!r}: its rows would escape.",
                    cause="two drivers in one application; one connection can speak only one",
                    remedy="let both use one driver in tests, or name this engine first in `engines = [...]` so that "
                    f"the sandbox speaks {dialect.driver!r}, or use TruncatingDatabaseTest (any driver)",
                )
            )

    def client_of(self, connection: sa.Connection) -> Client | None:
        """Which virtual connection of this wire carries a connection of SQLAlchemy's; None if none does."""
        if connection.closed or connection.invalidated:
            return None
        proxied = connection.connection
        client = _client_of(proxied.dbapi_connection) if proxied is not None else None
        return client if client is not None and client in self.sandbox.clients else None

    def application_client_of(self, connection: sa.Connection) -> Client | None:
        """The same for a synchronous connection of the application's; None for one of the test's own."""
        client = None if connection.dialect.is_async else self.client_of(connection)
        return client if client is not None and not client.own else None

    def owns(self, client: Client) -> bool:
        """Whether a virtual connection is one of this sandbox's, and still good for use."""
        return client in self.sandbox.clients and not client.retired


class _Registry:
    """The active switchboards of this process, and SQLAlchemy's events while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening = False
        self._active: tuple[Switchboard, ...] = ()

    def add(self, board: Switchboard) -> None:
        with self._lock:
            if not self._listening:
                self._listening = True
                event.listen(Engine, "do_connect", self._do_connect)
                # stays for good: pools may keep virtual connections long after the last sandbox
                event.listen(Pool, "checkout", self._checkout)
                event.listen(Pool, "checkin", self._checkin)
                event.listen(Pool, "connect", self._connect)
            self._active += (board,)

    def remove(self, board: Switchboard) -> None:
        with self._lock:
            self._active = tuple(each for each in self._active if each is not board)

    def _do_connect(self, dialect: sa.Dialect, record: Any, args: Any, parameters: Any) -> Any:
        for board in self._active:
            connection = board.connect(dialect, record, args, parameters)
            if connection is not None:
                return connection
        return None

    def _checkout(self, connection: Any, record: Any, fairy: Any) -> None:
        client = _client_of(connection)
        if client is not None:
            for board in self._active:
                if board.owns(client):
                    board.sandbox.checkout(client)
                    board.lent[record] = client
                    if getattr(fairy._pool, "_is_asyncio", False):
                        board.used.add(fairy._pool)
                    return
            raise exc.DisconnectionError("the sandbox of this connection has ended")
        target = target_of_connection(connection) if self._active else None
        if target is not None and any(target in board.targets for board in self._active):
            raise exc.DisconnectionError("a sandbox has begun")  # the pool connects again, through do_connect

    def _checkin(self, connection: Any, record: Any) -> None:
        client = _client_of(connection)
        for board in self._active:
            board.lent.pop(record, None)
            if client is not None and client in board.sandbox.clients:
                board.sandbox.checkin(client)

    def _connect(self, connection: Any, record: Any) -> None:
        if _client_of(connection) is not None:
            return
        target = target_of_connection(connection)
        for board in self._active:
            if target is not None and target in board.targets:
                with contextlib.suppress(Exception):  # the error below matters more
                    connection.close()
                raise board.sandbox.note(
                    SandboxEscape(
                        f"An engine made a real connection to the test database {target.database!r} by its own means: "
                        "its rows would escape.",
                        cause="create_engine(..., creator=...), or a pool of the application's own",
                        remedy="name the engine in `engines = [...]` or enlist() it: its pool is led into the sandbox",
                    )
                )


def _client_of(connection: Any) -> Client | None:
    client = connection.__dict__.get("_client") if hasattr(connection, "__dict__") else None
    if client is None:
        inner = getattr(connection, "_connection", None)
        client = inner.__dict__.get("_client") if hasattr(inner, "__dict__") else None
    return client if isinstance(client, Client) else None


def _renew_queue(pool: Any) -> None:
    """Give an asynchronous pool a fresh queue; the virtual connections in the old one are let go."""
    queue = getattr(pool, "_pool", None)
    if queue is not None:
        queue.__dict__.pop("_queue", None)  # made again, in the loop that asks for it first
        pool._overflow = -pool.size()


def blocking_engine(board: Switchboard, async_engine: Any, *, own: bool = False) -> Engine:
    """A synchronous engine with the dialect of an asynchronous one; works because the wire's connections block."""
    inner = sync_engine_of(async_engine)

    def connect() -> Any:
        connection = connect_virtual(board.wire, board.sandbox, inner.dialect, own=own)
        connection.blocking = True
        return connection

    pool = sa.pool.QueuePool(
        connect,
        dialect=inner.dialect,
        max_overflow=-1,
    )
    return Engine(pool, inner.dialect, inner.url)


def initialize_dialect(wire: Any, async_engine: Any) -> None:
    """Do on the wire itself, before any test runs, what ``create_engine()`` arranges for the first connection."""
    engine = sync_engine_of(async_engine)
    spoken = engine.dialect if wire.dialect.is_async else wire.dialect
    pool = sa.pool.StaticPool(lambda: wire.connection, dialect=spoken, reset_on_return=None)
    with Engine(pool, spoken, engine.url).connect() as connection:
        engine.dialect.initialize(connection)


_registry = _Registry()
