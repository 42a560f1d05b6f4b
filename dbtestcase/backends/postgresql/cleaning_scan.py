"""Cleaning on PostgreSQL for an ordinary role: every table is looked at, rows go back in the foreign keys' order.

Nothing is made in the database: the copies of the reference rows are temporary tables of the cleaner's own session.
One statement asks every table whether it is still as it was (empty, or equal to its copy).  Rows go back in one
transaction: referring tables are emptied first and filled last, a circle of tables by one statement, because foreign
keys are checked at a statement's end.  Triggers and rules of the application are off meanwhile where the role owns
their table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from dbtestcase.backends.cleaning_report import Look, Report
from dbtestcase.backends.foreign_keys import filling_order, with_referrers
from dbtestcase.backends.postgresql.cleaning import Attempt, PostgreSQLCleaner
from dbtestcase.backends.postgresql.cleaning_catalog import FINGERPRINT, REFERENCES, SEQUENCES, TABLES, VIEWS
from dbtestcase.backends.postgresql.connections import BUSY
from dbtestcase.errors import CleaningError

__all__ = ["ScanningCleaner"]

_BUSY = f"""
select {BUSY.format(database="%(database)s::oid", expected="%(expected)s::int[]", lasting="%(lasting)s::int[]")}
    or exists (select from pg_prepared_xact() p where p.dbid = %(database)s::oid)
""".encode()


@dataclass(frozen=True)
class _Table:
    """A table that holds rows; ``quiet`` and ``loud`` switch the application's triggers off and on again."""

    oid: int
    name: str
    columns: str
    quiet: str
    loud: str


@dataclass(frozen=True)
class _View:
    """A materialized view, and what it is made from."""

    name: str
    definition: str
    depth: int


@dataclass
class _Snapshot:
    """What is put back: the names of the copies (of tables that are not empty), sequences, views, large objects."""

    copies: dict[int, str] = field(default_factory=dict)
    sequences: list[tuple[str, int, bool]] = field(default_factory=list)
    views: dict[str, str] = field(default_factory=dict)
    objects: list[tuple[int, bytes]] = field(default_factory=list)


class ScanningCleaner(PostgreSQLCleaner):
    """Cleans a database with the rights of its tables' owner."""

    _class: _Snapshot | None

    def _open(self) -> None:
        super()._open()
        try:
            self._look_around()
        except psycopg.Error as error:
            self.close()
            raise CleaningError(
                f"The role {self._url.username!r} cannot read all of {self._url.database!r}: {str(error).strip()}.",
                cause="tables of another owner, or row security that is forced on the owner.",
                remedy="let the role of the tests own the tables, or be a superuser.",
            ) from error

    def _look_around(self) -> None:
        execute = self._connection.execute
        self._tables = {row[0]: _Table(*row) for row in execute(TABLES)}
        self._references: dict[int, set[int]] = {}
        for table, target in execute(REFERENCES):
            self._references.setdefault(table, set()).add(target)
        self._views = [_View(*row) for row in execute(VIEWS)]
        self._sequences = [row[0] for row in execute(SEQUENCES)]
        self._fingerprint = self._read_fingerprint()
        self._base = self._take("base", self._tables)
        self._class = None
        self._prepare(self._base)

    # -- what is there

    def _read_fingerprint(self) -> dict[str, str]:
        return dict(self._connection.execute(FINGERPRINT).fetchall())

    def _read_sequences(self) -> list[tuple[str, int, bool]]:
        if not self._sequences:
            return []
        # one statement; a literal per sequence would make the plan slower to prepare than to run
        query = " union all ".join(f"select last_value, is_called from {name}" for name in self._sequences)
        states = self._connection.execute(query.encode()).fetchall()
        return [(name, *state) for name, state in zip(self._sequences, states, strict=True)]

    def _read_views(self) -> dict[str, str]:
        states = {}
        for view in self._views:
            populated = self._one(b"select relispopulated from pg_class where oid = %b::regclass", view.name)
            states[view.name] = "empty"
            if populated:
                query = f"select md5(coalesce(string_agg(v::text, ',' order by v::text), '')) from {view.name} v"
                states[view.name] = self._one(query.encode())
        return states

    def _read_objects(self) -> list[tuple[int, bytes]]:
        return self._connection.execute(
            b"select oid::int8, lo_get(oid) from pg_largeobject_metadata"
            b" where pg_has_role(lomowner, 'USAGE') order by 1"
        ).fetchall()

    def _one(self, query: bytes, *values: object) -> Any:
        row = self._connection.execute(query, values or None).fetchone()
        return row[0] if row is not None else None

    def _take(self, level: str, tables: Iterable[int], below: _Snapshot | None = None) -> _Snapshot:
        """Copy the rows of ``tables``; the rest is as in the snapshot below."""
        snapshot = _Snapshot(copies=dict(below.copies) if below is not None else {})
        with self._connection.transaction():
            for oid in tables:
                table = self._tables[oid]
                snapshot.copies.pop(oid, None)
                if self._one(f"select exists (select from only {table.name})".encode()):
                    copy = f"pg_temp.{level}_{oid}"
                    source = f"select {table.columns} from only {table.name}"
                    self._connection.execute(f"create temporary table {level}_{oid} as {source}".encode())
                    snapshot.copies[oid] = copy
        snapshot.sequences = self._read_sequences()
        snapshot.views = self._read_views()
        snapshot.objects = self._read_objects()
        return snapshot

    def _prepare(self, snapshot: _Snapshot) -> None:
        """The one statement that finds the tables that are no longer as they were."""
        self._snapshot = snapshot
        asked = []
        for table in self._tables.values():
            copy = snapshot.copies.get(table.oid)
            if copy is None:
                asked.append(f"select {table.oid} where exists (select from only {table.name})")
            else:
                now = f"select row({table.columns})::text from only {table.name}"
                then = f"select row({table.columns})::text from {copy}"
                asked.append(
                    f"select {table.oid} where exists (({now}) except all ({then}))"
                    f" or exists (({then}) except all ({now}))"
                )
        self._changed = " union all ".join(asked).encode()

    # -- putting back

    def _attempt(self, expected: Collection[int], lasting: Collection[int], look: Look) -> Attempt:
        others = {"database": self._connections.database, "expected": list(expected), "lasting": list(lasting)}
        if self._connection.execute(_BUSY, others).fetchone() == (True,):
            return Attempt("busy")
        fingerprint = self._read_fingerprint()
        if fingerprint != self._fingerprint:
            parts = sorted(part for part, value in fingerprint.items() if self._fingerprint.get(part) != value)
            return Attempt("altered", changes=tuple(f"{part} changed" for part in parts))
        changed = [row[0] for row in self._connection.execute(self._changed)] if self._changed else []
        tables = with_referrers(changed, self._references)
        with self._connection.transaction():
            self._put_back_rows(tables)
            rewound = self._put_back_sequences()
            objects = self._put_back_objects()
        refreshed = self._put_back_views()
        if any(self._tables[oid].quiet for oid in tables):
            self._fingerprint = self._read_fingerprint()
        report = Report(
            restored=tuple(self._tables[oid].name for oid in sorted(tables)),
            rewound=rewound,
            refreshed=refreshed,
            large_objects=objects,
        )
        if refreshed and any(self._read_views()[name] != self._snapshot.views[name] for name in refreshed):
            return Attempt("altered", changes=("a materialized view that was not up to date was refreshed",))
        disturbed = self._connection.execute(_BUSY, others).fetchone() == (True,)
        return Attempt("clean", report=report, disturbed=disturbed)

    def _put_back_rows(self, tables: Collection[int]) -> None:
        if not tables:
            return
        groups = filling_order(tables, self._references)
        statements = [self._tables[oid].quiet for oid in tables]
        statements += ["set constraints all immediate"]
        for group in reversed(groups):
            statements.append(_together([f"delete from only {self._tables[oid].name}" for oid in group]))
        for group in groups:
            fillings = [self._filling(self._tables[oid]) for oid in group if oid in self._snapshot.copies]
            if fillings:
                statements.append(_together(fillings))
        statements += [self._tables[oid].loud for oid in tables]
        self._connection.execute("; ".join(filter(None, statements)).encode(), prepare=False)

    def _filling(self, table: _Table) -> str:
        source = f"select {table.columns} from {self._snapshot.copies[table.oid]}"
        return f"insert into {table.name} ({table.columns}) overriding system value {source}"

    def _put_back_sequences(self) -> tuple[str, ...]:
        moved = [
            state for state, now in zip(self._snapshot.sequences, self._read_sequences(), strict=True) if state != now
        ]
        for name, last_value, is_called in moved:
            self._connection.execute(b"select setval(%b::regclass, %b, %b)", (name, last_value, is_called))
        return tuple(name for name, _, _ in moved)

    def _put_back_objects(self) -> bool:
        now, then = dict(self._read_objects()), dict(self._snapshot.objects)
        for oid in now.keys() - then.keys():
            self._connection.execute(b"select lo_unlink(%b::oid)", (oid,))
        for oid, content in then.items():
            if now.get(oid) != content:
                if oid in now:
                    self._connection.execute(b"select lo_unlink(%b::oid)", (oid,))
                self._connection.execute(b"select lo_from_bytea(%b::oid, %b)", (oid, content))
        return now != then

    def _put_back_views(self) -> tuple[str, ...]:
        if not self._views:
            return ()
        now = self._read_views()
        changed = [view.name for view in self._views if now[view.name] != self._snapshot.views[view.name]]
        for name in changed:
            data = " with no data" if self._snapshot.views[name] == "empty" else ""
            self._connection.execute(f"refresh materialized view {name}{data}".encode())
        return tuple(changed)

    # -- the rows of a class

    def keep(self) -> None:
        if self._read_fingerprint() != self._fingerprint:
            raise CleaningError(
                "The schema was changed while the rows of a class were made.",
                cause="setUpTestData or setUpClass created, altered or dropped something.",
                remedy="put it into the metadata or a migration, or do it in setUp: then it is undone after each test.",
            )
        self._drop_class_copies()
        self._prepare(self._base)
        changed = [row[0] for row in self._connection.execute(self._changed)] if self._changed else []
        self._class = self._take("class", changed, self._base)
        self._prepare(self._class)
        self._kept = True

    def forget(self) -> None:
        self._kept = False
        self._prepare(self._base)
        self._drop_class_copies()

    def _drop_class_copies(self) -> None:
        if self._class is not None:
            for oid, copy in self._class.copies.items():
                if copy != self._base.copies.get(oid):
                    self._connection.execute(f"drop table {copy}".encode())
        self._class = None

    def _carry_over(self) -> object:
        assert self._class is not None
        rows = {
            oid: self._copy_out(copy) for oid, copy in self._class.copies.items() if copy != self._base.copies.get(oid)
        }
        emptied = self._base.copies.keys() - self._class.copies.keys()
        return self._class, rows, emptied

    def _bring_back(self, carried: object) -> None:
        assert isinstance(carried, tuple)
        former, rows, emptied = carried
        copies = {oid: copy for oid, copy in self._base.copies.items() if oid not in emptied}
        for oid, data in rows.items():
            table = self._tables[oid]
            source = f"select {table.columns} from only {table.name} with no data"
            self._connection.execute(f"create temporary table class_{oid} as {source}".encode())
            copies[oid] = f"pg_temp.class_{oid}"
            self._copy_in(copies[oid], data)
        self._class = _Snapshot(copies, former.sequences, former.views, former.objects)
        self._prepare(self._class)


def _together(statements: list[str]) -> str:
    """Several changes as one statement, so that the foreign keys between them are checked after all of them."""
    if len(statements) == 1:
        return statements[0]
    parts = ", ".join(f"part_{number} as ({statement})" for number, statement in enumerate(statements))
    return f"with {parts} select"
