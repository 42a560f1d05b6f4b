"""SQLite through Python's ``sqlite3``: many connections over one, in a transaction that Python does not begin.

The physical connection is in autocommit mode (``isolation_level=None``); the sandbox sends ``BEGIN``.  A virtual
connection behaves as the mode says that the application gave it: in the legacy mode of ``sqlite3`` a transaction begins
with the first ``INSERT``, ``UPDATE``, ``DELETE`` or ``REPLACE`` and everything before it commits by itself; with
``isolation_level=None`` it begins with a ``BEGIN`` in words; with ``autocommit=False`` there always is one.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL, Dialect

from ...sandbox.rules import Rules
from ..dbapi import ProxyConnection, ProxyWire
from . import statements as words
from .connections import AsyncSQLiteConnection, SQLiteConnection
from .pragmas import Flags

__all__ = ["SQLiteWire", "open_sqlite"]


@contextlib.contextmanager
def open_sqlite(dialect: Dialect, url: URL, rules: Rules) -> Iterator[SQLiteWire]:
    """The wire of a sandbox on a database of SQLite."""
    args, parameters = dialect.create_connect_args(url)
    parameters.update(isolation_level=None, check_same_thread=False)
    connection: Any = dialect.connect(*args, **parameters)
    with contextlib.closing(SQLiteWire(dialect, connection, rules)) as wire:
        wire.detect_types = parameters.get("detect_types", 0)
        wire.in_memory = any(mark in args[0] for mark in (":memory:", "vfs=memdb", "mode=memory"))
        wire.prepare()
        yield wire


class SQLiteWire(ProxyWire):
    """The wire of a sandbox that speaks ``sqlite3``."""

    def __init__(self, dialect: Dialect, connection: sqlite3.Connection, rules: Rules) -> None:
        super().__init__(dialect, connection, rules)
        self.can_switch_foreign_keys = hasattr(connection, "setconfig")
        self.in_memory = False
        self.detect_types = 0
        self.default_foreign_keys = self.foreign_keys = bool(self.send("PRAGMA foreign_keys")[0][0])
        """What the application's connections have asked for; the test's own follow them."""
        self.flags: dict[str, str] = {}
        """Each flag that somebody has set, with what it was before."""
        self.applied: Flags | None = None
        """Whose flags the physical connection has now."""
        self.mixed_text = False
        self.functions: dict[tuple[object, ...], tuple[Any, ...]] = {}

    def interrupt(self) -> None:
        self.connection.interrupt()

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return SQLiteConnection

    @property
    def async_proxy_class(self) -> type[ProxyConnection]:
        return AsyncSQLiteConnection

    @property
    def drivers(self) -> frozenset[str]:
        return frozenset({"pysqlite", "aiosqlite"})

    def prepare(self) -> None:
        """Settings that only the wire needs."""
        for pragma in ("cache_spill = OFF", "temp_store = MEMORY"):  # nothing reaches the file before a commit
            self.send(f"PRAGMA {pragma}")
        assert isinstance(self.rules, words.SQLiteRules)
        if self.send(self.rules.deferred_names)[0][0]:
            self.rules.known_violations = frozenset(self.send("PRAGMA foreign_key_check"))

    def send(self, command: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.connection.execute(command).fetchall()]

    def in_transaction(self) -> bool:
        return bool(self.connection.in_transaction) and not self.ended_by

    def reset(self) -> None:
        for name, default in self.flags.items():
            if name != "foreign_keys":
                self.send(f"PRAGMA {name} = {default}")
        self.flags.clear()
        self.send(f"PRAGMA foreign_keys = {int(self.default_foreign_keys)}")
        self.foreign_keys = self.default_foreign_keys
        self.applied = None

    def lost(self, text: str) -> bool:
        """After a statement: whether it ended the outer transaction."""
        if self.connection.in_transaction:
            return False
        self.ended_by = self.ended_by or " ".join(text.split())[:200]
        self.connection.execute("BEGIN")  # whatever comes now is not to be committed either
        return True
