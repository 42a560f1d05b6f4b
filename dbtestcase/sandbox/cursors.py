"""Server-side cursors: they end with their transaction, whatever the one physical transaction does.

What SQL declares has a name that belongs to its connection; ``WITH HOLD`` lasts as long as that.  The functions are
flows for PostgreSQL, whose server lists the cursors that are open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from ..errors import SandboxConflict
from .connections import Client
from .lexer import NAME, POSTGRESQL, name_in
from .rules import COMMITTING
from .session_objects import SessionObjects, nothing
from .session_settings import Flow, literal
from .statements import Statement, parts
from .topics import Topic

_OPEN = "SELECT name FROM pg_catalog.pg_cursors WHERE "


def close_cursors(names: Iterable[str], *, holdable: bool = False) -> Flow:
    """Close what the server has not: its own rollback closes only the cursors whose savepoint is still there."""
    listed = ", ".join(map(literal, names))
    rows = yield f"{_OPEN}name IN ({listed}){'' if holdable else ' AND NOT is_holdable'}"
    for (name,) in rows:
        quoted = str(name).replace('"', '""')
        yield f'CLOSE "{quoted}"'


def find_cursors(client: Client, clients: Iterable[Client]) -> Flow:
    """A function of the server may have opened cursors: those that nobody else has declared are the client's."""
    others = {name for each in clients for name in each.cursors}
    rows = yield f"{_OPEN}name <> '' AND NOT is_holdable"
    for (name,) in rows:
        if name not in others:
            client.cursors[str(name)] = client.depth


def open_cursor(name: str) -> str:
    """The query that has a row if a cursor is open."""
    return f"{_OPEN}name = {literal(name)}"


def free_cursor_name(client: Client, name: str, clients: Iterable[Client]) -> Flow:
    """The client is about to declare a cursor; refused where another has an open one of that name."""
    holder = next((each for each in clients if each is not client and name in each.cursors), None)
    if holder is None:
        return
    rows = yield open_cursor(name)
    if not rows:
        del holder.cursors[name]  # closed by its own statement
        return
    raise name_is_taken(name, holder)


def name_is_taken(name: str, holder: Client) -> SandboxConflict:
    """The error where a client declares a cursor while another has an open one of that name."""
    return SandboxConflict(
        f"The cursor {name!r} cannot be declared: {holder} has an open one of that name.",
        cause="names of server-side cursors belong to a session of the server, and all connections share one here",
        remedy="close the first cursor before the second is declared, give each a name of its own, or " + COMMITTING,
    )


_ASKED = re.compile(
    rf"(?:^|;)\s*(?:(close)\s+|(?:fetch|move)\s+(?:[^;\"]*?\b(?:from|in)\s+|(?:next|prior|first|last|all)\s+)?){NAME}\s*(?=;|$)",
    re.IGNORECASE,
)
_LASTING = -1


@dataclass
class _Cursor:
    owner: Client
    scope: int
    holdable: bool
    depth: int
    """How many savepoints its owner had set when it was declared; :data:`_LASTING`: its transaction was committed."""


class DeclaredCursors(SessionObjects):
    """Those of PostgreSQL, a driver's own among them; ``fail`` gives the server's error and aborts the transaction."""

    topics: ClassVar[Topic] = Topic.CURSORS

    def __init__(self, fail: Callable[[Client, str, str], Exception]) -> None:
        self._fail = fail
        self._known: dict[str, _Cursor] = {}
        self._left: list[str] = []
        """Those that are gone for their connections, and that the server may have still."""

    @property
    def used(self) -> bool:  # type: ignore[override]
        return bool(self._known or self._left)

    def is_foreign(self, client: Client, name: str) -> bool:
        """Whether a name is that of a cursor that the client cannot know."""
        known = self._known.get(name)
        return name in self._left or (known is not None and known.owner is not client)

    def check(self, client: Client, statement: Statement) -> Flow:
        declared = set()
        for part in parts(statement):
            if part.cursor:
                declared.add(part.cursor)
                known = self._known.get(part.cursor)
                if known is not None and known.owner is not client:
                    raise name_is_taken(part.cursor, known.owner)
                continue
            other = next((each.owner for each in self._known.values() if each.owner is not client), None)
            if other is not None and part is not statement and _closes_all(part):
                raise SandboxConflict(
                    f"CLOSE ALL in a string of several statements would close the cursors of {other} as well; it was "
                    "not sent.",
                    cause="all connections share one session of the server here",
                    remedy="send CLOSE ALL by itself, close the cursors by their names, or " + COMMITTING,
                )
            for _, name in _asked(part.text) if Topic.CURSORS in part.topics else ():
                if name not in declared and self.is_foreign(client, name):
                    raise self._fail(client, "InvalidCursorName", f'cursor "{name}" does not exist')
        return nothing()

    def before(self, client: Client, statement: Statement) -> Flow:
        if self._left:
            left, self._left = self._left, []
            yield from close_cursors(left, holdable=True)
        if Topic.CURSORS in statement.topics and _closes_all(statement):
            mine = {*client.cursors, *(name for name, each in self._known.items() if each.owner is client)}
            if mine:
                yield from close_cursors(mine, holdable=True)

    def replace(self, client: Client, statement: Statement) -> str | None:
        if Topic.CURSORS in statement.topics and _closes_all(statement):
            return "SET LOCAL dbtestcase.done = 'closed'"
        return None

    def after(self, client: Client, statement: Statement) -> Flow:
        for part in parts(statement):
            if part.cursor:
                self._known[part.cursor] = _Cursor(client, client.scope, part.holdable, client.depth)
            elif Topic.CURSORS in part.topics:
                for closed, name in _asked(part.text):
                    if closed:
                        self._known.pop(name, None)
                if _closes_all(part):
                    self._keep(lambda each: each.owner is not client)
        return nothing()

    def ended(self, client: Client, *, committed: bool) -> Flow:
        for each in self._known.values():
            if each.owner is client and committed and each.holdable:
                each.depth = _LASTING
        self._keep(lambda each: each.owner is not client or each.depth == _LASTING)
        return nothing()

    def rolled_back_to(self, client: Client, depth: int) -> None:
        # after an error the server may have them still: only what lies above everybody's writes is rolled back at once
        self._leave(lambda each: each.owner is client and each.depth >= depth)

    def released(self, client: Client, depth: int) -> None:
        for each in self._known.values():
            if each.owner is client:
                each.depth = min(each.depth, depth - 1)

    def closed(self, client: Client) -> None:
        self._leave(lambda each: each.owner is client)

    def forget(self, scope: int) -> Flow:
        self._left.clear()
        self._keep(lambda each: each.scope != scope)
        return nothing()

    def _leave(self, gone: Callable[[_Cursor], bool]) -> None:
        self._left += [name for name, each in self._known.items() if gone(each)]
        self._keep(lambda each: not gone(each))

    def _keep(self, kept: Callable[[_Cursor], bool]) -> None:
        self._known = {name: each for name, each in self._known.items() if kept(each)}


def _asked(text: str) -> list[tuple[bool, str]]:
    """The cursors that a string of SQL fetches from or moves in, or closes."""
    matches = _ASKED.finditer(POSTGRESQL.mask(text))
    return [(match[1] is not None, name_in(text[match.start(2) : match.end(2)])) for match in matches]


def _closes_all(statement: Statement) -> bool:
    return " ".join(POSTGRESQL.mask(statement.text).lower().rstrip("; \n").split()) == "close all"
