"""The models' tables made for a moment where the migrated ones are, for the server to say what they come to.

Comparing the text of a CHECK constraint or of a default in Python cannot be right: the server rewrites both.  So the
migrated tables are dropped and the models' created inside a savepoint, both are looked at with the same query, and the
savepoint is rolled back.

Models that have listeners make more than tables.  They are given an empty database first, but for extensions and
schemas: what is there then they have made.  Where something cannot be made, because it needs what only the migrations
make (a function in a CHECK constraint), all that no model makes stays as the migrations made it.  Models without
listeners begin there.

All is made at once.  Where the server refuses something, it is made again piece by piece: the pieces that cannot be
made are named with the server's reason, and the rest can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Constraint, Index, Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateSchema, CreateSequence, CreateTable, ForeignKeyConstraint

from ..drivers import constraints_of, creates_itself
from ..reporting import says
from .listeners import made_by
from .making import Maker
from .models import CONSTRAINTS, named_types
from .schema_state import Item, SchemaState

_WITH_TABLES = ("table", "view", "materialized view")  # views read tables, and are gone with them


@dataclass
class Shadow:
    """What is there while the models' tables are."""

    kept: set[Item]  #: what the migrations made that no model is known to make
    refused: dict[Item, str] = field(default_factory=dict)  #: what could not be made, with the server's reason


@contextmanager
def replaced(
    connection: Connection,
    maker: Maker,
    migrated: Collection[Item],
    counted: Collection[Item],
    counts: Callable[[Item], bool],
    look: Callable[[], SchemaState],
) -> Iterator[Shadow]:
    """Put what the models make in the place of what the migrations made, while the block lasts.

    :param migrated: what stands by itself.
    :param counted: what of it is compared.
    :param counts: which parts of the models' tables are to be made, where not everything can be.
    :param look: takes a snapshot.
    """
    transaction = connection.begin_nested() if connection.in_transaction() else connection.begin()
    try:
        if maker.listeners and maker.make(migrated):
            yield Shadow(kept=set())
        else:
            away = _away(maker, migrated, counted, counts, look)
            shadow = Shadow(set(migrated) - away)
            if not maker.make(away):
                maker.drop(away)
                shadow.refused = Piecemeal(maker, counts).create()
            yield shadow
    finally:
        transaction.rollback()


def _away(
    maker: Maker,
    migrated: Collection[Item],
    counted: Collection[Item],
    counts: Callable[[Item], bool],
    look: Callable[[], SchemaState],
) -> set[Item]:
    """What of the migrated things the models make themselves, or try to; at least the tables."""
    if not maker.listeners:
        return {item for item in counted if item.kind == "table"}
    with maker.connection.begin_nested() as savepoint:
        maker.drop(migrated)
        pieces = Piecemeal(maker, counts)
        pieces.create()
        made = look()
        savepoint.rollback()
    tried = [each for statement in pieces.failing for each in made_by(statement)]
    return {item for item in counted if item.kind in _WITH_TABLES} | {
        item for item in migrated if item in made or any(each.is_of(item) for each in tried)
    }


_KIND_OF = {kind: name for name, kind in CONSTRAINTS.items()}
_UNDEFINED_COLUMN = "42703"


class Piecemeal:
    """Makes what can be made.

    :param counts: whether a part of a table is to be made.
    """

    def __init__(self, maker: Maker, counts: Callable[[Item], bool]) -> None:
        self._maker = maker
        self._connection = maker.connection
        self._known = maker.known
        self._counts = counts
        self._incomplete: set[Table] = set()
        self.refused: dict[Item, str] = {}
        self.failing: list[str] = []  #: the statements of the listeners that failed

    def create(self) -> dict[Item, str]:
        """Make the models' things; what cannot be made is returned with the server's reason."""
        connection, known, tables = self._connection, self._known, self._maker.tables
        for schema in sorted({table.schema for table in tables if table.schema}):
            self._try(Item("schema", schema, schema), partial(self._schema, schema))
        self._call("before_create")
        for sequence in known.sequences(list(tables)):
            item = Item("sequence", sequence.schema or known.default_schema, str(sequence.name))
            self._try(item, partial(connection.execute, CreateSequence(sequence)))
        for table in tables:
            for type_ in named_types(table, connection):
                kind = "enum" if hasattr(type_, "enums") else "domain"
                item = Item(kind, type_.schema or known.default_schema, str(type_.name))
                self._try(item, partial(type_.create, connection, checkfirst=True))
        made = [table for table in tables if self._whole(table)]
        for table in made:
            for constraint in table.constraints:
                if isinstance(constraint, ForeignKeyConstraint):
                    self._part("foreign key", table, constraint, partial(self._maker.add, table, constraint))
        self._call("after_create")
        return self.refused

    def _call(self, moment: str, table: Table | None = None) -> None:
        """Call the listeners of a table, or those of every ``MetaData``."""
        listeners = self._maker.listeners
        for name, call in listeners.of_models(moment) if table is None else listeners.calls(table, moment):
            before = len(listeners.sent)
            try:
                with self._connection.begin_nested():
                    call()
            except Exception as error:
                sent = listeners.sent[before:]
                self.failing += sent
                self.refused[self._item(name, sent if isinstance(error, SQLAlchemyError) else [])] = _reason(error)

    def _item(self, name: str, sent: list[str]) -> Item:
        """What a listener was about to make when it failed, else the listener itself."""
        made = made_by(sent[-1]) if sent else []
        if not made:
            return Item("listener", "", name)
        return Item(made[-1].kind, made[-1].schema or self._known.default_schema, made[-1].name)

    def _whole(self, table: Table) -> bool:
        """A table with all that is told with it but its foreign keys."""
        self._call("before_create", table)
        if not self._table(table):
            return False
        for index in self._maker.indexes(table):
            self._part("index", table, index, partial(CreateIndex(index), index, self._connection))
        for element in self._maker.comments(table):
            self._try(None, partial(self._connection.execute, element))
        self._call("after_create", table)
        return True

    def _schema(self, schema: str) -> None:
        self._connection.execute(CreateSchema(schema, if_not_exists=True))

    def _table(self, table: Table) -> bool:
        """Make a table, of as many of its parts as there can be; whether there is one."""
        item = Item("table", *self._known.key(table))
        if creates_itself(table) is not None:
            return self._try(item._replace(kind="view"), partial(self._maker.create_table, table))
        if not self._misses(table) and self._try(None, partial(self._maker.create_table, table)):
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
                self._part(kind, table, constraint, partial(self._maker.add, table, constraint))
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
        self._maker.send(str(WithoutConstraints(dialect, element)))

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
            follows = table in self._incomplete and says(error, {_UNDEFINED_COLUMN})
            if item is not None and not (follows and item.kind != "column"):
                self.refused[item] = _reason(error)
            elif item is not None:
                self.refused[item] = ""  # named already, with its column
            return False
        return True


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
