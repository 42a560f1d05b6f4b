"""Cleaning on PostgreSQL for a superuser: triggers note what is touched, and one function call puts it back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg

from dbtestcase.backends.cleaning_report import Look, Report
from dbtestcase.backends.postgresql.cleaning import Attempt, Connection, PostgreSQLCleaner
from dbtestcase.backends.postgresql.cleaning_sql import SCHEMA, install_script
from dbtestcase.errors import CleaningError

__all__ = ["MarkedCleaner", "install", "is_installed", "uninstall"]

ALWAYS_READ = 100
"""Up to so many sequences all are read after each test: 0.1 ms at most, more where the processor's caches are cold."""

# How closely sequences have to be looked at whatever a test did: a function of the application that calls nextval or
# setval moves sequences where no statement shows it.
_LEAST = b"""
select greatest(
  case when (select count(*) from _dbtestcase.sequences) <= %b then 1 else 0 end,
  (select max(case when prosrc ~* 'setval' then 2 else 1 end) from pg_proc
    where oid >= 16384 and prosrc ~* 'setval|nextval' and pronamespace <> %b::regnamespace))
"""

_CLEAN = b"select * from _dbtestcase.clean(%b::oid, %b::int[], %b::int[], %b)"


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
    """Make the bookkeeping; what there is at this moment is what will be put back.

    :raises CleaningError: a table cannot be read, or somebody holds a lock on one.
    """
    try:
        with connection.transaction():
            uninstall(connection)
            connection.execute(install_script().encode(), prepare=False)
    except psycopg.Error as error:
        raise CleaningError(
            f"The bookkeeping of the cleaning could not be made in {connection.info.dbname!r}: {str(error).strip()}.",
            cause="another connection holds a lock on a table, or an event trigger of the application forbids it.",
            remedy="close other connections to the database while it is made.",
        ) from error


@dataclass(frozen=True)
class _Carried:
    """The rows of a class, outside of any database."""

    tables: list[tuple[int, bytes]]
    sequences: list[tuple[int, int, bool]]
    objects: bytes
    views: list[tuple[int, bool, bool]]


class MarkedCleaner(PostgreSQLCleaner):
    """Cleans one database whose bookkeeping is installed."""

    def _open(self) -> None:
        super()._open()
        self._connection.execute(b"set session_replication_role = replica")
        row = self._connection.execute(_LEAST, (ALWAYS_READ, SCHEMA)).fetchone()
        assert row is not None
        self._least: Look = row[0]

    def _attempt(self, expected: Collection[int], lasting: Collection[int], look: Look) -> Attempt:
        row = self._connection.execute(
            _CLEAN, (self._connections.database, list(expected), list(lasting), max(look, self._least))
        ).fetchone()
        assert row is not None
        outcome, restored, rewound, refreshed, objects, bloated, disturbed = row
        if outcome == "altered":
            return Attempt("altered", changes=self._changes())
        for name in bloated or ():
            # Rows that were deleted in thousands of tests are still in the file, and are read at each cleaning.
            self._connection.execute(f"vacuum {name}".encode(), prepare=False)
        report = Report(
            restored=tuple(restored or ()),
            rewound=tuple(rewound or ()),
            refreshed=tuple(refreshed or ()),
            large_objects=bool(objects),
        )
        return Attempt(outcome, report=report, disturbed=bool(disturbed))

    def _changes(self) -> tuple[str, ...]:
        rows = self._connection.execute(b"select distinct command, object from _dbtestcase.altered").fetchall()
        return tuple(sorted(f"{command} {name or ''}".strip() for command, name in rows)) or (
            "a materialized view that was not up to date was refreshed, or dbtestcase's own tables were changed",
        )

    def keep(self) -> None:
        row = self._connection.execute(b"select _dbtestcase.keep()").fetchone()
        if row is not None and row[0] is not None:
            raise CleaningError(
                f"The schema was changed while the rows of a class were made: {row[0]}.",
                cause="setUpTestData or setUpClass created, altered or dropped something.",
                remedy="put it into the metadata or a migration, or do it in setUp: then it is undone after each test.",
            )

        self._kept = True

    def forget(self) -> None:
        self._kept = False
        self._connection.execute(b"select _dbtestcase.forget()")

    def _carry_over(self) -> _Carried:
        tables = self._connection.execute(
            b"select rel, class_copy from _dbtestcase.tables where class_copy is not null"
        ).fetchall()
        return _Carried(
            tables=[(rel, self._copy_out(name)) for rel, name in tables],
            sequences=self._connection.execute(
                b"select seq, last_value, is_called from _dbtestcase.sequences"
                b" where (last_value, is_called) <> (base_last_value, base_is_called)"
            ).fetchall(),
            objects=self._copy_out("(select * from _dbtestcase.large_objects where for_class)"),
            views=self._connection.execute(
                b"select view, populated, fresh from _dbtestcase.views where for_class"
            ).fetchall(),
        )

    def _bring_back(self, carried: object) -> None:
        assert isinstance(carried, _Carried)
        execute = self._connection.execute
        with self._connection.transaction():
            for rel, rows in carried.tables:
                copy = execute(b"select _dbtestcase.make_class_copy(%b::oid)", (rel,)).fetchone()
                assert copy is not None
                self._copy_in(copy[0], rows)
            for seq, last_value, is_called in carried.sequences:
                execute(
                    b"update _dbtestcase.sequences set last_value = %b, is_called = %b where seq = %b::oid",
                    (last_value, is_called, seq),
                )
            self._copy_in("_dbtestcase.large_objects", carried.objects)
            for view, populated, fresh in carried.views:
                execute(
                    b"update _dbtestcase.views set for_class = true, populated = %b, fresh = %b where view = %b::oid",
                    (populated, fresh, view),
                )
            execute(b"insert into _dbtestcase.class_level values (now())")
            execute(
                b"insert into _dbtestcase.touched select rel from _dbtestcase.tables where class_copy is not null"
                b" union all select view from _dbtestcase.views where for_class"
            )
