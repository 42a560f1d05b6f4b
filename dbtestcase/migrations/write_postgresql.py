"""What is missing on PostgreSQL, written as the operations of a revision."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from alembic.operations import ops
from sqlalchemy import Column, Connection, Constraint, Dialect, Index, MetaData, Table
from sqlalchemy.schema import sort_tables_and_constraints

from dbtestcase.migrations import undo
from dbtestcase.migrations.enums import alter_enum
from dbtestcase.migrations.naming import execute, qualified, quoted
from dbtestcase.migrations.shadow import named_types, sequences_of
from dbtestcase.migrations.snapshot import Difference, Item, Snapshot
from dbtestcase.migrations.write import written

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

__all__ = ["Models", "Writer"]

_COLUMN = re.compile(
    r"^(?P<type>.+?)(?: COLLATE (?P<collation>\S+))?(?P<notnull> NOT NULL)?"
    r"(?P<identity> GENERATED (?:ALWAYS|BY DEFAULT) AS IDENTITY)?"
    r"(?: DEFAULT (?P<default>.*)|(?P<computed> GENERATED ALWAYS AS \(.*\) (?:STORED|VIRTUAL)))?$",
    re.DOTALL,
)
_ORDER = ("schema", "enum", "sequence", "table", "column", "primary key", "unique constraint", "foreign key")


class Models:
    """The models' tables by the names that the server knows them by."""

    def __init__(self, models: Sequence[MetaData], default_schema: str, dialect: Dialect) -> None:
        self.default_schema = default_schema
        self._models = models
        self._preparer = dialect.identifier_preparer
        self.tables = {
            (table.schema or default_schema, table.name): table
            for metadata in models
            for table, _ in sort_tables_and_constraints(metadata.tables.values())  # type: ignore[no-untyped-call]
            if table is not None
        }

    def key(self, table: Table) -> tuple[str, str]:
        return table.schema or self.default_schema, table.name

    def find(self, item: Item) -> Column[Any] | Constraint | Index | None:
        """The model's own object for a part of a table, where it has one of that name."""
        table = self.tables.get((item.schema, item.name))
        if table is None:
            return None
        if item.kind in ("column", "comment"):
            return next((column for column in table.columns if column.name == item.part), None)
        if item.kind == "index":
            return next((index for index in table.indexes if self._name(index) == item.part), None)
        return next((each for each in table.constraints if self._name(each) == item.part), None)

    def named(self, connection: Connection) -> set[tuple[str, str]]:
        """Schema and name of every enum and sequence that the models use."""
        found = {
            (sequence.schema or self.default_schema, str(sequence.name))
            for sequence in sequences_of(self._models, self.tables.values())
        }
        for table in self.tables.values():
            for type_ in named_types(table, connection):
                found.add((type_.schema or self.default_schema, str(type_.name)))
        return found

    def names(self, item: Item) -> bool:
        """Whether the models say themselves what this constraint is called."""
        return self.find(item) is not None

    def _name(self, named: Constraint | Index) -> str | None:
        if named.name is None:
            return None
        preparer = self._preparer
        formatted: str | None  # a naming convention may give no name
        formatted = preparer.format_index(named) if isinstance(named, Index) else preparer.format_constraint(named)
        return formatted.strip('"') if formatted is not None else None


class Writer:
    """Writes differences (``before``: migrated, ``after``: as the models want it)."""

    def __init__(self, context: MigrationContext, known: Models, migrated: Snapshot, modelled: Snapshot) -> None:
        self._context = context
        self._known = known
        self._migrated = migrated
        self._modelled = modelled

    def write(self, found: Iterable[Difference], renamed: Iterable[tuple[Item, Item]]) -> list[str]:
        """All of it, in an order in which it can run; each operation once."""
        lines: list[str] = []
        found = list(found)
        missing = sorted((each for each in found if each.before is None), key=self._rank)
        changed = [each for each in found if each.before is not None and each.after is not None]
        for old, new in renamed:
            what = "INDEX" if old.kind == "index" else "TABLE"
            if what == "INDEX":
                lines.append(execute(f"ALTER INDEX {qualified(old, old.part)} RENAME TO {quoted(new.part)}"))
            else:
                lines.append(
                    execute(f"ALTER TABLE {qualified(old)} RENAME CONSTRAINT {quoted(old.part)} TO {quoted(new.part)}")
                )
        for difference in missing:
            lines += self._missing(difference.item, missing)
        for difference in changed:
            lines += self._changed(difference)
        lines += undo.operations(
            Difference(each.item, None, each.before) for each in found if each.after is None and self._stands(each.item)
        )
        lines += self._lost_comments(found)
        return list(dict.fromkeys(lines))

    def _rank(self, difference: Difference) -> tuple[int, int, str]:
        item = difference.item
        kind = _ORDER.index(item.kind) if item.kind in _ORDER else len(_ORDER)
        tables = list(self._known.tables)
        key = (item.schema, item.name)
        return kind, tables.index(key) if key in tables else 0, str(item)

    def _stands(self, item: Item) -> bool:
        return item.kind != "comment" and not (item.kind == "sequence" and item.part)

    def _missing(self, item: Item, missing: list[Difference]) -> list[str]:
        table = self._known.tables.get((item.schema, item.name))
        subject = self._known.find(item)
        definition = self._modelled[item]
        name = qualified(item)
        if item.kind == "table" and table is not None:
            lines = self._op(ops.CreateTableOp.from_table(table))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                lines += self._op(ops.CreateIndexOp.from_index(index))
            return lines
        if item.kind == "column" and table is not None:
            column = next(column for column in table.columns if column.name == item.part)
            return self._op(ops.AddColumnOp.from_column_and_tablename(table.schema, table.name, column))
        if item.kind == "index" and isinstance(subject, Index):
            return self._op(ops.CreateIndexOp.from_index(subject))
        if item.kind in ("unique constraint", "foreign key") and isinstance(subject, Constraint):
            return self._op(ops.AddConstraintOp.from_constraint(subject))
        if item.kind == "check constraint":
            schema = f", schema={item.schema!r}" if item.schema != self._known.default_schema else ""
            condition = re.sub(r"^CHECK \((.*)\)$", r"\1", definition, flags=re.DOTALL)
            return [f"op.create_check_constraint({item.part!r}, {item.name!r}, {condition!r}{schema})"]
        if item.kind == "enum":
            if any(each.item.kind == "table" and self._uses(each.item, item) for each in missing):
                return []  # create_table makes it
            return [execute(f"CREATE TYPE {name} AS ENUM ({definition})")]
        if item.kind == "sequence":
            return [] if item.part else [execute(f"CREATE SEQUENCE {name} AS {definition}")]
        if item.kind == "comment":
            return self._comment(item, definition)
        if item.kind == "schema":
            return [execute(f"CREATE SCHEMA {quoted(item.name)}")]
        return [execute(f"ALTER TABLE {name} ADD CONSTRAINT {quoted(item.part)} {definition}")]

    def _uses(self, table: Item, enum: Item) -> bool:
        written_type = f"{enum.schema}.{enum.name}"
        return any(
            item.kind == "column" and item[1:3] == table[1:3] and definition.split("[")[0].startswith(written_type)
            for item, definition in self._modelled.items()
        )

    def _changed(self, difference: Difference) -> list[str]:
        item, before, after = difference
        assert before is not None and after is not None
        name = qualified(item)
        if item.kind == "column":
            return self._changed_column(item, before, after)
        if item.kind == "comment":
            return self._comment(item, after)
        if item.kind == "enum":
            return alter_enum(item, before, after, self._migrated)
        if item.kind == "sequence":
            if item.part:
                return [f"# {item}: the migrations say {before}, the models {after}"]
            return [execute(f"ALTER SEQUENCE {name} AS {after}")]
        if before == f"{after} NOT VALID":
            return [execute(f"ALTER TABLE {name} VALIDATE CONSTRAINT {quoted(item.part)}")]
        dropped = undo.operations([Difference(item, None, before)])
        return [*dropped, *self._missing(item, [])]

    def _changed_column(self, item: Item, before: str, after: str) -> list[str]:
        old, new = _COLUMN.match(before), _COLUMN.match(after)
        column = self._known.find(item)
        if old is None or new is None or not isinstance(column, Column):
            return [f"# {item}: the migrations say {before}, the models {after}"]
        if (
            old["computed"] != new["computed"]
            or old["identity"] != new["identity"]
            or old["collation"] != new["collation"]
        ):
            return [
                f"# {item}: the migrations say {before}, the models {after}",
                f"op.drop_column({item.name!r}, {item.part!r}{self._schema(item)})",
                *self._missing(item, []),
            ]
        table = column.table
        options: dict[str, Any] = {}
        if old["type"] != new["type"]:
            options["modify_type"] = column.type
        else:
            options["existing_type"] = column.type
        if old["notnull"] != new["notnull"]:
            options["modify_nullable"] = column.nullable
        if old["default"] != new["default"]:
            options["modify_server_default"] = column.server_default
        lines = self._op(ops.AlterColumnOp(item.name, item.part, schema=table.schema, **options))
        return [f"# was {before}", *lines]

    def _comment(self, item: Item, comment: str | None) -> list[str]:
        schema = self._schema(item)
        if item.part.startswith("constraint "):
            constraint = item.part.removeprefix("constraint ")
            text = "NULL" if comment is None else "'" + comment.replace("'", "''") + "'"
            return [execute(f"COMMENT ON CONSTRAINT {quoted(constraint)} ON {qualified(item)} IS {text}")]
        if item.part:
            return [f"op.alter_column({item.name!r}, {item.part!r}, comment={comment!r}{schema})"]
        if comment is None:
            return [f"op.drop_table_comment({item.name!r}{schema})"]
        return [f"op.create_table_comment({item.name!r}, {comment!r}{schema})"]

    def _lost_comments(self, found: Iterable[Difference]) -> list[str]:
        lines: list[str] = []
        for item, _, after in found:
            if item.kind == "comment" and after is None:
                lines += self._comment(item, None)
        return lines

    def _schema(self, item: Item) -> str:
        return f", schema={item.schema!r}" if item.schema != self._known.default_schema else ""

    def _op(self, operation: ops.MigrateOperation) -> list[str]:
        return written(self._context, operation)
