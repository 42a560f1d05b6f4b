"""Tables from ``MetaData``: how they are made in an empty database, and the fingerprint of what is made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import sqlalchemy
from sqlalchemy import URL, Connection, MetaData, Table, event, schema
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.ddl import ExecutableDDLElement

from ..drivers import own, patient
from ..errors import SchemaError
from ..reporting import limit_named_by
from . import sources
from .descriptions import digest_of, python_defaults, schema_names
from .initial_schema import load_base_data, run_initial_schema


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
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def build(self, url: URL) -> None:
        """Make the tables and load the reference rows in the empty database at ``url``, committed for real."""
        engine = own(patient(sqlalchemy.create_engine(url, poolclass=NullPool)))
        try:
            with engine.connect() as connection:
                run_initial_schema(self.initial_schema, connection, self.label)
                connection.commit()
                self._create_tables(connection)
                connection.commit()
                load_base_data(self.base_data, connection, self.label)
        finally:
            engine.dispose()

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
