"""Everything that models say, made by statements of our own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial

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
                self.create()
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

    def create(self) -> None:
        """Make all of it in the order of ``create_all()``."""
        connection, known, tables = self.connection, self.known, self.tables
        for schema in sorted({table.schema for table in tables if table.schema}):
            element = CreateSchema(schema, if_not_exists=True)
            self._attempt(Item("schema", schema, schema), partial(connection.execute, element))
        self._call("before_create")
        for sequence in known.sequences(list(tables)):
            item = Item("sequence", sequence.schema or known.default_schema, str(sequence.name))
            self._attempt(item, partial(connection.execute, CreateSequence(sequence)))
        for table in tables:
            for type_ in named_types(table, connection):
                kind = "enum" if hasattr(type_, "enums") else "domain"
                item = Item(kind, type_.schema or known.default_schema, str(type_.name))
                self._attempt(item, partial(type_.create, connection, checkfirst=True))
        made = [table for table in tables if self._whole(table)]
        for table in made:
            for constraint in table.constraints:
                if isinstance(constraint, ForeignKeyConstraint):
                    self._part("foreign key", table, constraint, partial(self.add, table, constraint))
        self._call("after_create")

    def _whole(self, table: Table) -> bool:
        """A table with all that is told with it but its foreign keys."""
        self._call("before_create", table)
        if not self._table(table):
            return False
        for index in self.indexes(table):
            self._part("index", table, index, partial(CreateIndex(index), index, self.connection))
        for element in self.comments(table):
            self._attempt(None, partial(self.connection.execute, element))
        self._call("after_create", table)
        return True

    # -- how each thing is made: here what fails is raised

    def _attempt(self, item: Item | None, make: Callable[[], object]) -> bool:
        """Make something; whether it is there."""
        make()
        return True

    def _part(self, kind: str, table: Table, part: Constraint | Index, make: Callable[[], object]) -> None:
        """Make a part of a table."""
        make()

    def _table(self, table: Table) -> bool:
        """Make a table; whether it is there."""
        self.create_table(table)
        return True

    def _call(self, moment: str, table: Table | None = None) -> None:
        """Call the listeners of a table, or those of every ``MetaData``."""
        for _, call in self._calls(moment, table):
            call()

    def _calls(self, moment: str, table: Table | None) -> Iterator[tuple[str, Callable[[], object]]]:
        return self.listeners.of_models(moment) if table is None else self.listeners.calls(table, moment)

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
