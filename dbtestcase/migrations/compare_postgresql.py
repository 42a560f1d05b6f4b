"""The comparison on PostgreSQL: two snapshots, one of the migrated tables and one of the models' in their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, MetaData, text

from dbtestcase.migrations import schema_state, schema_state_postgresql  # noqa: F401  registers itself
from dbtestcase.migrations.columns import Columns, owned_sequences
from dbtestcase.migrations.environment import given_options
from dbtestcase.migrations.filters import Filters, Reflected
from dbtestcase.migrations.models import Models
from dbtestcase.migrations.proof import proved
from dbtestcase.migrations.schema_state import Difference, Item, SchemaState
from dbtestcase.migrations.shadow import replaced
from dbtestcase.migrations.write_postgresql import Writer

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
    context: MigrationContext,
    models: Sequence[MetaData],
    excluded: Callable[[Item], bool],
    ignored: Collection[str],
) -> list[str]:
    """Return the missing upgrade operations as lines of Python.

    :param ignored: names of tables that are Alembic's own.
    """
    assert context.connection is not None
    comparison = _Comparison(context, context.connection, models, excluded, ignored)
    found, renamed = comparison.found(comparison.migrated)
    lines = comparison.refusals()
    if found or renamed:
        writer = Writer(context, comparison.known, comparison.columns, comparison.migrated, comparison.modelled)
        proposals = writer.write(found, renamed)
        lines += proved(context, proposals, lambda: comparison.unmended(renamed), writer.write)
    return lines


class _Comparison:
    def __init__(
        self,
        context: MigrationContext,
        connection: Connection,
        models: Sequence[MetaData],
        excluded: Callable[[Item], bool],
        ignored: Collection[str],
    ) -> None:
        self._connection = connection
        self._ignored = ignored
        default_schema = connection.execute(text("SELECT current_schema()")).scalar_one()
        self.migrated = schema_state.take(connection, ignored=ignored)
        self.known = known = Models(models, default_schema, connection.dialect)
        reflected = Reflected(connection, known)
        self._passes = passes = Filters(context, known, reflected, excluded)
        self.columns = Columns(context, given_options(context), known, reflected)
        self._owned = owned_sequences(connection)
        migrated = self.migrated
        relations = {(item.schema, item.name): item.kind for item in migrated if item.kind in schema_state.WHOLES}
        tables = [
            table
            for key, table in known.tables.items()
            # A table that is mapped to a view is not a table to create.
            if relations.get(key, "table") == "table" and passes.model_table(table, exists=key in relations)
        ]
        dropped = [
            (item.schema, item.name)
            for item in migrated
            if item.kind == "table" and self._counts(Difference(item, migrated[item], None))
        ]

        def counts(part: Item) -> bool:
            return passes.model_part(part, migrated)

        with replaced(connection, dropped, known, tables, counts) as self.refused:
            modelled = schema_state.take(connection, ignored=ignored)
        # The models' place keeps the enums and sequences that no model knows; in the comparison they are left over.
        names = known.named(connection)
        self.modelled = {
            item: definition
            for item, definition in modelled.items()
            if item.part or item.kind not in ("enum", "sequence") or (item.schema, item.name) in names
        }

    def found(self, migrated: SchemaState) -> tuple[list[Difference], list[tuple[Item, Item]]]:
        """What differs, and which constraints and indexes only have another name."""
        differences = [
            difference
            for difference in schema_state.differences(migrated, self.modelled)
            if difference.item.kind in _KINDS
            and self._matters(difference, migrated)
            and not self._is_refused(difference)
        ]
        # Before env.py is asked: Alembic does not ask it about names that the models leave to the server.
        differences, renamed = self._renamed(differences)
        if self.columns.asks_env_py:  # whose answer may be that what looks the same differs
            differences += [
                Difference(item, definition, definition)
                for item, definition in migrated.items()
                if item.kind == "column" and self.modelled.get(item) == definition and self.known.find(item) is not None
            ]
        return (
            [each for each in differences if self._counts(each) and self._differs(each)],
            [(old, new) for old, new in renamed if self._counts(Difference(new, None, ""))],
        )

    def _differs(self, difference: Difference) -> bool:
        """Whether a column that both have differs for the server and for env.py."""
        item, before, after = difference
        if item.kind != "column" or before is None or after is None:
            return True
        return bool(self.columns.differing(item, before, after))

    def unmended(self, renamed: list[tuple[Item, Item]]) -> list[Difference]:
        """What of the findings is still there, in a database that was changed."""
        now, still_renamed = self.found(schema_state.take(self._connection, ignored=self._ignored))
        names = {new for _, new in still_renamed}
        return [*now, *(Difference(old, "another name", None) for old, new in renamed if new in names)]

    def refusals(self) -> list[str]:
        """One line for each thing of the models that the server refuses to make."""
        return [
            f"# {item} of the models cannot be made: {reason}"
            for item, reason in self.refused.items()
            if reason and self._counts(Difference(item, None, ""))
        ]

    def _counts(self, difference: Difference) -> bool:
        item, before, after = difference
        return self._passes(item, before=before is not None, after=after is not None, migrated=self.migrated)

    def _matters(self, difference: Difference, migrated: SchemaState) -> bool:
        item, before, after = difference
        if item.kind == "table":  # storage options, row security and partitions are the migrations' own
            return (before is None or after is None) and not _is_partition(item, migrated)
        if item.kind == "schema":
            return before is None
        if item.kind == "enum":
            return True
        if item.kind == "sequence" and not item.part:
            return before is not None or (item.schema, item.name) not in self._owned
        if item.kind == "sequence":  # that of a serial column follows the column; an identity has options of its own
            column = Item("column", item.schema, item.name, item.part)
            return "IDENTITY" in migrated.get(column, "") and "IDENTITY" in self.modelled.get(column, "")
        if item.kind == "comment" and item.name.startswith(("schema ", "type ", "function ", "index ")):
            return False
        table = Item("table", item.schema, item.name)
        if table not in migrated and table not in self.modelled:
            return False
        return not _is_partition(table, migrated)

    def _is_refused(self, difference: Difference) -> bool:
        item = difference.item
        for refused in self.refused:
            if (refused.schema, refused.name) != (item.schema, item.name):
                continue
            if refused == item or refused.kind == "table":
                return True
            if refused.kind == "column" and item.part == refused.part:
                return True
            if refused.part.startswith("on ") and refused.kind == item.kind and difference.after is None:
                return True
        return False

    def _renamed(self, found: list[Difference]) -> tuple[list[Difference], list[tuple[Item, Item]]]:
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
                    if self.known.names(new.item):
                        renamed.append((old.item, new.item))
                    break
        return rest, renamed


def _is_partition(table: Item, migrated: SchemaState) -> bool:
    return bool(_PARTITION.match(migrated.get(table, "")))


def _nameless(item: Item, definition: str | None) -> str:
    definition = definition or ""
    if item.kind in _NAMED_IN_DEFINITION:
        return re.sub(r'INDEX ("(?:[^"]|"")+"|\S+) ON', "INDEX ON", definition, count=1)
    return definition
