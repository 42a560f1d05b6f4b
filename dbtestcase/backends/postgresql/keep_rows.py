"""The rows of a failing test, copied to a PostgreSQL database of their own before they are rolled back.

The rows exist in one transaction only, so its own connection has to read them; the values travel as the text that the
types' output functions give, which works with every driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from sqlalchemy import URL

from ...reporting import for_psycopg

Fetch = Callable[[str], Sequence[Sequence[Any]]]
_OURS = "n.nspname !~ '^(pg_|information_schema$|_dbtestcase$)' AND c.relpersistence <> 't'"
_NO_EXTENSIONS = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"

_TABLES = f"""
    SELECT n.nspname, c.relname, a.attname
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
     WHERE c.relkind = 'r' AND {_OURS} AND {_NO_EXTENSIONS}
     ORDER BY 1, 2, a.attnum
"""
_SEQUENCES = f"""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND {_OURS} AND {_NO_EXTENSIONS} ORDER BY 1, 2
"""
_VIEWS = f"""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' AND {_OURS} AND {_NO_EXTENSIONS} ORDER BY c.oid
"""
_FOREIGN_KEYS = f"""
    SELECT n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid)
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype = 'f' AND k.conparentid = 0 AND {_OURS} AND {_NO_EXTENSIONS}
"""

# The books of the cleaning are of no use there, and its triggers note every row, whatever the replication role.
_NO_BOOKS = """
    DROP EVENT TRIGGER IF EXISTS _dbtestcase_command; DROP EVENT TRIGGER IF EXISTS _dbtestcase_drop;
    SET LOCAL client_min_messages = warning; DROP SCHEMA IF EXISTS _dbtestcase CASCADE
"""


class Kept(NamedTuple):
    """How many rows were copied, and the tables and columns that were not: the test has made them."""

    rows: int
    missing: tuple[str, ...]


def fetcher(dbapi_connection: Any) -> Fetch:
    """Run SQL with any DBAPI connection, in its own transaction: for :func:`copy_rows`."""

    def fetch(statement: str) -> Sequence[Sequence[Any]]:
        with closing(dbapi_connection.cursor()) as cursor:
            cursor.execute(statement)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        return rows

    return fetch


def copy_rows(fetch: Fetch, target: URL) -> Kept:
    """Make the target, a clone of the same template, hold what the source's tables and sequences hold now.

    Foreign keys and triggers rest meanwhile (``session_replication_role``; a role that may not set it drops the foreign
    keys and makes them again, those that the rows do not satisfy as ``NOT VALID``).

    :param fetch: runs SQL where the rows can be seen, see :func:`fetcher`; statements have no parameters and no ``%``.
    """
    positional, named = for_psycopg(target)
    source = _tables(fetch(_TABLES))
    with psycopg.connect(*positional, **named) as connection:
        connection.execute(_NO_BOOKS)
        there = _tables(connection.execute(_TABLES).fetchall())
        missing = [".".join(table) for table in source if table not in there]
        missing += [
            ".".join([*table, column])
            for table, columns in source.items()
            if table in there
            for column in columns
            if column not in there[table]
        ]
        with _unconstrained(connection, list(there)):
            if there:
                connection.execute(
                    sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(sql.Identifier(*table) for table in there))
                )
            rows = 0
            for table, columns in source.items():
                common = [column for column in columns if column in there.get(table, ())]
                if common:
                    rows += _copy(fetch, connection, table, common)
        _copy_sequences(fetch, connection)
        for view in connection.execute(_VIEWS).fetchall():
            connection.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(*view)))
    return Kept(rows, tuple(missing))


def _copy(fetch: Fetch, connection: psycopg.Connection[Any], table: tuple[str, str], columns: list[str]) -> int:
    texts = ", ".join(f"{_quoted(column)}::text" for column in columns)
    rows = fetch(f"SELECT {texts} FROM ONLY {_quoted(*table)}")
    if rows:
        into = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(*table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with connection.cursor().copy(into) as copy:
            for row in rows:
                copy.write_row(row)
    return len(rows)


def _copy_sequences(fetch: Fetch, connection: psycopg.Connection[Any]) -> None:
    there = {tuple(row) for row in connection.execute(_SEQUENCES).fetchall()}
    for name in map(tuple, fetch(_SEQUENCES)):
        if name in there:
            ((last, called),) = fetch(f"SELECT last_value, is_called FROM {_quoted(*name)}")
            connection.execute("SELECT setval(%s::regclass, %s, %s)", (_quoted(*name), last, called))


@contextmanager
def _unconstrained(connection: psycopg.Connection[Any], tables: list[tuple[str, str]]) -> Iterator[None]:
    try:
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        pass
    else:
        yield
        connection.execute("SET LOCAL session_replication_role = origin")
        return
    foreign_keys = connection.execute(_FOREIGN_KEYS).fetchall()
    for schema, table, name, _ in foreign_keys:
        connection.execute(_alter(schema, table, "DROP CONSTRAINT {}", name))
    for schema, table in tables:
        connection.execute(_alter(schema, table, "DISABLE TRIGGER USER"))
    yield
    for schema, table in tables:
        connection.execute(_alter(schema, table, "ENABLE TRIGGER USER"))
    for schema, table, name, definition in foreign_keys:
        add = f"ADD CONSTRAINT {{}} {definition.replace('{', '{{').replace('}', '}}')}"
        try:
            with connection.transaction():
                connection.execute(_alter(schema, table, add, name))
        except psycopg.errors.ForeignKeyViolation:  # deferred, and not satisfied when the test failed
            connection.execute(_alter(schema, table, f"{add} NOT VALID", name))


def _alter(schema: str, table: str, action: str, *names: str) -> sql.Composed:
    head = sql.SQL("ALTER TABLE {} ").format(sql.Identifier(schema, table))
    return head + sql.SQL(action).format(*map(sql.Identifier, names))


def _tables(rows: Sequence[Sequence[Any]]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for schema, table, column in rows:
        columns = found.setdefault((schema, table), [])
        if column is not None:
            columns.append(column)
    return found


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
