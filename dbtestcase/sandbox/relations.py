"""Which tables a statement may touch: whether one transaction can see what another has written and not committed.

Names are read off the text, generously: every word that is the name of a table counts.  What a name leads to is asked
of the server's catalog, once: foreign keys that cascade, foreign keys that are checked, partitions and children.  Where
the catalog cannot tell (views, functions, triggers, rules, code in the server), anything may be touched.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable

from .session_settings import Rows
from .statements import Kind, Statement

Touched = frozenset[str] | None
"""Names of tables; None for any table whatever."""

_IDENTIFIER = re.compile(r'"((?:[^"]|"")+)"|`([^`]+)`|([^\W\d][\w$]*)')
_OPAQUE = ("do", "call", "execute", "explain")


class Relations:
    """What the catalog says.

    :param rows: pairs with a kind: ``table``, ``view``, ``function`` and ``trigger`` name one thing; ``cascade`` (from
        the referenced table to the referencing), ``check`` (both ways) and ``child`` (from parent to child) two.
    :param any_case: whether names that differ only in case may be the same.
    """

    def __init__(self, rows: Rows, *, any_case: bool = False) -> None:
        self._any_case = any_case
        self._names: dict[str, set[str]] = defaultdict(set)
        self._next: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for kind, *names in rows:
            name, other = (str(each).lower() if any_case else str(each) for each in names)
            self._names[str(kind)].add(str(name))
            if other:
                self._next[str(kind)][str(name)].add(str(other))
                if kind == "child":
                    self._next["parent"][str(other)].add(str(name))

    def written(self, statements: Iterable[Statement]) -> Touched:
        """The tables that some writes may have changed."""
        found: set[str] = set()
        for statement in statements:
            touched = self._written(statement)
            if touched is None:
                return None
            found |= touched
        return frozenset(found)

    def is_opaque(self, statement: Statement) -> bool:
        """Whether code in the server runs with it, which may touch any table."""
        words = words_of(statement.text, self._any_case)
        triggers = statement.kind is Kind.WRITE and not words.isdisjoint(self._names["trigger"])
        return triggers or self._is_opaque(statement, words)

    def seen(self, statement: Statement) -> Touched:
        """The tables whose rows a statement may see: those that it reads, changes or checks."""
        words = words_of(statement.text, self._any_case)
        if statement.kind is Kind.SCHEMA or self._is_opaque(statement, words):
            return None
        tables = words & self._names["table"]
        if not statement.writes:
            return frozenset(self._follow(tables, "child", "parent"))
        if tables & self._names["trigger"]:
            return None
        changed = self._follow(tables, "child", "parent", "cascade")
        return frozenset(changed | {other for name in changed for other in self._next["check"][name]})

    def _written(self, statement: Statement) -> set[str] | None:
        words = words_of(statement.text, self._any_case)
        tables = words & self._names["table"]
        if statement.kind is not Kind.WRITE or not tables or self._is_opaque(statement, words):
            return None
        changed = self._follow(tables, "child", "parent", "cascade")
        return None if changed & self._names["trigger"] else changed

    def _is_opaque(self, statement: Statement, words: frozenset[str]) -> bool:
        return (
            not words.isdisjoint(self._names["view"])
            or not words.isdisjoint(self._names["function"])
            or statement.text.lstrip()[:8].lower().startswith(_OPAQUE)
        )

    def _follow(self, names: Iterable[str], *kinds: str) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(other for kind in kinds for other in self._next[kind][name])
        return found


@functools.lru_cache(maxsize=1024)
def words_of(text: str, any_case: bool = False) -> frozenset[str]:
    """Every word of a text that may be the name of a table."""
    if any_case:
        text = text.lower()
    return frozenset(
        quoted.replace('""', '"') if quoted else back or plain.lower()
        for quoted, back, plain in _IDENTIFIER.findall(text)
    )
