"""What ``create_all`` would make, as text: the same in every process, so that equal models share a template."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Hashable, Iterator
from typing import Any

from sqlalchemy import URL, MetaData, Table, event, schema
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.ddl import ExecutableDDLElement
from sqlalchemy.types import SchemaType

from ..drivers import sequences_of
from ..errors import SchemaError
from . import sources

# Compiling 500 tables takes 80 ms, and every test class asks again.
_digests: weakref.WeakKeyDictionary[MetaData, _Known] = weakref.WeakKeyDictionary()


class _Known:
    """What is known of one ``MetaData``: its digests, by what it looked like."""

    def __init__(self) -> None:
        self.digests: dict[Hashable, str] = {}
        self.latest: dict[str, str] = {}
        """Those of what it looked like last, by dialect: its shape is large, and takes long to be looked up by."""
        self.looked_at: Hashable = None
        self.shape: Hashable = None

    def look(self, metadata: MetaData) -> Hashable:
        """What changes when a model is changed; its tables are walked again only where something was added anywhere."""
        listeners = [id(each) for name in _CREATING for each in getattr(metadata.dispatch, name)]
        now = (_additions.number, len(metadata.tables), *listeners)
        if now != self.looked_at:
            self.looked_at, self.shape = now, (_shape(metadata), *listeners)
            self.latest.clear()
        return self.shape


class _Additions:
    """How many tables, columns, constraints and indexes were attached to something, once this is watched."""

    def __init__(self) -> None:
        self.number = 0

    def watch(self) -> None:
        if not self.number:
            self.number = 1
            event.listen(schema.SchemaItem, "after_parent_attach", self._attached)

    def _attached(self, *_: object) -> None:
        self.number += 1


_additions = _Additions()
_CREATING = ("before_create", "after_create")


def digest_of(metadata: MetaData, dialect: str) -> str:
    """A hex digest of all that ``create_all()`` makes: schemas, types, tables, comments, and what its listeners do.

    :raises SchemaError: a table cannot be compiled; the message names it.
    """
    _additions.watch()
    mine = _digests.setdefault(metadata, _Known())
    shape = mine.look(metadata)
    if dialect in mine.latest:
        return mine.latest[dialect]
    known, key = mine.digests, (dialect, shape)
    if key not in known:
        digest = hashlib.sha256()
        try:
            for text in _described(metadata, _dialect(dialect)):
                digest.update(text.encode() + b"\0")
        except SQLAlchemyError as error:
            raise SchemaError(
                f"The model cannot be written as DDL: {error}",
                cause="a column has no type, a foreign key names a table that no MetaData here holds, or a type belongs"
                " to another database.",
                remedy="correct the table that is named.",
            ) from error
        known[key] = digest.hexdigest()
    mine.latest[dialect] = known[key]
    return known[key]


def _shape(metadata: MetaData) -> Hashable:
    """The parts of all tables."""
    return tuple(
        (id(table), *map(id, table.columns), len(table.constraints), len(table.indexes), table.comment)
        for table in metadata.tables.values()
    )


def schema_names(metadata: MetaData) -> list[str]:
    """The names of the schemas that ``metadata`` makes things in, sorted, without the default one."""
    names = {table.schema for table in metadata.tables.values()}
    names |= {sequence.schema for sequence in sequences_of(metadata)}
    names |= {getattr(kind, "schema", None) for table in metadata.tables.values() for kind in _types(table, None)}
    return sorted(str(name) for name in names if name)


def _dialect(name: str) -> Dialect:
    return URL.create(name).get_dialect()()


def _described(metadata: MetaData, dialect: Dialect) -> Iterator[str]:
    """Everything that ``create_all`` makes, as text; the same in every process."""

    def compiled(element: ExecutableDDLElement) -> str:
        return str(element.compile(dialect=dialect))

    yield from schema_names(metadata)
    for sequence in sorted(sequences_of(metadata), key=lambda item: (item.schema or "", item.name)):
        yield compiled(schema.CreateSequence(sequence))
    yield from _listeners(metadata, dialect)
    for key in sorted(metadata.tables):
        table = metadata.tables[key]
        for foreign_key in table.foreign_keys:
            _ = foreign_key.column  # says which table is missing, better than the compiler
        yield from (_type_described(kind, dialect) for kind in _types(table, dialect))
        yield compiled(schema.CreateTable(table))
        for constraint in sorted(table.foreign_key_constraints, key=lambda item: str(item.name)):
            if constraint.use_alter:
                yield compiled(schema.AddConstraint(constraint, isolate_from_table=False))
        for index in sorted(table.indexes, key=lambda item: str(item.name)):
            yield compiled(schema.CreateIndex(index))
        yield repr(table.comment)
        yield from (repr((column.name, column.comment)) for column in table.columns if column.comment)
        yield from _listeners(table, dialect)


def _types(table: Table, dialect: Dialect | None) -> Iterator[SchemaType]:
    """The types of ``table`` that are objects of their own in the database (enums, domains)."""
    for column in table.columns:
        kind: Any = column.type if dialect is None else column.type.dialect_impl(dialect)
        while not isinstance(kind, SchemaType):
            inner = getattr(kind, "item_type", None) or getattr(kind, "impl", None)
            if inner is None or inner is kind:
                break
            kind = inner
        if isinstance(kind, SchemaType):
            yield kind


def _type_described(kind: SchemaType, dialect: Dialect) -> str:
    names = ("schema", "name", "enums", "native_enum", "create_constraint", "length")
    domain = ("constraint_name", "not_null", "default", "check", "collation")
    parts = [f"{name}={getattr(kind, name, None)}" for name in names + domain]
    data_type = getattr(kind, "data_type", None)
    if data_type is not None:
        parts.append(str(data_type.compile(dialect=dialect)))
    return " ".join(parts)


def _listeners(target: MetaData | Table, dialect: Dialect) -> Iterator[str]:
    for name in _CREATING:
        for listener in getattr(target.dispatch, name):
            if isinstance(listener, ExecutableDDLElement):
                statement = getattr(listener, "statement", None)
                text = statement if isinstance(statement, str) else str(listener.compile(dialect=dialect))
                condition = getattr(listener, "_ddl_if", None)
                yield f"{name} {text} {getattr(listener, 'context', '')}"
                if condition is not None:
                    yield repr(condition.dialect)
                    if condition.callable_ is not None:
                        yield sources.digest_of(condition.callable_)
            elif isinstance(getattr(listener, "target", None), SchemaType):
                yield _type_described(listener.target, dialect)
            else:
                yield f"{name} {sources.digest_of(listener)}"


def python_defaults(metadata: MetaData) -> Iterator[str]:
    """Defaults that Python fills in: they are part of what the base data become."""
    for key in sorted(metadata.tables):
        for column in metadata.tables[key].columns:
            argument: Any = getattr(column.default, "arg", None)
            if sources.is_plain(argument):
                yield f"{column.name}={argument!r}"
            elif callable(argument):
                yield f"{column.name}={sources.digest_of(argument)}"
