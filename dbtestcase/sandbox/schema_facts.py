"""What the sandbox must know of the schema: asked of the server once, forgotten when the schema changes.

The questions are flows, as those of the sandbox are.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from .relations import Relations
from .rules import Rules
from .session_settings import Flow
from .statements import Statement
from .topics import Topic

_TOPICS = {"temporary": Topic.TEMPORARY, "advisory": Topic.ADVISORY}
_COMMANDS = ("insert", "update", "delete")


class SchemaFacts:
    """Functions, views, triggers, constraints and relations of the test database."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.forget()

    def forget(self) -> None:
        """The schema has changed."""
        self.functions: frozenset[str] | None = None
        """Names of the functions that may write; None before :meth:`load_functions`."""
        self.deferred: str | None = None
        """Names of the constraints that are deferred from the start; None before :meth:`load_deferred`."""
        self._relations: Relations | None = None
        self.views: tuple[str, ...] = ()
        self._openers: frozenset[str] = frozenset()
        self._speaking: dict[str, Topic] = {}
        self._triggers: tuple[int, ...] | None = None

    def load_functions(self) -> Flow:
        """Learn which functions may write, which views call one, and which open cursors."""
        if self.functions is not None:
            return
        names: dict[str, list[str]] = {kind: [] for kind in ("function", "view", "cursor", *_TOPICS)}
        if self._rules.volatile_functions:
            rows = yield self._rules.volatile_functions
            for name, kind in rows:
                names[str(kind)].append(str(name))
        self.functions = self._rules.writing_functions | frozenset(names["function"])
        self.views = tuple(names["view"])
        self._openers = frozenset(names["cursor"])
        self._speaking = {}
        for kind, topic in _TOPICS.items():
            for name in names[kind]:
                self._speaking[name] = self._speaking.get(name, Topic.NONE) | topic

    def may_write(self, statement: Statement) -> bool:
        """Whether a read may write: by a function, perhaps one that hides in a view."""
        if statement.calls and not statement.calls.isdisjoint(self.functions or ()):
            return True
        return bool(self.views) and any(name in statement.text for name in self.views)

    def topics_of(self, statement: Statement) -> Topic:
        """What a statement speaks of, or a function that it calls."""
        found = statement.topics
        if self._speaking:
            for name in self._speaking.keys() & statement.calls:
                found |= self._speaking[name]
        return found

    def may_see_anything(self, statement: Statement) -> bool:
        """Whether code in the server runs with a statement, which may touch any table; True if that is not known."""
        return self._relations is None or self._relations.is_opaque(statement)

    def touches_only(self, statement: Statement, tables: Set[str]) -> bool:
        """Whether no table but these may be touched by a statement; False if that is not known."""
        if self._relations is None or self._relations.is_opaque(statement):
            return False
        seen = self._relations.seen(statement)
        return seen is not None and seen <= tables

    def opens_cursors(self, statement: Statement) -> bool:
        """Whether a statement calls a function or procedure that gives back the name of a cursor."""
        return not self._openers.isdisjoint(statement.calls)

    def load_deferred(self) -> Flow:
        """Learn which constraints are deferred from the start."""
        if self.deferred is None:
            rows = yield self._rules.deferred_names
            self.deferred = str(rows[0][0])

    @property
    def knows_relations(self) -> bool:
        """Whether it can be told which tables a statement may touch."""
        return bool(self._rules.relations)

    def load_relations(self) -> Flow:
        """Learn which tables lead to which."""
        if self._relations is None:
            rows = yield self._rules.relations
            self._relations = Relations(rows, any_case=self._rules.any_case)

    def may_see(self, statement: Statement, writes: Iterable[Statement]) -> bool:
        """Whether a statement may see what others have written; True if that is not known."""
        if self._relations is None:
            return True
        seen, written = self._relations.seen(statement), self._relations.written(writes)
        if seen is None or not seen:
            return seen is None
        return written is None or not seen.isdisjoint(written)

    def reads_tables(self, statement: Statement) -> bool:
        """Whether a statement may touch any table at all; True if that is not known."""
        return self._relations is None or self._relations.seen(statement) != frozenset()

    def may_meet(self, statement: Statement, others: Iterable[Statement]) -> bool:
        """Whether a statement and any of the others may touch the same table; True if that is not known."""
        if self._relations is None:
            return True
        mine = self._relations.seen(statement)
        for other in others:
            theirs = self._relations.seen(other)
            if mine is None or theirs is None or not mine.isdisjoint(theirs):
                return True
        return False

    def load_triggers(self) -> Flow:
        """Learn how many triggers and rules may write when no row is changed."""
        yield from self.load_functions()
        if self._triggers is None and self._rules.trigger_counts:
            rows = yield self._rules.trigger_counts
            self._triggers = tuple(int(str(number)) for number in rows[0])

    def may_write_without_rows(self, statement: Statement) -> bool:
        """Whether a statement that has changed no row may have written all the same; True if that is not known."""
        if self._triggers is None:
            return True
        command = statement.text.lstrip()[:6].lower()
        risk = self._triggers[_COMMANDS.index(command)] if command in _COMMANDS else sum(self._triggers)
        return bool(risk) or any(name in statement.text for name in (*(self.functions or ()), *self.views))
