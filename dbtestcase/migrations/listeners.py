"""What models make beside their tables: their ``before_create`` and ``after_create`` listeners, called for a look.

Views, functions, triggers, extensions and the like are no part of a ``Table``: applications, and libraries for them,
say them as ``DDL(…)`` or as functions that ``create_all()`` calls.  The comparison makes the models' tables by
statements of its own, in a savepoint, and calls the listeners at the moments at which ``create_all()`` would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, MetaData, Table, event
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.types import SchemaType

from ..drivers import creates_itself, schema_generator
from ..errors import MigrationError
from ..sandbox import PART, POSTGRESQL, Lexer, name_in
from .schema_state import Item

_CREATE = re.compile(
    r"(?:^|;)\s*CREATE\s+(?:OR\s+REPLACE\s+)?"
    r"(?:(?:GLOBAL|LOCAL|TEMP|TEMPORARY|UNLOGGED|RECURSIVE|CONSTRAINT|UNIQUE|FOREIGN)\s+)*"
    r"(?P<kind>MATERIALIZED\s+VIEW|EVENT\s+TRIGGER|[A-Z]+)\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?"
    rf"(?P<name>{PART}(?:\s*\.\s*{PART})?)",
    re.IGNORECASE,
)
# What is there already, and cannot be dropped for the models to make it: too much of the migrations may need it.
_KEPT = re.compile(r"(\s*CREATE\s+(?:EXTENSION|SCHEMA)\s+)(?!IF\s+NOT\s)", re.IGNORECASE)
_ENDING = re.compile(
    r"\s*(?:COMMIT|ROLLBACK(?!\s+TO)|ABORT|END|BEGIN|START\s+TRANSACTION)\b|"
    r"(?!\s*CREATE\b).*;\s*(?:COMMIT|ROLLBACK(?!\s+TO))\b",
    re.IGNORECASE | re.DOTALL,
)
_ALIKE = (("function", "procedure", "aggregate"), ("type", "enum", "range"))
_REFUSED = ("commit", "rollback", "close")


class Made(NamedTuple):
    """What a statement makes: ``Made("view", "", "order_total")``."""

    kind: str
    schema: str  #: empty where the statement does not say it
    name: str

    def is_of(self, item: Item) -> bool:
        """Whether this is the thing that was made, or a routine of its name."""
        kinds = next((kinds for kinds in _ALIKE if self.kind in kinds), (self.kind,))
        name = item.part or item.name.partition("(")[0]
        return item.kind in kinds and name == self.name and self.schema in ("", item.schema)


def made_by(statement: str, lexer: Lexer = POSTGRESQL) -> list[Made]:
    """What the ``CREATE`` statements in a string make."""
    found = []
    for match in _CREATE.finditer(lexer.mask(statement)):
        parts = [part.span() for part in re.finditer(PART, match["name"])]
        start = match.start("name")
        names = [name_in(statement[start + first : start + last]) for first, last in parts]
        found.append(Made(" ".join(match["kind"].lower().split()), names[0] if names[1:] else "", names[-1]))
    return found


class Listeners:
    """The listeners of the models that are compared, without those of SQLAlchemy itself (which make enums).

    :param tables: the tables that are made.
    """

    def __init__(self, connection: Connection, models: Sequence[MetaData], tables: Sequence[Table]) -> None:
        self._connection = connection
        self._models = models
        self._tables = tables
        self._generator = schema_generator(connection)
        self.sent: list[str] = []  #: the statements of the listeners

    def __bool__(self) -> bool:
        """Whether the models make anything but tables, as far as can be known without calling them."""
        if any(creates_itself(table) is not None for table in self._tables):
            return True
        targets: list[MetaData | Table] = [*self._models, *self._tables]
        return any(_of(each, moment) for each in targets for moment in ("before_create", "after_create"))

    def calls(self, target: MetaData | Table, moment: str) -> Iterator[tuple[str, Callable[[], object]]]:
        """What is to be called at a moment (``"before_create"``), with its name for messages."""
        options: dict[str, Any] = {"checkfirst": self._generator.checkfirst, "_ddl_runner": self._generator}
        if isinstance(target, MetaData):
            options["tables"] = [table for table in self._tables if table.metadata is target]
        else:
            options["_is_metadata_operation"] = True
        for listener in _of(target, moment):
            yield _name(listener), partial(self._call, listener, target, options)

    def of_models(self, moment: str) -> Iterator[tuple[str, Callable[[], object]]]:
        """The same for every ``MetaData``."""
        for metadata in self._models:
            yield from self.calls(metadata, moment)

    def _call(self, listener: Callable[..., object], target: MetaData | Table, options: dict[str, Any]) -> None:
        with self._guarded():
            listener(target, self._connection, **options)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Nothing that a listener does may outlive the savepoint."""
        connection = self._connection
        event.listen(connection, "before_cursor_execute", self._sending, retval=True)
        for name in _REFUSED:
            setattr(connection, name, _refuse)
        try:
            yield
        finally:
            for name in _REFUSED:
                delattr(connection, name)
            event.remove(connection, "before_cursor_execute", self._sending)

    def _sending(
        self, _: object, cursor: object, statement: str, parameters: object, *__: object
    ) -> tuple[str, object]:
        if _ENDING.match(POSTGRESQL.mask(statement)):
            _refuse()
        self.sent.append(statement)
        return _KEPT.sub(r"\1IF NOT EXISTS ", statement, count=1), parameters


def _of(target: MetaData | Table, moment: str) -> list[Callable[..., object]]:
    return [
        each for each in getattr(target.dispatch, moment) if not isinstance(getattr(each, "target", None), SchemaType)
    ]


def _name(listener: Callable[..., object]) -> str:
    if isinstance(listener, ExecutableDDLElement):
        return f"{type(listener).__module__}.{type(listener).__qualname__}"
    function = getattr(listener, "__wrapped__", listener)
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
    return f"{module}.{name}"


def _refuse(*_: object, **__: object) -> None:
    raise MigrationError(
        "A listener of the models ends the transaction in which models and migrations are compared.",
        cause="It commits, rolls back or closes the connection that it is given, which is not its own.",
        remedy="Leave the transaction to create_all() and its caller.",
    )
