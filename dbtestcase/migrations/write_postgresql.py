"""What is missing on PostgreSQL, written as the operations of a revision."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from alembic.operations import ops
from sqlalchemy import ARRAY, Column, Constraint, Enum, Index, MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import DOMAIN

from dbtestcase.drivers import creates_itself
from dbtestcase.migrations import beside_tables, undo
from dbtestcase.migrations.alter_column import added, altered, around_dependents, identity_options
from dbtestcase.migrations.columns import Columns, Definition, owned_sequences, parsed
from dbtestcase.migrations.enums import alter_enum
from dbtestcase.migrations.models import Models
from dbtestcase.migrations.naming import execute, qualified, quoted
from dbtestcase.migrations.proof import Proposal
from dbtestcase.migrations.schema_state import Difference, Item, SchemaState
from dbtestcase.migrations.write import written
from dbtestcase.migrations.write_beside import BesideTables

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

__all__ = ["Writer"]

_ORDER = (
    "schema",
    "extension",
    "enum",
    "domain",
    "sequence",
    "table",
    "column",
    "primary key",
    "unique constraint",
    "foreign key",
)
_READERS = ("view", "materialized view", "trigger", "rule", "policy", "statistics", "publication")
_REFERRED = ("table", "column", "primary key", "unique constraint", "index")  # what a foreign key needs there


class Writer:
    """Writes differences (``before``: migrated, ``after``: as the models want it) as proposals, the nicest first."""

    def __init__(
        self,
        context: MigrationContext,
        known: Models,
        columns: Columns,
        migrated: SchemaState,
        modelled: SchemaState,
        sent: Sequence[str],
    ) -> None:
        assert context.connection is not None
        self._context = context
        self._connection = context.connection
        self._known = known
        self._columns = columns
        self._migrated = migrated
        self._modelled = modelled
        self._beside = BesideTables(context.connection, migrated, modelled, sent)

    def write(self, found: Iterable[Difference], renamed: Iterable[tuple[Item, Item]] = ()) -> list[Proposal]:
        """All of it, in an order in which most of it can run."""
        found = list(found)
        missing = sorted((each for each in found if each.before is None), key=self._rank)
        changed = [each for each in found if each.before is not None and each.after is not None]
        gone = [each for each in found if each.after is None]
        proposals = [Proposal(Difference(old, "", None), self._renamed(old, new)) for old, new in renamed]
        # Types are made anew for the columns that have them now, so before there are more; views before their parts.
        wholes = [each for each in changed if each.item.kind in ("enum", "domain", "view", "materialized view")]
        proposals += [Proposal(each, self._changed(each)) for each in wholes]
        # Tables go before others are made, which may need the names of their indexes; their foreign keys before them,
        # for a CASCADE would take those along.
        apart = [each for each in changed if each.item.kind == "foreign key" and _needs_any(each, gone)]
        early = [each for each in gone if each.item.kind in ("foreign key", "table")]
        proposals += self._left_over([*apart, *early])
        # What reads columns comes when they are what it is to read.
        readers = [each for each in missing if each.item.kind in _READERS]
        proposals += [Proposal(each, self._missing(each.item)) for each in missing if each not in readers]
        rest = [each for each in changed if each not in wholes and each not in apart]
        proposals += [Proposal(each, self._changed(each)) for each in rest]
        proposals += self._left_over([each for each in gone if each.item.kind != "comment" and each not in early])
        proposals += [Proposal(Difference(each.item, None, each.after), self._missing(each.item)) for each in apart]
        proposals += [Proposal(each, self._missing(each.item)) for each in readers]
        proposals += [Proposal(each, self._comment(each.item, None)) for each in gone if each.item.kind == "comment"]
        return [
            Proposal(each.difference, [lines for lines in each.alternatives if lines])
            for each in proposals
            if any(each.alternatives)
        ]

    def _rank(self, difference: Difference) -> tuple[int, int, str]:
        item = difference.item
        kind = _ORDER.index(item.kind) if item.kind in _ORDER else len(_ORDER)
        tables = list(self._known.tables)
        key = (item.schema, item.name)
        return kind, tables.index(key) if key in tables else 0, str(item)

    def _renamed(self, old: Item, new: Item) -> list[list[str]]:
        if old.kind == "index":
            return [[execute(f"ALTER INDEX {qualified(old, old.part)} RENAME TO {quoted(new.part)}")]]
        return [[execute(f"ALTER TABLE {qualified(old)} RENAME CONSTRAINT {quoted(old.part)} TO {quoted(new.part)}")]]

    def _left_over(self, gone: list[Difference]) -> list[Proposal]:
        proposals = []
        for each in undo.in_order(Difference(each.item, None, each.before) for each in gone):
            lines = undo.operations([each])
            if each.item.kind == "column" and self._beside.of_type(each.item):
                proposals.append(Proposal(each, [self._beside.attribute(each.item, None)]))
                continue
            plain = undo.drop_statement(each.item)
            alternatives = [lines, *([[execute(plain)], [execute(f"{plain} CASCADE")]] if plain else [])]
            if each.item.kind in ("enum", "sequence"):
                alternatives = [lines]  # what needs it is not to go with it
            proposals.append(Proposal(Difference(each.item, each.after, None), alternatives))
        return proposals

    def _missing(self, item: Item) -> list[list[str]]:
        table = self._known.tables.get((item.schema, item.name))
        subject = self._known.find(item)
        definition = self._modelled[item]
        name = qualified(item)
        if item.kind == "table" and table is not None and creates_itself(table) is None:
            indexes: list[str] = []
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                indexes += self._op(ops.CreateIndexOp.from_index(index))
            return [[*self._op(ops.CreateTableOp.from_table(_with_existing_types(table))), *indexes]]
        if item.kind == "column" and table is not None:
            column = _with_existing_types(table).columns[item.part] if item.part in table.columns else None
            if column is None:  # its key is another than its name
                column = next(c for c in _with_existing_types(table).columns if c.name == item.part)
            return [
                self._op(ops.AddColumnOp.from_column_and_tablename(table.schema, table.name, column)),
                [added(item, parsed(definition))],
            ]
        if item.kind == "column" and self._beside.of_type(item):
            return [self._beside.attribute(item, definition)]
        if item.kind == "column":
            return [[added(item, parsed(definition))]]
        if item.kind == "index":
            alembics = self._op(ops.CreateIndexOp.from_index(subject)) if isinstance(subject, Index) else []
            return [alembics, [execute(definition)]]
        if item.kind == "enum":
            return [[execute(f"CREATE TYPE {name} AS ENUM ({definition})")]]
        if item.kind == "sequence":
            return [[]] if item.part else [[execute(f"CREATE SEQUENCE {name} AS {definition}")]]
        if item.kind == "comment":
            return self._comment(item, definition)
        if item.kind == "schema":
            return [[execute(f"CREATE SCHEMA {quoted(item.name)}")]]
        if item.kind in beside_tables.KINDS or item.kind == "table":
            return self._beside.missing(item)
        if Item("domain", item.schema, item.name) in self._modelled:
            return [[execute(f"ALTER DOMAIN {name} ADD CONSTRAINT {quoted(item.part)} {definition}")]]
        sql = [execute(f"ALTER TABLE {name} ADD CONSTRAINT {quoted(item.part)} {definition}")]
        if item.kind in ("unique constraint", "foreign key") and isinstance(subject, Constraint):
            return [self._op(ops.AddConstraintOp.from_constraint(subject)), sql]
        if item.kind == "check constraint":
            condition = re.sub(r"^CHECK \((.*)\)$", r"\1", definition, flags=re.DOTALL)
            schema = self._schema(item)
            return [[f"op.create_check_constraint({item.part!r}, {item.name!r}, {condition!r}{schema})"], sql]
        return [sql]

    def _changed(self, difference: Difference) -> list[list[str]]:
        item, before, after = difference
        assert before is not None and after is not None
        name = qualified(item)
        if item.kind == "column" and self._beside.of_type(item):
            return [self._beside.attribute(item, after, changes=True)]
        if item.kind == "column":
            return self._changed_column(item, before, after)
        if item.kind == "comment":
            return self._comment(item, after)
        if item.kind == "enum":
            return [alter_enum(item, before, after, self._migrated)]
        if item.kind == "sequence":
            if item.part:
                return [identity_options(item, after)]
            cycle = "" if after.endswith("CYCLE") else " NO CYCLE"
            return [[execute(f"ALTER SEQUENCE {name} AS {after}{cycle}")]]
        if item.kind in beside_tables.KINDS or item.kind == "table":
            return self._beside.changed(item, before, after)
        if before == f"{after} NOT VALID":
            return [[execute(f"ALTER TABLE {name} VALIDATE CONSTRAINT {quoted(item.part)}")]]
        if Item("domain", item.schema, item.name) in self._modelled:
            return [[execute(f"ALTER DOMAIN {name} DROP CONSTRAINT {quoted(item.part)}"), *self._missing(item)[0]]]
        dropped = Difference(item, None, before)
        plain = undo.drop_statement(item)
        made = self._missing(item)
        alternatives = [[*undo.operations([dropped]), *lines] for lines in made]
        return [*alternatives, *([[execute(f"{plain} CASCADE"), *made[-1]]] if plain else [])]

    def _changed_column(self, item: Item, before: str, after: str) -> list[list[str]]:
        old, new = parsed(before), parsed(after)
        column = self._known.find(item)
        if not isinstance(column, Column):  # of a table that a listener has made
            parts = {name for name in old._fields if getattr(old, name) != getattr(new, name)}
            return [altered(item, old, new, parts, None)]
        parts = self._columns.differing(item, before, after)
        was = [f"# was {before}"]
        if "computed" in parts:
            again = [f"op.drop_column({item.name!r}, {item.part!r}{self._schema(item)})"]
            keeps = [execute(f"ALTER TABLE {qualified(item)} ALTER COLUMN {quoted(item.part)} DROP EXPRESSION")]
            ways = [[*was, *again, *lines] for lines in self._missing(item)]
            return [[*was, *keeps], *ways] if new.computed is None else ways
        sequence = self._owned_sequence(item)
        by_sql = altered(item, old, new, parts, sequence)
        ways = [[*was, *by_sql]] if by_sql else []
        if not parts - {"type", "not_null", "default"}:
            options: dict[str, Any] = {"existing_type": column.type}
            if "type" in parts:
                options = {"modify_type": _existing(column.type)}
            if "not_null" in parts:
                options["modify_nullable"] = column.nullable
            if "default" in parts:
                options["modify_server_default"] = column.server_default
            schema = column.table.schema
            ways.insert(0, [*was, *self._op(ops.AlterColumnOp(item.name, item.part, schema=schema, **options))])
        around = around_dependents(self._connection, item, self._generated(item), self._migrated)
        if any(around):
            ways.append([*was, *around[0], *by_sql, *around[1]])
        return ways

    def _generated(self, item: Item) -> dict[str, Definition]:
        columns = {each.part: d for each, d in self._modelled.items() if each[:3] == item[:3]}
        found = {name: parsed(definition) for name, definition in columns.items()}
        return {name: definition for name, definition in found.items() if definition.computed}

    def _owned_sequence(self, item: Item) -> str | None:
        owner = (item.schema, item.name, item.part)
        for (schema, name), each in owned_sequences(self._connection).items():
            if each == owner:
                return qualified(Item("sequence", schema, name))
        return None

    def _comment(self, item: Item, comment: str | None) -> list[list[str]]:
        schema = self._schema(item)
        sql = self._beside.comment(item, comment)
        on_table = Item("table", item.schema, item.name) in {**self._modelled, **self._migrated}
        if not on_table or item.part.startswith(("constraint ", "trigger ")):
            return [[sql]]
        if item.part:
            return [[f"op.alter_column({item.name!r}, {item.part!r}, comment={comment!r}{schema})"], [sql]]
        if comment is None:
            return [[f"op.drop_table_comment({item.name!r}{schema})"]]
        return [[f"op.create_table_comment({item.name!r}, {comment!r}{schema})"]]

    def _schema(self, item: Item) -> str:
        return f", schema={item.schema!r}" if item.schema != self._known.default_schema else ""

    def _op(self, operation: ops.MigrateOperation) -> list[str]:
        return written(self._context, operation)


def _needs_any(key: Difference, gone: Iterable[Difference]) -> bool:
    """Whether a foreign key refers to a table that goes, or to one of which a column or a key goes."""
    names = {_referred(each.item) for each in gone if each.item.kind in _REFERRED}
    return any(f" REFERENCES {name}(" in f"{key.before}" for name in names)


def _referred(item: Item) -> str:
    """The table as the server writes it in a foreign key, always with its schema."""
    return f"{quoted(item.schema)}.{quoted(item.name)}"


def _with_existing_types(table: Table) -> Table:
    """A copy whose enums and domains are not made with it: they are there, or made before it."""
    copy = table.to_metadata(MetaData(naming_convention=table.metadata.naming_convention))
    for column in copy.columns:
        column.type = _existing(column.type)
    return copy


def _existing(type_: Any) -> Any:
    if isinstance(type_, ARRAY) and isinstance(type_.item_type, Enum):
        return postgresql.ARRAY(_existing(type_.item_type), dimensions=type_.dimensions)
    if isinstance(type_, Enum) and type_.native_enum:
        return postgresql.ENUM(*type_.enums, name=type_.name, schema=type_.schema, create_type=False)
    if isinstance(type_, DOMAIN):
        existing = type_.copy()  # type: ignore[no-untyped-call]
        existing.create_type = False
        return existing
    return type_
