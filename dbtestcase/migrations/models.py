"""The models' tables by the names that the server knows them by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from sqlalchemy import Column, Connection, Constraint, Dialect, Index, MetaData, Table, text
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.schema import (
    CheckConstraint,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    UniqueConstraint,
    sort_tables_and_constraints,
)
from sqlalchemy.schema import Sequence as SchemaSequence
from sqlalchemy.types import ARRAY, SchemaType, TypeDecorator, TypeEngine

from ..drivers import sequences_of
from .schema_state import Item

#: What the server's kinds are in a model.
CONSTRAINTS: dict[str, type[Constraint]] = {
    "primary key": PrimaryKeyConstraint,
    "unique constraint": UniqueConstraint,
    "foreign key": ForeignKeyConstraint,
    "check constraint": CheckConstraint,
    "exclusion constraint": ExcludeConstraint,
}

_POSITIONS = text(
    """
    SELECT nspname, relname, attname FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = r.relnamespace
    WHERE r.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname !~ '^(pg_|information_schema)'
    ORDER BY a.attrelid, a.attnum
    """
)


class Models:
    """The tables of one or several ``MetaData``."""

    def __init__(self, models: Sequence[MetaData], default_schema: str, dialect: Dialect) -> None:
        self.default_schema = default_schema
        self._models = models
        self._preparer = dialect.identifier_preparer
        self.tables: dict[tuple[str, str], Table] = {
            (table.schema or default_schema, table.name): table
            for metadata in models
            for table, _ in sort_tables_and_constraints(metadata.tables.values())  # type: ignore[no-untyped-call]
            if table is not None
        }

    def key(self, table: Table) -> tuple[str, str]:
        """Schema and name of a table."""
        return table.schema or self.default_schema, table.name

    @property
    def schemas(self) -> set[str]:
        """The schemas that the models have tables in."""
        return {schema for schema, _ in self.tables}

    def find(self, item: Item) -> Column[Any] | Constraint | Index | None:
        """The model's own object for a part of a table, where it has one of that name."""
        table = self.tables.get((item.schema, item.name))
        if table is None:
            return None
        if item.kind in ("column", "comment", "sequence"):
            return next((column for column in table.columns if column.name == item.part), None)
        if item.kind == "index":
            return next((index for index in table.indexes if self.name(index) == item.part), None)
        return next((each for each in table.constraints if self.name(each) == item.part), None)

    def sequences(self, tables: Sequence[Table] | None = None) -> list[SchemaSequence]:
        """The sequences that ``create_all`` makes, those of other tables than ``tables`` left out."""
        passed_over = {
            column.default
            for table in self.tables.values()
            if tables is not None and table not in tables
            for column in table.columns
        }
        return [
            sequence
            for metadata in self._models
            for sequence in sequences_of(metadata)
            if sequence not in passed_over and not sequence.optional
        ]

    def named(self, connection: Connection) -> set[tuple[str, str]]:
        """Schema and name of every enum and sequence that the models use."""
        found = {(sequence.schema or self.default_schema, str(sequence.name)) for sequence in self.sequences()}
        for table in self.tables.values():
            for type_ in named_types(table, connection):
                found.add((type_.schema or self.default_schema, str(type_.name)))
        return found

    def positions(self, connection: Connection) -> dict[tuple[str, str], list[str]]:
        """The columns of the migrated tables in their order."""
        found: dict[tuple[str, str], list[str]] = {key: [] for key in self.tables}
        for schema, table, column in connection.execute(_POSITIONS):
            if (schema, table) in found:
                found[schema, table].append(column)
        return found

    def names(self, item: Item) -> bool:
        """Whether the models say themselves what this constraint is called."""
        return self.find(item) is not None

    def name(self, named: Constraint | Index) -> str | None:
        """What a constraint or an index is called on the server; ``None`` where the server is to say."""
        if named.name is None:
            return None
        preparer = self._preparer
        formatted: str | None  # a naming convention may give no name
        formatted = preparer.format_index(named) if isinstance(named, Index) else preparer.format_constraint(named)
        return formatted.strip('"') if formatted is not None else None


def named_types(table: Table, connection: Connection) -> Iterator[SchemaType]:
    """The types of a table's columns that the server knows by a name: enums and domains."""
    for column in table.columns:
        type_: TypeEngine[object] = column.type
        while isinstance(type_, (TypeDecorator, ARRAY)):
            type_ = type_.impl_instance if isinstance(type_, TypeDecorator) else type_.item_type
        if isinstance(type_, SchemaType) or hasattr(type_, "create_type"):
            implementation = type_.dialect_impl(connection.dialect)
            # An enum is compared whoever makes it, a domain where the models say that they do.
            makes = getattr(implementation, "create_type", None)
            if makes or (makes is not None and hasattr(implementation, "enums")):
                yield cast(SchemaType, implementation)
