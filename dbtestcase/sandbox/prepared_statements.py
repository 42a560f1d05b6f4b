"""``PREPARE``, ``EXECUTE`` and ``DEALLOCATE`` as SQL: a name belongs to the connection that prepared it.

All connections share the names of one session.  A second one that prepares a name gets another in its place, behind
its back; what is left at the end of a test is deallocated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from .connections import Client
from .lexer import NAME, POSTGRESQL, name_in
from .session_objects import SessionObjects, nothing
from .session_settings import Flow
from .statements import Statement
from .topics import Topic

_NAMED = re.compile(
    r"(?:^|;)\s*(?:explain\b[^;]*?\s|create\s[^;]*?\sas\s+)?"
    rf"(prepare(?!\s+transaction\b)|execute|deallocate(?:\s+prepare\b)?)\s+{NAME}",
    re.IGNORECASE,
)
_LEFT = "SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql"


class PreparedStatements(SessionObjects):
    """Those prepared by SQL, not by a driver; ``fail`` gives the server's error and aborts the transaction."""

    topics: ClassVar[Topic] = Topic.PREPARED

    def __init__(self, fail: Callable[[Client, str, str], Exception]) -> None:
        self._fail = fail
        self._names: dict[Client, dict[str, str]] = {}
        self._spoken_of = False

    def check(self, client: Client, statement: Statement) -> Flow:
        if Topic.PREPARED in statement.topics:
            self._spoken_of = True
            mine = self._names.get(client, {})
            for verb, name in _found(statement.text):
                if verb != "prepare" and name not in mine and name in self._taken() and name != "all":
                    message = f'prepared statement "{name}" does not exist'
                    raise self._fail(client, "InvalidSqlStatementName", message)
        return nothing()

    def _taken(self) -> set[str]:
        return {taken for names in self._names.values() for taken in names.values()}

    def before(self, client: Client, statement: Statement) -> Flow:
        if Topic.PREPARED in statement.topics and _deallocates_all(statement):
            for name in self._names.pop(client, {}).values():
                yield f"DEALLOCATE {_quoted(name)}"

    def replace(self, client: Client, statement: Statement) -> str | None:
        if Topic.PREPARED not in statement.topics:
            return None
        if _deallocates_all(statement):
            return "SET LOCAL dbtestcase.done = 'deallocated'"
        mine = self._names.get(client, {})
        text = statement.text
        for match in reversed(list(_NAMED.finditer(POSTGRESQL.mask(text)))):
            begin, end = match.span(2)
            name = name_in(text[begin:end])
            theirs = mine.get(name) or self._free_name(client, name)
            if theirs != name:
                text = text[:begin] + _quoted(theirs) + text[end:]
        return text if text != statement.text else None

    def _free_name(self, client: Client, name: str) -> str:
        taken = self._taken() - set(self._names.get(client, {}).values())
        number, found = 1, name
        while found in taken:
            number += 1
            found = f"{name}_{number}"
        return found

    def after(self, client: Client, statement: Statement) -> Flow:
        if Topic.PREPARED in statement.topics:
            for verb, name in _found(statement.text):
                mine = self._names.setdefault(client, {})
                if verb == "prepare":
                    mine.setdefault(name, self._free_name(client, name))
                elif verb == "deallocate":
                    mine.pop(name, None)
        return nothing()

    def forget(self, scope: int) -> Flow:
        if self._spoken_of:
            self._spoken_of = False
            self._names.clear()
            for (name,) in (yield _LEFT):
                yield f"DEALLOCATE {_quoted(str(name))}"


def _found(text: str) -> list[tuple[str, str]]:
    matches = _NAMED.finditer(POSTGRESQL.mask(text))
    return [(match[1].split()[0].lower(), name_in(text[match.start(2) : match.end(2)])) for match in matches]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _deallocates_all(statement: Statement) -> bool:
    text = " ".join(POSTGRESQL.mask(statement.text).lower().rstrip("; \n").split())
    return text in ("deallocate all", "deallocate prepare all", "discard plans")
