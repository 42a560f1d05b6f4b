"""psycopg: connections that the application makes itself, past SQLAlchemy."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Hashable, Iterator
from typing import Any, cast

import psycopg

from ...sandbox import Statement
from .cursors import statement_of_caller
from .hooks import Gen

_Watcher = tuple[Callable[[Any], bool], Callable[[Statement], None]]
_watchers: list[_Watcher] = []


@contextlib.contextmanager
def watching_connections(watched: Callable[[Any], bool], refuse: Callable[[Statement], None]) -> Iterator[None]:
    """Watch what psycopg connects by itself, sync and async: each statement of a watched one is shown to ``refuse``."""
    watcher = (watched, refuse)
    base: Any = psycopg.BaseConnection
    original = base.__dict__["_connect_gen"]
    if not hasattr(original.__func__, "_dbtestcase"):
        base._connect_gen = _watching(original)
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def _watching(original: Any) -> Any:
    def _connect_gen(cls: Any, conninfo: str = "", **kwargs: Any) -> Gen:
        connection = yield from original.__get__(None, cls)(conninfo, **kwargs)
        for watched, refuse in () if getattr(cls, "dbtestcase_own", False) else reversed(_watchers):
            if watched(connection):
                connection.__class__ = _watched(cast(Hashable, type(connection)), refuse)
                break
        return connection

    _connect_gen._dbtestcase = True  # type: ignore[attr-defined]
    return classmethod(cast(Any, _connect_gen))


@functools.cache
def _watched(base: Any, refuse: Callable[[Statement], None]) -> Any:
    class Watched(base):  # type: ignore[misc]
        __slots__ = ()

        def _start_query(self) -> Gen:
            refuse(statement_of_caller(sys._getframe(1), self))
            yield from super()._start_query()

    Watched.__name__ = base.__name__
    return Watched
