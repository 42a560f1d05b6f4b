"""Cleaning on PostgreSQL for a superuser: triggers note what is touched, and one function call puts it back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg

from ...errors import CleaningError
from ...reporting import limit_named_by
from ..cleaning_report import Look, Report
from .catalog_state import in_words, newer
from .cleaner import Attempt, PostgreSQLCleaner, schema_changed
from .cleaning_sql import SCHEMA, install_script
from .connections import Connection

ALWAYS_READ = 16
"""Up to so many sequences all are read after each test, whatever its statements were: a microsecond each."""

# How closely sequences have to be looked at whatever a test did, and whether advisory locks have: a function, rule or
# view of the application moves or takes them where no statement shows it.  (1574: nextval(); 1576, 1765: setval().)
_LEAST = b"""
with code as (
  select concat(prosrc, to_jsonb(p) ->> 'prosqlbody') as text from pg_proc p
   where oid >= 16384 and pronamespace <> %b::regnamespace
  union all select ev_action::text from pg_rewrite where oid >= 16384)
select greatest(
  case when (select count(*) from _dbtestcase.sequences) <= %b then 1 else 0 end,
  (select max(case when text ~* 'setval|:funcid (1576|1765) ' then 2 else 1 end) from code
    where text ~* 'setval|nextval|:funcid (1574|1576|1765) ')),
  exists (select from code where text ~* concat('advisory|:funcid (', (
    select string_agg(oid::text, '|') from pg_proc where proname ~ 'advisory_(xact_)?lock' and oid < 16384), ') '))
"""

_CLEAN = b"select * from _dbtestcase.clean(%b::int[], %b::int[], %b, %b, %b, %b)"

_SETTINGS = b"""
select set_config('_dbtestcase.database', %b, false), set_config('_dbtestcase.path', %b, false),
       set_config('_dbtestcase.facts', %b, false), set_config('_dbtestcase.writers', %b, false)
"""

# From here on: whatever is committed later has this number, or a later one.  And what a recovery may have lost.
_NOW = b"""
select -(pg_snapshot_xmax(pg_current_snapshot())::text::bigint),
       (select extract(epoch from kept_at)::text from _dbtestcase.class_level)
"""


def is_installed(connection: Connection) -> bool:
    """Whether the bookkeeping is in the database (a clone has that of its template)."""
    query = b"select exists (select from pg_event_trigger where evtname = '_dbtestcase_drop')"
    return connection.execute(query).fetchone() == (True,)


def uninstall(connection: Connection) -> None:
    """Remove the bookkeeping, in one transaction."""
    connection.execute(
        f"""set client_min_messages = warning;
            drop event trigger if exists _dbtestcase_command; drop event trigger if exists _dbtestcase_drop;
            drop schema if exists {SCHEMA} cascade; reset client_min_messages""".encode(),
        prepare=False,
    )


def install(connection: Connection) -> None:
    """Make the bookkeeping; what there is at this moment is what will be put back."""
    try:
        with connection.transaction():
            uninstall(connection)
            connection.execute(install_script().encode(), prepare=False)
        rows = connection.execute(b"select rel from _dbtestcase.catalogs").fetchall()
        _make_catalogs_visible(connection, [rel for (rel,) in rows])
    except psycopg.Error as error:
        cause, remedy = limit_named_by(error) or (
            "another connection holds a lock on a table, or an event trigger of the application forbids it.",
            "close other connections to the database while it is made.",
        )
        raise CleaningError(
            f"The bookkeeping of the cleaning could not be made in {connection.info.dbname!r}: {str(error).strip()}.",
            cause=cause,
            remedy=remedy,
        ) from error


def _make_catalogs_visible(connection: Connection, catalogs: list[int]) -> None:
    """Let VACUUM mark the pages of these catalogs as unwritten; what was written in that moment is noticed."""
    for _ in range(4):  # a page from which it removed something is marked the next time
        tables = ", ".join(f"pg_catalog.{name}" for name in _written(connection, catalogs))
        if not tables:
            break
        connection.execute(f"vacuum (freeze) {tables}".encode(), prepare=False)
    connection.execute(b"select _dbtestcase.take_sizes(%b::oid[])", (catalogs,))


def _written(connection: Connection, catalogs: list[int]) -> list[str]:
    """Those of them with pages that are not marked as unwritten, where the server can tell."""
    query = b"""select name from _dbtestcase.catalogs c cross join lateral _dbtestcase.visibility(c.rel) v
                 where c.rel = any (%b::oid[]) and v.all_visible >= 0
                   and v.all_visible <> _dbtestcase.pages(c.rel)"""
    return [name for (name,) in connection.execute(query, (catalogs,))]


@dataclass(frozen=True)
class _Carried:
    """The rows of a class, outside of any database."""

    tables: list[tuple[str, str | None]]
    rows: bytes
    sequences: list[tuple[str, int, bool]]
    objects: bytes
    views: list[tuple[str, bool, bool]]


class MarkedCleaner(PostgreSQLCleaner):
    """Cleans one database whose bookkeeping is installed."""

    breaks = "ran while the server recovered from a crash, which may lose what was committed last"
    _kept_at: str | None = None  # in a form that DateStyle has no say in

    def _open(self) -> None:
        super()._open()
        # Plans that fit any values, because making one takes longer than anything that it could save here.
        self._connection.execute(
            b"set session_replication_role = replica; set plan_cache_mode = force_generic_plan;"
            b" set random_page_cost = 1",  # the bookkeeping is in memory: some hundred rows are not read for one
            prepare=False,
        )
        row = self._connection.execute(_LEAST, (SCHEMA, ALWAYS_READ)).fetchone()
        assert row is not None
        self._least: Look = row[0]
        self._locks: bool = row[1]
        # A clone has its own counters of VACUUM, and its own settings and comment.
        self._connection.execute(b"select _dbtestcase.take_sizes(array(select rel from _dbtestcase.catalogs))")
        if self._new:
            self._connection.execute(b"delete from _dbtestcase.alive")
            self._connection.execute(b"insert into _dbtestcase.alive values (now())")
            database = self._connections.database
            facts = b"select _dbtestcase.facts(%b::oid), _dbtestcase.writers_of_facts(%b::oid)"
            row = self._connection.execute(facts, (database, database)).fetchone()
            assert row is not None
            self._facts: tuple[str, str] = row
        settings = (str(self._connections.database), self._search_path, *self._facts)
        self._connection.execute(_SETTINGS, settings, prepare=False)
        self._sessions = -2  # unknown: the first look is an exact one
        self._since = 0
        row = self._connection.execute(b"select (_dbtestcase.visibility('pg_class')).all_visible >= 0").fetchone()
        self._visible = row == (True,)
        self._patience = self._waited = 0
        self._seen: set[int] = set()

    def _attempt(self, arrays: tuple[str, str], expected: int, look: Look, opened: int) -> Attempt:
        locks = look > Look.TOUCHED or self._locks
        arguments = (*arrays, max(look, self._least), locks, self._sessions + opened, self._since)
        ((outcome, restored, rewound, refreshed, *others),) = self._cursor.execute(_CLEAN, arguments).fetchall()
        objects, bloated, disturbed, changed, unwritten, *counts = others
        present, sessions, from_now = counts
        if outcome == "altered":
            return Attempt("altered", changes=self._changes(changed or ()))
        for name in bloated or ():
            # Rows that were deleted in thousands of tests are still in the file, and are read at each cleaning.
            self._connection.execute(f"vacuum {name}".encode(), prepare=False)
        if unwritten:
            self._make_visible(unwritten)
        if outcome == "clean" and not disturbed:  # else the next attempt is to look as closely
            self._since = from_now
            self._sessions = sessions if sessions >= 0 else -2
        report = Report(
            restored=tuple(restored or ()),
            rewound=tuple(rewound or ()),
            refreshed=tuple(refreshed or ()),
            large_objects=bool(objects),
        )
        return Attempt(outcome, report=report, disturbed=bool(disturbed), absent=present < expected)

    def _reopen(self) -> None:
        self._open()
        if self._connection.execute(b"select from _dbtestcase.alive").fetchone() is None:
            raise CleaningError(
                "The server has recovered from a crash, which emptied what is not logged: also the notes of what was"
                " touched.",
                cause="a process of the server was killed, or its disk was full.",
                remedy="nothing: the database is made anew.",
            )

    def _make_visible(self, catalogs: list[int]) -> None:
        """Make catalogs that were written earlier fit for the first look again; less often where it is of no avail."""
        self._patience -= 1
        if self._patience < 0 and self._visible:
            _make_catalogs_visible(self._connection, catalogs)
            self._waited = min(2 * self._waited + 1, 64) if self._seen == set(catalogs) else 0
            self._patience, self._seen = self._waited, set(catalogs)

    def _changes(self, catalogs: Collection[str]) -> tuple[str, ...]:
        rows = self._connection.execute(b"select distinct command, object from _dbtestcase.altered").fetchall()
        found = sorted(f"{command} {name or ''}".strip() for command, name in rows)
        for catalog in () if found else catalogs:
            found += self._newer(catalog)
        return tuple(found) or (
            "a materialized view that was not up to date was refreshed, or dbtestcase's own tables were changed",
        )

    def _newer(self, catalog: str) -> list[str]:
        """What was made or altered, by the words of the server."""
        if catalog == "pg_database":
            return in_words(catalog, ())
        row = self._connection.execute(
            b"select name, class, object, base::text from _dbtestcase.catalogs where name = %b", (catalog,)
        ).fetchone()
        assert row is not None
        found = [text for (text,) in self._connection.execute(newer(*row).encode(), prepare=False)]
        return in_words(catalog, found)

    def _keep(self) -> None:
        row = self._connection.execute(b"select _dbtestcase.keep()").fetchone()
        if row is not None and row[0] is not None:
            raise schema_changed(row[0])

        ((self._since, self._kept_at),) = self._connection.execute(_NOW).fetchall()
        self._kept = True

    def _forget(self) -> None:
        self._kept = False
        self._since = 0
        self._connection.execute(b"select _dbtestcase.forget()")

    def _carry_over(self) -> _Carried | None:
        execute = self._connection.execute
        kept = b"select from _dbtestcase.class_level where extract(epoch from kept_at)::text = %b"
        if execute(kept, (self._kept_at,)).fetchone() is None:
            return None  # commits are not awaited, and the last of them are lost in a crash
        return _Carried(
            tables=execute(b"select name, path from _dbtestcase.tables where class_level").fetchall(),
            rows=self._copy_out("(select * from _dbtestcase.rows where for_class)"),
            sequences=execute(
                b"select name, last_value, is_called from _dbtestcase.sequences"
                b" where (last_value, is_called) <> (base_last_value, base_is_called)"
            ).fetchall(),
            objects=self._copy_out("(select * from _dbtestcase.large_objects where for_class)"),
            views=execute(b"select name, populated, fresh from _dbtestcase.views where for_class").fetchall(),
        )

    def _bring_back(self, carried: object) -> None:
        assert isinstance(carried, _Carried)
        execute = self._connection.execute
        with self._connection.transaction():
            self._copy_in("_dbtestcase.rows", carried.rows)
            for name, path in carried.tables:
                execute(
                    b"update _dbtestcase.tables t set class_level = true, path = %b, wanted_rows ="
                    b" (select count(*) from _dbtestcase.rows r where r.name = t.name and r.for_class) where name = %b",
                    (path, name),
                )
            for name, last_value, is_called in carried.sequences:
                execute(
                    b"update _dbtestcase.sequences set last_value = %b, is_called = %b where name = %b",
                    (last_value, is_called, name),
                )
            self._copy_in("_dbtestcase.large_objects", carried.objects)
            for name, populated, fresh in carried.views:
                execute(
                    b"update _dbtestcase.views set for_class = true, populated = %b, fresh = %b where name = %b",
                    (populated, fresh, name),
                )
            execute(b"insert into _dbtestcase.class_level values (to_timestamp(%b::text::float8))", (self._kept_at,))
            execute(
                b"insert into _dbtestcase.touched select rel from _dbtestcase.tables where class_level"
                b" union all select view from _dbtestcase.views where for_class"
            )
