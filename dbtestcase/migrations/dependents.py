"""Views that read something, to be dropped before it changes and made again after it."""

from __future__ import annotations

from sqlalchemy import Connection, text

from .naming import execute, qualified
from .schema_state import Item

# However indirectly they read it, each after those that it reads.
_VIEWS = text(
    """
    WITH RECURSIVE reader (view, depth) AS (
        SELECT DISTINCT r.ev_class, 1 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = CAST(:class AS regclass)
            AND d.refobjid = ANY (CAST(:objects AS oid[])) AND r.ev_class <> d.refobjid
            AND (CAST(:column AS text) IS NULL OR d.refobjsubid = (
                SELECT attnum FROM pg_attribute WHERE attrelid = d.refobjid AND attname = :column))
        UNION
        SELECT DISTINCT r.ev_class, reader.depth + 1 FROM reader
            JOIN pg_depend d ON d.refobjid = reader.view AND d.classid = 'pg_rewrite'::regclass
            JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> reader.view
    )
    SELECT nspname, relname, relkind, pg_get_viewdef(c.oid, true), array_to_string(c.reloptions, ', '),
        ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY indexrelid)
            || ARRAY(SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal)
    FROM (SELECT view, max(depth) AS depth FROM reader GROUP BY view) v
        JOIN pg_class c ON c.oid = v.view AND c.relkind IN ('v', 'm') JOIN pg_namespace n ON n.oid = c.relnamespace
    ORDER BY v.depth, relname
    """
)
_ROUTINES = "SELECT oid FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(:schema)) AND proname = :name"
_RELATIONS = "SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(:schema)) AND relname = :name"


def views_around(connection: Connection, item: Item, column: str | None = None) -> tuple[list[str], list[str]]:
    """Lines of Python to go before and after a change.

    :param item: a table, a view or a routine.
    :param column: which of its columns is to change.
    """
    routine = item.name.endswith(")")
    found = connection.scalars(
        text(_ROUTINES if routine else _RELATIONS), {"schema": item.schema, "name": item.name.partition("(")[0]}
    ).all()
    before: list[str] = []
    after: list[str] = []
    where = {"class": "pg_proc" if routine else "pg_class", "objects": list(found), "column": column}
    for schema, view, kind, definition, options, parts in connection.execute(_VIEWS, where):
        what = "MATERIALIZED VIEW" if kind == "m" else "VIEW"
        view_name = qualified(Item("view", schema, view))
        with_options = f" WITH ({options})" if options else ""
        before.insert(0, execute(f"DROP {what} {view_name}"))
        after.append(execute(f"CREATE {what} {view_name}{with_options} AS\n{definition.rstrip(';')}"))
        after += [execute(part) for part in parts]
    return before, after
