"""``GET_LOCK()`` and its kind: locks of the server's session, which keep nobody out who shares it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from ...errors import SandboxConflict
from ...sandbox import COMMITTING, Client, Flow, Lexer, SessionObjects, Statement, Topic

_CALL = re.compile(r"\b(get_lock|release_lock|is_free_lock|is_used_lock|release_all_locks)\s*\(", re.IGNORECASE)


class NamedLocks(SessionObjects):
    """Which connection holds which lock; one that another wants is refused."""

    topics: ClassVar[Topic] = Topic.ADVISORY

    def __init__(self, lexer: Lexer) -> None:
        self._lexer = lexer
        self._held: dict[str, Client] = {}
        self._over: list[str] = []
        self._spoken_of: list[str] = []

    def check(self, client: Client, statement: Statement) -> Flow:
        if Topic.ADVISORY not in statement.topics:
            return
        while self._over:
            name = _quoted(self._over.pop())
            while (yield f"SELECT RELEASE_LOCK({name})")[0][0] == 1:
                pass
        self._spoken_of = []
        others = {name: holder for name, holder in self._held.items() if holder is not client}
        for argument in self._arguments(statement.text):
            if not argument:  # of RELEASE_ALL_LOCKS()
                wanted = list(others)
            else:
                try:
                    rows = yield f"SELECT LOWER({argument})"  # MySQL does not mind the case, MariaDB does
                except Exception:  # it depends on the statement's rows: any lock may be meant
                    wanted = list(others)
                else:
                    self._spoken_of.append(str(rows[0][0]))
                    wanted = [self._spoken_of[-1]]
            for name in wanted:
                if name in others:
                    raise SandboxConflict(
                        f"{client} asks for the lock {name!r}, which {others[name]} holds: the server would not know "
                        "them apart.",
                        cause="GET_LOCK() belongs to a session of the server, and all connections share one here",
                        remedy="give the lock back before the other connection asks for it, or " + COMMITTING,
                    )

    def after(self, client: Client, statement: Statement) -> Flow:
        if Topic.ADVISORY in statement.topics:
            for name in dict.fromkeys([*self._spoken_of, *(n for n, holder in self._held.items() if holder is client)]):
                rows = yield f"SELECT IS_USED_LOCK({_quoted(name)}) = CONNECTION_ID()"
                if rows[0][0] == 1:
                    self._held[name] = client
                else:
                    self._held.pop(name, None)

    def _arguments(self, text: str) -> Iterator[str]:
        """The first argument of each call."""
        masked = self._lexer.mask(text)
        for match in _CALL.finditer(masked):
            depth, at = 0, match.end()
            while at < len(masked) and not (depth == 0 and masked[at] in ",)"):
                depth += (masked[at] == "(") - (masked[at] == ")")
                at += 1
            yield text[match.end() : at].strip()

    def closed(self, client: Client) -> None:
        self._over += [name for name, holder in self._held.items() if holder is client]
        self._held = {name: holder for name, holder in self._held.items() if holder is not client}

    def forget(self, scope: int) -> Flow:
        self._held.clear()
        self._over.clear()
        return
        yield


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"
