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
from sqlalchemy.schema import CreateTable

from ..drivers import constraints_of, creates_itself
from ..reporting import says
from .listeners import made_by
from .making import Maker
from .models import CONSTRAINTS
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
                pieces = Piecemeal(maker, counts)
                pieces.create()
                shadow.refused = pieces.refused
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


class Piecemeal(Maker):
    """Makes what can be made.

    :param counts: whether a part of a table is to be made.
    """

    def __init__(self, maker: Maker, counts: Callable[[Item], bool]) -> None:
        vars(self).update(vars(maker))  # which knows the order of the columns from before anything was dropped
        self._counts = counts
        self._incomplete: set[Table] = set()
        self.refused: dict[Item, str] = {}
        """What cannot be made, with the server's reason."""
        self.failing: list[str] = []
        """The statements of the listeners that failed."""

    def _call(self, moment: str, table: Table | None = None) -> None:
        sent_by_all = self.listeners.sent
        for name, call in self._calls(moment, table):
            before = len(sent_by_all)
            try:
                with self.connection.begin_nested():
                    call()
            except Exception as error:
                sent = sent_by_all[before:]
                self.failing += sent
                self.refused[self._item(name, sent if isinstance(error, SQLAlchemyError) else [])] = _reason(error)

    def _item(self, name: str, sent: list[str]) -> Item:
        """What a listener was about to make when it failed, else the listener itself."""
        made = made_by(sent[-1]) if sent else []
        if not made:
            return Item("listener", "", name)
        return Item(made[-1].kind, made[-1].schema or self.known.default_schema, made[-1].name)

    def _table(self, table: Table) -> bool:
        """Of as many of its parts as there can be."""
        item = Item("table", *self.known.key(table))
        if creates_itself(table) is not None:
            return self._attempt(item._replace(kind="view"), partial(self.create_table, table))
        if not self._misses(table) and self._attempt(None, partial(self.create_table, table)):
            return True
        columns = [each.name for each in table.columns if self._counts(Item("column", *item[1:3], each.name))]
        if not self._attempt(None, partial(self._create, table, columns)):
            columns = [name for name in columns if self._makes(table, item, name)]
            if not self._attempt(item, partial(self._create, table, columns)):
                return False
        if len(columns) < len(table.columns):
            self._incomplete.add(table)
        for constraint in constraints_of(table):
            kind = next((name for type_, name in _KIND_OF.items() if isinstance(constraint, type_)), None)
            if kind is not None and kind != "foreign key" and not (kind == "primary key" and not constraint.columns):
                self._part(kind, table, constraint, partial(self.add, table, constraint))
        return True

    def _misses(self, table: Table) -> bool:
        key = self.known.key(table)
        return any(not self._counts(Item("column", *key, column.name)) for column in table.columns)

    def _makes(self, table: Table, item: Item, column: str) -> bool:
        """Whether a table of this one column can be made; it is not left."""
        part = Item("column", item.schema, item.name, column)
        partition_by = table.dialect_options["postgresql"].get("partition_by")
        if partition_by and column in partition_by:
            return True
        try:
            with self.connection.begin_nested() as savepoint:
                self._create(table, [column], options=False)
                savepoint.rollback()
        except SQLAlchemyError as error:
            self.refused[part] = _reason(error)
            return False
        return True

    def _create(self, table: Table, columns: list[str], *, options: bool = True) -> None:
        """The table of these columns, without constraints."""
        dialect = self.connection.dialect

        class WithoutConstraints(dialect.ddl_compiler):  # type: ignore[name-defined, misc]
            def create_table_constraints(self, *_: Any, **__: Any) -> str:
                return ""

            def post_create_table(self, table: Table) -> str:
                return str(super().post_create_table(table)) if options else ""

        element = CreateTable(table)
        element.columns = [column for column in element.columns if column.element.name in columns]
        self.send(str(WithoutConstraints(dialect, element)))

    def _part(self, kind: str, table: Table, part: Constraint | Index, make: Callable[[], object]) -> None:
        name = self.known.name(part) or f"on {', '.join(c.name for c in getattr(part, 'columns', ()))}"
        item = Item(kind, *self.known.key(table), name)
        if self._counts(item) and (error := self._tried(make)) is not None:
            # one of a column that could not be made is named already, with it
            follows = table in self._incomplete and says(error, {_UNDEFINED_COLUMN})
            self.refused[item] = "" if follows else _reason(error)

    def _attempt(self, item: Item | None, make: Callable[[], object]) -> bool:
        error = self._tried(make)
        if error is not None and item is not None:
            self.refused[item] = _reason(error)
        return error is None

    def _tried(self, make: Callable[[], object]) -> SQLAlchemyError | None:
        try:
            with self.connection.begin_nested():
                make()
        except SQLAlchemyError as error:
            return error
        return None


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
