"""Cleaning on PostgreSQL for an ordinary role: every table is looked at, rows go back in the foreign keys' order.

Nothing is made in the database: the copies of the reference rows are temporary tables of the cleaner's own session, in
which a row is a text, so that they depend on no type of the application's.
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
from psycopg import sql

from ...errors import CleaningError
from ..cleaning_report import Look, Report
from ..foreign_keys import filling_order, with_referrers
from .catalog_state import Catalogs
from .cleaner import Attempt, PostgreSQLCleaner, schema_changed
from .cleaning_sql import DEEP
from .connections import LOCKED, PREPARED, PRESENT

_NAMES = {"database": "%(database)s::oid", "expected": "%(expected)s::int[]", "lasting": "%(lasting)s::int[]"}
_PRESENT = f"""
select p.working, p.present, {LOCKED.format(**_NAMES)} or {PREPARED.format(**_NAMES)},
       pg_snapshot_xmin(s)::text::int8, pg_snapshot_xmax(s)::text::int8
  from ({PRESENT.format(**_NAMES)}) p(working, present, strangers), pg_current_snapshot() s
""".encode()
_WORKING = f"select p.working from ({PRESENT.format(**_NAMES)}) p(working, present, strangers)".encode()
_NOW = b"select pg_snapshot_xmax(pg_current_snapshot())::text::int8"

# Names come qualified and quoted: they are read with search_path = pg_catalog.
TABLES = b"""
select c.oid::regclass::text,
       format('%s%s overriding system value select %s', c.oid::regclass, ' (' || a.names || ')', a.fields),
       coalesce(t.quiet, ''), coalesce(t.loud, '')
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  cross join lateral (
    select string_agg(quote_ident(attname), ', ' order by attnum) as names,
           string_agg('(x.r).' || quote_ident(attname), ', ' order by attnum) as fields from pg_attribute
     where attrelid = c.oid and attnum > 0 and not attisdropped and attgenerated = '') a
  left join lateral (
    select string_agg(format('alter table %s disable %s %I', c.oid::regclass, g.kind, g.name), '; ') as quiet,
           string_agg(format('alter table %s enable %s %s %I', c.oid::regclass,
                      case g.enabled when 'A' then 'always' when 'R' then 'replica' else '' end, g.kind, g.name),
                      '; ') as loud
      from (select tgrelid as rel, 'trigger' as kind, tgname as name, tgenabled as enabled from pg_trigger
             where not tgisinternal
            union all select ev_class, 'rule', rulename, ev_enabled from pg_rewrite where ev_type <> '1') g
     where g.rel = c.oid and g.enabled <> 'D' and pg_has_role(c.relowner, 'USAGE')) t on true
 where c.relkind = 'r' and c.relpersistence in ('p', 'u') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
   and n.nspname <> '_dbtestcase'
 order by c.oid
"""

# Which table refers to which; a partitioned table's references are those of the partitions that hold its rows.
REFERENCES = b"""
with recursive family(ancestor, rel) as (
  select oid, oid from pg_class where relkind in ('r', 'p')
  union select f.ancestor, i.inhrelid from family f join pg_inherits i on i.inhparent = f.rel
          join pg_class c on c.oid = i.inhparent and c.relkind = 'p')
select distinct a.rel::regclass::text, b.rel::regclass::text from pg_constraint c
  join family a on a.ancestor = c.conrelid join family b on b.ancestor = c.confrelid where c.contype = 'f'
"""

SEQUENCES = b"""
select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> '_dbtestcase'
 order by c.oid
"""

VIEWS = f"""
{DEEP}
select c.oid::regclass::text, pg_get_viewdef(c.oid), max(deep.depth) from deep join pg_class c on c.oid = deep.view
 where c.relkind = 'm' group by c.oid order by 3
""".encode()


@dataclass(frozen=True)
class _Table:
    """A table that holds rows.  ``target``: how they are inserted.  ``quiet``, ``loud``: its triggers off and on."""

    name: str
    target: str
    quiet: str
    loud: str


@dataclass(frozen=True)
class _View:
    """A materialized view, and what it is made from."""

    name: str
    definition: str
    depth: int


@dataclass
class _SavedState:
    """What is put back: the copies (of tables that are not empty) and how many rows each has; all else there is."""

    copies: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    sequences: list[tuple[str, int, bool]] = field(default_factory=list)
    views: dict[str, str] = field(default_factory=dict)
    objects: dict[int, tuple[bytes, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Since:
    """The first transaction after all that is known; ``is_alone``: no other one was under way at that moment."""

    transaction: int = 0
    is_alone: bool = False

    def is_quiet(self, now: int) -> bool:
        """Whether no transaction has written since, if the next one is ``now``."""
        return self.is_alone and self.transaction == now


class ScanningCleaner(PostgreSQLCleaner):
    """Cleans a database with the rights of its tables' owner."""

    _class: _SavedState | None

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
        execute(
            b"set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; set extra_float_digits = 1", prepare=False
        )
        self._copies = 0
        self._since = _Since()
        self._tables = {row[0]: _Table(*row) for row in execute(TABLES)}
        self._order = list(self._tables)  # in which they were made: a CHECK may look into an older one
        number = {name: position for position, name in enumerate(self._order)}
        self._references: dict[int, set[int]] = {}
        for table, target in execute(REFERENCES):
            if table in number and target in number:
                self._references.setdefault(number[table], set()).add(number[target])
        self._views = [_View(*row) for row in execute(VIEWS)]
        self._sequences = [row[0] for row in execute(SEQUENCES)]
        self._base = self._take(self._tables)
        self._class = None
        self._prepare(self._base)
        self._catalogs = Catalogs(self._connection, self._connections.database)

    # -- what is there

    def _read_sequences(self) -> list[tuple[str, int, bool]]:
        if not self._sequences:
            return []
        # one statement; a literal per sequence would make the plan slower to prepare than to run
        query = " union all ".join(f"select last_value, is_called from {name}" for name in self._sequences)
        states = self._ask(query.encode())
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

    def _read_objects(self) -> dict[int, tuple[bytes, str]]:
        """Large objects: what is in them, and who may read them."""
        rows = self._ask(
            b"select oid::int8, lo_get(oid), concat_ws(' ', lomowner::regrole, lomacl) from pg_largeobject_metadata"
            b" where pg_has_role(lomowner, 'USAGE')"
        )
        return {oid: (data, rights) for oid, data, rights in rows}

    def _one(self, query: bytes, *values: object) -> Any:
        rows = self._ask(query, values or None)
        return rows[0][0] if rows else None

    def _take(self, tables: Iterable[str], below: _SavedState | None = None) -> _SavedState:
        """Copy the rows of ``tables``; the rest is as in the saved state below."""
        saved = _SavedState(dict(below.copies), dict(below.rows)) if below is not None else _SavedState()
        with self._connection.transaction():
            for name in tables:
                saved.copies.pop(name, None)
                if self._one(f"select exists (select from only {name})".encode()):
                    copy = saved.copies[name] = self._new_copy()
                    made = self._connection.execute(f"insert into {copy} {_rows_of(name)}".encode())
                    saved.rows[name] = made.rowcount
        saved.sequences = self._read_sequences()
        saved.views = self._read_views()
        saved.objects = self._read_objects()
        return saved

    def _new_copy(self) -> str:
        self._copies += 1
        self._connection.execute(f"create temporary table copy_{self._copies} (data text)".encode())
        return f"pg_temp.copy_{self._copies}"

    def _prepare(self, saved: _SavedState) -> None:
        """The statements that find the tables that are no longer as they were: by their rows, and by who wrote them."""
        self._saved = saved
        by_rows, by_writers = [], []
        for number, name in enumerate(self._order):
            copy = saved.copies.get(name)
            if copy is None:
                by_rows.append(f"select {number} where exists (select from only {name})")
                by_writers.append(by_rows[-1])
            else:
                now, then = _rows_of(name), f"select data from {copy}"
                by_rows.append(
                    f"select {number} where exists (({now}) except all ({then}))"
                    f" or exists (({then}) except all ({now}))"
                )
                by_writers.append(
                    f"select {number} from (select count(*) as rows, min(age(xmin)) as youngest from only {name}) k"
                    f" where rows <> {saved.rows[name]} or youngest <= (select age from since)"
                )
        self._changed = " union all ".join(by_rows).encode()
        since = "with since as materialized (select age(%b::xid)) "
        written = since + " union all ".join(by_writers).replace("%", "%%")
        self._written = written.encode() if saved.copies else self._changed

    def _find_changed(self, since: int = 0) -> list[int]:
        """Their numbers in ``_order``.

        :param since: all that was written later is to be found, where that is known; 0: compare the rows.
        """
        if not self._changed:
            return []
        if since and self._written is not self._changed:
            rows = self._ask(self._written, (str(since % 2**32),))
        else:
            rows = self._ask(self._changed)
        return [number for (number,) in rows]

    # -- putting back

    def _attempt(self, arrays: tuple[str, str], expected: int, look: Look, opened: int) -> Attempt:
        others = {"database": self._connections.database, "expected": arrays[0], "lasting": arrays[1]}
        working, present, held, oldest, now = self._ask(_PRESENT, others)[0]
        if working or held:
            return Attempt("busy")
        absent, exact = present < expected, look is Look.EXACT
        if self._since.is_quiet(now) and self._since.is_quiet(self._one(_NOW)) and not exact:
            # nothing but sequences can have changed
            return Attempt("clean", report=Report(rewound=self._put_back_sequences()), absent=absent)
        changes = self._catalogs.changes(everything=exact)
        if changes:
            return Attempt("altered", changes=changes)
        tables = with_referrers(self._find_changed(self._since.transaction), self._references)
        own = self._put_back_rows(tables)
        rewound = self._put_back_sequences()
        objects = self._put_back_objects()
        refreshed = self._put_back_views()
        if any(self._tables[self._order[number]].quiet for number in tables):
            self._catalogs.count_anew()
        report = Report(
            restored=tuple(self._order[number] for number in sorted(tables)),
            rewound=rewound,
            refreshed=refreshed,
            large_objects=objects,
        )
        if refreshed and any(self._read_views()[name] != self._saved.views[name] for name in refreshed):
            return Attempt("altered", changes=("a materialized view that was not up to date was refreshed",))
        if objects and self._read_objects() != self._saved.objects:
            return Attempt("altered", changes=("the rights on a large object were changed",))
        disturbed = self._ask(_WORKING, others)[0][0]
        if not disturbed:
            self._since = _Since(own + 1 if own == now else now, is_alone=oldest == now)
        return Attempt("clean", report=report, disturbed=disturbed, absent=absent)

    def _reopen(self) -> None:
        raise CleaningError(
            "The connection of the cleaning was ended, and with it the copies of the rows.",
            cause="the test ended connections of others, or the server has restarted.",
            remedy="let the tests use a superuser, whose copies are kept in the database itself.",
        )

    def _put_back_rows(self, numbers: Collection[int]) -> int:
        """Returns the transaction that did it; 0 where there was nothing to do."""
        if not numbers:
            return 0
        groups = [[self._order[n] for n in group] for group in filling_order(numbers, self._references)]
        tables = [self._order[number] for number in sorted(numbers)]
        # One string, which the server runs as one transaction: a round trip takes longer than most of its statements.
        statements = [self._tables[name].quiet for name in tables]
        statements += ["set constraints all immediate"]
        for group in reversed(groups):
            statements.append(_together([f"delete from only {name}" for name in group]))
        fillings = [
            _together([self._filling(self._tables[name]) for name in group if name in self._saved.copies])
            for group in groups
            if any(name in self._saved.copies for name in group)
        ]
        if fillings:
            path = sql.Literal(self._search_path).as_string(self._connection)
            statements += [f"select set_config('search_path', {path}, true)", *fillings]
            statements += ["set local search_path = pg_catalog"]
        statements += [self._tables[name].loud for name in tables]
        statements += ["select pg_current_xact_id()::text::int8"]
        cursor = self._connection.execute("; ".join(filter(None, statements)).encode(), prepare=False)
        while cursor.nextset():
            pass
        ((own,),) = cursor.fetchall()
        return int(own)

    def _filling(self, table: _Table) -> str:
        copy = self._saved.copies[table.name]
        return f"insert into {table.target} from (select data::{table.name} as r from {copy} offset 0) x"

    def _put_back_sequences(self) -> tuple[str, ...]:
        moved = [
            state for state, now in zip(self._saved.sequences, self._read_sequences(), strict=True) if state != now
        ]
        if moved:
            names, places, called = (list(each) for each in zip(*moved, strict=True))
            self._ask(
                b"select setval(name::regclass, place, called)"
                b" from unnest(%b::text[], %b::int8[], %b::bool[]) s(name, place, called)",
                (names, places, called),
            )
        return tuple(name for name, _, _ in moved)

    def _put_back_objects(self) -> bool:
        now, then = self._read_objects(), self._saved.objects
        for oid in now.keys() - then.keys():
            self._connection.execute(b"select lo_unlink(%b::oid)", (oid,))
        for oid, (content, rights) in then.items():
            if now.get(oid) != (content, rights):
                if oid in now:
                    self._connection.execute(b"select lo_unlink(%b::oid)", (oid,))
                self._connection.execute(b"select lo_from_bytea(%b::oid, %b)", (oid, content))
        return now != then

    def _put_back_views(self) -> tuple[str, ...]:
        if not self._views:
            return ()
        now = self._read_views()
        changed = [view.name for view in self._views if now[view.name] != self._saved.views[view.name]]
        for name in changed:
            data = " with no data" if self._saved.views[name] == "empty" else ""
            self._connection.execute(f"refresh materialized view {name}{data}".encode())
        return tuple(changed)

    # -- the rows of a class

    def _keep(self) -> None:
        changes = self._catalogs.changes()
        if changes:
            raise schema_changed(", ".join(changes))
        self._drop_class_copies()
        self._prepare(self._base)
        now = self._one(_NOW)
        self._class = self._take([self._order[number] for number in self._find_changed()], self._base)
        self._prepare(self._class)
        self._since = _Since(now)
        self._catalogs.count_anew()
        self._kept = True

    def _forget(self) -> None:
        self._kept = False
        self._since = _Since()
        self._prepare(self._base)
        self._drop_class_copies()

    def _drop_class_copies(self) -> None:
        if self._class is not None:
            for name, copy in self._class.copies.items():
                if copy != self._base.copies.get(name):
                    self._connection.execute(f"drop table {copy}".encode())
        self._class = None

    def _carry_over(self) -> object:
        assert self._class is not None
        own = {name: copy for name, copy in self._class.copies.items() if copy != self._base.copies.get(name)}
        rows = {name: self._copy_out(copy) for name, copy in own.items()}
        return self._class, rows, self._base.copies.keys() - self._class.copies.keys()

    def _bring_back(self, carried: object) -> None:
        assert isinstance(carried, tuple)
        former, rows, emptied = carried
        copies = {name: copy for name, copy in self._base.copies.items() if name not in emptied}
        self._since = _Since()
        for name, data in rows.items():
            copies[name] = self._new_copy()
            self._copy_in(copies[name], data)
        self._class = _SavedState(copies, former.rows, former.sequences, former.views, former.objects)
        self._prepare(self._class)
        self._catalogs.count_anew()


def _rows_of(table: str) -> str:
    return f"select format('%s', _dbtestcase) from only {table} _dbtestcase"


def _together(statements: list[str]) -> str:
    """Several changes as one statement, so that the foreign keys between them are checked after all of them."""
    if len(statements) == 1:
        return statements[0]
    parts = ", ".join(f"part_{number} as ({statement})" for number, statement in enumerate(statements))
    return f"with {parts} select"
