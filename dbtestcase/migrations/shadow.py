"""The models' tables made for a moment where the migrated ones are, for the server to say what they come to.

Comparing the text of a CHECK constraint or of a default in Python cannot be right: the server rewrites both.  So the
migrated tables are dropped and the models' created inside a savepoint, both are looked at with the same query, and the
savepoint is rolled back.  Everything but tables, their enums and the sequences of the models stays as the migrations
made it: functions, extensions, domains and schemas that a model's constraint may need.

All is made at once.  Where the server refuses something, it is made again piece by piece: the pieces that cannot be
made are named with the server's reason, and the rest can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Constraint, Index, Table, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import (
    CreateIndex,
    CreateSchema,
    CreateSequence,
    CreateTable,
    ForeignKeyConstraint,
    SetColumnComment,
    SetConstraintComment,
    SetTableComment,
)

from dbtestcase.drivers import constraints_of
from dbtestcase.migrations.models import CONSTRAINTS, Models, named_types
from dbtestcase.migrations.schema_state import Item

__all__ = ["replaced"]

_KIND_OF = {kind: name for name, kind in CONSTRAINTS.items()}
_UNDEFINED_COLUMN = "42703"


@contextmanager
def replaced(
    connection: Connection,
    dropped: Collection[tuple[str, str]],
    known: Models,
    tables: Collection[Table],
    counts: Callable[[Item], bool],
) -> Iterator[dict[Item, str]]:
    """Put the models' tables in the place of the migrated ones while the block lasts.

    :param dropped: schema and name of every migrated table.
    :param counts: which parts of the tables are to be made, where not everything can be.
    :returns: what could not be made, with the server's reason.
    """
    transaction = connection.begin_nested() if connection.in_transaction() else connection.begin()
    try:
        refused: dict[Item, str] = {}
        try:
            with connection.begin_nested():
                _drop(connection, dropped, known, tables)
                _create(connection, known, tables)
        except SQLAlchemyError:
            _drop(connection, dropped, known, tables)
            refused = _Piecemeal(connection, known, counts).create(tables)
        yield refused
    finally:
        transaction.rollback()


def _drop(
    connection: Connection, dropped: Collection[tuple[str, str]], known: Models, tables: Collection[Table]
) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    if dropped:
        names = ", ".join(f"{quote(schema)}.{quote(name)}" for schema, name in dropped)
        _execute(connection, f"DROP TABLE IF EXISTS {names} CASCADE")
    format_sequence = connection.dialect.identifier_preparer.format_sequence
    for sequence in known.sequences(list(tables)):
        _execute(connection, f"DROP SEQUENCE IF EXISTS {format_sequence(sequence)} CASCADE")
    format_type = connection.dialect.identifier_preparer.format_type  # type: ignore[attr-defined]
    for table in tables:
        for type_ in named_types(table, connection):
            if hasattr(type_, "enums"):  # domains stay: a constraint of theirs is not the models' to say
                _execute(connection, f"DROP TYPE IF EXISTS {format_type(type_)} CASCADE")


def _create(connection: Connection, known: Models, tables: Collection[Table]) -> None:
    """Statements rather than create_all(), which would run the application's own listeners."""
    for schema in sorted({table.schema for table in tables if table.schema}):
        connection.execute(CreateSchema(schema, if_not_exists=True))
    for sequence in known.sequences(list(tables)):
        connection.execute(CreateSequence(sequence))
    for table in tables:
        for type_ in named_types(table, connection):
            type_.create(connection, checkfirst=True)
    for table in tables:
        connection.execute(CreateTable(table, include_foreign_key_constraints=[]))
        for index in _indexes(table):
            connection.execute(CreateIndex(index))
    for table in tables:
        for constraint in table.constraints:
            if isinstance(constraint, ForeignKeyConstraint):
                _add(connection, table, constraint)
        _comment(connection, table)


def _indexes(table: Table) -> list[Index]:
    return sorted(table.indexes, key=lambda index: str(index.name))


def _add(connection: Connection, table: Table, constraint: Constraint) -> None:
    # Not AddConstraint, which marks the application's own object before SQLAlchemy 2.0.39.
    clause = connection.dialect.ddl_compiler(connection.dialect, None).process(constraint)  # type: ignore[arg-type]
    if clause:
        name = connection.dialect.identifier_preparer.format_table(table)
        _execute(connection, f"ALTER TABLE {name} ADD {clause}")


def _comment(connection: Connection, table: Table) -> None:
    for constraint in table.constraints:
        if constraint.comment is not None and constraint.name is not None:
            connection.execute(SetConstraintComment(constraint))
    if table.comment is not None:
        connection.execute(SetTableComment(table))
    for column in table.columns:
        if column.comment is not None:
            connection.execute(SetColumnComment(column))


def _execute(connection: Connection, statement: str) -> None:
    connection.execute(text(statement.replace(":", "\\:")))


class _Piecemeal:
    """Makes what can be made, each piece in a savepoint of its own."""

    def __init__(self, connection: Connection, known: Models, counts: Callable[[Item], bool]) -> None:
        self._connection = connection
        self._known = known
        self._counts = counts
        self._incomplete: set[Table] = set()
        self.refused: dict[Item, str] = {}

    def create(self, tables: Collection[Table]) -> dict[Item, str]:
        connection, known = self._connection, self._known
        for schema in sorted({table.schema for table in tables if table.schema}):
            self._try(Item("schema", schema, schema), partial(self._schema, schema))
        for sequence in known.sequences(list(tables)):
            item = Item("sequence", sequence.schema or known.default_schema, str(sequence.name))
            self._try(item, partial(connection.execute, CreateSequence(sequence)))
        for table in tables:
            for type_ in named_types(table, connection):
                item = Item("enum", type_.schema or known.default_schema, str(type_.name))
                self._try(item, partial(type_.create, connection, checkfirst=True))
        made = [table for table in tables if self._table(table)]
        for table in made:
            for index in _indexes(table):
                self._part("index", table, index, partial(connection.execute, CreateIndex(index)))
        for table in made:
            for constraint in table.constraints:
                if isinstance(constraint, ForeignKeyConstraint):
                    self._part("foreign key", table, constraint, self._adding(table, constraint))
            for element in self._comments(table):
                self._try(None, partial(connection.execute, element))
        return self.refused

    def _schema(self, schema: str) -> None:
        self._connection.execute(CreateSchema(schema, if_not_exists=True))

    def _table(self, table: Table) -> bool:
        """Make a table, of as many of its parts as there can be; whether there is one."""
        item = Item("table", *self._known.key(table))
        if not self._misses(table) and self._try(
            None, lambda: self._connection.execute(CreateTable(table, include_foreign_key_constraints=[]))
        ):
            return True
        columns = [each.name for each in table.columns if self._counts(Item("column", *item[1:3], each.name))]
        if not self._try(None, partial(self._create, table, columns)):
            columns = [name for name in columns if self._makes(table, item, name)]
            if not self._try(item, partial(self._create, table, columns)):
                return False
        if len(columns) < len(table.columns):
            self._incomplete.add(table)
        for constraint in constraints_of(table):
            kind = next((name for type_, name in _KIND_OF.items() if isinstance(constraint, type_)), None)
            if kind is not None and kind != "foreign key" and not (kind == "primary key" and not constraint.columns):
                self._part(kind, table, constraint, self._adding(table, constraint))
        return True

    def _misses(self, table: Table) -> bool:
        key = self._known.key(table)
        return any(not self._counts(Item("column", *key, column.name)) for column in table.columns)

    def _makes(self, table: Table, item: Item, column: str) -> bool:
        """Whether a table of this one column can be made; it is not left."""
        part = Item("column", item.schema, item.name, column)
        partition_by = table.dialect_options["postgresql"].get("partition_by")
        if partition_by and column in partition_by:
            return True
        try:
            with self._connection.begin_nested() as savepoint:
                self._create(table, [column], options=False)
                savepoint.rollback()
        except SQLAlchemyError as error:
            self.refused[part] = _reason(error)
            return False
        return True

    def _create(self, table: Table, columns: list[str], *, options: bool = True) -> None:
        """The table of these columns, without constraints."""
        dialect = self._connection.dialect

        class WithoutConstraints(dialect.ddl_compiler):  # type: ignore[name-defined, misc]
            def create_table_constraints(self, *_: Any, **__: Any) -> str:
                return ""

            def post_create_table(self, table: Table) -> str:
                return str(super().post_create_table(table)) if options else ""

        element = CreateTable(table)
        element.columns = [column for column in element.columns if column.element.name in columns]
        _execute(self._connection, str(WithoutConstraints(dialect, element)))

    def _adding(self, table: Table, constraint: Constraint) -> Callable[[], object]:
        return lambda: _add(self._connection, table, constraint)

    def _part(self, kind: str, table: Table, part: Constraint | Index, make: Callable[[], object]) -> None:
        name = self._known.name(part) or f"on {', '.join(c.name for c in getattr(part, 'columns', ()))}"
        item = Item(kind, *self._known.key(table), name)
        if self._counts(item):
            self._try(item, make, table)

    def _try(self, item: Item | None, make: Callable[[], object], table: Table | None = None) -> bool:
        try:
            with self._connection.begin_nested():
                make()
        except SQLAlchemyError as error:
            state = getattr(getattr(error, "orig", None), "sqlstate", None)
            follows = table in self._incomplete and state == _UNDEFINED_COLUMN
            if item is not None and not (follows and item.kind != "column"):
                self.refused[item] = _reason(error)
            elif item is not None:
                self.refused[item] = ""  # named already, with its column
            return False
        return True

    def _comments(self, table: Table) -> Iterator[Any]:
        for constraint in table.constraints:
            if constraint.comment is not None and constraint.name is not None:
                yield SetConstraintComment(constraint)
        if table.comment is not None:
            yield SetTableComment(table)
        for column in table.columns:
            if column.comment is not None:
                yield SetColumnComment(column)


def _reason(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
