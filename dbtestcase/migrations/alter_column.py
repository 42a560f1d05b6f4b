"""A column changed in place: the statements that turn one definition into another."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, text

from .beside_tables import create
from .columns import OWN_SEQUENCE, Definition, sequence_options
from .dependents import views_around
from .naming import execute, qualified, quoted
from .schema_state import Item, SchemaState

_SERIAL = {"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}

_PARTS = text(
    """
    SELECT DISTINCT CASE WHEN t.oid IS NOT NULL THEN 'trigger' WHEN p.oid IS NOT NULL THEN 'policy' ELSE 'rule' END,
        coalesce(t.tgname, p.polname, r.rulename)
    FROM pg_depend d
        LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid AND NOT t.tgisinternal
        LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid
        LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.ev_class = d.refobjid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(:relation)
        AND d.refobjsubid = (
            SELECT attnum FROM pg_attribute WHERE attrelid = to_regclass(:relation) AND attname = :column)
        AND coalesce(t.oid, p.oid, r.oid) IS NOT NULL
    """
)
_GENERATED = text(
    """
    SELECT a.attname FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
        JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated <> ''
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refobjid = to_regclass(:relation) AND f.adrelid = d.refobjid
        AND d.refobjsubid = (
            SELECT attnum FROM pg_attribute WHERE attrelid = to_regclass(:relation) AND attname = :column)
        AND a.attnum <> d.refobjsubid
    """
)


def added(item: Item, definition: Definition) -> str:
    """The column made, as SQL."""
    words = [f"ALTER TABLE {qualified(item)} ADD COLUMN {quoted(item.part)}"]
    own = definition.default == OWN_SEQUENCE
    words.append(_SERIAL.get(definition.type, definition.type) if own else definition.type)
    if definition.collation:
        words.append(f"COLLATE {definition.collation}")
    if definition.not_null:
        words.append("NOT NULL")
    if definition.identity:
        words.append(f"GENERATED {definition.identity} AS IDENTITY")
    if definition.computed:
        words.append(definition.computed.strip())
    if definition.default and not own:
        words.append(f"DEFAULT {definition.default}")
    return execute(" ".join(words))


def altered(item: Item, old: Definition, new: Definition, parts: Collection[str], sequence: str | None) -> list[str]:
    """Lines of Python that change those parts of a column; ``sequence`` belongs to it now."""
    table, column = qualified(item), quoted(item.part)
    alter = f"ALTER TABLE {table} ALTER COLUMN {column}"
    of_type = bool({"type", "collation"} & set(parts))
    lines: list[str] = []
    if old.default is not None and ("default" in parts or of_type):
        lines.append(f"{alter} DROP DEFAULT")
    if old.default == OWN_SEQUENCE and new.default != OWN_SEQUENCE and sequence and "default" in parts:
        lines.append(f"DROP SEQUENCE {sequence}")
    if old.identity and not new.identity and "identity" in parts:
        lines.append(f"{alter} DROP IDENTITY")
    if of_type:
        collate = f" COLLATE {new.collation}" if new.collation else ""
        lines.append(f"{alter} TYPE {new.type}{collate} USING {_converted(column, old.type, new.type)}")
    if "not_null" in parts:
        lines.append(f"{alter} {'SET' if new.not_null else 'DROP'} NOT NULL")
    if new.identity and "identity" in parts:
        verb = "SET GENERATED" if old.identity else "ADD GENERATED"
        lines.append(f"{alter} {verb} {new.identity}" + ("" if old.identity else " AS IDENTITY"))
    default = new.default if "default" in parts else old.default
    if default == OWN_SEQUENCE and "default" in parts and not sequence:
        name = qualified(item, f"{item.name}_{item.part}_seq")
        as_type = f" AS {new.type}" if new.type in _SERIAL else ""
        lines.append(f"CREATE SEQUENCE {name}{as_type} OWNED BY {table}.{column}")
        lines.append(f"{alter} SET DEFAULT nextval('{name}')")
    elif default == OWN_SEQUENCE and sequence and ("default" in parts or of_type):
        lines.append(f"{alter} SET DEFAULT nextval('{sequence}')")
    elif default is not None and ("default" in parts or of_type):
        lines.append(f"{alter} SET DEFAULT {default}")
    return [execute(line) for line in lines]


def _converted(column: str, old: str, new: str) -> str:
    """A value of the old type as one of the new; no cast leads into an array or out of it."""
    if new.endswith("[]") and not old.endswith("[]"):
        return f"CASE WHEN {column} IS NOT NULL THEN ARRAY[{column}]::{new} END"
    if old.endswith("[]") and not new.endswith("[]"):
        return f"{column}[1]::{new}"
    return f"{column}::{new}"


def identity_options(item: Item, definition: str) -> list[str]:
    """Lines of Python that give the sequence of an identity column its options."""
    options = sequence_options(definition)
    words = [
        f"SET {name} {options[name]}".strip()
        for name in ("START", "INCREMENT", "MINVALUE", "MAXVALUE", "CACHE")
        if name in options
    ]
    words.append("SET CYCLE" if "CYCLE" in options else "SET NO CYCLE")
    return [execute(f"ALTER TABLE {qualified(item)} ALTER COLUMN {quoted(item.part)} {' '.join(words)}")]


def around_dependents(
    connection: Connection, item: Item, generated: dict[str, Definition], migrated: SchemaState
) -> tuple[list[str], list[str]]:
    """Lines to go around a change of a column that views, triggers, rules, policies or generated columns read."""
    before, after = views_around(connection, item, item.part)
    names = {"relation": f"{quoted(item.schema)}.{quoted(item.name)}", "column": item.part}
    for kind, name in connection.execute(_PARTS, names):
        part = Item(kind, item.schema, item.name, name)
        if part in migrated:
            before.append(execute(f"DROP {kind.upper()} {quoted(name)} ON {qualified(part)}"))
            after[:0] = map(execute, create(part, migrated[part]))
    for (column,) in connection.execute(_GENERATED, names):
        if column in generated:
            part = Item("column", item.schema, item.name, column)
            before.append(execute(f"ALTER TABLE {qualified(part)} DROP COLUMN {quoted(column)}"))
            after.insert(0, added(part, generated[column]))
    return before, after
