"""Leads the engine that env.py makes, or imports, to the database that is to be migrated.

env.py is the user's own and stays as it is.  It may read its URL from the ini, the environment, ``-x`` or the
application's settings, it may import the application's ready-made engine, pooled or with a ``creator=``, sync or async.
What all of these have in common is that a connection is asked for with ``Engine.connect`` or ``Engine.raw_connection``,
and that is where they are led, while the environment runs and no longer.  The engines themselves are not touched: one
that an application module makes while env.py imports it must not go on pointing to a template database.

An engine keeps its dialect, its driver, its events and the session settings in its ``connect_args``; only host, port,
role and database are ours.  Inside a sandbox there is one wire, which speaks one driver: an engine of another driver is
replaced there, connection by connection, by one that speaks the wire's.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool, Pool, PoolProxiedConnection

from ..drivers import (
    connect_arguments,
    connecting,
    endpoints_of_url,
    family_of,
    first_connections,
    harness_connections,
    is_let_pass,
    original_of,
    own,
    patiently,
    pool_with_events,
)
from ..errors import MigrationError
from ..reporting import for_driver, shown

_MARK = "dbtestcase.migrating"
_OURS = re.compile(r"\s*(COMMIT|END|BEGIN|START|CREATE\s+DATABASE)\b", re.IGNORECASE)
_CREATE_DATABASE = re.compile(r"\s*CREATE\s+DATABASE\b", re.IGNORECASE)
_MAINTENANCE = (None, "", "postgres", "template1")  #: which one connects to before there is a database of one's own
_COMMIT = re.compile(r"\s*(COMMIT|END)(\s+(WORK|TRANSACTION))?\s*;?\s*", re.IGNORECASE)
_BEGIN = re.compile(r"\s*(BEGIN|START\s+TRANSACTION)(\s+(WORK|TRANSACTION))?\s*;?\s*", re.IGNORECASE)
_lock = threading.RLock()  # alembic.context is one per process


@dataclass(frozen=True)
class Target:
    """The database that is to be migrated.

    :param contained: it is seen through a sandbox, which answers ``do_connect`` for engines of the URL's driver.
    :param engine: a synchronous engine to it, for an env.py that uses another driver inside a sandbox, or where a URL
        cannot name the database (SQLite in memory).
    """

    url: URL
    contained: bool = False
    engine: Engine | None = None


def as_target(target: Target | URL | Engine) -> Target:
    """Let a URL or an engine stand for a real database."""
    if isinstance(target, Engine):
        return Target(target.url, engine=target)
    return target if isinstance(target, Target) else Target(target)


def is_led(connection: Connection) -> bool:
    """Whether a connection of env.py goes to the database that is to be migrated."""
    return bool(connection.info.get(_MARK))


def original_url(connection: Connection) -> str:
    """Where a connection of env.py would have gone to, without a password; empty for the one that we gave it."""
    where = connection.info.get(_MARK)
    return where if isinstance(where, str) else ""


def is_commit(statement: str) -> bool:
    """Whether a statement is a COMMIT as text, as revisions write it before ``ALTER TYPE … ADD VALUE``."""
    return _COMMIT.fullmatch(statement) is not None


@contextmanager
def lead(target: Target) -> Iterator[Engine]:
    """Lead every engine of the target's kind for as long as the block lasts.

    Other kinds of database pass: an environment may read its settings from an SQLite file.
    Yields an engine to the target, for an environment that wants a ready connection.
    """
    with _lock:
        redirection = _Redirection(target)
        connect, raw_connection = Engine.connect, Engine.raw_connection
        event.listen(Engine, "do_connect", redirection.do_connect, insert=True)
        event.listen(Engine, "do_execute", redirection.do_execute)
        try:
            setattr(Engine, "connect", lambda engine: redirection.connect(engine, connect))  # noqa: B010
            setattr(Engine, "raw_connection", lambda engine: redirection.raw(engine, raw_connection))  # noqa: B010
            yield redirection.own
        finally:
            setattr(Engine, "connect", connect)  # noqa: B010
            setattr(Engine, "raw_connection", raw_connection)  # noqa: B010
            event.remove(Engine, "do_connect", redirection.do_connect)
            event.remove(Engine, "do_execute", redirection.do_execute)
            redirection.close()


class _Redirection:
    def __init__(self, target: Target) -> None:
        self._target = target
        self._backend = family_of(target.url.get_backend_name())
        self._pools: WeakKeyDictionary[Pool, NullPool] = WeakKeyDictionary()
        self._opening = threading.local()
        self.own = target.engine or own(create_engine(target.url, poolclass=NullPool))

    def connect(self, engine: Engine, original: Callable[[Engine], Connection]) -> Connection:
        if engine is self.own:  # env.py has it from the connection that we gave it
            connection = original(engine)
            connection.info[_MARK] = True
            return connection
        if self._leave(engine):
            return original(engine)
        if not self._replace(engine):
            return original(engine)  # which asks for a raw connection, below
        connection = original(self.own)
        connection.info[_MARK] = _written(engine.url)
        options = engine.get_execution_options()
        return connection.execution_options(**options) if options else connection

    def raw(self, engine: Engine, original: Callable[[Engine], PoolProxiedConnection]) -> PoolProxiedConnection:
        if self._leave(engine):
            return original(engine)
        with harness_connections():
            connection = original(self.own) if self._replace(engine) else self._pool(engine).connect()
        connection.info[_MARK] = _written(engine.url)
        return connection

    def close(self) -> None:
        if self.own is not self._target.engine:
            self.own.dispose()

    def _leave(self, engine: Engine) -> bool:
        return (
            engine is self.own or family_of(engine.dialect.name) != self._backend or is_let_pass(engine.dialect)
        )  # the last: named in `outside`

    def _replace(self, engine: Engine) -> bool:
        if self._target.engine is not None and not self._target.contained:
            return True
        return self._target.contained and engine.dialect.driver != self._target.url.get_driver_name()

    def _pool(self, engine: Engine) -> NullPool:
        """A pool of our own with the engine's events: its own may hold connections to another database."""
        theirs = engine.pool
        ours = self._pools.get(theirs)
        if ours is None:
            dialect = engine.dialect
            original = original_of(theirs)  # the class may have led it elsewhere
            connect = connecting(
                original, dialect, lambda _, given: self._open(dialect, None, given), _written(engine.url)
            )
            found = connect_arguments(original) if self._target.contained else None

            def create(connection_record: Any = None) -> Any:  # by this name SQLAlchemy gives it the record
                if found is not None:  # in the sandbox, which asks the engine's listeners as well
                    return self._open(dialect, connection_record, found[1])
                return connect(connection_record)

            first_connections.leads_to(engine, create, endpoints_of_url(self._target.url))
            made = pool_with_events(create, theirs, engine.dialect)
            ours = own(made)
            self._pools[theirs] = ours
        return ours

    def do_connect(self, dialect: Dialect, record: Any, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        if family_of(dialect.name) != self._backend or is_let_pass(dialect) or getattr(self._opening, "now", False):
            return None
        if self._target.engine is not None and not self._target.contained:
            return None
        return self._open(dialect, record, parameters)

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
        """Do by other means what env.py and revisions say in SQL that would leave the test database, or its sandbox."""
        if not _OURS.match(statement):
            return None
        connection = context.root_connection
        if not is_led(connection):
            return None
        if _CREATE_DATABASE.match(statement):  # env.py makes its own where there is none: it is the test database
            asked = original_url(connection)
            return True if asked and make_url(asked).database in _MAINTENANCE else None
        # Where the driver begins the next transaction by itself; SQLAlchemy's adapter of asyncpg does not.
        if not self._target.contained or connection.dialect.driver == "asyncpg":
            return None
        if is_commit(statement):
            connection.connection.dbapi_connection.commit()
            return True
        return True if _BEGIN.fullmatch(statement) else None

    def _open(self, dialect: Dialect, record: Any, theirs: Mapping[str, Any]) -> Any:
        arguments, parameters = dialect.create_connect_args(
            for_driver(self._target.url, f"{dialect.name}+{dialect.driver}")
        )
        arguments, parameters = list(arguments), {**_session_settings(theirs), **parameters}
        if not self._target.contained:
            return patiently(lambda: dialect.connect(*arguments, **parameters), self._target.url)
        if theirs.get("async_creator_fn") is not None:
            parameters["async_creator_fn"] = theirs["async_creator_fn"]
        self._opening.now = True
        try:
            for listener in dialect.dispatch.do_connect:
                connection = listener(dialect, record, arguments, parameters)
                if connection is not None:
                    return connection
        finally:
            self._opening.now = False
        raise MigrationError(
            f"env.py's engine ({dialect.name}+{dialect.driver}) would leave the sandbox.",
            cause="No sandbox answers for the test database at this moment.",
            remedy="Migrate inside a test or in setUpTestData, not before or after.",
        )


def _written(url: URL) -> str:
    return shown(url) or "engine"


def _session_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What ``connect_args`` say of the session itself (a search path, a lock timeout), not of the way to the server."""
    named = ("options", "server_settings", "init_command", "application_name")
    return {name: parameters[name] for name in named if name in parameters}
