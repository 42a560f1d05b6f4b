"""How a revision turns one enum into another."""

from __future__ import annotations

import re

from .naming import execute, qualified, quoted
from .schema_state import Item, SchemaState


def alter_enum(enum: Item, before: str, after: str, migrated: SchemaState) -> list[str]:
    """Lines of Python: ``ADD VALUE`` where values are only added, else the type made anew."""
    name = qualified(enum)
    old, new = _values(before), _values(after)
    if [value for value in new if value in old] == old:
        lines = ["with op.get_context().autocommit_block():"]
        for position, value in enumerate(new):
            if value not in old:
                place = f" AFTER {new[position - 1]}" if position else f" BEFORE {old[0]}" if old else ""
                lines.append("    " + execute(f"ALTER TYPE {name} ADD VALUE {value}{place}"))
        return ["\n".join(lines)]
    said = f"# {enum} has {before}, the models say {after}"
    return [said, *made_anew(enum, f"CREATE TYPE {name} AS ENUM ({after})", migrated, through="text")]


def made_anew(type_: Item, create: str, migrated: SchemaState, *, through: str) -> list[str]:
    """Lines of Python: a type made again under its name, and the columns that have it converted.

    :param through: a type that values of the old one can be cast to, and cast to the new one.
    """
    name = qualified(type_)
    old_name = f"{type_.name}_old"
    kind = "DOMAIN" if type_.kind == "domain" else "TYPE"
    lines = [execute(f"ALTER {kind} {name} RENAME TO {quoted(old_name)}"), execute(create)]
    written = f"{quoted(type_.schema)}.{quoted(type_.name)}"
    for item, definition in migrated.items():
        if item.kind == "column" and re.match(re.escape(written) + r"(\[\])?( |$)", definition):
            table, column = qualified(item), quoted(item.part)
            array = "[]" if definition.startswith(f"{written}[]") else ""
            default = definition.partition(" DEFAULT ")[2]
            if default:  # it is of the old type, and cannot be cast by itself
                lines.append(execute(f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT"))
            lines.append(
                execute(
                    f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {name}{array} "
                    f"USING {column}::{through}{array}::{name}{array}"
                )
            )
            if default:
                lines.append(execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {default}"))
    return [*lines, execute(f"DROP {kind} {qualified(type_, old_name)}")]


def _values(definition: str) -> list[str]:
    return re.findall(r"'(?:[^']|'')*'", definition)
