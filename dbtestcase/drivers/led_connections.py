"""Connections that an application's own function makes for its engine: ``creator=``, ``async_creator=`` and their kind.

The function is called as in production, and while it runs the ``connect()`` of the engine's driver leads to the test
database: what it gives to ``connect()`` holds, and what it does with the connection is done to that one.  What it
brings from elsewhere is refused: nobody knows to which database that goes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Coroutine, Generator, Hashable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Dialect

from ..errors import ConfigurationError
from .late_imports import replace_everywhere, replace_once, when_imported

Open = Callable[[dict[str, Any]], Any]

_MARK = "_dbtestcase_lead"
_lead: ContextVar[Lead | None] = ContextVar("dbtestcase_lead", default=None)


class Lead:
    """Where the ``connect()`` of a driver leads to.

    :param dialect: the dialect of the engine, for its driver.
    :param open: makes a connection as the dialect adapts it, from the keywords that the driver was given.
    """

    def __init__(self, dialect: Dialect, open: Open) -> None:
        self.driver = dialect.driver
        self.is_async = dialect.is_async
        self._open = open
        self._made: list[tuple[Any, Any]] = []

    def connect(self, keywords: dict[str, Any]) -> Any:
        """A connection as the driver's own function would give it."""
        token = _lead.set(None)
        try:
            adapted = self._open({name: value for name, value in keywords.items() if value is not None})
        finally:
            _lead.reset(token)
        own = adapted.driver_connection if self.is_async else adapted
        self._made.append((own, adapted))
        return own

    async def connect_async(self, keywords: dict[str, Any]) -> Any:
        """The same, for a driver whose function is a coroutine."""
        from sqlalchemy.util import greenlet_spawn

        return await greenlet_spawn(self.connect, keywords)

    def adapted(self, found: Any) -> Any:
        """The connection for an engine, of what the application's function gave; None for one from elsewhere."""
        for each in (found, getattr(found, "__wrapped__", None), getattr(found, "_connection", None)):
            for own, adapted in self._made:
                if each is not None and (each is own or each is adapted):
                    return found if each is found or not self.is_async else adapted
        return None

    def has_made(self, connection: Any) -> bool:
        """Whether a connection is made already, and not to be connected again."""
        return any(own is connection for own, _ in self._made)


class Opening:
    """What a coroutine will give: awaited, or entered as a block that closes it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, None, Any]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> Any:
        self._found = await self._coroutine
        return self._found

    async def __aexit__(self, *exc: object) -> None:
        await self._found.close()


def made_by(function: Callable[[], Any], lead: Lead, name: str, *, may_decline: bool = False) -> Any:
    """The connection that an application's function makes, led.

    :param name: what it is, for errors.
    :param may_decline: whether it may give None, which is handed back.
    :raises ConfigurationError: it gives a connection that was made in another way.
    """
    for module, install in _DOORS.get(lead.driver, {}).items():
        when_imported(module, install)
    token = _lead.set(lead)
    try:
        found = function()
    except Exception as error:
        if not isinstance(error, ConfigurationError):
            error.add_note(f"dbtestcase: {name} was called; in it {lead.driver}'s connect() leads to the test database")
        raise
    finally:
        _lead.reset(token)
    if found is None and may_decline:
        return None
    adapted = lead.adapted(found)
    if adapted is None:
        with contextlib.suppress(Exception):  # the error below matters more
            getattr(found, "terminate" if lead.is_async else "close")()
        raise _from_elsewhere(
            f"{name} gave a connection ({type(found).__module__}.{type(found).__qualname__}) that", lead
        )
    return adapted


def unled(what: str) -> None:
    """A connection is about to be made for real.

    :param what: the function that was called.
    :raises ConfigurationError: a lead is in force, which knows nothing of it.
    """
    lead = _lead.get()
    if lead is not None and _DRIVERS.get(what.partition(".")[0]) in (lead.driver, _TWINS.get(lead.driver)):
        raise _from_elsewhere(f"{what} was about to make a connection for an engine that", lead)


def _from_elsewhere(what: str, lead: Lead) -> ConfigurationError:
    call = {"pysqlite": "sqlite3.connect()", "mysqldb": "MySQLdb.connect()"}.get(
        lead.driver, f"{lead.driver}.connect()"
    )
    return ConfigurationError(
        f"{what} was not made by {call} within it: nobody knows to which database it goes.",
        cause="create_engine(creator=...), async_creator=..., async_creator_fn, a do_connect listener or a pool of the "
        "application's own takes it from a connector, another pool or thread, a subclass, or by a name of its own",
        remedy=f"let it call {call} itself, which leads to the test database meanwhile; in tests let a connector's "
        "connect() be the driver's (unittest.mock.patch.object), or give the engine a URL instead",
    )


_DRIVERS = {"sqlite3": "pysqlite", "MySQLdb": "mysqldb"} | {
    name: name for name in ("psycopg", "psycopg2", "asyncpg", "pg8000", "pymysql", "aiomysql", "asyncmy", "aiosqlite")
}
_TWINS = {"aiosqlite": "pysqlite"}
"""The drivers by the names of their modules; and what another one connects with."""


# -- the doors


def _leading(driver: str) -> Lead | None:
    lead = _lead.get()
    return lead if lead is not None and lead.driver == driver else None


_replace = functools.partial(replace_once, mark=_MARK)

_replaced: dict[Any, Callable[..., Any]] = {}
"""By a driver's own function what stands in its place, for who has taken it before: ``creator=partial(connect, …)``."""


def led(function: Any) -> Any:
    """What an engine calls to connect; ours in the place of a driver's own function, with arguments or without."""
    if type(function) is functools.partial and (inner := led(function.func)) is not function.func:
        return functools.partial(inner, *function.args, **function.keywords)
    return _replaced.get(function, function) if isinstance(function, Hashable) else function


def _everywhere(modules: Sequence[Any], name: str, make: Callable[[Any], Any]) -> None:
    found = replace_everywhere(modules, name, make, _MARK)
    if found is not None:
        original, replacement = found
        _replaced[original] = replacement


def _bound(function: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, by name."""
    signature = inspect.signature(function)
    bound = dict(signature.bind_partial(*args, **keywords).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            bound |= bound.pop(parameter.name, {})
        elif parameter.kind is parameter.VAR_POSITIONAL:  # of mysqlclient
            bound |= dict(zip(_POSITIONAL, bound.pop(parameter.name, ()), strict=False))
    bound.pop("self", None)
    return bound


_POSITIONAL = ("host", "user", "password", "database", "port", "unix_socket")


def _by_conninfo(conninfo: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    from psycopg.conninfo import conninfo_to_dict

    return {**conninfo_to_dict(conninfo or ""), **keywords}


def _class(driver: str, module: str) -> Callable[[Any], None]:
    """A class of connections, which connect when they are made: those of a subclass are nobody's."""

    def install(cls: Any) -> None:
        new, initialize = cls.__new__, cls.__init__
        if hasattr(initialize, _MARK):
            return

        @functools.wraps(initialize)
        def __init__(self: Any, *args: Any, **keywords: Any) -> None:
            lead = _leading(driver)
            if lead is None or not lead.has_made(self):
                initialize(self, *args, **keywords)

        def __new__(kind: Any, *args: Any, **keywords: Any) -> Any:
            lead = _leading(driver)
            if lead is not None and kind.__module__.startswith(module):
                return lead.connect(_bound(initialize, (None, *args), keywords))
            return new(kind) if new is object.__new__ else new(kind, *args, **keywords)

        setattr(__init__, _MARK, True)
        cls.__init__, cls.__new__ = __init__, __new__

    return install


def _psycopg(module: Any) -> None:
    for cls in (module.Connection, module.AsyncConnection):
        bound, original = cls.connect, cls.__dict__["connect"].__func__
        if not hasattr(original, _MARK):
            cls.connect = classmethod(_led_psycopg(original, cls))
            _replaced[bound] = cls.connect
    _everywhere([module], "connect", lambda original: lambda *args, **kw: module.Connection.connect(*args, **kw))


def _led_psycopg(original: Any, cls: Any) -> Any:
    @functools.wraps(original)
    def connect(kind: Any, conninfo: str = "", *args: Any, **keywords: Any) -> Any:
        lead = _leading("psycopg")
        if lead is None or kind is not cls:
            return original(kind, conninfo, *args, **keywords)
        given = _by_conninfo(conninfo, keywords)
        return lead.connect_async(given) if inspect.iscoroutinefunction(original) else lead.connect(given)

    setattr(connect, _MARK, True)
    return connect


def _psycopg2(module: Any) -> None:
    def make(original: Any) -> Any:
        def _connect(dsn: str, connection_factory: Any = None, **keywords: Any) -> Any:
            lead = _leading("psycopg2")
            if lead is None:
                return original(dsn, connection_factory=connection_factory, **keywords)
            return lead.connect(_by_conninfo(dsn, {"connection_factory": connection_factory, **keywords}))

        return _connect

    _replace(module, "_connect", make)


def _psycopg_pool(module: Any) -> None:
    def make(original: Any) -> Any:
        def getconn(pool: Any, *args: Any, **keywords: Any) -> Any:
            if _leading("psycopg") is None:
                return original(pool, *args, **keywords)
            return pool._connect()  # which its workers would do, in threads of their own

        return getconn

    for cls in (module.ConnectionPool, module.AsyncConnectionPool):  # below getconn(), which creator= has long since
        name = next(name for name in ("_getconn_with_check_loop", "_getconn_unchecked") if hasattr(cls, name))
        _replace(cls, name, make)


def _psycopg2_pool(module: Any) -> None:
    def make(original: Any) -> Any:
        def _getconn(pool: Any, key: Any = None) -> Any:
            if _leading("psycopg2") is None:
                return original(pool, key)
            import psycopg2

            return psycopg2.connect(*pool._args, **pool._kwargs)

        return _getconn

    _replace(module.AbstractConnectionPool, "_getconn", make)


def _asyncpg(module: Any) -> None:
    def make(original: Any) -> Any:
        async def _connect(**keywords: Any) -> Any:
            lead = _leading("asyncpg")
            return await (original(**keywords) if lead is None else lead.connect_async(keywords))

        return _connect

    _replace(module.connect_utils, "_connect", make)


def _pg8000(module: Any) -> None:
    import pg8000.core

    _class("pg8000", "pg8000")(pg8000.core.CoreConnection)


def _pymysql(module: Any) -> None:
    _class("pymysql", "pymysql")(module.connections.Connection)


def _mysqldb(module: Any) -> None:
    import MySQLdb.connections

    _class("mysqldb", "MySQLdb")(MySQLdb.connections.Connection)


def _sqlite3(module: Any) -> None:
    names = ("database", "timeout", "detect_types", "isolation_level", "check_same_thread", "factory")

    def make(original: Any) -> Any:
        def connect(*args: Any, **keywords: Any) -> Any:
            lead = _leading("pysqlite")
            if lead is None:
                return original(*args, **keywords)
            return lead.connect({**dict(zip((*names, "cached_statements", "uri"), args, strict=False)), **keywords})

        return connect

    _everywhere([module, module.dbapi2], "connect", make)


def _coroutine(driver: str, inner: str) -> Callable[[Any], None]:
    """A coroutine function ``connect()`` of a package, and of the module inside that has it."""

    def make(original: Any) -> Any:
        def connect(*args: Any, **keywords: Any) -> Any:
            lead = _leading(driver)
            if lead is None:
                return original(*args, **keywords)
            return Opening(lead.connect_async(_bound(original, args, keywords)))

        return connect

    return lambda module: _everywhere([module, getattr(module, inner)], "connect", make)


_DOORS: dict[str, dict[str, Callable[[Any], None]]] = {
    "psycopg": {"psycopg": _psycopg, "psycopg_pool": _psycopg_pool},
    "psycopg2": {"psycopg2": _psycopg2, "psycopg2.pool": _psycopg2_pool},
    "asyncpg": {"asyncpg": _asyncpg},
    "pg8000": {"pg8000": _pg8000},
    "pymysql": {"pymysql": _pymysql},
    "mysqldb": {"MySQLdb": _mysqldb},
    "aiomysql": {"aiomysql": _coroutine("aiomysql", "connection")},
    "asyncmy": {"asyncmy": _coroutine("asyncmy", "connection")},
    "pysqlite": {"sqlite3": _sqlite3},
    "aiosqlite": {"aiosqlite": _coroutine("aiosqlite", "core")},
}
"""By SQLAlchemy's name of the driver: what is done to which module when it is imported."""
