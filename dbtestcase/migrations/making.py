"""Everything that models say, made by statements of our own."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqlalchemy import Connection, Constraint, Index, Table, text
from sqlalchemy.schema import (
    CreateIndex,
    CreateSchema,
    CreateSequence,
    CreateTable,
    ExecutableDDLElement,
    ForeignKeyConstraint,
    SetColumnComment,
    SetConstraintComment,
    SetTableComment,
)

from ..drivers import creates_itself
from .beside_tables import drop_all
from .listeners import Listeners
from .models import Models, named_types
from .schema_state import Item


class Maker:
    """Makes everything of the models by statements of its own, and calls their listeners between them."""

    def __init__(self, connection: Connection, known: Models, tables: Collection[Table], listeners: Listeners) -> None:
        self.connection = connection
        self.known = known
        self.tables = tables
        self.listeners = listeners
        self._order = known.positions(connection) if listeners else {}

    def make(self, instead_of: Collection[Item]) -> bool:
        """Make all of it in the place of something; False where that fails, and nothing has changed."""
        try:
            with self.connection.begin_nested():
                self.drop(instead_of)
                self._make()
        except Exception:
            return False
        return True

    def drop(self, items: Collection[Item]) -> None:
        """Drop migrated things, and what the models are going to make of the same names."""
        connection = self.connection
        for statement in drop_all(items):
            self.send(statement)
        preparer = connection.dialect.identifier_preparer
        for sequence in self.known.sequences(list(self.tables)):
            self.send(f"DROP SEQUENCE IF EXISTS {preparer.format_sequence(sequence)} CASCADE")
        for table in self.tables:
            for type_ in named_types(table, connection):
                kind = "TYPE" if hasattr(type_, "enums") else "DOMAIN"
                name = preparer.format_type(type_)  # type: ignore[attr-defined]
                self.send(f"DROP {kind} IF EXISTS {name} CASCADE")

    def _make(self) -> None:
        connection, known, tables = self.connection, self.known, self.tables
        for schema in sorted({table.schema for table in tables if table.schema}):
            connection.execute(CreateSchema(schema, if_not_exists=True))
        for _, call in self.listeners.of_models("before_create"):
            call()
        for sequence in known.sequences(list(tables)):
            connection.execute(CreateSequence(sequence))
        for table in tables:
            for type_ in named_types(table, connection):
                type_.create(connection, checkfirst=True)
        for table in tables:
            for _, call in self.listeners.calls(table, "before_create"):
                call()
            self.create_table(table)
            for index in self.indexes(table):
                CreateIndex(index)(index, connection)
            for element in self.comments(table):
                connection.execute(element)
            for _, call in self.listeners.calls(table, "after_create"):
                call()
        for table in tables:
            for constraint in table.constraints:
                if isinstance(constraint, ForeignKeyConstraint):
                    self.add(table, constraint)
        for _, call in self.listeners.of_models("after_create"):
            call()

    def create_table(self, table: Table) -> None:
        """Make a table, or the view that it is, with its columns in the order of the migrated one."""
        itself = creates_itself(table)
        if itself is not None:
            itself(table, self.connection)
            return
        element = CreateTable(table, include_foreign_key_constraints=[])
        order = self._order.get(self.known.key(table), ())  # a view of all columns has them in this order
        places = {name: place for place, name in enumerate(order)}
        element.columns.sort(key=lambda column: places.get(column.element.name, len(places)))
        self.connection.execute(element)

    def add(self, table: Table, constraint: Constraint) -> None:
        """Add a constraint to a table that is there."""
        # Not AddConstraint, which marks the application's own object before SQLAlchemy 2.0.39.
        dialect = self.connection.dialect
        clause = dialect.ddl_compiler(dialect, None).process(constraint)  # type: ignore[arg-type]
        if clause:
            self.send(f"ALTER TABLE {dialect.identifier_preparer.format_table(table)} ADD {clause}")

    def send(self, statement: str) -> None:
        """Send SQL that has no parameters."""
        self.connection.execute(text(statement.replace(":", "\\:")))

    @staticmethod
    def indexes(table: Table) -> list[Index]:
        """The indexes of a table, in an order that is the same each time."""
        return sorted(table.indexes, key=lambda index: str(index.name))

    @staticmethod
    def comments(table: Table) -> Iterator[ExecutableDDLElement]:
        """The comments on a table and its parts."""
        if creates_itself(table) is not None:
            return
        for constraint in table.constraints:
            if constraint.comment is not None and constraint.name is not None:
                yield SetConstraintComment(constraint)
        if table.comment is not None:
            yield SetTableComment(table)
        for column in table.columns:
            if column.comment is not None:
                yield SetColumnComment(column)
