"""What a session remembers of the last row that it numbered: ``currval()``, ``lastval()``, ``LAST_INSERT_ID()``."""

from __future__ import annotations

import re
from typing import ClassVar

from ..errors import SandboxConflict
from .connections import Client
from .lexer import POSTGRESQL
from .rules import COMMITTING
from .savepoints import Stack
from .session_objects import SessionObjects, nothing
from .session_settings import Flow
from .statements import Statement
from .topics import Topic

_ASKS = re.compile(r"\b(currval(?=\s*\()|(?:lastval|last_insert_id|last_insert_rowid)(?=\s*\(\s*\)))", re.IGNORECASE)
_MOVES = re.compile(r"\b(?:nextval|setval)\s*\(|\bnext\s+value\s+for\b", re.IGNORECASE)
_INSERTS = re.compile(r"\b(?:insert|merge)\b[^;]*;|(?:^|;)\s*insert\b[^;]*\breturning\b", re.IGNORECASE)
"""What stands before the question in the same string, and has numbered a row by then."""
_RUNS = re.compile(r"\s*do\b", re.IGNORECASE)


class LastValues(SessionObjects):
    """The last one who wrote may ask: to everybody else the one session of all would answer for another connection."""

    topics: ClassVar[Topic] = Topic.LAST_VALUES

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def check(self, client: Client, statement: Statement) -> Flow:
        words, last = POSTGRESQL.mask(statement.text), self._stack.last_writer
        # what is quoted is no question, but for the body of a DO; a backslash may end a string elsewhere in MySQL
        quoted = "\\" not in statement.text and _RUNS.match(words) is None
        asked = _ASKS.search(words if quoted else statement.text)
        if asked is None or (last is client and self._stack.numbered):
            return nothing()
        before = words[: asked.start()]
        if _MOVES.search(before) or _INSERTS.search(before):
            return nothing()
        raise SandboxConflict(
            f"{client} asks {asked[1]}() for what its own session has numbered last; "
            + (
                "others have written before, and its own UPDATE or DELETE has numbered nothing."
                if last is client
                else f"{last} has written since."
                if last
                else "it has written nothing in this test."
            ),
            cause="one session carries all connections, and remembers the last row of any of them",
            remedy="ask on the connection that has inserted the row, right after it (or by RETURNING), or "
            + COMMITTING,
        )

    def after(self, client: Client, statement: Statement) -> Flow:
        if _MOVES.search(POSTGRESQL.mask(statement.text)):
            self._stack.last_writer, self._stack.numbered = client, True
        return nothing()
