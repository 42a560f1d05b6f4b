"""Real connections that a driver makes by itself while a sandbox runs: they may read, but not write.

``psycopg.connect()`` goes past SQLAlchemy, and so past the sandbox.  What such a connection wrote would be committed
for real and be there in the next test, so its writes are refused, by name and before they are sent.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from ..errors import SandboxEscape
from ..sandbox import COMMITTING, Sandbox, Statement, classify
from .harness import is_harness
from .late_imports import when_imported

Refuse = Callable[[Statement], None]


@contextlib.contextmanager
def watching(sandbox: Sandbox, is_target: Callable[[Any], bool]) -> Iterator[None]:
    """Watch the connections that psycopg and psycopg2 make by themselves to the sandbox's database."""

    def refuse(statement: Statement) -> None:
        if statement.writes:
            text = " ".join(statement.text.split())[:200]
            raise sandbox.note(
                SandboxEscape(
                    f"A real connection to the test database was about to write: {text!r}; it was not sent.",
                    cause="a connection that the driver made by itself (psycopg.connect()), past the sandbox",
                    remedy="connect through a SQLAlchemy engine, also for engine.raw_connection(), or " + COMMITTING,
                )
            )

    def watched(connection: Any) -> bool:
        return not is_harness() and is_target(connection)

    from .psycopg.watching import watching_connections

    if not _psycopg2_watchers:
        when_imported("psycopg2", _watch_psycopg2)
    watcher = (watched, refuse)
    _psycopg2_watchers.append(watcher)
    try:
        with watching_connections(watched, refuse):
            yield
    finally:
        _psycopg2_watchers.remove(watcher)


_psycopg2_watchers: list[tuple[Callable[[Any], bool], Refuse]] = []


def _watch_psycopg2(psycopg2: Any) -> None:
    original = psycopg2._connect

    def connect(dsn: str, connection_factory: Any = None, **kwargs: Any) -> Any:
        from psycopg2 import extensions

        factory = connection_factory or extensions.connection
        for each, its_refuse in _psycopg2_watchers:
            if isinstance(factory, type):
                factory = _watched_connection(factory, each, its_refuse)
        return original(dsn, connection_factory=factory, **kwargs)

    if not hasattr(original, "_dbtestcase"):
        connect._dbtestcase = True  # type: ignore[attr-defined]
        psycopg2._connect = connect


def _watched_connection(base: Any, watched: Callable[[Any], bool], refuse: Refuse) -> Any:
    class Watched(base):  # type: ignore[misc]
        def cursor(self, *args: Any, **kwargs: Any) -> Any:
            if watched(self):
                from psycopg2 import extensions

                factory = kwargs.get("cursor_factory") or self.cursor_factory or extensions.cursor
                kwargs["cursor_factory"] = _watched_cursor(factory, refuse)
            return super().cursor(*args, **kwargs)

    Watched.__name__ = base.__name__
    return Watched


@functools.cache
def _watched_cursor(base: Hashable, refuse: Refuse) -> Any:
    inherited: Any = base
    if not isinstance(inherited, type):
        return inherited

    class Watched(inherited):  # type: ignore[misc]
        def execute(self, query: Any, *args: Any) -> Any:
            refuse(classify(_text(query, self)))
            return super().execute(query, *args)

        def executemany(self, query: Any, *args: Any) -> Any:
            refuse(classify(_text(query, self)))
            return super().executemany(query, *args)

        def copy_expert(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            refuse(classify(_text(query, self)))
            return super().copy_expert(query, *args, **kwargs)

        def copy_from(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
            refuse(classify(f"COPY {table} FROM STDIN"))
            return super().copy_from(file, table, *args, **kwargs)

    return Watched


def _text(query: Any, cursor: Any) -> str:
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    return query if isinstance(query, str) else str(query.as_string(cursor))
