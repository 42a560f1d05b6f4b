"""SQLite through Python's ``sqlite3``: many connections over one, in a transaction that Python does not begin.

The physical connection is in autocommit mode (``isolation_level=None``); the sandbox sends ``BEGIN``.  A virtual
connection behaves as the mode says that the application gave it: in the legacy mode of ``sqlite3`` a transaction begins
with the first ``INSERT``, ``UPDATE``, ``DELETE`` or ``REPLACE`` and everything before it commits by itself; with
``isolation_level=None`` it begins with a ``BEGIN`` in words; with ``autocommit=False`` there always is one.
"""

from __future__ import annotations

import functools
import gc
import os
import sqlite3
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, Dialect

from ...errors import LeakError
from ...sandbox import COMMITTING, Rules
from ..proxy_wire import ProxyWire
from . import statements as words

FunctionKey = tuple[object, ...]


@dataclass(frozen=True)
class Function:
    """A function, aggregate or collation in Python, with the method that makes it known.

    Two are the same whose code is: listeners define theirs anew for each connection.
    """

    how: str
    name: str
    arguments: tuple[Any, ...] = field(compare=False)
    options: tuple[tuple[str, Any], ...]
    essence: Any


_BUILT_IN = "SELECT EXISTS (SELECT 1 FROM pragma_function_list WHERE builtin AND name = lower(?))"


class SQLiteWire(ProxyWire):
    """The wire of a sandbox that speaks ``sqlite3``."""

    def __init__(self, dialect: Dialect, connection: sqlite3.Connection, rules: Rules, url: URL) -> None:
        super().__init__(dialect, connection, rules, url)
        self.can_switch_foreign_keys = hasattr(connection, "setconfig")
        self.in_memory = False
        self.detect_types = 0
        self.default_foreign_keys = self.foreign_keys = bool(self.send("PRAGMA foreign_keys")[0][0])
        """What the application's connections have asked for; the test's own follow them."""
        self.flags: dict[str, str] = {}
        """Each flag that somebody has set, with what it was before."""
        self.applied: object = None
        """Whose flags the physical connection has now."""
        self.mixed_text = False
        self.usual_foreign_keys = self.default_foreign_keys
        """What the listeners of the application's engines ask for when a connection is made."""
        self.changed = False
        """Whether a connection has changed something that no rollback takes back."""
        self.functions: dict[FunctionKey, Function] = {}
        self.connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._file = str(self.send("PRAGMA database_list")[0][2])
        self._opened = self._identity()

    def settle(self) -> None:
        """Look whether the file is still the one that was opened.

        :raises LeakError: it is not; the wire is lost.
        """
        if not self._file or self.gone or self._identity() == self._opened:
            return
        self._gone = f"its file {self._file} was deleted or overwritten"
        raise LeakError(
            f"The file of the test database was deleted or overwritten: {self._file}",
            cause="the test, or the application, removes the file of its database to begin anew, or copies another one "
            "over it; SQLite answers 'disk I/O error', 'attempt to write a readonly database' or from what is gone",
            remedy="empty its tables instead (metadata.drop_all() and create_all() work), or " + COMMITTING,
        )

    def _identity(self) -> tuple[int, ...]:
        """Which file lies there, and whether it is empty."""
        try:
            found = os.stat(self._file)
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size > 0

    def interrupt(self) -> None:
        self.connection.interrupt()

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

    @property
    def gone(self) -> str:
        if not self._gone:
            try:
                _ = self.connection.in_transaction  # it has no other word for it
            except sqlite3.ProgrammingError:
                self._gone = "it was closed"
        return self._gone

    def in_transaction(self) -> bool:
        return not self.gone and bool(self.connection.in_transaction) and not self.ended_by

    def reset(self) -> None:
        for name, default in self.flags.items():
            if name != "foreign_keys":
                self.send(f"PRAGMA {name} = {default}")
        self.flags.clear()
        self.send(f"PRAGMA foreign_keys = {int(self.default_foreign_keys)}")
        self.foreign_keys = self.usual_foreign_keys = self.default_foreign_keys
        self.applied = None

    def test_ended(self, restart: Callable[[str], bool]) -> None:
        """Take back what only connections knew that no later test is handed."""
        if not self.changed:
            return
        self.changed = False
        living = [each for each in self.connections if not each._client.retired]
        wanted: dict[FunctionKey, Function] = {}
        for each in living:
            wanted |= each._functions
        changed = [(key, function) for key, function in self.functions.items() if wanted.get(key) != function]
        for key, function in changed:
            change = functools.partial(self._change_function, key, function, wanted.get(key))
            if not self._takes_back(change):
                gc.collect()  # a statement that is half read, and that nobody holds
                self.changed |= not self._takes_back(change)
        aliases = {alias for each in living for alias in each._attached}
        for _, name, _ in self.send("PRAGMA database_list"):
            if name not in ("main", "temp") and name.lower() not in aliases:
                # where it was used its transaction ends with this one
                self.changed |= not self._takes_back(functools.partial(self.send, f'DETACH "{name}"'))
        on = self.usual_foreign_keys
        if not self.can_switch_foreign_keys and bool(self.send("PRAGMA foreign_keys")[0][0]) != on:
            restart(f"PRAGMA foreign_keys = {int(on)}")
        self.foreign_keys = on

    def _takes_back(self, change: Callable[[], object]) -> bool:
        """Whether SQLite does what it does not while a statement uses the thing."""
        try:
            change()
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):
            return False
        return True

    def _change_function(self, key: FunctionKey, function: Function, wanted: Function | None) -> None:
        name = function.name
        if wanted is not None:
            getattr(self.connection, wanted.how)(wanted.name, *wanted.arguments, **dict(wanted.options))
            self.functions[key] = wanted
        elif function.how == "create_collation":
            self.connection.create_collation(name, None)
            del self.functions[key]
        elif not self.connection.execute(_BUILT_IN, (name,)).fetchone()[0]:
            # create_function(…, None) does not take a function away; SQLite's own would not come back
            self.connection.create_window_function(name, function.arguments[0], None)
            del self.functions[key]

    def lost(self, text: str) -> bool:
        """After a statement: whether it ended the outer transaction."""
        if self.connection.in_transaction:
            return False
        self.ended_by = self.ended_by or " ".join(text.split())[:200]
        self.connection.execute("BEGIN")  # whatever comes now is not to be committed either
        return True
