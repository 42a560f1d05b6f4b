"""The models' tables made for a moment where the migrated ones are, for the server to say what they come to.

Comparing the text of a CHECK constraint or of a default in Python cannot be right: the server rewrites both.  So the
migrated tables are dropped and the models' created inside a savepoint, both are looked at with the same query, and the
savepoint is rolled back.  Everything but tables, their enums and the sequences of the models stays as the migrations
made it: functions, extensions, domains and schemas that a model's constraint may need.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from sqlalchemy import Column, Connection, MetaData, Table, text
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
from sqlalchemy.schema import Sequence as SchemaSequence
from sqlalchemy.types import ARRAY, SchemaType, TypeDecorator, TypeEngine

from dbtestcase.errors import MigrationError

__all__ = ["named_types", "replaced", "sequences_of"]


@contextmanager
def replaced(
    connection: Connection, dropped: Collection[tuple[str, str]], models: Sequence[MetaData], tables: Collection[Table]
) -> Iterator[None]:
    """Put the models' tables in the place of the migrated ones while the block lasts.

    :param dropped: schema and name of every migrated table.
    :param tables: which of the models' tables are to be made.
    :raises MigrationError: one of the models cannot be made.
    """
    transaction = connection.begin_nested() if connection.in_transaction() else connection.begin()
    try:
        _drop(connection, dropped, models, tables)
        try:
            _create(connection, models, tables)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            statement = " ".join(str(getattr(error, "statement", "") or "").split())[:500]
            raise MigrationError(
                f"The models cannot be made in the migrated database: {reason}\n  statement: {statement}",
                cause="A model needs a function, a type or an extension that no revision creates.",
                remedy="Create it in a revision; or pass over the table with `exclude`.",
            ) from error
        yield
    finally:
        transaction.rollback()


def named_types(table: Table, connection: Connection) -> Iterator[SchemaType]:
    """The types of a table's columns that the server knows by a name: enums and domains."""
    for column in table.columns:
        type_: TypeEngine[object] = column.type
        while isinstance(type_, (TypeDecorator, ARRAY)):
            type_ = type_.impl_instance if isinstance(type_, TypeDecorator) else type_.item_type
        if isinstance(type_, SchemaType) or hasattr(type_, "create_type"):
            implementation = type_.dialect_impl(connection.dialect)
            if hasattr(implementation, "create_type"):
                yield cast(SchemaType, implementation)


def sequences_of(models: Sequence[MetaData], tables: Collection[Table]) -> list[SchemaSequence]:
    """The sequences that the models name, those of tables that are passed over left out."""
    passed_over = {
        column.default
        for metadata in models
        for table in metadata.tables.values()
        if table not in tables
        for column in table.columns
    }
    return [sequence for metadata in models for sequence in metadata._sequences.values() if sequence not in passed_over]


def _drop(
    connection: Connection, dropped: Collection[tuple[str, str]], models: Sequence[MetaData], tables: Collection[Table]
) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    if dropped:
        names = ", ".join(f"{quote(schema)}.{quote(name)}" for schema, name in dropped)
        _execute(connection, f"DROP TABLE IF EXISTS {names} CASCADE")
    format_sequence = connection.dialect.identifier_preparer.format_sequence
    for sequence in sequences_of(models, tables):
        _execute(connection, f"DROP SEQUENCE IF EXISTS {format_sequence(sequence)} CASCADE")
    format_type = connection.dialect.identifier_preparer.format_type  # type: ignore[attr-defined]
    for table in tables:
        for type_ in named_types(table, connection):
            if hasattr(type_, "enums"):  # domains stay: a constraint of theirs is not the models' to say
                _execute(connection, f"DROP TYPE IF EXISTS {format_type(type_)} CASCADE")


def _create(connection: Connection, models: Sequence[MetaData], tables: Collection[Table]) -> None:
    schemas = {table.schema for table in tables if table.schema}
    for schema in sorted(schemas):
        connection.execute(CreateSchema(schema, if_not_exists=True))
    for sequence in sequences_of(models, tables):
        connection.execute(CreateSequence(sequence))
    for table in tables:
        for type_ in named_types(table, connection):
            type_.create(connection, checkfirst=True)
    format_table = connection.dialect.identifier_preparer.format_table
    # Statements rather than create_all(), which would run the application's own listeners.
    for table in tables:
        connection.execute(CreateTable(table, include_foreign_key_constraints=[]))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index))
    for table in tables:
        for constraint in table.constraints:
            if isinstance(constraint, ForeignKeyConstraint):
                # Not AddConstraint, which marks the application's own object before SQLAlchemy 2.0.39.
                clause = connection.dialect.ddl_compiler(connection.dialect, None).process(constraint)  # type: ignore[arg-type]
                _execute(connection, f"ALTER TABLE {format_table(table)} ADD {clause}")
            if constraint.comment is not None and constraint.name is not None:
                connection.execute(SetConstraintComment(constraint))
        if table.comment is not None:
            connection.execute(SetTableComment(table))
        for column in table.columns:
            _comment(connection, column)


def _execute(connection: Connection, statement: str) -> None:
    connection.execute(text(statement.replace(":", "\\:")))


def _comment(connection: Connection, column: Column[object]) -> None:
    if column.comment is not None:
        connection.execute(SetColumnComment(column))
