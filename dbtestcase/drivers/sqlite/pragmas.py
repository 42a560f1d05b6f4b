"""``PRAGMA`` on a virtual connection of SQLite: some are its own, some a test must not send, some are writes."""

from __future__ import annotations

from typing import Any

from ...errors import SandboxEscape
from ...sandbox import COMMITTING
from ..dbapi import ProxyConnection
from . import statements as words
from .wire import SQLiteWire

NOTHING = "SELECT 1 WHERE 0"
"""What is sent in place of a statement that a test must not send."""

_ENABLE_FOREIGN_KEYS = 1002  # sqlite3.SQLITE_DBCONFIG_ENABLE_FKEY, new in Python 3.12


class Flags(ProxyConnection):
    """The flags of one connection, given to the wire before its statements."""

    _wire: SQLiteWire

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of the connection's own is open."""
        raise NotImplementedError

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._flags: dict[str, str] = {}
        self._answers: dict[str, str] = {}
        self._foreign_keys: bool | None = None

    def _pragma(self, pragma: words.Pragma) -> str | None:
        """Note what a ``PRAGMA`` sets; what to send in its place."""
        name, value = pragma.name, pragma.value
        if pragma.does == "pointless":
            return self._pointless(name, value or "")
        if pragma.does == "asks" and name in self._answers and value is None:
            return f"SELECT '{self._answers[name]}' AS {name}"
        if pragma.does == "flags" and value is not None:
            self._keep_flag(name, value if name in words.VALUES else "1" if words.is_on(value) else "0")
            if name == "defer_foreign_keys" and words.is_on(value):
                self._sandbox.defer_constraints()
            return None
        if pragma.does == "foreign_keys" and value is not None:
            if not (self._client.active and self.in_transaction):  # there it does nothing
                self._set_foreign_keys(words.is_on(value))
            return NOTHING
        return None

    def _pointless(self, name: str, value: str) -> str:
        if name == "wal_checkpoint":
            return "SELECT 0 AS busy, 0 AS log, 0 AS checkpointed"
        if name != "journal_mode":
            return NOTHING
        current = str(self._wire.send("PRAGMA journal_mode")[0][0])
        mode = current if self._wire.in_memory else value.lower()
        self._answers[name] = "".join(c for c in mode if c.isalpha())
        return f"SELECT '{self._answers[name]}' AS journal_mode"

    def _keep_flag(self, name: str, value: str) -> None:
        wire = self._wire
        if name not in wire.flags:
            rows = wire.send(f"PRAGMA {name}")
            wire.flags[name] = str(rows[0][0]) if rows else "0"  # case_sensitive_like cannot be asked
        self._flags[name] = value
        wire.applied = None

    def _set_foreign_keys(self, on: bool) -> None:
        wire = self._wire
        if not self._client.own:
            wire.foreign_keys = on
            self._foreign_keys = on
            wire.changed = True
            if self._client.begun_with is None:  # a listener's, as the connection was made
                wire.usual_foreign_keys = on
        if wire.can_switch_foreign_keys:
            wire.flags.setdefault("foreign_keys", str(wire.send("PRAGMA foreign_keys")[0][0]))
            self._flags["foreign_keys"] = "1" if on else "0"
            wire.applied = None
            return
        if bool(wire.send("PRAGMA foreign_keys")[0][0]) == on:
            return
        if not self._sandbox.restart(f"PRAGMA foreign_keys = {int(on)}"):
            raise self._sandbox.note(
                SandboxEscape(
                    f"PRAGMA foreign_keys = {'ON' if on else 'OFF'} cannot take effect: {self._sandbox.label} has "
                    "written rows.",
                    cause="SQLite changes it only outside of transactions, and all connections share one here (Python "
                    "3.12 and later can change it all the same)",
                    remedy="name the engine in `engines = [...]`, so that its connect events run before the first row "
                    "is written, or " + COMMITTING,
                )
            )
        for client in list(self._sandbox.clients):
            client.checks_deferred = on

    def _apply_flags(self) -> None:
        """Give the wire the flags of this connection."""
        wire = self._wire
        if wire.applied is self or not wire.flags:
            return
        for name, default in wire.flags.items():
            value = self._flags.get(name, default)
            if name != "foreign_keys":
                wire.send(f"PRAGMA {name} = {value}")
                continue
            on = wire.foreign_keys if self._client.own and name not in self._flags else value == "1"
            if name in self._flags and not self._client.own:
                wire.foreign_keys = on
            wire.connection.setconfig(_ENABLE_FOREIGN_KEYS, on)
            self._client.checks_deferred = on
        wire.applied = self

    def setconfig(self, op: int, enable: bool = True, /) -> None:
        """``sqlite3_db_config()``; the foreign keys are this connection's own."""
        if op == _ENABLE_FOREIGN_KEYS:
            self._set_foreign_keys(enable)
        else:
            self._wire.connection.setconfig(op, enable)
