"""One module for each DBAPI that the sandbox speaks to, and the registry that finds it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import URL, Dialect

from ..errors import ServerUnreachable
from ..reporting import for_driver, limit_named_by, shown, without_secrets
from ..sandbox import Rules, Wire, rules_for
from .async_adapters import TWINS
from .patience import patiently

LOCK_TIMEOUT = 5.0
"""Seconds that a statement waits for a lock that is held outside the sandbox."""

KEEPALIVES = "SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6"
"""For both ends of a connection to PostgreSQL: a firewall forgets what is idle, a host without power says nothing."""

WireFactory = Callable[[Dialect, URL, Rules], contextlib.AbstractContextManager[Wire]]

_registry: dict[str, WireFactory] = {}
_RULES = {
    "sqlite": "dbtestcase.drivers.sqlite.statements",
    "mysql": "dbtestcase.drivers.mysql.rules",
    "mariadb": "dbtestcase.drivers.mysql.rules",
}
"""The modules that register a dialect's rules."""


def register(driver: str, factory: WireFactory) -> None:
    """Make a driver known by SQLAlchemy's name of it; ``factory`` opens a wire and closes it at the end."""
    _registry[driver] = factory


def get_ready_for_wire(driver: str) -> None:
    """Import what a wire of a driver needs, while there is nothing else to do."""
    for name in _PARTS.get(driver, ()):
        importlib.import_module(name)


_PARTS = {
    "psycopg": ("dbtestcase.drivers.psycopg.connections", "dbtestcase.drivers.psycopg.wire"),
    "psycopg2": ("dbtestcase.drivers.psycopg2", "dbtestcase.drivers.psycopg2_functions"),
    "asyncpg": ("dbtestcase.drivers.asyncpg", "dbtestcase.drivers.loop_thread"),
}


@contextlib.contextmanager
def open_wire(url: URL) -> Iterator[tuple[Wire, Rules]]:
    """The physical connection of a sandbox, opened with the driver that ``url`` names."""
    dialect = url.get_dialect()
    if dialect.name in _RULES:
        importlib.import_module(_RULES[dialect.name])
    rules = rules_for(dialect.name)
    if dialect.driver in TWINS:
        url = url.set(drivername=f"{url.get_backend_name()}+{TWINS[dialect.driver]}")
        dialect = url.get_dialect()
    factory = _registry.get(dialect.driver, _generic)
    real = _make_dialect(url)
    with contextlib.ExitStack() as stack:
        try:
            wire = patiently(lambda: stack.enter_context(factory(real, url, rules)), url)
        except real.loaded_dbapi.Error as error:
            cause, remedy = limit_named_by(error) or (
                "the server does not run there, or refuses the role",
                "start it, or correct the URL (DBTESTCASE_URL or the class attribute url)",
            )
            what = f"Nobody answers at {shown(url)}: {without_secrets(error, url)}"
            raise ServerUnreachable(what, cause=cause, remedy=remedy) from error
        yield wire, rules


def _make_dialect(url: URL) -> Dialect:
    cls: Any = url.get_dialect()
    dialect: Dialect = cls(dbapi=cls.import_dbapi())
    return dialect


@contextlib.contextmanager
def _prepared(wire: Any, rules: Rules) -> Iterator[None]:
    """Close a wire to PostgreSQL at the end, and give it settings that only it needs: a role may have others."""
    with contextlib.closing(wire):
        wire.run(f"SET lock_timeout = {int(LOCK_TIMEOUT * 1000)}", rules.no_end, KEEPALIVES)
        yield


def _connected(dialect: Dialect, url: URL) -> Any:
    args, parameters = dialect.create_connect_args(url)
    connection: Any = dialect.connect(*args, **parameters)
    return connection


@contextlib.contextmanager
def _psycopg(dialect: Dialect, url: URL, rules: Rules) -> Iterator[Wire]:
    from psycopg.conninfo import make_conninfo

    from .psycopg.connections import VirtualAsyncConnection, VirtualConnection
    from .psycopg.wire import PsycopgWire

    _, parameters = dialect.create_connect_args(url)
    parameters.pop("context", None)
    conninfo = make_conninfo("", **{k: str(v) for k, v in parameters.items()})
    wire = PsycopgWire(conninfo, (VirtualConnection, VirtualAsyncConnection))
    with _prepared(wire, rules):
        yield wire


@contextlib.contextmanager
def _psycopg2(dialect: Dialect, url: URL, rules: Rules) -> Iterator[Wire]:
    from .psycopg2 import Psycopg2Connection, Psycopg2Wire
    from .psycopg2_cursors import Psycopg2Cursor
    from .psycopg2_functions import unwrapping

    connection = _connected(dialect, url)
    connection.autocommit = True
    wire = Psycopg2Wire(dialect, connection, rules, url)
    with _prepared(wire, rules), unwrapping(Psycopg2Connection, Psycopg2Cursor):
        yield wire


@contextlib.contextmanager
def _pg8000(dialect: Dialect, url: URL, rules: Rules) -> Iterator[Wire]:
    from .pg8000 import Pg8000Wire

    connection = _connected(dialect, for_driver(url, url.drivername))
    connection.autocommit = True
    wire = Pg8000Wire(dialect, connection, rules, url)
    with _prepared(wire, rules):
        yield wire


@contextlib.contextmanager
def _asyncpg(dialect: Dialect, url: URL, rules: Rules) -> Iterator[Wire]:
    from .asyncpg import AsyncpgWire
    from .loop_thread import open_loop_wire

    wire = open_loop_wire(dialect, url, rules, AsyncpgWire)
    with _prepared(wire, rules):
        yield wire


@contextlib.contextmanager
def _generic(dialect: Dialect, url: URL, rules: Rules) -> Iterator[Wire]:
    if dialect.is_async:
        from .loop_thread import LoopWire, open_loop_wire

        wire: Any = open_loop_wire(dialect, url, rules, LoopWire)
    else:
        from .dbapi import GenericWire

        connection = _connected(dialect, url)
        dialect.set_isolation_level(connection, "AUTOCOMMIT")
        wire = GenericWire(dialect, connection, rules, url)
    with contextlib.closing(wire):
        yield wire


def _sqlite(dialect: Dialect, url: URL, rules: Rules) -> contextlib.AbstractContextManager[Wire]:
    from .sqlite.connections import open_sqlite

    return open_sqlite(dialect, url, rules)


def _mysql(dialect: Dialect, url: URL, rules: Rules) -> contextlib.AbstractContextManager[Wire]:
    from .mysql.wire import open_mysql

    return open_mysql(dialect, url, rules, lock_timeout=LOCK_TIMEOUT)


register("psycopg", _psycopg)
register("psycopg2", _psycopg2)
register("pg8000", _pg8000)
register("asyncpg", _asyncpg)
register("pysqlite", _sqlite)
register("pymysql", _mysql)
register("mysqldb", _mysql)
