"""Up, down and up again through every revision, with the schema looked at after each step.

A downgrade that does nothing raises nothing: the only way to find it is to compare the schema with what it was before
the upgrade.  The whole walk is one run of env.py, so that its cost is that of the statements and of two looks at the
catalogs for each revision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alembic.runtime.migration import RevisionStep
from sqlalchemy import URL, Engine

from ..errors import MigrationError
from . import schema_state, schema_state_postgresql, undo  # noqa: F401  registers itself
from .filters import excluder
from .internals import downgrade_steps, forget_made_types, script_of, step
from .project import revisions
from .redirect import Target, as_target
from .schema_state import Difference, SchemaState

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import Script

    from .project import Project

# Each step is committed by itself, as it is where revisions are deployed one by one.
_STEP_BY_STEP = {"transaction_per_migration": True}


@dataclass(frozen=True)
class Problem:
    """A revision that does not undo itself, or cannot be taken at all."""

    revision: str
    doc: str
    path: str
    what: str
    differences: list[Difference] = field(default_factory=list)
    error: MigrationError | None = None

    def __str__(self) -> str:
        name = f"{self.revision} ({self.doc})" if self.doc else self.revision
        lines = [f"Revision {name} {self.what}", f"  {self.path}"] if self.revision else [self.what]
        if self.error is not None:
            return "\n".join([*lines, *("  " + line for line in str(self.error).splitlines())])
        lines += ["  " + line for difference in self.differences for line in str(difference).splitlines()]
        write = undo.operations(self.differences)
        if write:
            lines.append("  In downgrade() is missing:")
            lines += ["      " + line for operation in write for line in operation.splitlines()]
        return "\n".join(lines)


def stairway(
    project: Project,
    target: Target | URL | Engine,
    *,
    exclude: Collection[str] = (),
    reset: Callable[[], object] | None = None,
) -> list[Problem]:
    """Take each revision up, down and up again, from base to head.

    :param target: an empty database, or one that can be downgraded to base; afterwards it is at head.
    :param exclude: names of what may differ (see :func:`excluder`), or identifiers of revisions that are only upgraded.
    :param reset: makes the database empty again, so that the walk goes on after a problem; without it, it ends there.
    """
    problems: list[Problem] = []
    position = 0
    while True:
        walk = _Walk(position, exclude)
        try:
            project.run(as_target(target), walk.steps, action="upgrade", forced=_STEP_BY_STEP)
        except MigrationError as error:
            if walk.at is None:
                raise
            problems.append(_problem(walk.at, f"failed in {walk.phase}.", error=error))
            if walk.phase != "downgrade()":
                return problems  # what comes after it cannot be reached
        else:
            if walk.problem is None:
                return problems
            problems.append(walk.problem)
        position = walk.position + 1
        if reset is None or position == walk.number:
            return problems
        reset()
    return problems


def round_trip(project: Project, target: Target | URL | Engine, *, exclude: Collection[str] = ()) -> list[Problem]:
    """Upgrade an empty database to head, and back to base: nothing may be left."""
    found: list[Difference] = []
    excluded = excluder(exclude)

    def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
        script = script_of(context)
        yield from downgrade_steps(script, "base", heads)
        before = _look(context)
        steps = revisions(script)
        yield from (step(script, revision, True) for revision in steps)
        yield from (step(script, revision, False) for revision in reversed(steps))
        found.extend(d for d in schema_state.differences(before, _look(context)) if not excluded(d.item))

    project.run(as_target(target), steps, action="upgrade", forced=_STEP_BY_STEP)
    if not found:
        return []
    return [Problem("", "", "", "Upgraded to head and downgraded to base, the database is not as it was.", found)]


class _Walk:
    def __init__(self, start: int, exclude: Collection[str]) -> None:
        self.at: Script | None = None
        self.phase = ""
        self.position = start
        self.number = 0
        self.problem: Problem | None = None
        self._start = start
        self._exclude = {exclude} if isinstance(exclude, str) else set(exclude)
        self._excluded = excluder(exclude)

    def steps(self, heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
        self._script = script_of(context)
        yield from downgrade_steps(self._script, "base", heads)
        before: SchemaState | None = None
        found = revisions(self._script)
        self.number = len(found)
        for position, revision in enumerate(found):
            self.position, self.at = position, revision
            if position < self._start or revision.revision in self._exclude:
                yield self._up(revision)
                before = None
                continue
            if before is None:
                before = _look(context)
            yield self._up(revision)
            after = _look(context)
            self.phase = "downgrade()"
            yield step(self._script, revision, False)
            if self._finds(revision, "is not undone by its downgrade().", before, _look(context)):
                return
            yield self._up(revision, " after a downgrade")
            before = _look(context)
            if self._finds(revision, "makes another schema when it is upgraded again.", after, before):
                return
        self.at = None

    def _up(self, revision: Script, again: str = "") -> RevisionStep:
        self.phase = "upgrade()" + again
        return step(self._script, revision, True)

    def _finds(self, revision: Script, what: str, before: SchemaState, after: SchemaState) -> bool:
        found = [d for d in schema_state.differences(before, after) if not self._excluded(d.item)]
        if found:
            self.problem = _problem(revision, what, differences=found)
        return bool(found)


def _look(context: MigrationContext) -> SchemaState:
    assert context.connection is not None
    forget_made_types(context)
    return schema_state.take(context.connection, ignored=[context.version_table])


def _problem(revision: Script, what: str, **details: Any) -> Problem:
    return Problem(revision.revision, revision.doc or "", revision.path, what, **details)
