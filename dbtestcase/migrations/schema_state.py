"""What a database's schema is, in a form that two moments can be compared by: no rows, no object identifiers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeAlias

from sqlalchemy import Connection, inspect


class Item(NamedTuple):
    """One thing of a schema: ``Item("index", "public", "post", "ix_post_title")``."""

    kind: str
    schema: str
    name: str
    part: str = ""  #: what belongs to a table: a column, a constraint, an index, …

    def __str__(self) -> str:
        names = [self.name] if self.kind == "schema" else [self.schema, self.name, self.part]
        return f"{self.kind} {'.'.join(name for name in names if name)}"


#: Every item with its definition.
SchemaState: TypeAlias = Mapping[Item, str]

_Taker: TypeAlias = Callable[[Connection, Collection[str]], SchemaState]
_takers: dict[str, _Taker] = {}

#: Relations, which take their parts with them.
WHOLES = ("table", "view", "materialized view", "foreign table", "domain", "type")


class Difference(NamedTuple):
    """One thing that is not the same at two moments; ``None`` where it is not there."""

    item: Item
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"left over: {self.item}"
        if self.after is None:
            return f"missing:   {self.item}" + (f"  {_one_line(self.before)}" if self.before else "")
        return f"changed:   {self.item}\n    was {_one_line(self.before)}\n    is  {_one_line(self.after)}"


def register(dialect: str, taker: _Taker) -> None:
    """Name the function that takes the snapshots of a dialect."""
    _takers[dialect] = taker


def take(connection: Connection, *, ignored: Collection[str] = ()) -> SchemaState:
    """Take a snapshot, without the tables of these names."""
    return _takers.get(connection.dialect.name, _inspected)(connection, ignored)


def differences(before: SchemaState, after: SchemaState) -> list[Difference]:
    """What is not the same, the parts of a table left out where the table itself is new or gone."""
    found = [
        Difference(item, before.get(item), after.get(item))
        for item in sorted({**before, **after})
        if before.get(item) != after.get(item)
    ]
    whole = {
        (item.schema, item.name, old is None)
        for item, old, new in found
        if item.kind in WHOLES and (old is None or new is None)
    }
    return [
        difference
        for difference in found
        if not (
            difference.item.part
            and (difference.before is None or difference.after is None)
            and (difference.item.schema, difference.item.name, difference.before is None) in whole
        )
    ]


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _inspected(connection: Connection, ignored: Collection[str]) -> SchemaState:
    """Through SQLAlchemy's inspector, for the databases without a taker of their own."""
    inspector = inspect(connection)
    found: dict[Item, str] = {}
    for table in inspector.get_table_names():
        if table in ignored:
            continue
        found[Item("table", "", table)] = ""
        for column in inspector.get_columns(table):
            described = {name: str(value) for name, value in column.items() if name != "name"}
            found[Item("column", "", table, column["name"])] = _described(described)
        primary = inspector.get_pk_constraint(table)
        if primary["constrained_columns"]:
            found[Item("primary key", "", table, primary["name"] or "")] = ", ".join(primary["constrained_columns"])
        for kind, rows in (
            ("foreign key", inspector.get_foreign_keys(table)),
            ("unique constraint", inspector.get_unique_constraints(table)),
            ("check constraint", inspector.get_check_constraints(table)),
            ("index", inspector.get_indexes(table)),
        ):
            for row in rows:
                described = {name: str(value) for name, value in row.items() if name != "name"}
                part = row["name"] or _described(described)
                found[Item(kind, "", table, str(part))] = _described(described)
    for view in inspector.get_view_names():
        found[Item("view", "", view)] = inspector.get_view_definition(view)
    return found


def _described(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
