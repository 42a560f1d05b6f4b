"""``ATTACH`` on a committing test's connections: a file whose engine is led is refused before it is opened."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Hashable, Sequence
from typing import Any

from sqlalchemy import Dialect

from ...sandbox import SQLITE, split
from ..direct_doors import check_attached
from .statements import attach_as_file, parse_attach

_MARK = "_dbtestcase_watched"


def watch(dialect: Dialect, args: Sequence[Any], parameters: dict[str, Any]) -> None:
    """Have ``sqlite3.connect()`` make connections that look; those of a function, or of another module, are left."""
    factory = parameters.get("factory", sqlite3.Connection)
    is_ours = dialect.is_async or getattr(dialect.loaded_dbapi, "connect", None) is sqlite3.connect
    if is_ours and isinstance(factory, type) and not hasattr(factory, _MARK):
        parameters["factory"] = _connection(factory, "vfs=memdb" in str(args[:1]))


@functools.cache
def _connection(base: Any, in_memory: bool) -> Any:
    class Watched(base):  # type: ignore[misc]
        def cursor(self, factory: Hashable = sqlite3.Cursor) -> Any:
            return super().cursor(_cursor(factory, in_memory) if isinstance(factory, type) else factory)

        def execute(self, *args: Any) -> Any:  # sqlite3's own makes its cursor past cursor()
            return self.cursor().execute(*args)

        def executescript(self, script: str, /) -> Any:
            return self.cursor().executescript(script)

    return _named_as(Watched, base)


@functools.cache
def _cursor(base: Any, in_memory: bool) -> Any:
    class Watched(base):  # type: ignore[misc]
        def execute(self, sql: str, parameters: Any = (), /) -> Any:
            attach = parse_attach(sql, parameters) if isinstance(sql, str) else None
            if attach is not None:
                check_attached(attach[0])
                if in_memory:
                    sql, parameters = attach_as_file(*attach) or (sql, parameters)
            return super().execute(sql, parameters)

        def executescript(self, script: str, /) -> Any:
            is_to_be_read = isinstance(script, str) and "attach" in script.lower()  # a dump may be long
            for statement in split(script, SQLITE) if is_to_be_read else ():
                if (attach := parse_attach(statement)) is not None:
                    check_attached(attach[0])
            return super().executescript(script)

    return _named_as(Watched, base)


def _named_as(cls: type, base: type) -> type:
    cls.__name__, cls.__qualname__, cls.__module__ = base.__name__, base.__qualname__, base.__module__
    setattr(cls, _MARK, True)
    return cls
