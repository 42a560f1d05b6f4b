"""What a comparison passes over: by the caller's names, and by what env.py says of names and objects."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Connection, Constraint, Index, MetaData, Table, inspect
from sqlalchemy.exc import SAWarning, SQLAlchemyError

from .beside_tables import WHOLES
from .models import CONSTRAINTS, Models
from .schema_state import Item

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

#: What Alembic calls the parts of a table that its filters are asked about.
_KINDS = {
    "column": "column",
    "index": "index",
    "unique constraint": "unique_constraint",
    "foreign key": "foreign_key_constraint",
}
_ALONE = {"enum", "schema", "sequence", *WHOLES}
_NO_TABLES = ("view", "materialized view", "domain")  # of which Alembic asks nothing


class Reflected:
    """The migrated tables as SQLAlchemy sees them, read when they are first asked for."""

    def __init__(self, connection: Connection, known: Models) -> None:
        self._connection = connection
        self._known = known
        self._schemas: dict[str, MetaData] = {}

    def table(self, schema: str, name: str) -> Table | None:
        """A table, of whatever SQLAlchemy could read of it."""
        own = None if schema == self._known.default_schema else schema
        if schema not in self._schemas:
            metadata = self._schemas[schema] = MetaData()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SAWarning)  # what it does not know of is the server's to compare
                inspector = inspect(self._connection)
                for each in inspector.get_table_names(schema=own):
                    if (f"{own}.{each}" if own else each) in metadata.tables:
                        continue  # the foreign key of another table has brought it
                    try:
                        inspector.reflect_table(Table(each, metadata, schema=own), None)
                    except SQLAlchemyError:
                        continue
        return self._schemas[schema].tables.get(f"{own}.{name}" if own else name)

    def find(self, item: Item) -> Column[Any] | Constraint | Index | None:
        """The part of a table that an item is."""
        table = self.table(item.schema, item.name)
        if table is None:
            return None
        if item.kind == "column":
            return table.columns.get(item.part)
        parts: Any = table.indexes if item.kind == "index" else table.constraints
        return next((cast(Constraint, part) for part in parts if part.name == item.part), None)


class Filters:
    """The answers of ``include_schemas``, ``include_name`` and ``include_object``, and the names to exclude.

    The functions are called as Alembic calls them: with its names of kinds, with the model's object where there is one
    (and the reflected one as ``compare_to``), else with the reflected one.
    """

    def __init__(
        self, context: MigrationContext, known: Models, reflected: Reflected, excluded: Callable[[Item], bool]
    ) -> None:
        options = context.opts
        self._include_name = options.get("include_name")
        self._include_object = options.get("include_object")
        self._include_schemas = bool(options.get("include_schemas"))
        self._known = known
        self._reflected = reflected
        self._excluded = excluded
        self._schemas: dict[str, bool] = {}
        self._tables: dict[tuple[str, str, bool, bool], bool] = {}
        self._parts: dict[tuple[Item, bool, bool], bool] = {}

    def model_table(self, table: Table, *, exists: bool) -> bool:
        """Whether a model's table counts, which the migrations have made or not."""
        return self._table(*self._known.key(table), migrated=exists)

    def __call__(self, item: Item, *, before: bool, after: bool, migrated: Mapping[Item, str]) -> bool:
        """Whether an item counts: ``before``: the migrations have made it, ``after``: the models have it."""
        if self._excluded(item):
            return False
        alone = (item.kind in _ALONE and not item.part) or (
            item.kind == "table" and item[1:3] not in self._known.tables
        )
        if after and (alone or item.kind == "listener"):  # the models say it, wherever that is
            return True
        if alone and item.kind != "table":
            return not item.schema or self._schema(item.schema)
        owner = (item.schema, item.name)
        if owner not in self._known.tables and any(Item(kind, *owner) in migrated for kind in _NO_TABLES):
            return self._schema(item.schema)
        in_database = Item("table", item.schema, item.name) in migrated
        if not self._table(item.schema, item.name, migrated=in_database):
            return False
        if item.kind in ("comment", "sequence") and item.part:  # a column's
            item = Item("column", item.schema, item.name, item.part)
            before, after = item in migrated, self._known.find(item) is not None
        if item.kind not in _KINDS or not item.part:
            return True
        key = (item, before, after)
        if key not in self._parts:
            self._parts[key] = self._part(item, before=before, after=after)
        return self._parts[key]

    def _part(self, item: Item, *, before: bool, after: bool) -> bool:
        kind, schema = _KINDS[item.kind], self._own(item.schema)
        if before and self._include_name is not None:
            parents = {
                "table_name": item.name,
                "schema_name": schema,
                "schema_qualified_table_name": f"{schema}.{item.name}" if schema else item.name,
            }
            if not self._include_name(item.part, kind, parents):
                return False
        if self._include_object is None:
            return True
        reflected = self._reflected.find(item) if before else None
        subject = self._known.find(item) if after else None
        if subject is not None:
            return bool(self._include_object(subject, subject.name, kind, False, reflected))
        if reflected is not None:
            return bool(self._include_object(reflected, item.part, kind, True, None))
        if after and item.kind in CONSTRAINTS:  # one that the server gave its name
            table = self._known.tables[item.schema, item.name]
            unnamed = [
                each for each in table.constraints if isinstance(each, CONSTRAINTS[item.kind]) and each.name is None
            ]
            return all(self._include_object(each, None, kind, False, None) for each in unnamed)
        return True

    def _schema(self, schema: str) -> bool:
        if schema not in self._schemas:
            own = self._own(schema)
            # Without include_schemas Alembic sees the default schema only; models in other schemas ask for more.
            counts = own is None or self._include_schemas or self._known.schemas != {self._known.default_schema}
            if counts and self._include_name is not None and (self._include_schemas or own is None):
                counts = bool(self._include_name(own, "schema", {}))
            self._schemas[schema] = counts
        return self._schemas[schema]

    def _table(self, schema: str, name: str, *, migrated: bool) -> bool:
        table = self._known.tables.get((schema, name))
        key = (schema, name, migrated, table is not None)
        if key not in self._tables:
            self._tables[key] = self._ask_table(schema, name, table, migrated=migrated)
        return self._tables[key]

    def _ask_table(self, schema: str, name: str, table: Table | None, *, migrated: bool) -> bool:
        if self._excluded(Item("table", schema, name)):
            return False
        own = self._own(schema)
        if table is None and not self._schema(schema):
            return False
        if table is None and self._include_name is not None:
            parents = {"schema_name": own, "schema_qualified_table_name": f"{own}.{name}" if own else name}
            if not self._include_name(name, "table", parents):
                return False
        if self._include_object is None:
            return True
        reflected = self._reflected.table(schema, name) if migrated else None
        if table is not None:
            return bool(self._include_object(table, table.name, "table", False, reflected))
        if reflected is None:
            return True
        return bool(self._include_object(reflected, name, "table", True, None))

    def _own(self, schema: str) -> str | None:
        return None if schema == self._known.default_schema else schema


def excluder(patterns: Collection[str]) -> Callable[[Item], bool]:
    """A function that says whether an item is excluded.

    A pattern (``*`` and ``?`` as in file names) may be the name of a table or of anything else that stands by itself
    (``legacy_*``, ``order_status``), with everything that belongs to it; the name of a part (``ix_post_title``,
    ``post.rating``); each with or without its schema (``audit.event``, ``audit.*``).
    """
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)

    def excluded(item: Item) -> bool:
        names = {item.name, f"{item.schema}.{item.name}"}
        if item.name.endswith(")"):  # a routine, with its arguments
            name = item.name.partition("(")[0]
            names |= {name, f"{item.schema}.{name}"}
        if item.part:
            names |= {item.part, f"{item.name}.{item.part}", f"{item.schema}.{item.name}.{item.part}"}
        return any(fnmatchcase(name, pattern) for name in names for pattern in wanted)

    return excluded
