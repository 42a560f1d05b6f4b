"""Columns as the snapshots of PostgreSQL write them, taken apart; what differs in two, defaults by their value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Column, Connection, TextClause, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import DefaultClause
from sqlalchemy.schema import Sequence as SchemaSequence

from .models import Models
from .schema_state import Item

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

    from .filters import Reflected

OWN_SEQUENCE = "the next of its own sequence"

_COLUMN = re.compile(
    r"^(?P<type>.+?)(?: COLLATE (?P<collation>(?:\"(?:[^\"]|\"\")+\"|\S+)))?(?P<notnull> NOT NULL)?"
    r"(?: GENERATED (?P<identity>ALWAYS|BY DEFAULT) AS IDENTITY)?"
    r"(?: DEFAULT (?P<default>.*)|(?P<computed> GENERATED ALWAYS AS \(.*\) (?:STORED|VIRTUAL)))?$",
    re.DOTALL,
)
_NEXTVAL = re.compile(r"^nextval\('(?P<name>(?:[^']|'')+)'::regclass\)$")

_OWNED = text(
    """
    SELECT sn.nspname, s.relname, tn.nspname, t.relname, a.attname
    FROM pg_depend d
        JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
        JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    """
)


class Definition(NamedTuple):
    """A column's definition, in its parts."""

    type: str
    collation: str | None
    not_null: bool
    identity: str | None
    default: str | None
    computed: str | None


def parsed(definition: str) -> Definition:
    """Take a snapshot's definition of a column apart."""
    found = _COLUMN.match(definition)
    assert found is not None, definition
    return Definition(
        found["type"],
        found["collation"],
        bool(found["notnull"]),
        found["identity"],
        found["default"],
        found["computed"],
    )


def owned_sequences(connection: Connection) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Schema, table and column that a sequence belongs to, by the sequence's schema and name."""
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in connection.execute(_OWNED)}


class Columns:
    """Says what differs in a column, in the sense of the server and of env.py (``given``: the options that it sets)."""

    def __init__(self, context: MigrationContext, given: frozenset[str], known: Models, reflected: Reflected) -> None:
        assert context.connection is not None
        self._context = context
        self._connection = context.connection
        self._known = known
        self._reflected = reflected
        options = context.opts
        self.compares_types = not ("compare_type" in given and options.get("compare_type") is False)
        self.compares_defaults = not (
            "compare_server_default" in given and options.get("compare_server_default") in (False, None)
        )
        self._compare_type = _function(options.get("compare_type"))
        self._compare_default = _function(options.get("compare_server_default"))
        self._owned = owned_sequences(self._connection)
        self._verdicts: dict[Item, tuple[bool | None, bool | None]] = {}

    @property
    def asks_env_py(self) -> bool:
        """Whether env.py has a function of its own to compare columns with."""
        return self._compare_type is not None or self._compare_default is not None

    def differing(self, item: Item, before: str, after: str) -> set[str]:
        """The parts (by their names in :class:`Definition`) in which a model's column differs from the migrated one."""
        old, new = parsed(before), parsed(after)
        column = self._known.find(item)
        assert isinstance(column, Column)
        found = {
            name
            for name in ("collation", "not_null", "identity", "computed")
            if getattr(old, name) != getattr(new, name)
        }
        type_differs, default_differs = self._asked(item, column)
        if type_differs is None:
            type_differs = self.compares_types and old.type != new.type
        if default_differs is None:
            default_differs = self.compares_defaults and not self._same_default(item, column, old, new)
        if type_differs:
            found.add("type")
        elif old.type != new.type:
            found.discard("collation")  # which the type brings
        if default_differs:
            found.add("default")
        return found

    def _asked(self, item: Item, column: Column[Any]) -> tuple[bool | None, bool | None]:
        """What env.py's own functions say: ``None`` where they leave it to the library."""
        if not self.asks_env_py:
            return None, None
        if item not in self._verdicts:
            self._verdicts[item] = self._ask(item, column)
        return self._verdicts[item]

    def _ask(self, item: Item, column: Column[Any]) -> tuple[bool | None, bool | None]:
        reflected = self._reflected.find(item)
        if not isinstance(reflected, Column):
            return None, None
        type_differs = default_differs = None
        if self._compare_type is not None:
            type_differs = self._compare_type(self._context, reflected, column, reflected.type, column.type)
        default, theirs = column.server_default, reflected.server_default
        plain = all(isinstance(each, (DefaultClause, type(None))) for each in (default, theirs))
        if self._compare_default is not None and plain and not (default is None and theirs is None):
            rendered = self._rendered(default)
            was = str(theirs.arg) if isinstance(theirs, DefaultClause) else None
            default_differs = self._compare_default(self._context, reflected, column, was, default, rendered)
        return _answer(type_differs), _answer(default_differs)

    def _rendered(self, default: Any) -> str | None:
        if default is None:
            return None
        if isinstance(default.arg, str):
            return "'" + default.arg.replace("'", "''") + "'"
        options = {"dialect": self._connection.dialect, "compile_kwargs": {"literal_binds": True}}
        return str(default.arg.compile(**options))

    def _same_default(self, item: Item, column: Column[Any], old: Definition, new: Definition) -> bool:
        if old.default == new.default:
            return True
        before, after = self._sequence(item, old.default), self._sequence(item, new.default)
        if before is not None or after is not None:
            if before is not None and after is not None and column is column.table.autoincrement_column:
                return True  # a serial column, whatever its sequence is called and whoever owns it
            if isinstance(column.default, SchemaSequence) and column.server_default is None and after is None:
                after = (column.default.schema or self._known.default_schema, str(column.default.name))
            return before == after
        if old.default is None or new.default is None:
            return self._null(old.default, old.type) and self._null(new.default, new.type)
        return same_default(self._connection, old.default, new.default, new.type)

    def _null(self, default: str | None, type_: str) -> bool:
        return default is None or same_default(self._connection, default, "NULL", type_)

    def _sequence(self, item: Item, default: str | None) -> tuple[str, str] | None:
        """Schema and name of the sequence that a default takes its value from."""
        if default == OWN_SEQUENCE:
            owner = (item.schema, item.name, item.part)
            return next((sequence for sequence, each in self._owned.items() if each == owner), ("", ""))
        found = _NEXTVAL.match(default or "")
        if found is None:
            return None
        schema, _, name = found["name"].replace("''", "'").rpartition(".")
        return schema.strip('"') or self._known.default_schema, name.strip('"')


def _function(option: Any) -> Callable[..., Any] | None:
    return option if callable(option) else None


def _answer(value: Any) -> bool | None:
    return None if value is None else bool(value)


def sequence_options(definition: str) -> Mapping[str, str]:
    """The options of a sequence as a snapshot writes them."""
    type_, *rest = re.split(r" (?=START |INCREMENT |MINVALUE |MAXVALUE |CACHE |CYCLE)", definition)
    return {"AS": type_, **dict((option + " ").split(" ", 1) for option in rest)}


_VARYING = re.compile(r"\b(CURRENT_\w+|LOCALTIME\w*|SESSION_USER|USER)\b|\w\(", re.IGNORECASE)
_ZONES = ("Pacific/Kiritimati", "Pacific/Pago_Pago")  # whose dates always differ


def same_default(connection: Connection, one: str, other: str, type_: str) -> bool:
    """Whether the server comes to the same value.

    Constants are compared as the planner folds them, so that casts and quoting make no difference.  What changes with
    the moment or the session (``now()`` and ``CURRENT_TIMESTAMP``) is evaluated side by side, in two time zones; it is
    never the same as a constant.

    :param one: an expression as the server writes it.
    :param type_: the type of the column.
    """
    if one == other:
        return True
    left, right = _folded(connection, one, type_), _folded(connection, other, type_)
    if left is None or right is None:
        return False
    if left == right:
        return True
    if not (_varies(left) and _varies(right)) or "nextval(" in one + other:  # a sequence is not rolled back
        return False
    question = f"SELECT ({one})::{type_}::text IS NOT DISTINCT FROM ({other})::{type_}::text"
    before = connection.scalar(text("SELECT current_setting('TimeZone')"))
    return all(_evaluated(connection, question, zone, before) for zone in _ZONES)


def _varies(expression: str) -> bool:
    return _VARYING.search(re.sub(r"'(?:[^']|'')*'", "''", expression)) is not None


def _folded(connection: Connection, expression: str, type_: str) -> str | None:
    """The expression, of the column's type, with what is constant in it evaluated."""
    statement = f"EXPLAIN (VERBOSE, COSTS OFF) SELECT ({expression})::{type_}"
    try:
        with connection.begin_nested():
            lines = [str(line) for (line,) in connection.execute(_literal(statement))]
    except SQLAlchemyError:  # an expression that only a column takes
        return None
    return next((line.strip() for line in lines if line.strip().startswith("Output:")), None)


def _evaluated(connection: Connection, question: str, zone: str, before: str | None) -> bool:
    set_zone = text("SELECT set_config('TimeZone', :zone, true)")
    try:
        with connection.begin_nested():
            connection.execute(set_zone, {"zone": zone})
            same = bool(connection.scalar(_literal(question)))
            connection.execute(set_zone, {"zone": before})
            return same
    except SQLAlchemyError:
        return False


def _literal(statement: str) -> TextClause:
    return text(statement.replace(":", "\\:"))
