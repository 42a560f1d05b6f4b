"""What is missing beside the tables on PostgreSQL, written as the operations of a revision."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from . import beside_tables
from .columns import parsed
from .dependents import views_around
from .enums import made_anew
from .listeners import made_by
from .naming import execute, qualified, quoted
from .schema_state import Item, SchemaState

_PARTS = ("index", "trigger", "rule")  # of a view, and gone with it


@dataclass(eq=False)
class BesideTables:
    """Writes what makes or changes views, routines, triggers and the like: the ways to do it, the nicest first.

    ``_sent``: the statements of the models' listeners, for what the server gives no definition of.
    """

    _connection: Connection
    _migrated: SchemaState
    _modelled: SchemaState
    _sent: Sequence[str]

    def missing(self, item: Item) -> list[list[str]]:
        """What makes something that only the models have."""
        of_listeners = [[execute(statement)] for statement in self._statements(item)]
        made = [execute(statement) for statement in self._create(item)]
        if item.kind == "extension":  # whose schema the listener may say
            return [*of_listeners, made]
        return [made, *of_listeners] if made else of_listeners

    def changed(self, item: Item, before: str, after: str) -> list[list[str]]:
        """What turns one definition into another."""
        name = qualified(item)
        if item.kind == "table":
            unlogged = "UNLOGGED" in after and "UNLOGGED" not in before
            return [[execute(f"ALTER TABLE {name} SET UNLOGGED")]] if unlogged else []
        if item.kind == "domain":
            return self._changed_domain(item, before, after)
        create = [execute(statement) for statement in self._create(item)]
        if item.kind in ("row security", "storage parameter"):
            return [create]
        dropped = beside_tables.drop(item)
        made = self.missing(item)
        again = [] if dropped is None else [[execute(dropped), *lines] for lines in made]
        if item.kind in ("function", "procedure"):
            return [create, *self._with_views_around(item, again)]
        if item.kind == "view":
            replaced = [line.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1) for line in create]
            return [replaced, *self._with_views_around(item, again)]
        if item.kind == "materialized view":
            return [*self._with_views_around(item, again), *made]
        return [*again, *made]  # the latter where it went with something else

    def comment(self, item: Item, comment: str | None) -> str:
        """What comments on something, or takes the comment away."""
        text = "NULL" if comment is None else "'" + comment.replace("'", "''") + "'"
        return execute(f"COMMENT ON {beside_tables.comment_on(item, self._modelled)} IS {text}")

    def of_type(self, column: Item) -> bool:
        """Whether a column is an attribute of a composite type."""
        return Item("type", column.schema, column.name) in self._modelled

    def attribute(self, column: Item, definition: str | None, *, changes: bool = False) -> list[str]:
        """What makes, changes or drops (``None``) an attribute of a composite type."""
        name = quoted(column.part)
        if definition is None:
            what = f"DROP ATTRIBUTE {name}"
        elif changes:
            what = f"ALTER ATTRIBUTE {name} TYPE {definition}"
        else:
            what = f"ADD ATTRIBUTE {name} {definition}"
        return [execute(f"ALTER TYPE {qualified(column)} {what} CASCADE")]

    def _with_views_around(self, item: Item, ways: list[list[str]]) -> list[list[str]]:
        """Ways that drop something and make it again, with its own parts and the views that read it."""
        parts = list(self._parts(item))
        before, after = views_around(self._connection, item)
        return [[*before, *way, *parts, *after] for way in ways]

    def _parts(self, item: Item) -> Iterator[str]:
        for part, definition in self._migrated.items():
            if part.kind in _PARTS and part[1:3] == item[1:3]:
                if self._modelled.get(part, definition) == definition:  # else it is a finding of its own
                    yield execute(definition)
            elif part.kind == "comment" and part[1:3] == item[1:3]:
                yield self.comment(part, self._modelled.get(part, definition))

    def _create(self, item: Item) -> list[str]:
        statements = beside_tables.create(item, self._modelled[item])
        if item.kind == "domain":
            statements = [" ".join([*statements, *self._constraints(item)])]
        return statements

    def _constraints(self, domain: Item) -> Iterator[str]:
        for part, definition in self._modelled.items():
            if part.kind == "check constraint" and part[1:3] == domain[1:3]:
                yield f"CONSTRAINT {quoted(part.part)} {definition}"

    def _changed_domain(self, item: Item, before: str, after: str) -> list[list[str]]:
        old, new = parsed(before), parsed(after)
        alter = f"ALTER DOMAIN {qualified(item)}"
        if (old.type, old.collation) != (new.type, new.collation):
            create = " ".join(self._create(item))
            return [made_anew(item, create, self._migrated, through=new.type)]
        lines = []
        if old.not_null != new.not_null:
            lines.append(f"{alter} {'SET' if new.not_null else 'DROP'} NOT NULL")
        if old.default != new.default:
            lines.append(f"{alter} DROP DEFAULT" if new.default is None else f"{alter} SET DEFAULT {new.default}")
        return [[execute(line) for line in lines]]

    def _statements(self, item: Item) -> list[str]:
        """The statements of the listeners that may have made something."""
        kind = re.compile(r"\s*CREATE\s+(?:OR\s+REPLACE\s+)?" + item.kind.replace(" ", r"\s+") + r"\b", re.IGNORECASE)
        named = [each for each in self._sent if any(made.is_of(item) for made in made_by(each))]
        return list(dict.fromkeys(named or [each for each in self._sent if kind.match(each)]))
