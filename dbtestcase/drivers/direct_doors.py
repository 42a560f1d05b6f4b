"""Connections that a driver makes by itself to a database whose engine is led elsewhere: refused before they are made.

``psycopg.connect()`` and its like go past SQLAlchemy.  To the test database such a connection is real, and watched
(:mod:`.direct_connections`); to the database of an engine that is led it would be a way around the lead.  One that was
open before is refused at its next statement, where the driver is written in Python.  So is a statement that names such
a database, on a server where a connection reaches them all.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from .endpoints import Endpoint, endpoints_of_arguments, endpoints_of_connection
from .harness import is_harness
from .late_imports import replace_everywhere, replace_once, when_imported
from .led_connections import unled
from .mysql.other_databases import names_database

Guards = Callable[[frozenset[Endpoint]], bool]
Refuse = Callable[[str, Endpoint, str], Exception]
NEW, OPEN, NAMED, ATTACHED = "new", "open", "named", "attached"
"""How a driver reaches a database: by a connection that it makes, by one that was open before, by a statement that
names it, or by one that opens its file."""

Databases = Callable[[], Iterable[str]]

_guards: list[tuple[Guards, Refuse, Databases]] = []
_done: set[str] = set()
_MARK = "_dbtestcase_door"
_ENDPOINTS = "_dbtestcase_endpoints"


def guard(guards: Guards, refuse: Refuse, databases: Databases = tuple) -> Callable[[], None]:
    """Refuse what drivers connect by themselves, until what is given back is called.

    :param guards: whether databases are out of reach.
    :param refuse: makes the error from what was called, the database, and how it was to be reached.
    :param databases: the names of those that a statement may reach by name.
    """
    for name, install in _DOORS.items():
        if name not in _done:
            _done.add(name)
            when_imported(name, install)
    entry = (guards, refuse, databases)
    _guards.append(entry)
    return functools.partial(_guards.remove, entry)


def watch_files() -> None:
    """Guard files of SQLite as well, from now on; Python's audit hooks see every one that is opened."""
    if "sqlite3" not in _done:
        _done.add("sqlite3")
        sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "sqlite3.connect" and _guards:
        with contextlib.suppress(TypeError):  # no path: sqlite3 will say so
            _check("sqlite3.connect()", "sqlite", (os.fsdecode(arguments[0]),), {})


def _check(what: str, dialect: str, args: Sequence[Any], parameters: Mapping[str, Any]) -> None:
    unled(what)
    if not _guards or is_harness():
        return
    for guards, refuse, _ in _guards:
        for target in endpoints_of_arguments(dialect, args, parameters):
            if guards(frozenset([target])) and not _asked_by_harness():
                raise refuse(what, target, NEW)


def check_attached(file: str) -> None:
    """A connection of SQLite is about to open a file beside its own."""
    for guards, refuse, _ in _guards:
        for target in endpoints_of_arguments("sqlite", (file,), {}):
            if guards(frozenset([target])) and not is_harness():
                raise refuse("ATTACH", target, ATTACHED)


def _check_use(what: str, connection: Any, find: Callable[[Any], frozenset[Endpoint]], sent: str | bytes = "") -> None:
    """A connection is about to send a statement, which may name other databases of its server."""
    own = getattr(connection, "__dict__", {})
    endpoints = own.get(_ENDPOINTS)
    if endpoints is None:
        endpoints = own[_ENDPOINTS] = find(connection)
    for guards, refuse, _ in _guards:  # its endpoints are names of one database
        if guards(endpoints) and not is_harness() and not _asked_by_harness():
            raise refuse(what, next(iter(endpoints)), OPEN)
    if sent:
        check_names(what, lambda: endpoints, sent)


def check_names(what: str, find: Callable[[], frozenset[Endpoint]], sent: str | bytes) -> None:
    """A statement is about to be sent to one of the databases of a server; ``find`` says which."""
    for guards, refuse, databases in _guards:
        for name in databases():
            if names_database(sent, name):
                others = frozenset([replace(each, database=name) for each in find()])
                if guards(others) and not is_harness() and not _asked_by_harness():
                    raise refuse(what, next(iter(others)), NAMED)


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# What stands between an application and a driver of its own without asking for a connection itself.
_BETWEEN = tuple(
    os.path.join(_PACKAGE, *path)
    for path in (
        ("drivers", "direct_doors.py"),
        ("drivers", "direct_connections.py"),
        ("drivers", "led_connections.py"),
        ("drivers", "mysql", "watching.py"),
        ("drivers", "psycopg", "cursors.py"),
        ("drivers", "psycopg", "watching.py"),
        ("isolation", "border.py"),
        ("isolation", "pool_checkouts.py"),
        ("isolation", "switchboard.py"),
        ("migrations", "redirect.py"),
        ("reporting", "queries.py"),
    )
)


def _asked_by_harness() -> bool:
    """Whether it is this library that connects: the nearest code that is no driver's, SQLAlchemy's or Python's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE):
            if name not in _BETWEEN:
                return True
        elif not _is_plumbing(str(frame.f_globals.get("__name__"))):
            return False
        frame = frame.f_back
    return False


def _is_plumbing(module: str) -> bool:
    top = module.partition(".")[0]
    return top == "sqlalchemy" or top in _DOORS or top in sys.stdlib_module_names - {"__main__"}


# -- the doors


_replace = functools.partial(replace_once, mark=_MARK)


def _function(what: str, dialect: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def connect(*args: Any, **kwargs: Any) -> Any:
        _check(what, dialect, args, kwargs)
        return original(*args, **kwargs)

    return connect


def _using(
    driver: str,
    find: Callable[[Any], frozenset[Endpoint]],
    original: Callable[..., Any],
    passes: Callable[..., bool] = lambda *args: False,
    sends: Callable[..., str | bytes] = lambda *args: "",
) -> Callable[..., Any]:
    """A method by which a connection sends statements.

    :param passes: knows arguments that only end what was begun.
    :param sends: the statement in the arguments, where it may name other databases.
    """

    def use(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _guards and not passes(*(said := (*args, *kwargs.values()))):
            _check_use(f"A connection of {driver}", self, find, sends(*said))
        return original(self, *args, **kwargs)

    return use


def _psycopg(module: Any) -> None:
    base = module.BaseConnection
    original = base.__dict__["_connect_gen"].__func__
    if hasattr(original, _MARK):
        return

    def _connect_gen(cls: Any, /, conninfo: str = "", **kwargs: Any) -> Any:
        _check(f"psycopg.{cls.__name__}.connect()", "postgresql", (conninfo,), kwargs)
        return (yield from original(cls, conninfo, **kwargs))

    functools.update_wrapper(_connect_gen, original)
    setattr(_connect_gen, _MARK, True)
    base._connect_gen = classmethod(_connect_gen)
    for name in ("_start_query", "_commit_gen"):
        _replace(base, name, lambda original: _using("psycopg", endpoints_of_connection, original))


def _psycopg2(module: Any) -> None:
    _replace(module, "_connect", lambda original: _function("psycopg2.connect()", "postgresql", original))


def _asyncpg(module: Any) -> None:
    def make(original: Any) -> Any:
        async def _connect(**kwargs: Any) -> Any:
            _check("asyncpg.connect()", "postgresql+asyncpg", (), kwargs)
            return await original(**kwargs)

        return _connect

    _replace(module.connect_utils, "_connect", make)
    connection = module.connection.Connection
    _replace(connection, "_check_open", lambda original: _using("asyncpg", endpoints_of_connection, original))


def _pg8000(module: Any) -> None:
    def make(original: Any) -> Any:
        def __init__(self: Any, user: Any, *args: Any, **kwargs: Any) -> None:
            given = dict(zip(("host", "database", "port"), args, strict=False))
            _check("pg8000.connect()", "postgresql+pg8000", (), {"user": user, **given, **kwargs})
            original(self, user, *args, **kwargs)

        return __init__

    import pg8000.core

    _replace(pg8000.core.CoreConnection, "__init__", make)


def _said(connection: Any, prefix: str) -> dict[str, Any]:
    """Where a connection of PyMySQL or aiomysql goes, as its attributes have it."""
    said = {name: getattr(connection, prefix + name, None) for name in ("host", "port", "unix_socket", "db")}
    if isinstance(said["db"], bytes):
        said["db"] = said["db"].decode(errors="replace")
    if said["unix_socket"]:
        said["host"] = None
    return said


def _of_attributes(driver: str, base: Any, connect: str, prefix: str) -> None:
    """Guard the method that connects, and the one by which all statements go."""

    def make(original: Any) -> Any:
        def connect(self: Any, *args: Any, **kwargs: Any) -> Any:
            _check(f"{driver}.connect()", "mysql", (), _said(self, prefix))
            return original(self, *args, **kwargs)

        return connect

    def find(connection: Any) -> frozenset[Endpoint]:
        return endpoints_of_arguments("mysql", (), _said(connection, prefix))

    _replace(base, connect, make)
    _replace(base, "_execute_command", lambda original: _using(driver, find, original, _ends, _sends))


def _sends(command: int, sql: str | bytes) -> str | bytes:
    """What a command of MySQL's protocol says; one chooses a database."""
    if command != 2:
        return sql
    name = sql if isinstance(sql, str) else sql.decode()
    return "USE `" + name.replace("`", "``") + "`"


def _ends(command: int, sql: str | bytes) -> bool:
    """Whether a command of MySQL's protocol is no statement, or a rollback."""
    return command not in (2, 3) or sql[:8].upper() in ("ROLLBACK", b"ROLLBACK")


def _mysqldb(module: Any) -> None:
    def make(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            names = ("host", "user", "password", "database", "port", "unix_socket")
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            _check("MySQLdb.connect()", "mysql", (), given)
            original(self, *args, **kwargs)
            self.__dict__[_ENDPOINTS] = endpoints_of_arguments("mysql", (), given)

        return __init__

    import MySQLdb.connections

    base = MySQLdb.connections.Connection
    _replace(base, "__init__", make)
    for name, command in (("query", 3), ("select_db", 2)):
        passes, sends = functools.partial(_ends, command), functools.partial(_sends, command)
        _replace(base, name, functools.partial(_using, "MySQLdb", _unknown, passes=passes, sends=sends))


def _unknown(connection: Any) -> frozenset[Endpoint]:
    """Where one goes that was open before anybody looked: it does not say."""
    return frozenset()


def _by_name(driver: str, *inner: str) -> Callable[[Any], None]:
    """A driver in C: its function is replaced wherever somebody has it."""

    def install(module: Any) -> None:
        make = functools.partial(_function, f"{driver}.connect()", "mysql")
        replace_everywhere([module, *(getattr(module, name) for name in inner)], "connect", make, _MARK)

    return install


_DOORS: dict[str, Callable[[Any], None]] = {
    "psycopg": _psycopg,
    "psycopg2": _psycopg2,
    "asyncpg": _asyncpg,
    "pg8000": _pg8000,
    "pymysql": lambda module: _of_attributes("pymysql", module.connections.Connection, "connect", ""),
    "aiomysql": lambda module: _of_attributes("aiomysql", module.connection.Connection, "_connect", "_"),
    "MySQLdb": _mysqldb,
    "asyncmy": _by_name("asyncmy", "connection"),
    "mariadb": _by_name("mariadb"),
}
