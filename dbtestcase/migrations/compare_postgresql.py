"""The comparison on PostgreSQL: two snapshots, one of the migrated tables and one of the models' in their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, MetaData, text

from ..drivers import creates_itself
from . import beside_tables, schema_state, schema_state_postgresql  # noqa: F401  registers itself
from .beside_tables import owner_of
from .columns import Columns, owned_sequences
from .environment import given_options
from .filters import Filters, Reflected
from .listeners import Listeners, made_by
from .making import Maker
from .models import CONSTRAINTS, Models
from .proof import proved
from .schema_state import Difference, Item, SchemaState
from .shadow import replaced
from .write_postgresql import Writer

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

# What tables say.  Of what stands beside them the models' listeners may say some: the rest is the migrations' own.
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
_NAMED_IN_DEFINITION = {
    "index": re.compile(r'(?<=INDEX )("(?:[^"]|"")+"|\S+) (?=ON )'),
    "trigger": re.compile(r'(?<=TRIGGER )("(?:[^"]|"")+"|\S+) '),
    "rule": re.compile(r'(?<=RULE )("(?:[^"]|"")+"|\S+) '),
}
_RENAMED = {*CONSTRAINTS, "index", *beside_tables.OF_TABLES}
_SAID = ("UNLOGGED", "PARTITION BY", "INHERITS")  # of a table as a whole
_PARTITION = re.compile(r"INHERITS .* (FOR VALUES|DEFAULT)", re.DOTALL)


def missing_operations(
    context: MigrationContext,
    models: Sequence[MetaData],
    excluded: Callable[[Item], bool],
    ignored: Collection[str],
    complete: Collection[str] = (),
) -> list[str]:
    """Return the missing upgrade operations as lines of Python.

    :param ignored: names of tables that are Alembic's own.
    :param complete: the kinds beside tables of which the models say all that there is.
    """
    assert context.connection is not None
    comparison = _Comparison(context, context.connection, models, excluded, ignored, complete)
    found, renamed = comparison.found(comparison.migrated)
    lines = comparison.refusals()
    if found or renamed:
        writer = Writer(
            context, comparison.known, comparison.columns, comparison.migrated, comparison.modelled, comparison.sent
        )
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
        complete: Collection[str],
    ) -> None:
        self._connection = connection
        self._complete = complete
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
            if (relations.get(key, "table") == "table" or creates_itself(table) is not None)
            and passes.model_table(table, exists=key in relations)
        ]
        alone = {"table", "enum", "sequence", *beside_tables.WHOLES} - {"extension"}
        apart = [item for item in migrated if item.kind in alone and not item.part]
        counted = [item for item in apart if self._counts(Difference(item, migrated[item], None))]

        def counts(part: Item) -> bool:
            return passes(part, before=part in migrated, after=True, migrated=migrated)

        listeners = Listeners(connection, models, tables)
        maker = Maker(connection, known, tables, listeners)
        self.sent = listeners.sent
        with replaced(connection, maker, apart, counted, counts, self._look) as shadow:
            modelled = self._look()
        self.refused = shadow.refused
        # What no model is known to make is the migrations' own, or in the models' place left over.
        names = known.named(connection)
        extensions = {each.name for statement in self.sent for each in made_by(statement) if each.kind == "extension"}
        self.modelled = {
            item: definition
            for item, definition in modelled.items()
            if not (item in shadow.kept and definition == migrated[item] and (item.schema, item.name) not in names)
            and not (item.kind == "extension" and item in migrated and item.name not in extensions)
        }

    def _look(self) -> SchemaState:
        return schema_state.take(self._connection, ignored=self._ignored)

    def found(self, migrated: SchemaState) -> tuple[list[Difference], list[tuple[Item, Item]]]:
        """What differs, and which constraints and indexes only have another name."""
        everything = schema_state.differences(migrated, self.modelled)
        differences = [
            difference
            for difference in everything
            if difference.item.kind in _KINDS | beside_tables.KINDS
            and self._matters(difference, migrated)
            and not self._is_refused(difference)
        ]
        # Before env.py is asked: Alembic does not ask it about names that the models leave to the server.
        own = [each for each in everything if each.item.kind in beside_tables.OF_TABLES and each.after is None]
        differences, renamed = self._renamed(differences, own)
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
        if item.kind != "column" or before is None or after is None or self.known.find(item) is None:
            return True
        return bool(self.columns.differing(item, before, after))

    def unmended(self, renamed: list[tuple[Item, Item]]) -> list[Difference]:
        """What of the findings is still there, in a database that was changed."""
        now, still_renamed = self.found(self._look())
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
        if item.kind in beside_tables.KINDS:
            if after is None:
                return item.kind in self._complete
            return before is None or not beside_tables.same(item, before, after)
        if item.kind == "table":  # what more the migrations say of it is their own
            said = before is None or after is None or any(word in after and word not in before for word in _SAID)
            return said and not _is_partition(item, migrated)
        if item.kind == "schema":
            return before is None
        if item.kind == "enum":
            return True
        if item.kind == "sequence" and not item.part:
            return before is not None or (item.schema, item.name) not in self._owned
        if item.kind == "sequence":  # that of a serial column follows the column; an identity has options of its own
            column = Item("column", item.schema, item.name, item.part)
            return "IDENTITY" in migrated.get(column, "") and "IDENTITY" in self.modelled.get(column, "")
        table = Item("table", item.schema, item.name)
        if table not in migrated and table not in self.modelled:
            owner = owner_of(item, self.modelled)
            if item.kind == "column":  # a type is all that is said of it
                return owner is not None and owner.kind == "type"
            return after is not None and (item.kind == "comment" or owner is not None)
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

    def _renamed(
        self, found: list[Difference], own: list[Difference]
    ) -> tuple[list[Difference], list[tuple[Item, Item]]]:
        """Tell what has another name from what is missing or left over.

        A constraint that the models give no name may have any.

        :param own: triggers and the like that only the migrations make: theirs, unless the models' only name it
            otherwise; a second one would do it twice.
        """
        renamed: list[tuple[Item, Item]] = []
        rest = list(found)
        left = [*found, *(each for each in own if each not in found)]
        for new in found:
            if new.before is not None or new.item.kind not in _RENAMED:
                continue
            for old in left:
                same_place = old.item[:3] == new.item[:3] and old.after is None
                if same_place and _nameless(old.item, old.before) == _nameless(new.item, new.after):
                    left.remove(old)
                    rest = [each for each in rest if each not in (old, new)]
                    if self.known.names(new.item) or new.item.kind in beside_tables.OF_TABLES:
                        renamed.append((old.item, new.item))
                    break
        return rest, renamed


def _is_partition(table: Item, migrated: SchemaState) -> bool:
    return bool(_PARTITION.match(migrated.get(table, "")))


def _nameless(item: Item, definition: str | None) -> str:
    name = _NAMED_IN_DEFINITION.get(item.kind)
    return name.sub("", definition or "", count=1) if name is not None else definition or ""
