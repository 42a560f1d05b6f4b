"""Opening the wire of a sandbox on a database of SQLite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL, Dialect

from ...sandbox import Rules
from ..dbapi import ProxyConnection
from .connections import AsyncSQLiteConnection, SQLiteConnection
from .wire import SQLiteWire


@contextlib.contextmanager
def open_sqlite(dialect: Dialect, url: URL, rules: Rules) -> Iterator[SQLiteWire]:
    """The wire of a sandbox on a database of SQLite."""
    args, parameters = dialect.create_connect_args(url)
    parameters.update(isolation_level=None, check_same_thread=False)
    connection: Any = dialect.connect(*args, **parameters)
    with contextlib.closing(_Wire(dialect, connection, rules)) as wire:
        wire.detect_types = parameters.get("detect_types", 0)
        wire.in_memory = any(mark in args[0] for mark in (":memory:", "vfs=memdb", "mode=memory"))
        wire.prepare()
        yield wire


class _Wire(SQLiteWire):
    """With its virtual connections, which know the wire."""

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return SQLiteConnection

    @property
    def async_proxy_class(self) -> type[ProxyConnection]:
        return AsyncSQLiteConnection
