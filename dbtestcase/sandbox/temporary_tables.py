"""Temporary tables: each belongs to the connection that made it, and ends with it or as ``ON COMMIT`` says.

All connections share the one temporary schema of the session.  A table that the next statement must not find is renamed
before it and gets its name back before its owner's next one; the statement then does what it would do in production:
it fails, finds a permanent table, or makes one of the same name.  What the server holds is asked before anything is
renamed, so that no rollback, whosoever, makes a difference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ..errors import SandboxConflict
from .connections import Client
from .lexer import NAME, POSTGRESQL, name_in
from .relations import words_of
from .rules import COMMITTING
from .schema_facts import SchemaFacts
from .session_objects import SessionObjects, nothing
from .session_settings import Flow, Rows
from .splitting import split
from .statements import Kind, Statement
from .topics import Topic

_MADE = (
    "SELECT oid, relname, relkind::text FROM pg_catalog.pg_class "
    "WHERE relnamespace = pg_catalog.pg_my_temp_schema() AND relkind IN ('r', 'p', 'v', 'S', 'i', 'I')"
)
_ON_COMMIT = re.compile(r"\bon\s+commit\s+(drop|delete\s+rows)\b", re.IGNORECASE)
_ASKS_CATALOG = re.compile(
    r"\bpg_(?!sleep|advisory|try_adv|notify)\w+|\binformation_schema\b|\bregclass\b", re.IGNORECASE
)
_HIDDEN = "dbtc_hidden_"
_OF_A_DROP = {"drop", "table", "if", "exists", "pg_temp", "cascade", "restrict"}


@dataclass
class _Relation:
    """A table, or what belongs to one: an index, a sequence, a view."""

    name: str
    kind: str
    owner: Client
    scope: int
    on_commit: str = ""
    gone: bool = False
    """Whether production has dropped it."""
    was_hidden: bool = False
    """Whether it was ever renamed; a rollback may have hidden it again."""
    emptied: int | None = None
    """How many savepoints its owner had set when its rows of earlier transactions were removed."""

    @property
    def is_table(self) -> bool:
        return self.kind in ("r", "p")


class TemporaryTables(SessionObjects):
    """Those of PostgreSQL."""

    topics: ClassVar[Topic] = Topic.TEMPORARY

    def __init__(self, facts: SchemaFacts) -> None:
        self._facts = facts
        self._known: dict[str, _Relation] = {}

    @property
    def used(self) -> bool:  # type: ignore[override]
        return bool(self._known)

    def before(self, client: Client, statement: Statement) -> Flow:
        if Topic.DISCARD in statement.topics:
            yield from self._discard(client)
        if not self._known:
            return
        yield from self._facts.load_relations()
        words = words_of(statement.text)
        anything = self._facts.may_see_anything(statement) or bool(_ASKS_CATALOG.search(statement.text))
        changes = [
            oid
            for oid, each in self._known.items()
            if (anything or each.name in words or (each.gone and statement.kind is Kind.SCHEMA))
            and (each.owner is not client or each.gone or each.was_hidden or self._holds_old_rows(each))
        ]
        if not changes:
            return
        rows = yield f"SELECT oid, relname FROM pg_catalog.pg_class WHERE oid IN ({', '.join(changes)})"
        try:
            yield from self._give_to(client, {str(oid): str(name) for oid, name in rows})
        except Exception as error:
            raise self._in_the_way(client, changes, error) from error

    @staticmethod
    def _holds_old_rows(each: _Relation) -> bool:
        return each.on_commit == "delete rows" and each.emptied is None

    def _give_to(self, client: Client, names: dict[str, str]) -> Flow:
        """Let the client find its own tables, by their names, and nobody else's."""
        present = {oid: self._known[oid] for oid in names}
        if dropped := [oid for oid, each in present.items() if each.gone and each.is_table]:
            yield f"DROP TABLE IF EXISTS {', '.join(_quoted(names[oid]) for oid in dropped)} CASCADE"
            rows = yield f"SELECT oid, relname FROM pg_catalog.pg_class WHERE oid IN ({', '.join(present)})"
            present = {str(oid): self._known[str(oid)] for oid, _ in rows}
        hidden = [oid for oid, each in present.items() if each.owner is not client or each.gone]
        for oid in hidden:
            if not names[oid].startswith(_HIDDEN):
                self._known[oid].was_hidden = True
                yield f"ALTER TABLE {_quoted(names[oid])} RENAME TO {_HIDDEN}{oid}"
        for oid, each in present.items():
            if oid not in hidden and names[oid].startswith(_HIDDEN):
                yield f"ALTER TABLE {_quoted(names[oid])} RENAME TO {_quoted(each.name).partition('.')[2]}"
        if old := [each for oid, each in present.items() if oid not in hidden and self._holds_old_rows(each)]:
            for each in old:
                each.emptied = client.depth
            yield f"TRUNCATE {', '.join(_quoted(each.name) for each in old)}"

    def _in_the_way(self, client: Client, oids: list[str], error: Exception) -> SandboxConflict:
        others = [each for each in map(self._known.__getitem__, oids) if each.is_table] or [self._known[oids[0]]]
        return SandboxConflict(
            f"{client} names the temporary table {others[0].name!r} of {others[0].owner}, which cannot be hidden from "
            f"it now: {' '.join(str(error).split())}",
            cause="temporary tables belong to a session of the server, and all connections share one here; this one is "
            "in use (an open cursor, constraints that are not checked yet)",
            remedy="close the cursor or commit first, give each connection's table a name of its own, or " + COMMITTING,
        )

    def is_private(self, client: Client, statement: Statement) -> bool:
        """Whether the tables that a statement names are all the client's own."""
        mine = {each.name for each in self._known.values() if each.owner is client and not each.gone}
        words = words_of(statement.text)
        if mine.isdisjoint(words):
            return False
        if statement.kind is Kind.WRITE:
            return self._facts.touches_only(statement, mine)
        return not statement.several and {"drop", "table"} <= words <= mine | _OF_A_DROP

    def after(self, client: Client, statement: Statement) -> Flow:
        makes = Topic.TEMPORARY in self._facts.topics_of(statement)
        if not makes and (not self._known or statement.counts or statement.kind not in (Kind.SCHEMA, Kind.WRITE)):
            return
        rows = yield _MADE
        self._note(client, statement, rows)

    def _note(self, client: Client, statement: Statement, rows: Rows) -> None:
        fates = dict(_fates(statement.text))
        for oid, name, kind in ((str(oid), str(name), str(kind)) for oid, name, kind in rows):
            known = self._known.get(oid)
            if known is None:
                on_commit = fates.get(name, fates.get("", "")) if kind in ("r", "p") else ""
                new = self._known[oid] = _Relation(name, kind, client, client.scope, on_commit)
                new.emptied = client.depth
            elif known.owner is client and not name.startswith(_HIDDEN):
                known.name = name

    def ended(self, client: Client, *, committed: bool) -> Flow:
        for each in self._known.values():
            if each.owner is client:
                each.gone |= committed and each.on_commit == "drop"
                each.emptied = None
        return nothing()

    def rolled_back_to(self, client: Client, depth: int) -> None:
        for each in self._known.values():
            if each.owner is client and each.emptied is not None and each.emptied >= depth:
                each.emptied = None

    def released(self, client: Client, depth: int) -> None:
        for each in self._known.values():
            if each.owner is client and each.emptied is not None:
                each.emptied = min(each.emptied, depth - 1)

    def closed(self, client: Client) -> None:
        for each in self._known.values():
            each.gone |= each.owner is client

    def _discard(self, client: Client) -> Flow:
        self.closed(client)
        return nothing()

    def forget(self, scope: int) -> Flow:
        self._known = {oid: each for oid, each in self._known.items() if each.scope != scope}
        for each in self._known.values():
            each.emptied = None
        return nothing()


def _quoted(name: str) -> str:
    return 'pg_temp."' + name.replace('"', '""') + '"'


_NAME = re.compile(rf"\btemp(?:orary)?\s+table\s+(?:if\s+not\s+exists\s+)?(?:pg_temp\s*\.\s*)?{NAME}", re.IGNORECASE)


def _fates(text: str) -> list[tuple[str, str]]:
    """What ``ON COMMIT`` says of which table; of any without a name where the text does not tell which."""
    found = []
    for part in split(text):
        masked = POSTGRESQL.mask(part)
        fate = _ON_COMMIT.search(masked) or _ON_COMMIT.search(part)  # perhaps in the body of DO
        if fate is not None:
            named = _NAME.search(masked)
            name = name_in(part[named.start(1) : named.end(1)]).rpartition(".")[2] if named else ""
            found.append((name, " ".join(fate[1].lower().split())))
    return found
