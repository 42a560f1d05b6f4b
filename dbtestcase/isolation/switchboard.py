"""How an application's engines are led into the sandbox.

Those that the test class names, and those that reach for the same databases, have the creator of their pool replaced,
whatever their URL; other doors to the test database are led by SQLAlchemy's class-level events (:class:`Hooks`).  A
connection is asked for at the wire of now: what became of an earlier one makes no difference to a pool.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool, QueuePool

from ..drivers import (
    Endpoint,
    connect_as_asked,
    connecting,
    endpoints_of_arguments,
    endpoints_of_connection,
    forbid_overflow,
    harness_connections,
    is_asyncio,
    is_harness,
    meet,
    pool_of,
    pool_of_record,
    watch_attaching,
    watching,
)
from ..errors import NotRunning, SandboxEscape
from ..reporting import shown
from ..sandbox import NO_ARGUMENTS, Arguments, Client, Sandbox, Wire
from .early_uses import early_uses
from .engines import Leads, sync_engine_of
from .left_threads import LeftThreads


class Switchboard(Leads):
    """Leads engines to the wire of one sandbox; those of ``endpoints`` while something runs in it."""

    captures = True

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        super().__init__()
        self.endpoints = frozenset(endpoints)
        self.place = self.endpoints
        self.used: set[Pool] = set()
        self.handed_out: dict[Any, Client] = {}  # what the pools have handed out, by their records
        self._wire: Any = None
        self._sandbox: Sandbox | None = None
        self._driver = ""
        self._drivers: frozenset[str] = frozenset()
        self._watch: Any = None
        self.left_threads = LeftThreads()

    def open(self, wire: Wire, sandbox: Sandbox) -> None:
        """Connections are made on this wire from now on."""
        self._wire, self._sandbox = wire, sandbox
        self._driver, self._drivers = wire.driver, wire.drivers
        self._watch = watching(sandbox, lambda connection: meet(self.endpoints, endpoints_of_connection(connection)))
        self._watch.__enter__()
        hooks.add(self)

    def shut(self) -> None:
        """The wire is closed: until the next one there is nothing to connect to."""
        if self._sandbox is not None:
            hooks.remove(self)
            self._watch.__exit__(None, None, None)
            self._sandbox = self._wire = None
            self.forget_kept()

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox of now; :exc:`NotRunning` where there is none."""
        if self._sandbox is None:
            raise NotRunning(
                "A connection to the test database was asked for while there is none; it was not made.",
                cause="the sandbox's connection was lost and could not be made again, or the run has ended",
                remedy="see the first error of the run; use the database in setUp(), in the test or in its cleanups",
            )
        return self._sandbox

    @property
    def running(self) -> bool:
        """Whether something runs in the sandbox."""
        return self._sandbox is not None and self._sandbox.begun

    def take_back(self) -> None:
        """A test has ended: what it has left checked out must not be missing in the pools of the next one."""
        for record, client in list(self.handed_out.items()):
            if client.own or (self._sandbox is not None and self._sandbox.is_open(client)):
                continue
            self.handed_out.pop(record, None)
            fairy = record.fairy_ref() if record.fairy_ref is not None else None
            if fairy is not None and isinstance(pool_of(fairy), QueuePool) and not is_asyncio(pool_of(fairy)):
                fairy.detach()

    def end_loop(self) -> None:
        """An event loop has ended: the queues of asynchronous pools are bound to it once they made a task wait."""
        for pool in self.used:
            _renew_queue(pool)
        self.used.clear()

    def connect(self, dialect: sa.Dialect, given: Arguments = NO_ARGUMENTS, *, own: bool = False) -> Any:
        """A virtual connection on the wire of now."""
        sandbox = self.sandbox
        return self._wire.connect(sandbox, dialect, given, own=own)

    # -- leads

    def _creator(self, engine: Engine, original: Pool, *, own: bool) -> Callable[..., Any]:
        dialect = engine.dialect
        theirs = connecting(original, dialect, self._opening(dialect), shown(engine.url))

        def create(connection_record: Any = None) -> Any:
            return self.connect(dialect, own=True) if own else theirs(connection_record)

        return create

    def _opening(self, dialect: sa.Dialect) -> Callable[[list[Any], dict[str, Any]], Any]:
        return lambda args, parameters: self.connect(dialect, Arguments(args, parameters))

    def _refuse(self, engine: Engine) -> None:
        if engine.dialect.driver not in self._drivers:
            self._refuse_other_driver(engine.dialect, shown(engine.url))

    def _may_keep(self, lead: Any) -> bool:
        # what connect events have written early belongs to the class; queues of asyncio belong to a loop
        pool = lead.pool
        if self._sandbox is None or self._sandbox.rules.connects_early or type(pool) is not QueuePool:
            return False
        return pool.checkedout() == 0 and super()._may_keep(lead)

    def _forget(self, engine: Engine, current: Pool, pool: Pool) -> None:
        current.dispose()
        pool.dispose()

    # -- events

    def answer(self, dialect: sa.Dialect, record: Any, args: list[Any], parameters: dict[str, Any], after: Any) -> Any:
        """A virtual connection for an engine that would reach a database that is led here (None: any other).

        :param after: the listener that asks; those after it have a say in the arguments.
        """
        found = endpoints_of_arguments(dialect, args, parameters)
        if not meet(found, self.endpoints) and not self.leads_from(found):
            return None
        if dialect.driver not in self._drivers:
            database = parameters.get("dbname") or parameters.get("database") or ""
            self._refuse_other_driver(dialect, f"{dialect.name}+{dialect.driver}://…/{database}")
        return connect_as_asked(dialect, record, args, parameters, self._opening(dialect), after=after)

    def _refuse_other_driver(self, dialect: sa.Dialect, name: str) -> NoReturn:
        error = SandboxEscape(
            f"The engine {name} reaches the test database with the driver {dialect.driver!r}, but the sandbox "
            f"speaks {self._driver!r}: its rows would escape.",
            cause="two drivers in one application; one connection can speak only one",
            remedy=f"name this engine first in `engines = [...]` so that the sandbox speaks {dialect.driver!r}, or "
            f"write `{self.url_that_speaks(dialect)}` on the class where a test or setUp() makes it; let all "
            "engines use one driver in tests, or use TruncatingDatabaseTest (any driver)",
        )
        raise self._sandbox.note(error) if self._sandbox is not None else error

    def url_that_speaks(self, dialect: sa.Dialect) -> str:
        """The line that lets a class's sandbox speak the driver of an engine; empty if it does."""
        return "" if dialect.driver in self._drivers else f'url = "{dialect.name}+{dialect.driver}://"'

    def client_of(self, connection: sa.Connection) -> Client | None:
        """Which virtual connection of this wire carries a connection of SQLAlchemy's; None if none does."""
        if connection.closed or connection.invalidated:
            return None
        proxied = connection.connection
        client = client_of_dbapi(proxied.dbapi_connection) if proxied is not None else None
        return client if client is not None and self._sandbox and client in self._sandbox.clients else None

    def application_client_of(self, connection: sa.Connection) -> Client | None:
        """The same for a synchronous connection of the application's; None for one of the test's own."""
        client = None if connection.dialect.is_async else self.client_of(connection)
        return client if client is not None and not client.own else None

    def checkout(self, client: Client, record: Any, pool: Pool) -> bool:
        """A pool hands out a virtual connection: whether it is one of the sandbox of now, and still good for use."""
        sandbox = self._sandbox
        if sandbox is None or client not in sandbox.clients or client.retired:
            return False
        self.left_threads.refuse()
        sandbox.checkout(client)
        self.handed_out[record] = client
        if getattr(pool, "_is_asyncio", False):
            self.used.add(pool)
        return True

    def checkin(self, client: Client | None, record: Any) -> None:
        """A connection comes back to its pool."""
        self.handed_out.pop(record, None)
        if client is not None and self._sandbox is not None and client in self._sandbox.clients:
            self._sandbox.checkin(client)


class Guard(Protocol):
    """What decides about engines while a class runs (:class:`.border.Border`)."""

    passing: weakref.WeakSet[sa.Dialect]

    def is_admitted(self, pool: Pool) -> bool: ...
    def admit(self, engine: Engine) -> None: ...
    def admit_pool(self, pool: Pool, connection: Any) -> None: ...
    def admits_arguments(self, dialect: sa.Dialect, args: Sequence[Any], parameters: Mapping[str, Any]) -> None: ...
    def is_of(self, board: object) -> bool: ...


class Hooks:
    """SQLAlchemy's events, listened to once in a process; and who is asked."""

    def __init__(self) -> None:
        self.border: Guard | None = None
        self._boards: tuple[Switchboard, ...] = ()
        self._lock = threading.Lock()
        self._installed = False

    def install(self) -> None:
        with self._lock:
            if self._installed:
                return
            self._installed = True
            # they stay for good: pools may keep virtual connections long after the last sandbox
            event.listen(Engine, "do_connect", self._do_connect)
            event.listen(Pool, "connect", self._connect)
            event.listen(Pool, "checkout", self._checkout)
            event.listen(Pool, "checkin", self._checkin)
            event.listen(Engine, "handle_error", self._handle_error)
            original = Engine.raw_connection

            @functools.wraps(original)
            def raw_connection(engine: Engine) -> Any:
                border = self.border
                if border is not None and not border.is_admitted(engine.pool):
                    border.admit(engine)
                return original(engine)

            setattr(Engine, "raw_connection", raw_connection)  # noqa: B010

    def ask(self, border: Guard | None) -> Guard | None:
        """Ask a border from now on, that of the class that runs; give back the one that was asked before."""
        self.install()
        before, self.border, early_uses.is_paused = self.border, border, border is not None
        return before

    def add(self, board: Switchboard) -> None:
        self.install()
        with self._lock:
            self._boards += (board,)

    def remove(self, board: Switchboard) -> None:
        with self._lock:
            self._boards = tuple(each for each in self._boards if each is not board)

    def _answering(self, border: Guard | None) -> list[Switchboard]:
        """The boards that answer for the test database now: that of the class that runs, else those in use."""
        if border is not None:
            return [board for board in self._boards if border.is_of(board)]
        return [board for board in self._boards if board.running]

    def _handle_error(self, context: Any) -> None:
        if context.is_disconnect and context.sqlalchemy_exception is not None:
            for board in self._answering(self.border):
                if board._sandbox is not None:
                    board._sandbox.losses.append(context.sqlalchemy_exception)

    def _do_connect(self, dialect: sa.Dialect, record: Any, args: Any, parameters: Any) -> Any:
        border = self.border
        if border is not None and dialect in border.passing:
            return None
        for board in self._answering(border):
            connection = board.answer(dialect, record, args, parameters, self._do_connect)
            if connection is not None:
                return connection
        if border is not None and not is_harness():
            border.admits_arguments(dialect, args, parameters)
            watch_attaching(dialect, args, parameters)
        return None

    def _connect(self, connection: Any, record: Any) -> None:
        if client_of_dbapi(connection) is not None or is_harness():
            return
        border = self.border
        if border is not None and border.is_admitted(pool_of_record(record)):
            return
        endpoints = endpoints_of_connection(connection)
        for board in self._answering(border):
            if meet(endpoints, board.endpoints):
                with contextlib.suppress(Exception):  # the error below matters more
                    connection.close()
                raise board.sandbox.note(
                    SandboxEscape(
                        f"An engine made a real connection to the test database "
                        f"{next(iter(endpoints)).database!r} by its own means: its rows would escape.",
                        cause="create_engine(..., creator=...), or a pool of the application's own",
                        remedy="name the engine in `engines = [...]` or enlist() it: its pool is led into the sandbox",
                    )
                )

    def _checkout(self, connection: Any, record: Any, fairy: Any) -> None:
        client = client_of_dbapi(connection)
        border = self.border
        if client is not None:
            for board in self._boards:
                if board.checkout(client, record, pool_of(fairy)):
                    return
            raise exc.DisconnectionError("the sandbox of this connection has ended")
        if border is not None:
            if not border.is_admitted(pool_of(fairy)):
                border.admit_pool(pool_of(fairy), connection)
            return
        if self._boards and not is_harness():
            endpoints = endpoints_of_connection(connection)
            if any(meet(endpoints, board.endpoints) for board in self._answering(None)):
                raise exc.DisconnectionError("a sandbox has begun")  # the pool connects again, through do_connect

    def _checkin(self, connection: Any, record: Any) -> None:
        client = client_of_dbapi(connection)
        for board in self._boards:
            board.checkin(client, record)


def client_of_dbapi(connection: Any) -> Client | None:
    """Which virtual connection a DBAPI connection is; None for a real one."""
    client = getattr(connection, "_client", None)  # not by __dict__, which once made slows all attributes of an object
    if isinstance(client, Client):
        return client
    client = getattr(getattr(connection, "_connection", None), "_client", None)
    return client if isinstance(client, Client) else None


def _renew_queue(pool: Any) -> None:
    """Give an asynchronous pool a fresh queue; the virtual connections in the old one are let go."""
    queue = getattr(pool, "_pool", None)
    if queue is not None:
        queue.__dict__.pop("_queue", None)  # made again, in the loop that asks for it first
        forbid_overflow(pool)


def blocking_engine(board: Switchboard, async_engine: Any, *, own: bool = False) -> Engine:
    """A synchronous engine with the dialect of an asynchronous one; works because the wire's connections block."""
    inner = sync_engine_of(async_engine)

    def connect() -> Any:
        connection = board.connect(inner.dialect, own=own)
        connection.blocking = True
        return connection

    board.adopt(connect)
    pool = sa.pool.QueuePool(connect, dialect=inner.dialect, max_overflow=-1)
    return Engine(pool, inner.dialect, inner.url)


def initialize_dialect(wire: Any, async_engine: Any) -> None:
    """Do on the wire itself, before any test runs, what ``create_engine()`` arranges for the first connection."""
    engine = sync_engine_of(async_engine)
    spoken = engine.dialect if wire.dialect.is_async else wire.dialect
    pool = sa.pool.StaticPool(lambda: wire.connection, dialect=spoken, reset_on_return=None)
    with harness_connections(), Engine(pool, spoken, engine.url).connect() as connection:
        engine.dialect.initialize(connection)


hooks = Hooks()
