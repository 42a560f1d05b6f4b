"""The cursors of a driver's connection to PostgreSQL, counted: what SQLAlchemy has not seen was somebody's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def watch_cursors(connection: Any, made: Callable[[], object]) -> None:
    """Call ``made`` whenever a connection of psycopg, psycopg2 or pg8000 makes a cursor; others show none."""
    kind = type(connection).__module__.partition(".")[0]
    if kind == "psycopg2":  # an object of C, whose factory may be any callable
        from psycopg2.extensions import cursor

        connection.cursor_factory = _noting(connection.cursor_factory or cursor, made)
    elif kind in ("psycopg", "pg8000"):
        connection.cursor = _noting(connection.cursor, made)


def _noting(make: Callable[..., Any], made: Callable[[], object]) -> Callable[..., Any]:
    @functools.wraps(make, updated=())
    def noting(*args: Any, **kwargs: Any) -> Any:
        made()
        return make(*args, **kwargs)

    return noting
