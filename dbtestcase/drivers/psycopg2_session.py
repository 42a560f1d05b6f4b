"""psycopg2: the attributes of a connection that its transactions begin with, and when they may be set."""

from __future__ import annotations

import contextlib
from typing import Any

from .dbapi import ProxyConnection

_DEFAULT = 5
_LEVELS = ("", "read committed", "repeatable read", "serializable", "read uncommitted", "default")
"""The isolation levels by psycopg2's numbers; 0 is autocommit."""

_SETTINGS = {
    "isolation_level": "default_transaction_isolation",
    "readonly": "default_transaction_read_only",
    "deferrable": "default_transaction_deferrable",
}
_NONE = {"isolation_level": _DEFAULT, "readonly": None, "deferrable": None}


class SessionAttributes(ProxyConnection):
    """``autocommit``, ``isolation_level``, ``readonly``, ``deferrable`` and the methods that set them.

    Where a connection is not in autocommit mode they say how its transactions begin.  Where it is they are settings of
    the session, as psycopg2 has it.
    """

    _level = _DEFAULT
    _readonly: bool | None = None
    _deferrable: bool | None = None

    @property
    def autocommit(self) -> bool:
        return self._client.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._check_idle()
        self._set(autocommit=bool(value))

    @property
    def isolation_level(self) -> int | None:
        return None if self._level == _DEFAULT else self._level

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        self._check_idle()
        self._set(isolation_level=_level_of(level))

    @property
    def readonly(self) -> bool | None:
        return self._readonly

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self._check_idle()
        self._set(readonly=_switch(value))

    @property
    def deferrable(self) -> bool | None:
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: Any) -> None:
        self._check_idle()
        self._set(deferrable=_switch(value))

    def set_session(
        self, isolation_level: Any = None, readonly: Any = None, deferrable: Any = None, autocommit: Any = None
    ) -> None:
        """Set several at once; None leaves one as it is."""
        self._check_idle()
        changes: dict[str, Any] = {}
        if isolation_level is not None:
            changes["isolation_level"] = _level_of(isolation_level)
        if readonly is not None:
            changes["readonly"] = _switch(readonly)
        if deferrable is not None:
            changes["deferrable"] = _switch(deferrable)
        if autocommit is not None:
            changes["autocommit"] = bool(autocommit)
        self._set(**changes)

    def set_isolation_level(self, level: Any) -> None:
        """Roll back and set that of the transactions to come; 0 is autocommit."""
        self._check_open()
        if level is None:
            level = _DEFAULT
        elif not isinstance(level, int):
            level = 1  # as psycopg2 does
        elif not 0 <= level <= 4:
            raise ValueError("isolation level must be between 0 and 4")
        self.rollback()
        if level == 0:
            self._set(autocommit=True)
        else:
            self._set(autocommit=False, isolation_level=level)

    def _check_idle(self) -> None:
        self._check_open()
        if self._sandbox.status(self._client) != "idle":
            raise self._wire.error("ProgrammingError", "set_session cannot be used inside a transaction")

    def _set(self, **changes: Any) -> None:
        before = {"isolation_level": self._level, "readonly": self._readonly, "deferrable": self._deferrable}
        was_autocommit = self._client.autocommit
        autocommit = changes.pop("autocommit", was_autocommit)
        now = before | changes
        if autocommit:  # as psycopg2 has it: what was set before stays what transactions would begin with
            self.set_autocommit(True)
            self._set_defaults(changes)
        elif was_autocommit:
            self._set_defaults({name: _NONE[name] for name, value in before.items() if value != _NONE[name]})
        self._level, self._readonly, self._deferrable = now["isolation_level"], now["readonly"], now["deferrable"]
        self.set_autocommit(autocommit)
        if autocommit:
            self._client.set_modes(level="", read_only=None, deferrable=None)
        else:
            level = "" if self._level == _DEFAULT else _LEVELS[self._level]
            self._client.set_modes(level=level, read_only=self._readonly, deferrable=self._deferrable)

    def _set_defaults(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            text = _LEVELS[value] if name == "isolation_level" else {None: "default", True: "on", False: "off"}[value]
            said = "DEFAULT" if text == "default" else f"'{text}'"
            with contextlib.closing(self.cursor()) as cursor:
                cursor.execute(f"SET {_SETTINGS[name]} TO {said}")


def _level_of(value: Any) -> int:
    """An isolation level by number or name."""
    if value is None:
        return _DEFAULT
    if isinstance(value, int):
        if not 1 <= value <= 4:
            raise ValueError("isolation_level must be between 1 and 4")
        return value
    name = value.decode() if isinstance(value, bytes) else value
    if not isinstance(name, str):
        raise TypeError(f"argument 1 must be str, not {type(name).__name__}")
    if name.lower() not in _LEVELS[1:]:
        raise ValueError(f"bad value for isolation_level: '{name}'")
    return _LEVELS.index(name.lower())


def _switch(value: Any) -> bool | None:
    """What ``readonly`` and ``deferrable`` take."""
    if value is None:
        return None
    name = value.decode() if isinstance(value, bytes) else value
    if isinstance(name, str):
        if name.lower() != "default":
            raise ValueError(f"the only string accepted is 'default'; got {name}")
        return None
    return bool(name)
