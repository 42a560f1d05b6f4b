"""Temporary tables where a rollback or a rename cannot keep them apart: what names another connection's is refused.

For MySQL, MariaDB and SQLite, whose one session has one set of temporary tables for all connections of a sandbox.
"""

from __future__ import annotations

import re
from typing import ClassVar

from ..errors import SandboxConflict
from .connections import Client
from .lexer import NAME, Lexer, name_in
from .relations import words_of
from .rules import COMMITTING
from .session_objects import SessionObjects, nothing
from .session_settings import Flow
from .statements import Statement
from .topics import Topic

_MADE = re.compile(
    rf"\b(create)\s+(?:or\s+replace\s+)?temp(?:orary)?\s+table\s+(?:if\s+not\s+exists\s+)?{NAME}"
    rf"|\b(drop)\s+(?:temporary\s+)?table\s+(?:if\s+exists\s+)?{NAME}",
    re.IGNORECASE,
)


class TemporaryNames(SessionObjects):
    """Which connection has made which temporary table.

    :param drop: SQL that drops one, with a place for its quoted name.
    :param rolls_back: whether a rollback undoes what makes one.
    """

    topics: ClassVar[Topic] = Topic.TEMPORARY

    def __init__(self, drop: str, lexer: Lexer, *, rolls_back: bool) -> None:
        self._rolls_back = rolls_back
        self._new: dict[Client, dict[str, int]] = {}
        self._drop = drop
        self._lexer = lexer
        self._owners: dict[str, Client] = {}
        self._over: dict[str, str] = {}

    @property
    def used(self) -> bool:  # type: ignore[override]
        return bool(self._owners)

    def check(self, client: Client, statement: Statement) -> Flow:
        while self._over:
            yield self._drop.format(self._over.popitem()[1])
        words = words_of(statement.text, any_case=True)
        for name, owner in self._owners.items():
            if owner is not client and name in words and self._names_table(statement.text, name):
                raise SandboxConflict(
                    f"{client} names the temporary table {name!r} of {owner}, which it would not see in production.",
                    cause="temporary tables belong to a session of the server, and all connections share one here",
                    remedy="give each connection's table a name of its own, or " + COMMITTING,
                )

    def _names_table(self, text: str, name: str) -> bool:
        """Whether a name stands where that of a table does."""
        before = r"(?:\b(?:from|join|into|update|table|tables|exists|ignore|desc|describe|columns)\s+|,\s*)"
        return re.search(rf"{before}(?:\w+\s*\.\s*)?[\"`\[]?{re.escape(name)}\b", text, re.IGNORECASE) is not None

    def after(self, client: Client, statement: Statement) -> Flow:
        text = statement.text
        for match in _MADE.finditer(self._lexer.mask(text)):
            group = 2 if match[1] else 4
            quoted = text[match.start(group) : match.end(group)]
            name = name_in(quoted).rpartition(".")[2].lower()
            if match[1]:
                self._owners[name] = client
                self._new.setdefault(client, {})[name] = client.depth
            elif self._owners.get(name) is client:
                del self._owners[name]
        return nothing()

    def ended(self, client: Client, *, committed: bool) -> Flow:
        if not committed:
            self.rolled_back_to(client, 0)
        self._new.pop(client, None)
        return nothing()

    def rolled_back_to(self, client: Client, depth: int) -> None:
        for name, made in list(self._new.get(client, {}).items()):
            if self._rolls_back and made >= depth:
                del self._new[client][name]
                self._owners.pop(name, None)

    def closed(self, client: Client) -> None:
        for name, owner in list(self._owners.items()):
            if owner is client:
                del self._owners[name]
                self._over[name] = name

    def forget(self, scope: int) -> Flow:
        self._owners.clear()
        self._over.clear()
        self._new.clear()
        return nothing()
