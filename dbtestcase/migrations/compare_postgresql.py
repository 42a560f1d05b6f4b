"""The comparison on PostgreSQL: two snapshots, one of the migrated tables and one of the models' in their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Column, Constraint, MetaData, Table, text

from dbtestcase.migrations import snapshot, snapshot_postgresql  # noqa: F401  registers itself
from dbtestcase.migrations.shadow import replaced
from dbtestcase.migrations.snapshot import Difference, Item, Snapshot
from dbtestcase.migrations.write_postgresql import Models, Writer

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

__all__ = ["missing_operations"]

# What models can say.  Views, functions, triggers and the like are the migrations' own.
_KINDS = {
    "column",
    "primary key",
    "foreign key",
    "unique constraint",
    "exclusion constraint",
    "check constraint",
    "index",
    "comment",
    "enum",
    "sequence",
    "table",
    "schema",
}
_NAMED_IN_DEFINITION = {"index"}
_PARTITION = re.compile(r"INHERITS .* (FOR VALUES|DEFAULT)", re.DOTALL)


def missing_operations(
    context: MigrationContext, models: Sequence[MetaData], excluded: Callable[[Item], bool]
) -> list[str]:
    """Return the missing upgrade operations as lines of Python."""
    connection = context.connection
    assert connection is not None
    default_schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    migrated = snapshot.take(connection, ignored=[context.version_table])
    known = Models(models, default_schema, connection.dialect)
    passes = _Filter(context, known, excluded)
    relations = {(item.schema, item.name): item.kind for item in migrated if item.kind in snapshot.WHOLES}
    tables = [
        table
        for table in known.tables.values()
        # A table that is mapped to a view is not a table to create.
        if relations.get(known.key(table), "table") == "table" and passes.model(table)
    ]
    dropped = [
        (item.schema, item.name) for item in migrated if item.kind == "table" and passes(item, migrated, reflected=True)
    ]
    with replaced(connection, dropped, models, tables):
        modelled = snapshot.take(connection, ignored=[context.version_table])
    # The models' place keeps the enums and sequences that no model knows; in the comparison they are left over.
    known_names = known.named(connection)
    modelled = {
        item: definition
        for item, definition in modelled.items()
        if item.part or item.kind not in ("enum", "sequence") or (item.schema, item.name) in known_names
    }
    found = [
        difference
        for difference in snapshot.differences(migrated, modelled)
        if difference.item.kind in _KINDS
        and passes(difference.item, migrated, reflected=difference.before is not None)
        and _matters(difference, migrated, modelled)
    ]
    found, renamed = _renamed(found, known)
    writer = Writer(context, known, migrated, modelled)
    return writer.write(found, renamed)


def _matters(difference: Difference, migrated: Snapshot, modelled: Snapshot) -> bool:
    item, before, after = difference
    if item.kind == "table":  # storage options, row security and partitions are the migrations' own
        return (before is None or after is None) and not _is_partition(item, migrated)
    if item.kind == "schema":
        return before is None
    if item.kind in ("enum", "sequence") and not item.part:
        return True
    if item.kind == "sequence":  # that of a serial column follows the column; an identity has options of its own
        column = Item("column", item.schema, item.name, item.part)
        return "IDENTITY" in migrated.get(column, "") and "IDENTITY" in modelled.get(column, "")
    if item.kind == "comment" and item.name.startswith(("schema ", "type ", "function ", "index ")):
        return False
    table = Item("table", item.schema, item.name)
    return (table in migrated or table in modelled) and not _is_partition(table, migrated)


def _is_partition(table: Item, migrated: Snapshot) -> bool:
    return bool(_PARTITION.match(migrated.get(table, "")))


def _renamed(found: list[Difference], known: Models) -> tuple[list[Difference], list[tuple[Item, Item]]]:
    """Tell constraints and indexes that have another name from those that are missing or left over.

    A constraint that the models give no name may have any.
    """
    renamed: list[tuple[Item, Item]] = []
    rest = list(found)
    for new in found:
        if new.before is not None or not new.item.is_part or new.item.kind in ("column", "comment", "sequence"):
            continue
        for old in rest:
            same_place = old.item[:3] == new.item[:3] and old.after is None
            if same_place and _nameless(old.item, old.before) == _nameless(new.item, new.after):
                rest.remove(old)
                rest.remove(new)
                if known.names(new.item):
                    renamed.append((old.item, new.item))
                break
    return rest, renamed


def _nameless(item: Item, definition: str | None) -> str:
    definition = definition or ""
    if item.kind in _NAMED_IN_DEFINITION:
        return re.sub(r'INDEX ("(?:[^"]|"")+"|\S+) ON', "INDEX ON", definition, count=1)
    return definition


class _Filter:
    """What is passed over: by the caller's names, and by env.py's ``include_name`` and ``include_object``."""

    def __init__(self, context: MigrationContext, known: Models, excluded: Callable[[Item], bool]) -> None:
        self._include_name = context.opts.get("include_name")
        self._include_object = context.opts.get("include_object")
        self._known = known
        self._excluded = excluded

    def model(self, table: Table) -> bool:
        """Whether a model's table counts."""
        schema, name = self._known.key(table)
        if self._excluded(Item("table", schema, name)):
            return False
        return not self._include_object or bool(self._include_object(table, table.name, "table", False, None))

    def __call__(self, item: Item, migrated: Snapshot, *, reflected: bool) -> bool:
        if self._excluded(item):
            return False
        table = self._known.tables.get((item.schema, item.name))
        if item.kind in ("enum", "schema") or (item.kind == "sequence" and not item.part):
            return True
        if table is not None and not self.model(table):
            return False
        schema = None if item.schema == self._known.default_schema else item.schema
        if table is None and not self._unknown_table(item.name, schema):
            return False
        kind = {"unique constraint": "unique_constraint", "foreign key": "foreign_key_constraint"}.get(
            item.kind, item.kind
        )
        if not self._include_object or kind not in ("column", "index", "unique_constraint", "foreign_key_constraint"):
            return True
        subject = self._known.find(item) or _stand_in(item, schema)
        return bool(self._include_object(subject, item.part, kind, reflected, None))

    def _unknown_table(self, name: str, schema: str | None) -> bool:
        if self._include_name:
            qualified = f"{schema}.{name}" if schema else name
            parents = {"schema_name": schema, "schema_qualified_table_name": qualified}
            if not self._include_name(schema, "schema", {}) or not self._include_name(name, "table", parents):
                return False
        if self._include_object:
            return bool(self._include_object(Table(name, MetaData(), schema=schema), name, "table", True, None))
        return True


def _stand_in(item: Item, schema: str | None) -> Column[object] | Constraint:
    """Something to show to ``include_object`` for what only the database has."""
    column: Column[object] = Column(item.part)
    Table(item.name, MetaData(), column, schema=schema)
    return column
