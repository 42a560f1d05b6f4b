"""Tables from ``MetaData``: how they are made in an empty database, and the fingerprint of what is made."""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, MetaData, Table, event, schema
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.ddl import ExecutableDDLElement
from sqlalchemy.types import SchemaType

from ..drivers import sequences_of
from ..errors import SchemaError
from ..reporting import limit_named_by
from . import sources
from .initial_schema import connected, load_base_data, run_initial_schema


class MetadataRecipe:
    """Makes the tables of one ``MetaData`` or several, in this order, and loads the reference rows.

    :param base_data: called with a ``Session`` once the tables are there; what it adds is committed.
    :param initial_schema: called with a ``Connection`` before the tables are made.
    :param label: a short name for messages; by default the names of the first tables.
    :param dialect: the name of the dialect that the fingerprint's DDL is compiled for.
    """

    def __init__(
        self,
        metadata: MetaData | Sequence[MetaData],
        base_data: Callable[[Session], object] | None = None,
        *,
        initial_schema: Callable[[Connection], object] | None = None,
        label: str = "",
        dialect: str = "postgresql",
    ) -> None:
        self.metadata: tuple[MetaData, ...] = (metadata,) if isinstance(metadata, MetaData) else tuple(metadata)
        self.base_data = base_data
        self.initial_schema = initial_schema
        self._label = label
        self._dialect = dialect

    @property
    def label(self) -> str:
        """A short name for messages, such as ``blog.models``."""
        if self._label:
            return self._label
        names = [table.fullname for metadata in self.metadata for table in metadata.tables.values()]
        more = f", … ({len(names)} tables)" if len(names) > 3 else ""
        return f"metadata of {', '.join(names[:3]) or 'no tables'}{more}"

    def fingerprint(self) -> str:
        """A hex digest of the compiled DDL, the listeners and the base-data hook (see :mod:`.sources`)."""
        parts = [sqlalchemy.__version__, *(digest_of(metadata, self._dialect) for metadata in self.metadata)]
        if self.base_data is not None:
            # Defaults that Python fills in are part of what the base data become.
            parts += [text for metadata in self.metadata for text in python_defaults(metadata)]
            parts.append(sources.digest_of(self.base_data))
        if self.initial_schema is not None:
            parts.append(f"before {sources.digest_of(self.initial_schema)}")
        return _digest(tuple(parts))

    def build(self, url: URL) -> None:
        """Make the tables and load the reference rows in the empty database at ``url``, committed for real."""
        with connected(url) as connection:
            run_initial_schema(self.initial_schema, connection, self.label)
            connection.commit()
            self._create_tables(connection)
            connection.commit()
            load_base_data(self.base_data, connection, self.label)

    def create_in(self, connection: Connection) -> None:
        """The same inside the transaction of ``connection``, which is neither committed nor rolled back."""
        run_initial_schema(self.initial_schema, connection, self.label)
        self._create_tables(connection)
        load_base_data(self.base_data, connection, self.label)

    def _create_tables(self, connection: Connection) -> None:
        for metadata in self.metadata:
            with _Watch(connection, metadata) as watch:
                try:
                    metadata.create_all(connection)
                except SQLAlchemyError as error:
                    raise _schema_error(self.label, watch.last, error) from error


@functools.lru_cache(maxsize=64)
def _digest(parts: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


#: Where a schema is a database of its own: one of that name may be anybody's, and is neither made nor filled.
_SCHEMAS_ARE_DATABASES = frozenset({"mysql", "mariadb", "sqlite"})


class _Watch:
    """Sees every DDL element before it is executed: makes the schema that it needs, and remembers it for an error.

    No ``before_create`` listener: those of the model make their schemas themselves, at whatever moment they choose.
    """

    def __init__(self, connection: Connection, metadata: MetaData) -> None:
        self.connection = connection
        self.last: object = None
        self._wanted = set(schema_names(metadata))

    def __enter__(self) -> _Watch:
        event.listen(self.connection, "before_execute", self._before)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self.connection, "before_execute", self._before)

    def _before(self, _connection: Connection, element: object, *_: object) -> None:
        if isinstance(element, ExecutableDDLElement):
            name = getattr(getattr(element, "element", None), "schema", None)
            if isinstance(name, str) and name in self._wanted:
                self._make_schema(name)
            self.last = element

    def _make_schema(self, name: str) -> None:
        self._wanted.discard(name)
        inspector = sqlalchemy.inspect(self.connection)
        there = set(inspector.get_schema_names())
        if self.connection.dialect.name in _SCHEMAS_ARE_DATABASES:
            there &= {inspector.default_schema_name, "main", "temp"}
            if name not in there:
                raise SchemaError(
                    f"The model makes something in the schema {name!r}, which is another database than the test's.",
                    cause=f"on {self.connection.dialect.name} a schema is a database, which a test does not own.",
                    remedy="leave out schema= in the model, or map it with schema_translate_map.",
                )
        if name not in there:
            self.connection.execute(schema.CreateSchema(name))


def _schema_error(label: str, last: object, error: SQLAlchemyError) -> SchemaError:
    element = getattr(last, "element", None)
    statement = getattr(error, "statement", None) or ""
    if isinstance(element, Table):
        made = f"the table {element.fullname}"
    elif isinstance(element, SchemaItem) and getattr(element, "table", None) is not None:
        made = f"{getattr(element, 'name', None) or 'an unnamed part'} of the table {element.table.fullname}"  # type: ignore[attr-defined]
    elif isinstance(element, str) or getattr(element, "name", None):
        made = str(getattr(element, "name", element))
    else:
        made = "the tables"
    reason = str(getattr(error, "orig", None) or error).strip()
    sent = f" Statement: {' '.join(statement.split())}" if statement else ""
    cause, remedy = limit_named_by(reason) or (
        "the model says something that this server cannot make, or an extension that it needs is missing.",
        "correct the model; create what it needs in a before_create listener of the MetaData.",
    )
    return SchemaError(f"Creating {made} failed ({label}): {reason}.{sent}", cause=cause, remedy=remedy)


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
    mine = _digests.get(metadata) or _digests.setdefault(metadata, _Known())
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
