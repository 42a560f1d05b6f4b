"""The library's own connections by psycopg: what is put around those of an application does not concern them."""

from __future__ import annotations

from typing import Any

import psycopg

from .psycopg.hooks import as_written


class _OwnCursor(psycopg.Cursor[Any]):
    _start_query, _execute_gen = as_written(psycopg.Cursor, "_start_query", "_execute_gen")


class OwnConnection(psycopg.Connection[Any]):
    dbtestcase_own = True  # for those who watch a database: it may be connected to that very one
    _start_query, _commit_gen = as_written(psycopg.Connection, "_start_query", "_commit_gen")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _OwnCursor
