"""What to write in ``downgrade()`` for what it left behind."""

from __future__ import annotations

from collections.abc import Iterable

from . import beside_tables
from .naming import execute, qualified, quoted
from .schema_state import Difference, Item

# What depends on others goes first.
_ORDER = (
    "event trigger",
    "trigger",
    "rule",
    "policy",
    "row security",
    "storage parameter",
    "publication",
    "view",
    "materialized view",
    "foreign key",
    "index",
    "check constraint",
    "unique constraint",
    "exclusion constraint",
    "primary key",
    "column",
    "table",
    "foreign table",
    "cast",
    "operator class",
    "operator family",
    "operator",
    "aggregate",
    "function",
    "procedure",
    "sequence",
    "type",
    "domain",
    "enum",
    "range",
    "statistics",
    "collation",
    "text search configuration",
    "text search dictionary",
    "server",
    "foreign-data wrapper",
    "schema",
    "extension",
)
_CONSTRAINTS = {
    "foreign key": "foreignkey",
    "check constraint": "check",
    "unique constraint": "unique",
    "exclusion constraint": "unique",
    "primary key": "primary",
}
_DROP = {"sequence": "SEQUENCE", "enum": "TYPE", "schema": "SCHEMA"}


def operations(differences: Iterable[Difference]) -> list[str]:
    """Lines of Python, in the order in which they can run; for what merely changed, only a hint."""
    return [line for difference in in_order(differences) if (line := _operation(difference))]


def in_order(differences: Iterable[Difference]) -> list[Difference]:
    """The differences in an order in which they can be undone."""
    return sorted(differences, key=lambda difference: _rank(difference))


def drop_statement(item: Item) -> str | None:
    """The SQL that drops something, where a ``CASCADE`` may follow it."""
    match item.kind:
        case "table":
            return f"DROP TABLE {qualified(item)}"
        case "column":
            return f"ALTER TABLE {qualified(item)} DROP COLUMN {quoted(item.part)}"
        case "index":
            return f"DROP INDEX {qualified(item, item.part)}"
        case kind if kind in _CONSTRAINTS:
            return f"ALTER TABLE {qualified(item)} DROP CONSTRAINT {quoted(item.part)}"
    return None


def _rank(difference: Difference) -> tuple[int, str]:
    kind = difference.item.kind
    rank = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    # What is missing is made in the opposite order, after everything that is left over is gone.
    return (rank if difference.before is None else 3 * len(_ORDER) - rank, str(difference.item))


def _operation(difference: Difference) -> str:
    if difference.before is None:
        return _drop(difference.item)
    if difference.after is None:
        return _create(difference.item, difference.before)
    return ""


def _drop(item: Item) -> str:
    schema = f", schema={item.schema!r}" if item.schema not in ("", "public") else ""
    match item.kind:
        case "table":
            return f"op.drop_table({item.name!r}{schema})"
        case "column":
            return f"op.drop_column({item.name!r}, {item.part!r}{schema})"
        case "index":
            return f"op.drop_index({item.part!r}, table_name={item.name!r}{schema})"
        case kind if kind in _CONSTRAINTS:
            return f"op.drop_constraint({item.part!r}, {item.name!r}, type_={_CONSTRAINTS[kind]!r}{schema})"
        case "comment":
            return ""
        case "sequence" if item.part:
            return ""
        case kind if kind in _DROP:
            return execute(f"DROP {_DROP[kind]} {qualified(item)}")
    statement = beside_tables.drop(item)
    return execute(statement) if statement else ""


def _create(item: Item, definition: str) -> str:
    name = qualified(item)
    match item.kind:
        case "index":
            return execute(definition)
        case "column":
            return execute(f"ALTER TABLE {name} ADD COLUMN {quoted(item.part)} {definition}")
        case kind if kind in _CONSTRAINTS:
            return execute(f"ALTER TABLE {name} ADD CONSTRAINT {quoted(item.part)} {definition}")
        case "enum":
            return execute(f"CREATE TYPE {name} AS ENUM ({definition})")
        case "schema":
            return execute(f"CREATE SCHEMA {quoted(item.name)}")
        case "table":
            return f"op.create_table({item.name!r}, …)"
    return "\n".join(map(execute, beside_tables.create(item, definition)))
