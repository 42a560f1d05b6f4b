"""What has changed in a database of MySQL or MariaDB, told without a look at its rows where that is possible.

InnoDB counts in memory how many rows of each table statements have changed: also those that foreign keys changed,
those that were rolled back, and those that no trigger hears of (``TRUNCATE`` gives the table a new number).  Beside the
counter stands where ``AUTO_INCREMENT`` is.  The counter starts anew when statistics are calculated, which
:func:`keep_counters` therefore switches off for each table.  And the server counts statements that change a schema.

Where the user may not see that (it takes the ``PROCESS`` right), every table's checksum is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Connection", "State", "definitions", "keep_counters", "quoted", "read_state"]

_SCHEMA_CHANGES = re.compile(
    r"Com_(?:alter|create|drop|rename|truncate|analyze|optimize|repair|flush|import|install|uninstall)(?!.*temporary)"
)
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")
_MAY_NOT = {1044, 1142, 1227}


class Connection(Protocol):
    """What is needed of a connection: see :class:`dbtestcase.backends.mysql.cleaning.Link`."""

    @property
    def database(self) -> str: ...

    def rows(self, query: str) -> list[tuple[Any, ...]]: ...

    def number(self, error: Exception) -> int: ...


@dataclass(frozen=True)
class State:
    """What is compared.

    ``tables``: for each table something that differs if its rows may have changed.  ``counters``: where its
    ``AUTO_INCREMENT`` (or a sequence) stands.  ``changes``: how many statements have changed a schema on the server.
    """

    tables: dict[str, object]
    counters: dict[str, int]
    sequences: frozenset[str] = frozenset()
    changes: int = 0
    exact: bool = field(default=True, compare=False)

    def touched_since(self, before: State) -> list[str]:
        """The tables and sequences that may be different now."""
        names = self.tables.keys() | before.tables.keys()
        moved = {
            n for n in self.counters.keys() | before.counters.keys() if self.counters.get(n) != before.counters.get(n)
        }
        return sorted(moved | {n for n in names if self.tables.get(n) != before.tables.get(n)})


def quoted(name: str) -> str:
    """An identifier, as a statement takes it."""
    return "`" + name.replace("`", "``") + "`"


def keep_counters(link: Connection) -> None:
    """Let the counters of all tables grow for ever."""
    for name, engine in _tables(link):
        if engine.lower() == "innodb":
            link.rows(f"ALTER TABLE {quoted(name)} STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0")


def read_state(link: Connection) -> State:
    """What the server says now."""
    sequences = {name: _position(link, name) for name in _sequences(link)}
    counted = _counted(link)
    exact = counted is None
    if counted is None:
        counted = _checksums(link, [name for name, _ in _tables(link)])
    else:
        others = [name for name, engine in _tables(link) if name not in counted]
        counted |= _checksums(link, others)
    tables: dict[str, object] = {name: mark for name, (mark, _) in counted.items()}
    counters = {name: counter for name, (_, counter) in counted.items() if counter is not None}
    changes = sum(int(n) for name, n in link.rows("SHOW GLOBAL STATUS LIKE 'Com\\_%'") if _SCHEMA_CHANGES.match(name))
    return State(tables, counters | sequences, frozenset(sequences), changes, exact)


def _counted(link: Connection) -> dict[str, tuple[object, int | None]] | None:
    view = (
        "INNODB_SYS_TABLESTATS"
        if "mariadb" in str(link.rows("SELECT VERSION()")[0][0]).lower()
        else "INNODB_TABLESTATS"
    )
    try:
        rows = link.rows(
            f"SELECT NAME, TABLE_ID, MODIFIED_COUNTER, AUTOINC, STATS_INITIALIZED FROM information_schema.{view}"
            f" WHERE NAME LIKE {_literal(_file_name(link.database) + '/%')}"
        )
    except Exception as error:
        if link.number(error) not in _MAY_NOT:
            raise
        return None
    known = {_file_name(name): name for name, engine in _tables(link) if engine.lower() == "innodb"}
    found: dict[str, tuple[object, int | None]] = {}
    for path, number, modified, counter, initialized in rows:
        file = str(path).partition("/")[2]
        if file in known:
            found[known[file]] = ((number, modified, initialized), int(counter))
    return found if len(found) == len(known) else None


def _checksums(link: Connection, names: list[str]) -> dict[str, tuple[object, int | None]]:
    if not names:
        return {}
    counters = {
        str(name): None if counter is None else int(counter)
        for name, counter in link.rows(
            "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
        )
    }
    rows = link.rows("CHECKSUM TABLE " + ", ".join(map(quoted, names)))
    return {name: (checksum, counters.get(name)) for name, (_, checksum) in zip(names, rows, strict=True)}


def _tables(link: Connection) -> list[tuple[str, str]]:
    return [
        (str(name), str(engine or ""))
        for name, engine in link.rows(
            "SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' ORDER BY TABLE_NAME"
        )
    ]


def _sequences(link: Connection) -> list[str]:
    return [
        str(name)
        for (name,) in link.rows(
            "SELECT TABLE_NAME FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'SEQUENCE'"
        )
    ]


def _position(link: Connection, name: str) -> int:
    return int(link.rows(f"SELECT next_not_cached_value FROM {quoted(name)}")[0][0])


def definitions(link: Connection) -> dict[str, str]:
    """The definitions of everything in the database, without what is counted."""
    found = {}
    for name, kind in link.rows("SHOW FULL TABLES"):
        text = _COUNTER.sub("", str(link.rows(f"SHOW CREATE TABLE {quoted(name)}")[0][1]))
        found[f"{str(kind).lower()} {name}"] = text
    for kind, body in (
        ("ROUTINE", "ROUTINE_DEFINITION"),
        ("TRIGGER", "ACTION_STATEMENT"),
        ("EVENT", "EVENT_DEFINITION"),
    ):
        for name, text in link.rows(
            f"SELECT {kind}_NAME, {body} FROM information_schema.{kind}S WHERE {kind}_SCHEMA = DATABASE()"
        ):
            found[f"{kind.lower()} {name}"] = str(text)
    return found


def _file_name(name: str) -> str:
    """A name as InnoDB writes it: other characters than letters, digits and underscores as their numbers."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"@{ord(c):04x}" for c in name)


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''").replace("_", "\\_") + "'"
