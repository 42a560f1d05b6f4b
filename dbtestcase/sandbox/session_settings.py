"""``SET`` and ``SHOW``: the server's parameters belong to a connection, and are kept apart for many on one wire.

Flows are generators that yield SQL and receive its rows; a driver runs them.  They cost nothing until the first
``SET``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping

from .statements import Statement
from .topics import Topic

Rows = list[tuple[object, ...]]
Flow = Generator[str, Rows, None]


def literal(value: object) -> str:
    """A string literal of standard SQL; ``NULL`` for None."""
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


def read_settings(names: Iterable[str]) -> str:
    """PostgreSQL's query for the values of some parameters."""
    return "SELECT " + ", ".join(f"current_setting({literal(name)}, true)" for name in names)


def write_settings(values: Mapping[str, object]) -> str:
    """PostgreSQL's statement that sets them."""
    calls = (f"set_config({literal(n)}, {literal('' if v is None else v)}, false)" for n, v in values.items())
    return "SELECT " + ", ".join(calls)


def exchange_settings(names: Iterable[str], values: Mapping[str, object]) -> str:
    """PostgreSQL's query that gives the values of some parameters and sets some, in this order."""
    return f"{read_settings(names)}, {write_settings(values).removeprefix('SELECT ')}"


class SessionSettings:
    """What one connection has set.

    :param lasting: whether a rollback leaves it as it is.
    :param startup: what its engine has asked for: it holds from the beginning, and ``RESET`` comes back to it.
    """

    __slots__ = ("lasting", "local", "named", "saved", "session", "startup")

    def __init__(self, *, lasting: bool = False, startup: Mapping[str, object] | None = None) -> None:
        self.lasting = lasting
        self.startup = dict(startup or {})
        self.session: dict[str, object] = dict(self.startup)
        self.local: dict[str, object] = {}
        self.named: set[str] = set(self.startup)
        """Every name that it has ever set: a session never forgets that there is such a setting."""
        self.saved: list[tuple[dict[str, object], dict[str, object]]] = []

    @property
    def changed(self) -> bool:
        """Whether the connection is not any more what it was when it was made."""
        return self.session != self.startup

    @property
    def touched(self) -> bool:
        """Whether it has ever set anything."""
        return len(self.named) > len(self.startup)

    @property
    def characteristics(self) -> bool:
        """Whether its transactions are to be anything else than usual."""
        return any(name.startswith("default_transaction_") for name in self.session)

    @property
    def at_beginning(self) -> dict[str, object]:
        """The session's settings when the transaction began; those of now where none has."""
        return self.saved[0][0] if self.saved else self.session

    def begin(self) -> None:
        """A transaction begins: a rollback comes back to here."""
        self.saved = [(dict(self.session), {})]

    def savepoint(self) -> None:
        """So does a rollback to the savepoint that is set now."""
        self.saved.append((dict(self.session), dict(self.local)))

    def release(self, depth: int) -> None:
        """The savepoint at ``depth`` (1 for the outermost) is gone."""
        del self.saved[depth:]

    def rollback(self, depth: int = 0) -> None:
        """Back to the savepoint at ``depth``, 0 for the transaction's beginning."""
        if depth < len(self.saved) and not self.lasting:
            session, local = self.saved[depth]
            self.session, self.local = dict(session), dict(local)
            del self.saved[depth + 1 :]

    def commit(self) -> None:
        """What was ``LOCAL`` ends."""
        self.local = {}
        self.saved = []


class SettingsStore:
    """What the wire has set, and on whose behalf.

    :param read: gives the query for the values of some parameters.
    :param write: gives the statement that sets some.
    :param exchange: gives the query for the former values of some that sets them as well.
    """

    def __init__(
        self,
        read: Callable[[Iterable[str]], str] = read_settings,
        write: Callable[[Mapping[str, object]], str] = write_settings,
        exchange: Callable[[Iterable[str], Mapping[str, object]], str] = exchange_settings,
    ) -> None:
        self._read, self._write = read, write
        self._exchange = exchange
        self._baseline: dict[str, object] = {}
        self._defaults: dict[str, object] = {}
        """What the physical connection began with, as far as it was asked."""
        self._applied: SessionSettings | None = None
        self.seen: set[str] = set()
        """Every parameter that somebody has asked for or set, in any test."""
        self._invented: set[str] = set()
        """Settings that the server did not know before a connection set them; they last as long as the session."""

    def unknown_to(self, mine: SessionSettings) -> set[str]:
        """The settings that a connection of its own would not know, since others have invented them."""
        return self._invented - mine.named

    def fits(self, mine: SessionSettings) -> bool:
        """Whether the wire has the parameters of a connection as it is."""
        return self._applied is mine or not (self._baseline or mine.startup)

    def invalidate(self) -> None:
        """The server has undone something, perhaps a ``SET`` of ours."""
        self._applied = None

    def undo(self) -> list[str]:
        """The statements that take back what a rollback does not."""
        return [self._write(self._baseline)] if self._baseline else []

    def clear(self) -> None:
        """The server is back where nothing was set."""
        self._baseline.clear()
        self._applied = None

    def apply(self, mine: SessionSettings) -> Flow:
        """Give the wire the parameters of the connection that uses it next."""
        if self.fits(mine):
            return
        unknown = []
        for name in mine.startup:
            if name not in self._baseline:
                if name in self._defaults:
                    self._baseline[name] = self._defaults[name]
                else:
                    unknown.append(name)
        values = {n: mine.local.get(n, mine.session.get(n, default)) for n, default in self._baseline.items()}
        if unknown:
            values |= {name: mine.local.get(name, mine.session[name]) for name in unknown}
            rows = yield self._exchange(unknown, values)
            found = dict(zip(unknown, rows[0], strict=False))
            self._defaults |= found
            self._invented.update(name for name, value in found.items() if value is None)
            self._baseline |= found
            self.seen.update(found)
        else:
            yield self._write(values)
        self._applied = mine

    def before(self, names: Iterable[str]) -> Flow:
        """Remember what the parameters were before the first ``SET`` of them."""
        new = [n for n in names if n not in self._baseline and n != "*"]
        if new:
            rows = yield self._read(new)
            self._baseline.update(zip(new, rows[0], strict=True))
            self._invented.update(name for name in new if self._baseline[name] is None)
            self.seen.update(new)

    def after(self, mine: SessionSettings, names: Iterable[str], *, local: bool, reset: bool = False) -> Flow:
        """Remember what a connection has set, or, if it ``reset`` something, where it began."""
        everything = "*" in names
        names = list(self._baseline) if everything else list(names)
        begun_with = {name: value for name, value in mine.startup.items() if name in names} if reset else {}
        if begun_with:
            yield self._write(begun_with)
        if names:
            rows = yield self._read(names)
            values = dict(zip(names, rows[0], strict=True))
            if not everything:  # RESET ALL names nothing that others have invented
                mine.named.update(names)
            if local:
                mine.local.update(values)
            else:
                mine.session.update(values)
                for name in names:
                    mine.local.pop(name, None)
        self._applied = mine


_LEVEL = re.compile(r"(\s*show\s+)transaction(?:_|\s+)isolation(?:\s+level)?\s*;?\s*$", re.IGNORECASE)
_SHOW = re.compile(r"(\s*show\s+)\"?([\w.]+)\"?\s*;?\s*$", re.IGNORECASE)
_CALL = re.compile(
    r"(?:pg_catalog\s*\.\s*)?\bcurrent_setting\s*\(\s*(?:'([^']*)'|((?:%\(\w+\)[sbt]|[^(),'])+?))((?:\s*::\s*\w+)?)\s*(?:,\s*([^(),]+?)\s*)?\)",
    re.IGNORECASE,
)


class UnknownSetting(Exception):
    """A connection of its own would not know a setting, and say so."""


def report(statement: Statement, level: str, unknown: set[str], *, usual: str, deferrable: bool = False) -> str | None:
    """The statement that asks for the same with another answer; None where the session's own is right.

    :param level: the isolation level of the transaction, and ``usual`` the wire's.
    :param unknown: settings that a connection of its own would not know.
    :raises UnknownSetting: the server would not know what to answer.
    """
    text = statement.text
    if Topic.REPORTING not in statement.topics:
        return None
    if _LEVEL.match(text):
        return f"SELECT {literal(level)} AS transaction_isolation"
    shown = _SHOW.match(text)
    own = {"transaction_isolation": level, "transaction_deferrable": "on" if deferrable else "off"}
    if shown is not None:
        if shown[2].lower() in own:
            return f"SELECT {literal(own[shown[2].lower()])} AS {shown[2].lower()}"
        if shown[2].lower() in unknown:
            raise UnknownSetting(shown[2])
        return None

    is_usual = level == usual and not deferrable

    def answer(call: re.Match[str]) -> str:
        name = (call[1] or "").lower()
        if name in own:
            return f"(SELECT {literal(own[name])} AS current_setting)"
        if name in unknown:
            if call[4] is None or call[4].lower() in ("false", "'f'", "'false'"):
                raise UnknownSetting(call[1])
            return f"(SELECT {call[0]} WHERE false)"
        if call[2] is not None and not is_usual:  # the name is a parameter's, or comes from somewhere else
            cases = " ".join(f"WHEN {literal(name)} THEN {literal(value)}" for name, value in own.items())
            told = (
                f"CASE lower(dbtc_name) {cases} ELSE current_setting(dbtc_name{f', {call[4]}' if call[4] else ''}) END"
            )
            return f"(SELECT {told} AS current_setting FROM (SELECT ({call[2]}{call[3]})::text AS dbtc_name) dbtc)"
        if call[2] is not None and unknown:
            return f"(SELECT nullif(current_setting, '') AS current_setting FROM {call[0]})"
        return call[0]

    replaced = _CALL.sub(answer, text)
    return replaced if replaced != text else None
