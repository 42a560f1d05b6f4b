"""The library's own connections by psycopg: what is put around those of an application does not concern them."""

from __future__ import annotations

import inspect
from typing import Any

import psycopg


def _psycopgs(cls: type, *names: str) -> list[Any]:
    """The methods as psycopg has written them, whoever has wrapped them since."""
    return [inspect.unwrap(getattr(cls, name)) for name in names]


class _OwnCursor(psycopg.Cursor[Any]):
    _start_query, _execute_gen = _psycopgs(psycopg.Cursor, "_start_query", "_execute_gen")


class OwnConnection(psycopg.Connection[Any]):
    dbtestcase_own = True  # nobody watches it
    _start_query, _commit_gen = _psycopgs(psycopg.Connection, "_start_query", "_commit_gen")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _OwnCursor
