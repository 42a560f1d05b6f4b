"""What may have changed in a database of MySQL or MariaDB, told without a look at its rows where that is possible.

Rows: InnoDB counts in memory how many rows of each table statements have changed, also those that foreign keys
changed, those that were rolled back, and those that no trigger hears of (``TRUNCATE`` gives the table a new number).
The counter starts anew when statistics are calculated, which :func:`keep_counters` therefore switches off for each
table; ``ANALYZE TABLE`` leaves its time.  Where the user may not see that (it takes the ``PROCESS`` right), and for
tables of other engines, checksums are taken.

Definitions: the time of each table's file on MariaDB, the server's own records of triggers, routines and events.  What
says nothing of itself is always read.  A time has a second's precision, so whatever is of the very second of the state
that is compared with counts as changed.  Nothing here is counted for the server as a whole: others work on it too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .definitions import Key
from .link import Link, ServerSaid, literal, quoted

_MAY_NOT = {1044, 1142, 1143, 1227, 1370}
_NO_SUCH = {1049, 1109, 1146}
_LATE = 0.02  # seconds by which the clock of files may be late
_ELSEWHERE = {"mrg_myisam", "blackhole", "federated", "connect", "spider", "s3"}
"""Engines whose rows are not in the database."""


@dataclass(frozen=True)
class Stamp:
    """What an object says of itself: equal as long as it has not changed.

    ``second``: when it changed last, ``None`` where nobody knows.  ``table`` and ``place``: a trigger's.
    """

    second: int | None
    value: object = None
    table: str = ""
    place: int = 0


@dataclass(frozen=True)
class State:
    """What is compared.

    ``second``: the server's time before the look, by the clock of its files.  ``stamps``: of every object.
    ``engines``: of the tables whose rows are in the database, in lower case.  ``versioned``: those with a history.
    ``marks``: for each table something that differs if its rows may have changed.  ``calculated``: the tables whose
    counter may have started anew since.  ``counters``: where ``AUTO_INCREMENT`` stands.  ``sequences``: the one row of
    each.
    """

    second: int
    stamps: dict[Key, Stamp] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    versioned: frozenset[str] = frozenset()
    marks: dict[str, object] = field(default_factory=dict)
    calculated: frozenset[str] = frozenset()
    counters: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def doubtful_since(self, before: State) -> list[Key]:
        """The objects that may not be what they were."""
        return [
            key
            for key in self.stamps.keys() | before.stamps.keys()
            if (now := self.stamps.get(key)) is None
            or now.second is None
            or now.second >= before.second
            or now != before.stamps.get(key)
        ]

    def touched_since(self, before: State) -> set[str]:
        """The tables whose rows may not be what they were."""
        return {
            name
            for name, mark in self.marks.items()
            if mark != before.marks.get(name)
            or name in self.calculated
            or (self.stamps["TABLE", name].second or 0) >= before.second
        }

    def with_others_of(self, before: State, names: set[str]) -> State:
        """This state for some tables and what belongs to them, an earlier one for the rest."""

        def is_theirs(key: Key, stamp: Stamp) -> bool:
            return stamp.table in names if stamp.table else key[0] == "TABLE" and key[1] in names

        stamps = {key: stamp for key, stamp in before.stamps.items() if not is_theirs(key, stamp)}
        stamps |= {key: stamp for key, stamp in self.stamps.items() if is_theirs(key, stamp)}
        marks = before.marks | {name: mark for name, mark in self.marks.items() if name in names}
        return replace(self, second=before.second, stamps=stamps, marks=marks)


def keep_counters(link: Link) -> None:
    """Let the counters of all tables grow for ever."""
    for name, _, engine, *_ in _tables(link):
        if engine == "InnoDB":
            link.rows(f"ALTER TABLE {quoted(name)} STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0")


def read_state(link: Link, since: int, *, tables_only: bool = False) -> State:
    """What the server says now.

    :param since: the second from which on calculated statistics matter.
    """
    ((second,),) = link.rows(f"SELECT FLOOR(UNIX_TIMESTAMP(SYSDATE(6)) - {_LATE})")
    state = State(int(second))
    if not tables_only:
        try:
            database = link.rows(f"SHOW CREATE DATABASE {quoted(link.database)}")
        except ServerSaid as error:
            if error.number not in _NO_SUCH:
                raise
            return state  # there is no database any more
        state.stamps["DATABASE", link.database] = Stamp(0, database[0][1])
    files: dict[str, str] = {}
    updates: dict[str, object] = {}
    versioned = set()
    for name, kind, engine, created, updated, counter, file in _tables(link):
        if kind == "VIEW":
            state.stamps["VIEW", name] = Stamp(None)
            continue
        told = int(created) if link.is_mariadb and engine == "InnoDB" and created is not None else None
        state.stamps["SEQUENCE" if kind == "SEQUENCE" else "TABLE", name] = Stamp(told)
        if kind == "SEQUENCE":
            state.sequences[name] = ()
        elif engine.lower() not in _ELSEWHERE:
            state.engines[name], updates[name] = engine.lower(), updated
            if engine == "InnoDB":
                files[file] = name
            if kind == "SYSTEM VERSIONED":
                versioned.add(name)
            if counter is not None:
                state.counters[name] = int(counter)
    state.sequences.update(_sequences(link, list(state.sequences)))
    counted, calculated = _counted(link, files, since)
    state.marks.update({name: (mark, updates[name]) for name, mark in counted.items()})
    state.marks.update(_checksums(link, [name for name in state.engines if name not in counted]))
    if not tables_only:
        _add_triggers(link, state)
        _add_records(link, state)
    return replace(state, versioned=frozenset(versioned), calculated=calculated)


def _tables(link: Link) -> list[tuple[str, str, str, Any, object, Any, str]]:
    rows = link.rows(
        "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, UNIX_TIMESTAMP(CREATE_TIME), UPDATE_TIME, AUTO_INCREMENT,"
        " CAST(CONVERT(TABLE_NAME USING filename) AS BINARY)"
        f" FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(link.database)}"
    )
    return [
        (str(name), str(kind), str(engine or ""), created, updated, counter, _text(file))
        for name, kind, engine, created, updated, counter, file in rows
    ]


def _text(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _sequences(link: Link, names: list[str]) -> dict[str, tuple[object, ...]]:
    if not names:
        return {}
    rows = link.rows(" UNION ALL ".join(f"SELECT {literal(name)}, s.* FROM {quoted(name)} s" for name in names))
    return {str(name): tuple(found) for name, *found in rows}


def _counted(link: Link, files: dict[str, str], since: int) -> tuple[dict[str, object], frozenset[str]]:
    """The counters of InnoDB's tables, by their names, and those calculated anew; only what it can be asked for."""
    if not files:
        return {}, frozenset()
    view = "INNODB_SYS_TABLESTATS" if link.is_mariadb else "INNODB_TABLESTATS"
    prefix = literal(link.file_name + "/")
    try:
        rows = link.rows(
            "SELECT NAME, TABLE_ID, STATS_INITIALIZED, NUM_ROWS, MODIFIED_COUNTER, AUTOINC"
            f" FROM information_schema.{view} WHERE LEFT(NAME, CHAR_LENGTH({prefix})) = {prefix}"
        )
        calculated = link.rows(
            f"SELECT table_name FROM mysql.innodb_table_stats WHERE database_name = {literal(link.database)}"
            f" AND last_update >= FROM_UNIXTIME({since})"
        )
    except ServerSaid as error:
        if error.number not in _MAY_NOT | _NO_SUCH:
            raise
        return {}, frozenset()
    found: dict[str, list[object]] = {}
    for path, *values in rows:
        name = files.get(_part_of(str(path).partition("/")[2]))
        if name is not None:
            found.setdefault(name, []).append((path, *values))
    marks: dict[str, object] = {name: tuple(sorted(parts, key=repr)) for name, parts in found.items()}
    return marks, frozenset(_part_of(str(each)) for (each,) in calculated) & marks.keys()


def _part_of(name: str) -> str:
    """The table of a partition's file."""
    return name.replace("#p#", "#P#").partition("#P#")[0]


def _checksums(link: Link, names: list[str]) -> dict[str, object]:
    if not names:
        return {}
    rows = link.rows("CHECKSUM TABLE " + ", ".join(map(quoted, names)))
    return {name: checksum for name, (_, checksum) in zip(names, rows, strict=True)}


def _add_triggers(link: Link, state: State) -> None:
    numbers: dict[str, int] = {}
    for name, *values in link.rows(f"SHOW TRIGGERS FROM {quoted(link.database)}"):
        table = str(values[1])
        numbers[table] = numbers.get(table, 0) + 1
        state.stamps["TRIGGER", str(name)] = Stamp(0, tuple(values), table, numbers[table])


_RECORDS = {
    "proc": "type, name, specific_name, sql_data_access, is_deterministic, security_type, param_list, returns, body,"
    " definer, sql_mode, comment, character_set_client, collation_connection, db_collation, body_utf8",
    "event": "body, definer, execute_at, interval_value, interval_field, starts, ends, status, on_completion, sql_mode,"
    " comment, time_zone, character_set_client, collation_connection, db_collation, body_utf8",
}


def _add_records(link: Link, state: State) -> None:
    """Routines and events: digests of the server's own records, where the user may read them."""
    where = literal(link.database)
    for table, columns in _RECORDS.items():
        kind = "type" if table == "proc" else "'EVENT'"
        digest = f"MD5(CONCAT_WS(',', {', '.join(f'QUOTE({each.strip()})' for each in columns.split(','))}))"
        try:
            for word, name, value in link.rows(f"SELECT {kind}, name, {digest} FROM mysql.{table} WHERE db = {where}"):
                state.stamps[str(word), str(name)] = Stamp(0, value)
        except ServerSaid as error:
            if error.number not in _MAY_NOT | _NO_SUCH:
                raise
            kind, view = ("ROUTINE_TYPE", "ROUTINE") if table == "proc" else ("'EVENT'", "EVENT")
            for word, name in link.rows(
                f"SELECT {kind}, {view}_NAME FROM information_schema.{view}S WHERE {view}_SCHEMA = {where}"
            ):
                state.stamps[str(word), str(name)] = Stamp(None)
