"""Which connections of an application's pools are in use, since where and since when; which may go on to the next test.

A connection stays in its pool from one test to the next, because a new one costs ten times what a test costs.  But what
a test sets in the server's session must not reach the next test: a connection for which it ran ``SET``, ``LISTEN``,
``CREATE TEMPORARY TABLE`` and the like, or that it used as a driver's connection, is replaced when asked for again.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sqlite3
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, event, exc
from sqlalchemy.pool import Pool

from ..backends import cleaning
from ..drivers import (
    behaviour_of,
    check_names,
    endpoints_of_url,
    is_asyncio,
    pool_of,
    watch_behaviour,
    watch_cursors,
    watch_session,
)
from ..reporting import CallSite, find_call_site
from .left_threads import LeftThreads

_KEY = "dbtestcase_checkout"
_IN_C = {"asyncmy", "mariadbconnector"}  # MySQL's drivers whose own methods cannot be watched
_IN_TRANSACTION = 1  # a flag of PyMySQL's; a pool with reset_on_return=None ends nothing


class Trait(Flag):
    """What a statement's text says about what it leaves behind beside rows."""

    NONE = 0
    SESSION = auto()  # something in the server's session
    NEXTVAL = auto()  # a sequence moved by its name
    SETVAL = auto()
    LOCK = auto()  # an advisory lock
    SERVER = auto()  # something on the server beside its databases' insides


_SESSION = re.compile(
    r"^\s*(?:set(?!\s+(?:local|transaction|constraints)\b)|reset|listen|unlisten|load|prepare|deallocate|declare|discard"
    r"|create\s+(?:or\s+replace\s+)?(?:local\s+|global\s+)?temp(?:orary)?|do)\b"
    r"|;\s*(?:set|reset|listen|load|prepare|declare|create\s+temp)"
    r"|\bset_config\b|\bpg_(?:try_)?advisory_lock|\binto\s+temp|\bpg_temp\b|\bdblink_connect",
    re.IGNORECASE,
)
_SERVER = re.compile(
    r"\b(?:create|alter|drop|rename)\s+(?:or\s+replace\s+)?(?:role|user|group|tablespace|database|schema|server)\b"
    r"|\balter\s+system\b|\b(?:comment|security\s+label\b[^;]*?)\s+on\s+(?:role|tablespace|database)\b|replication_slot"
    r"|\bset\s+(?:global|password|default\s+role|@@global)\b|(?:^|;)\s*set\b[^;]*\bglobal\b"
    r"|\b(?:grant|revoke|install|uninstall)\b|^\s*(?:do|call|execute)\b"
    # what belongs to the server, written as rows
    r"|\b(?:insert|replace|update|delete|merge)\b[^;]*\b(?:mysql`?\s*\.|pg_(?:authid|auth_members|database"
    r"|db_role_setting|parameter_acl|shdescription|tablespace)\b)",
    re.IGNORECASE,
)
_COMMENTS = re.compile(r"--[^\n]*|/\*(?!M?!).*?\*/", re.DOTALL)


@functools.lru_cache(maxsize=4096)
def traits(statement: str) -> Trait:
    """What one statement (or a string of several) may leave behind."""
    text = _COMMENTS.sub(" ", statement)
    lowered = text.lower()
    found = Trait.SESSION if _SESSION.search(text) else Trait.NONE
    if _SERVER.search(text) or _SERVER.search(statement):  # two dashes in a literal are no comment
        found |= Trait.SERVER
    if "nextval" in lowered:
        found |= Trait.NEXTVAL
    if "setval" in lowered:
        found |= Trait.SETVAL
    if "advisory" in lowered:
        found |= Trait.LOCK
    return found


@dataclass(eq=False)
class Checkout:
    """One connection of a pool.

    ``pid``: the server's process.  ``call_site``: the line that checked it out last.  ``thread``: who uses it, ``None``
    while it waits in its pool.  ``test``: the number of the test that uses it, or did last.  ``spoiled``: good for the
    test that used it last only.  ``gone``: ended on the server's side.  ``hides``: what it holds no other
    connection sees.  ``seen``: every statement is, at its driver.  ``behaviour``: what it was like at the beginning.
    ``cursors``: how many its driver has made that SQLAlchemy has not used; ``cursor``: the last that it has.
    ``closing``: is held by who uses it in the place of its thread, and by that thread before it closes it.
    """

    pid: int
    own: bool
    asynchronous: bool
    call_site: CallSite | None = None
    thread: int | None = None
    test: int = 0
    spoiled: bool = False
    gone: bool = False
    hides: bool = False
    seen: bool = False
    behaviour: object = field(default=None, repr=False)
    raw: weakref.ref[Any] | None = field(default=None, repr=False)
    fairy: weakref.ref[Any] | None = field(default=None, repr=False)
    record: weakref.ref[Any] | None = field(default=None, repr=False)
    by_engine: bool = False
    adopted: bool = False
    cursors: int = 0
    cursor: object = field(default=None, repr=False)
    closing: Any = field(default_factory=threading.RLock, repr=False)  # a finalizer may run in the thread that holds it
    closed: bool = False

    def fairy_in_use(self) -> Any:
        """SQLAlchemy's handle on the connection, while somebody has it."""
        return self.fairy() if self.fairy is not None and self.thread is not None else None

    @property
    def is_unseen(self) -> bool:
        """Whether it was used as a driver's connection, so that nobody saw its statements."""
        return not self.seen and (not self.by_engine or self.cursors > 0)

    def made_cursor(self) -> None:
        self.cursors += 1

    def opened(self, bar: Callable[[int | None], object] = lambda _: None) -> cleaning.Opened:
        """Where it was checked out, for the cleaner; ``bar`` keeps a thread from sending anything more."""
        connection = getattr(self.fairy_in_use(), "dbapi_connection", None)
        where = self.call_site or "an unknown line"
        return cleaning.Opened(where, self.thread, connection, functools.partial(bar, self.thread), self.kept_open)

    @contextlib.contextmanager
    def kept_open(self) -> Iterator[bool]:
        """Whether its pool has it open; it is not closed meanwhile."""
        with self.closing:
            yield not self.closed


def checkout_of(connection: sa.Connection) -> Checkout | None:
    """The connection of a pool that a connection of SQLAlchemy's uses, where it is watched."""
    found: Checkout | None = None if connection.closed or connection.invalidated else connection.info.get(_KEY)
    return found


class Checkouts:
    """Listens to the pools of the engines that are led to the test database."""

    def __init__(self) -> None:
        self.test = 0
        self.traits = Trait.NONE
        self.asynchronous = False
        """Whether any pool that was watched belongs to an event loop."""
        self.of_server: list[str] = []
        """The statements of the test that may have changed the server itself."""
        self.left_threads = LeftThreads()
        self.meanwhile: set[int] | None = None
        """While the database is put back: the threads that were given a connection."""
        self.users: set[int] = set()
        """The threads that were given one in the running test."""
        self._all: weakref.WeakSet[Checkout] = weakref.WeakSet()
        self._lock = threading.Lock()

    def watch(self, engine: Engine, pool: Pool, *, own: bool = False) -> None:
        """Listen to a pool, and to the statements of its engine; what the test's own leaves open is nobody's fault."""
        asynchronous = engine.dialect.is_async
        self.asynchronous |= asynchronous

        def on_checkout(connection: Any, record: Any, fairy: Any) -> None:
            self._checkout(connection, record, fairy, own=own, asynchronous=asynchronous)

        event.listen(pool, "checkout", on_checkout)
        event.listen(pool, "checkin", self._checkin)
        event.listen(pool, "close", self._close)
        event.listen(engine, "before_cursor_execute", self._execute)
        event.listen(engine, "engine_connect", self._by_engine)

    def unwatch(self, engine: Engine) -> None:
        """Stop listening to an engine's statements (its pool goes away by itself)."""
        for name, listener in (("before_cursor_execute", self._execute), ("engine_connect", self._by_engine)):
            if event.contains(engine, name, listener):
                event.remove(engine, name, listener)

    @contextlib.contextmanager
    def watching(self, is_ours: Callable[[Any], bool]) -> Iterator[None]:
        """Watch the pools of all engines of the process that reach the test database by their own URL."""

        def on_checkout(connection: Any, record: Any, fairy: Any) -> None:
            checkout: Checkout | None = record.info.get(_KEY)
            if checkout is None and self._checkin not in list(pool_of(fairy).dispatch.checkin) and is_ours(connection):
                asynchronous = is_asyncio(pool_of(fairy))
                self.asynchronous |= asynchronous
                self._checkout(connection, record, fairy, own=False, asynchronous=asynchronous)
                record.info[_KEY].adopted = True
            elif checkout is not None and checkout.adopted:
                self._checkout(connection, record, fairy, own=False, asynchronous=checkout.asynchronous)

        def checkin(connection: Any, record: Any) -> None:
            if getattr(record.info.get(_KEY), "adopted", False):
                self._checkin(connection, record)

        def by_engine(connection: Any, *_: Any) -> None:
            if getattr(checkout_of(connection), "adopted", False):
                self._by_engine(connection)

        def execute(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if getattr(checkout_of(connection), "adopted", False):
                self._execute(connection, cursor, statement, parameters)

        listeners = (
            (Pool, "checkout", on_checkout),
            (Pool, "checkin", checkin),
            (Pool, "close", self._close),
            (Engine, "engine_connect", by_engine),
            (Engine, "before_cursor_execute", execute),
        )
        for target, name, listener in listeners:
            event.listen(target, name, listener)
        try:
            yield
        finally:
            for target, name, listener in listeners:
                event.remove(target, name, listener)

    def begin_test(self) -> None:
        """A test begins: what is checked out from now on is its own."""
        self.test += 1
        self.traits = Trait.NONE
        self.of_server.clear()
        self.users.clear()

    def known(self) -> list[Checkout]:
        """The connections that are open, as far as is known here."""
        with self._lock:
            return [checkout for checkout in self._all if not checkout.gone]

    def _end_sessions(self, *, all_of_them: bool) -> None:
        """Close what waits in a pool and was good for this test only; all where code in the database changes sessions.

        What it holds on SQLite, MySQL or MariaDB nobody else sees: an attached file, a lock, ``LOCK TABLES``, a hook.
        """
        for checkout in self.known():
            checkout.spoiled |= all_of_them and checkout.test == self.test
            if checkout.spoiled and checkout.thread is None and not checkout.asynchronous and checkout.hides:
                record = checkout.record() if checkout.record is not None else None
                with self._lock:
                    if record is None or checkout.thread is not None:
                        continue  # a thread has just taken it: closed in the middle of a statement it would crash
                    checkout.gone = True
                    raw = record.driver_connection
                if isinstance(raw, sqlite3.Connection):
                    raw.close()  # its record is left to who takes it next, maybe at this moment
                else:
                    record.info.pop(_KEY, None)
                    record.invalidate()

    def retire(self, pids: Collection[int] | None = None) -> None:
        """Connections with these pids (``None``: all) have ended on the server's side: they are handed out no more."""
        for checkout in self.known():
            if pids is None or checkout.pid in pids:
                checkout.gone = True
                fairy = checkout.fairy_in_use()
                if fairy is not None and checkout.thread == threading.get_ident() and not checkout.asynchronous:
                    # On our side as well, else its pool would complain when the session is closed at last.
                    fairy.invalidate()

    def settle(
        self, test: str, besides: Collection[int], *, all_of_them: bool
    ) -> tuple[cleaning.Standing, cleaning.Look]:
        """End the sessions that were good for the test only; what a cleaner has to know then.

        :param test: its name; a thread that has to be barred is told it.
        :param besides: who is in use since before the test, as far as it is not known here.
        :param all_of_them: whether code in the database may have changed any session.
        :returns: who may stay, and how closely to look at sequences and locks after the statements of the test.
        """
        self._end_sessions(all_of_them=all_of_them)

        def bar(thread: int | None) -> None:
            self.left_threads.bar({thread or 0}, test)

        known = self.known()
        look = cleaning.Look.ALL if (Trait.NEXTVAL | Trait.LOCK) & self.traits else cleaning.Look.TOUCHED
        if Trait.SETVAL in self.traits or any(each.test == self.test and each.is_unseen for each in known):
            look = cleaning.Look.EXACT
        expected = [each.pid for each in known if each.thread is None or each.own]
        lasting = {each.pid for each in known if each.thread is not None and each.test < self.test}.union(besides)
        return cleaning.Standing(expected, lasting, {each.pid: each.opened(bar) for each in known}), look

    def left_open(self) -> dict[int, cleaning.Opened]:
        """What the running test has checked out in this thread and not given back; its own sessions are rolled back."""
        self.roll_back_own()
        return {
            checkout.pid: checkout.opened()
            for checkout in self.known()
            if checkout.test == self.test
            and checkout.thread == threading.get_ident()
            and not (checkout.own or checkout.asynchronous)
        }

    def give_back(self, pids: Collection[int]) -> None:
        """Give connections that the test has left open back to their pools, which roll back."""
        for checkout in self.known():
            fairy = checkout.fairy_in_use()
            if checkout.pid in pids and checkout.thread == threading.get_ident() and fairy is not None:
                fairy.close()

    def roll_back_own(self) -> None:
        """End the transactions that the test's own sessions left open."""
        for checkout in self.known():
            fairy = checkout.fairy_in_use()
            if checkout.own and not checkout.asynchronous and fairy is not None and fairy.dbapi_connection is not None:
                try:
                    fairy.dbapi_connection.rollback()
                except Exception:  # whatever the driver calls it: the connection is lost, and rolled back with it
                    checkout.gone = True
                    fairy.invalidate()

    def abandon(self) -> None:
        """Close what the pools of an event loop that has ended still hold, where the driver can do so outside of it."""
        for checkout in self.known():
            if checkout.asynchronous:
                checkout.gone = True
                wire = getattr(checkout.raw() if checkout.raw is not None else None, "pgconn", None)
                if wire is not None:
                    wire.finish()

    # -- events

    def _checkout(self, connection: Any, record: Any, fairy: Any, *, own: bool, asynchronous: bool) -> None:
        checkout: Checkout | None = record.info.get(_KEY)
        if checkout is None:
            raw = record.driver_connection
            checkout = Checkout(_server_pid(connection, raw), own, asynchronous, thread=threading.get_ident())
            record.info[_KEY] = checkout
            checkout.spoiled = _is_sqlite(raw)  # nobody sees its PRAGMAs, functions and hooks; a new one costs little
            sent = functools.partial(self._sent, checkout)
            changed = functools.partial(setattr, checkout, "spoiled", True)
            checkout.seen = watch_session(raw, changed, sent)
            checkout.hides = checkout.spoiled or checkout.seen
            watch_cursors(raw, checkout.made_cursor, sent)
            watch_behaviour(raw, changed)
            checkout.behaviour = behaviour_of(raw)
            with contextlib.suppress(TypeError):  # a driver's class without weak references
                checkout.raw = weakref.ref(raw)
            checkout.record = weakref.ref(record)
            with self._lock:
                self._all.add(checkout)
        self.left_threads.refuse()
        self.users.add(threading.get_ident())
        if self.meanwhile is not None:
            self.meanwhile.add(threading.get_ident())
        with self._lock:
            if checkout.gone or (checkout.test and checkout.spoiled and checkout.test != self.test):
                raise exc.DisconnectionError("this connection belonged to an earlier test")
            checkout.thread = threading.get_ident()
        checkout.test = self.test
        checkout.call_site = find_call_site(2)
        checkout.fairy = weakref.ref(fairy)
        checkout.by_engine = False
        checkout.cursors = 0

    def _checkin(self, connection: Any, record: Any) -> None:
        checkout: Checkout | None = record.info.get(_KEY)
        if checkout is not None:
            checkout.thread = None
            checkout.cursor = None
            if checkout.is_unseen and not _is_sqlite(record.driver_connection):
                checkout.spoiled = True
                self.traits |= Trait.SETVAL
                self.of_server.append("what a driver's connection has sent")
            raw = record.driver_connection
            checkout.spoiled |= behaviour_of(raw) != checkout.behaviour
            checkout.spoiled |= checkout.seen and bool(getattr(raw, "server_status", 0) & _IN_TRANSACTION)

    def _close(self, connection: Any, record: Any) -> None:
        checkout: Checkout | None = record.info.get(_KEY)
        if checkout is not None:
            with checkout.closing:
                checkout.closed = True

    def _by_engine(self, connection: Any, *_: Any) -> None:
        checkout = connection.info.get(_KEY)
        if checkout is not None:
            checkout.by_engine = True

    def _execute(self, connection: Any, cursor: Any, statement: str, parameters: Any = None, *_: Any) -> None:
        self.left_threads.refuse()  # who was given a connection before
        checkout: Checkout | None = connection.info.get(_KEY)
        if checkout is not None and checkout.cursor is not cursor:  # batches of rows share one
            checkout.cursor = cursor
            checkout.cursors -= 1
        if connection.dialect.driver in _IN_C:
            url = connection.engine.url
            check_names(f"An engine of {connection.dialect.driver}", lambda: endpoints_of_url(url), statement)
        self._sent(checkout, statement, parameters)

    def _sent(self, checkout: Checkout | None, statement: str, parameters: Any = None) -> None:
        """Note what a statement may leave behind."""
        found = traits(statement) if len(statement) < 2_000 else traits.__wrapped__(statement)
        self.traits |= found
        if Trait.SERVER in found:
            self.of_server.append(f"{statement} {parameters!r}")
        if Trait.SESSION in found and checkout is not None and not checkout.seen:
            checkout.spoiled = True


def _server_pid(connection: Any, raw: Any) -> int:
    """The server's process of a connection, asked of the driver where it knows."""
    if _is_sqlite(raw):
        return id(raw)  # there is no server: a number that no other connection of this process has
    if hasattr(raw, "thread_id"):  # PyMySQL, mysqlclient, aiomysql, asyncmy
        return int(raw.thread_id())
    info = getattr(raw, "info", None)
    pid = getattr(info, "backend_pid", None)
    if pid is None and hasattr(raw, "get_server_pid"):  # asyncpg
        pid = raw.get_server_pid()
    if pid is None:
        cursor = connection.cursor()
        cursor.execute("select pg_backend_pid()")
        pid = cursor.fetchone()[0]
        cursor.close()
        connection.rollback()
    return int(pid)


def _is_sqlite(raw: Any) -> bool:
    return isinstance(raw, sqlite3.Connection) or "sqlite" in type(raw).__module__
