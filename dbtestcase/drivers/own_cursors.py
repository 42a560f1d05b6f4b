"""What a driver's connection is used for beneath SQLAlchemy: its cursors, counted, or its statements."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def watch_cursors(connection: Any, made: Callable[[], object], sent: Callable[[str], object]) -> None:
    """Call ``made`` for each cursor of a connection, ``sent`` with each statement of asyncpg; others show nothing."""
    kinds = {base.__module__.partition(".")[0] for base in type(connection).__mro__}
    if "psycopg2" in kinds:  # an object of C, whose factory may be any callable
        from psycopg2.extensions import cursor

        connection.cursor_factory = _noting(connection.cursor_factory or cursor, made)
    elif kinds & {"psycopg", "pg8000", "aiomysql", "asyncmy"}:
        connection.cursor = _noting(connection.cursor, made)
    elif "asyncpg" in kinds:
        connection.add_query_logger(lambda record: sent(record.query))


def _noting(make: Callable[..., Any], made: Callable[[], object]) -> Callable[..., Any]:
    @functools.wraps(make, updated=())
    def noting(*args: Any, **kwargs: Any) -> Any:
        made()
        return make(*args, **kwargs)

    return noting
