"""The rows of a database of MySQL or MariaDB: copies of them, and how they go back.

The copies are temporary tables of the cleaner's own connection: nobody else sees them, the server keeps each value as
it is, they outlive the database itself, and they end with the connection.  A touched table is emptied and filled again
with foreign keys and ``CHECK`` unchecked; its triggers are dropped before and made again after.  The history of a
system-versioned table goes with its rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from .cleaning_state import State
from .definitions import Definition, Key, create
from .link import Link, Rows, literal, number_of, quoted

_RUN_OUT = 4084


@dataclass(frozen=True)
class _Copy:
    """The temporary table with the rows, and their columns; ``exact`` if they can go back with any history."""

    name: str
    columns: tuple[str, ...]
    exact: bool = True


@dataclass(frozen=True)
class Content:
    """What is to be there: copies of the rows of those tables that have any, counters, the rows of sequences."""

    copies: dict[str, _Copy] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def moved(self, now: State) -> tuple[set[str], set[str]]:
        """The tables whose counter stands elsewhere, and the sequences that do."""
        counters = {name for name in now.counters if now.counters[name] != self.counters.get(name, 1)}
        return counters, {name for name in now.sequences if now.sequences[name] != self.sequences.get(name)}


class Copies:
    """Makes copies of rows, and puts them back."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._names = (f"_dbtestcase_{n}" for n in itertools.count(1))

    def take(self, state: State, names: Iterable[str]) -> dict[str, _Copy]:
        """Copies of those of the tables that have rows."""
        copies = {}
        columns = self._columns()
        for name in names:
            history = name in state.versioned
            source = f"{quoted(name)}{' FOR SYSTEM_TIME ALL' if history else ''}"
            if not self._link.rows(f"SELECT EXISTS (SELECT 1 FROM {source})")[0][0]:
                continue
            plain, period, by_number = columns[name]
            period = period or (["row_start", "row_end"] if history else [])
            exact = not history or (self._link.inserts_history and not by_number)
            if not exact:
                source, period = quoted(name), []
            copy = copies[name] = _Copy(next(self._names), (*plain, *period), exact)
            engine = state.engines[name] if state.engines[name] in ("myisam", "aria", "memory") else "InnoDB"
            self._link.rows(
                f"CREATE TEMPORARY TABLE {quoted(copy.name)} ENGINE = {engine} AS"
                f" SELECT {_listed(copy.columns)} FROM {source}"
            )
        return copies

    def _columns(self) -> dict[str, tuple[list[str], list[str], bool]]:
        """The columns of each table that hold values of their own, the two of its period of system time, and whether
        these are numbers of transactions."""
        found: dict[str, tuple[list[str], list[str], bool]] = {}
        for table, name, data_type, expression, extra in self._link.rows(
            "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, GENERATION_EXPRESSION, EXTRA FROM information_schema.COLUMNS"
            f" WHERE TABLE_SCHEMA = {literal(self._link.database)} ORDER BY TABLE_NAME, ORDINAL_POSITION"
        ):
            plain, period, by_number = found.setdefault(str(table), ([], [], False))
            if str(expression or "").upper() in ("ROW START", "ROW END"):
                period.append(str(name))
                found[str(table)] = (plain, period, by_number or data_type == "bigint")
            elif " GENERATED" not in str(extra).upper().replace("DEFAULT_GENERATED", ""):
                plain.append(str(name))
        return found

    def drop(self, copies: Iterable[_Copy]) -> None:
        """Forget copies."""
        for copy in copies:
            self._link.rows(f"DROP TEMPORARY TABLE {quoted(copy.name)}")

    def put_back(
        self,
        wanted: Content,
        now: State,
        tables: Collection[str],
        sequences: Collection[str],
        definitions: Mapping[Key, Definition],
    ) -> None:
        """Make rows, counters and sequences as they are wanted."""
        triggers = {key: each for key, each in definitions.items() if each.table in tables}
        for _, name in triggers:
            self._link.rows(f"DROP TRIGGER IF EXISTS {quoted(name)}")
        for name in tables:
            self._empty(name, now)
            copy = wanted.copies.get(name)
            if copy is not None:
                columns = _listed(copy.columns)
                self._link.rows(f"INSERT INTO {quoted(name)} ({columns}) SELECT {columns} FROM {quoted(copy.name)}")
        create(self._link, triggers)
        for name in sequences:
            self._set_sequence(name, wanted.sequences[name])
        for name in tables:
            counter = wanted.counters.get(name, 1)
            if name in now.counters and now.counters[name] != counter:
                self._link.rows(f"ALTER TABLE {quoted(name)} AUTO_INCREMENT = {counter}")

    def _empty(self, name: str, now: State) -> None:
        if now.engines[name] == "archive":
            self._link.rows(f"TRUNCATE TABLE {quoted(name)}")
            return
        self._link.rows(f"DELETE FROM {quoted(name)}")
        if name in now.versioned:
            self._link.rows(f"DELETE HISTORY FROM {quoted(name)}")

    def _set_sequence(self, name: str, row: tuple[object, ...]) -> None:
        value, low, high, start, step, cache, cycle, rounds = map(_whole, row)
        options = (
            f"START {start} MINVALUE {low} MAXVALUE {high} INCREMENT {step} {f'CACHE {cache}' if cache else 'NOCACHE'}"
        )
        options += " CYCLE" if cycle else " NOCYCLE"
        if low <= value <= high:
            self._link.rows(f"ALTER SEQUENCE {quoted(name)} {options} RESTART {value}")
            if rounds:
                self._link.rows(f"SELECT SETVAL({quoted(name)}, {value}, 0, {rounds})")
        else:  # it has run out
            last = high if step > 0 else low
            self._link.rows(f"ALTER SEQUENCE {quoted(name)} {options} RESTART {last}")
            self._link.rows(f"SELECT SETVAL({quoted(name)}, {last}, 1, {rounds})")


def settle_sequence(rows: Rows, place: str) -> None:
    """Let a sequence's row say which value comes next: what it keeps in memory nobody can see."""
    try:
        ((value,),) = rows(f"SELECT NEXTVAL({place})")
    except Exception as error:
        if number_of(error) != _RUN_OUT:
            raise
        return
    rows(f"ALTER SEQUENCE {place} RESTART {value}")


def _whole(value: object) -> int:
    return int(str(value))


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(map(quoted, columns))
