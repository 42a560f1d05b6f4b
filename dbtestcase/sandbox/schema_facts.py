"""What the sandbox must know of the schema: asked of the server once, forgotten when the schema changes.

The questions are flows, as those of the sandbox are.
"""

from __future__ import annotations

from collections.abc import Iterable

from .relations import Relations
from .rules import Rules
from .session_settings import Flow
from .statements import Statement

__all__ = ["Catalog"]

_COMMANDS = ("insert", "update", "delete")


class Catalog:
    """Functions, views, triggers, constraints and relations of the test database.

    :param rules: the dialect's rules, which hold the queries.
    """

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
        self._views: tuple[str, ...] = ()
        self._openers: frozenset[str] = frozenset()
        self._triggers: tuple[int, ...] | None = None

    def load_functions(self) -> Flow:
        """Learn which functions may write, which views call one, and which open cursors."""
        if self.functions is not None:
            return
        names: dict[str, list[str]] = {"function": [], "view": [], "cursor": []}
        if self._rules.volatile_functions:
            rows = yield self._rules.volatile_functions
            for name, kind in rows:
                names[str(kind)].append(str(name))
        self.functions = self._rules.writing_functions | frozenset(names["function"])
        self._views = tuple(names["view"])
        self._openers = frozenset(names["cursor"])

    def may_write(self, statement: Statement) -> bool:
        """Whether a read may write: by a function, perhaps one that hides in a view."""
        if statement.calls and not statement.calls.isdisjoint(self.functions or ()):
            return True
        return bool(self._views) and any(name in statement.text for name in self._views)

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
        return bool(risk) or any(name in statement.text for name in (*(self.functions or ()), *self._views))
