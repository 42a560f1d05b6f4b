"""Proposals are tried before they are shown: executed in a savepoint, and what they come to is compared again."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy
from alembic.operations import Operations
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from ..reporting import says
from .failures import first_line
from .internals import dry_context
from .schema_state import Difference, Item

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

_ATTEMPTS = 8
_ROUNDS = 3
_DEPENDENTS = "2BP01"  # dependent_objects_still_exist
_NEW_ENUM_VALUE = "55P04"  # unsafe_new_enum_value_usage: not before it is committed


@dataclass(frozen=True)
class Proposal:
    """Operations that are to mend one difference: the first of the alternatives that does is shown."""

    difference: Difference
    alternatives: Sequence[Sequence[str]]

    @property
    def item(self) -> Item:
        """What is to be mended."""
        return self.difference.item

    def is_undone(self, left: Mapping[Item, Difference]) -> bool:
        """Whether what it is for still differs; what it drops may be missing then, for another to make it anew."""
        return self.item in left and not (self.difference.after is None and left[self.item].before is None)


@dataclass
class _Outcome:
    done: list[tuple[Proposal, Sequence[str]]] = field(default_factory=list)
    failed: dict[Item, tuple[Proposal, BaseException]] = field(default_factory=dict)
    left: list[Difference] = field(default_factory=list)

    def error(self, item: Item) -> BaseException | None:
        return self.failed[item][1] if item in self.failed else None


def proved(
    context: MigrationContext,
    proposals: Sequence[Proposal],
    unmended: Callable[[], list[Difference]],
    propose: Callable[[list[Difference]], list[Proposal]],
) -> list[str]:
    """Return the lines of those proposals that mend what they are for, in an order in which they run.

    What nothing mends is a comment that says what differs and why it could not be mended.

    :param unmended: compares again, and returns what differs.
    :param propose: what to do for differences that only show when others are mended.
    """
    assert context.connection is not None
    prover = _Prover(context, context.connection, unmended, propose)
    choices: dict[Item, int] = {}
    for _ in range(_ATTEMPTS):
        outcome = prover.attempt(proposals, choices)
        left = {difference.item: difference for difference in outcome.left}
        bad = {item: proposal for item, (proposal, _) in outcome.failed.items()}
        bad.update({proposal.item: proposal for proposal, _ in outcome.done if proposal.is_undone(left)})
        more = [p for p in bad.values() if choices.get(p.item, 0) + 1 < len(p.alternatives)]
        if not more:
            break
        # What others need goes with a CASCADE first: they may fail for no more than that it is still there.
        more = [p for p in more if says(outcome.error(p.item), {_DEPENDENTS})] or more
        for proposal in more:
            choices[proposal.item] = choices.get(proposal.item, 0) + 1
    return list(_lines(outcome))


def _lines(outcome: _Outcome) -> Iterator[str]:
    left = {difference.item: difference for difference in outcome.left}
    shown: set[str] = set()
    for proposal, lines in outcome.done:
        if not proposal.is_undone(left):
            for line in lines:
                if line not in shown:
                    shown.add(line)
                    yield line
    for difference in left.values():
        item, before, after = difference
        what = f"# {item}: the migrations say {_said(before)}, the models {_said(after)}"
        if item in outcome.failed:
            failed, error = outcome.failed[item]
            if says(error, {_NEW_ENUM_VALUE}):
                yield from failed.alternatives[0]
                continue
            if after is None and item.kind in ("enum", "sequence") and says(error, {_DEPENDENTS}):
                continue  # something that is not the models' to say needs it
            what += f"\n#   {first_line(error)}"
            what += "".join(f"\n#   {line}" for each in failed.alternatives[0] for line in each.splitlines())
        yield what


def _said(definition: str | None) -> str:
    return "nothing" if definition is None else " ".join(definition.split()) or "that it is there"


@dataclass(eq=False)
class _Prover:
    _context: MigrationContext
    _connection: Connection
    _unmended: Callable[[], list[Difference]]
    _propose: Callable[[list[Difference]], list[Proposal]]

    def attempt(self, proposals: Sequence[Proposal], choices: dict[Item, int]) -> _Outcome:
        """Execute the proposals, and those for what shows then; nothing of it is left."""
        connection = self._connection
        outcome = _Outcome()
        transaction = connection.begin_nested() if connection.in_transaction() else connection.begin()
        try:
            known: set[Item] = set()
            for _ in range(_ROUNDS):
                known |= {proposal.item for proposal in proposals}
                self._execute_all(proposals, choices, outcome)
                outcome.left = self._unmended()
                proposals = self._propose([each for each in outcome.left if each.item not in known])
                if not proposals:
                    break
        finally:
            transaction.rollback()
        return outcome

    def _execute_all(self, proposals: Sequence[Proposal], choices: dict[Item, int], outcome: _Outcome) -> None:
        """Each one; what fails is tried again after the others, for as long as that helps."""
        waiting = list(proposals)
        while waiting:
            again: list[Proposal] = []
            for proposal in waiting:
                lines = proposal.alternatives[min(choices.get(proposal.item, 0), len(proposal.alternatives) - 1)]
                error = self._execute(lines)
                if error is None:
                    outcome.done.append((proposal, lines))
                    outcome.failed.pop(proposal.item, None)
                else:
                    outcome.failed[proposal.item] = (proposal, error)
                    again.append(proposal)
            if len(again) == len(waiting):
                return
            waiting = again

    def _execute(self, lines: Sequence[str]) -> BaseException | None:
        context = dry_context(self._context)
        names = _Names(op=Operations(context), sa=sqlalchemy, postgresql=postgresql)
        try:
            with self._connection.begin_nested():
                for line in lines:
                    exec(compile(line, "<proposal>", "exec"), {}, names)
        except SQLAlchemyError as error:
            return error
        except Exception as error:  # what Alembic writes for a type of the user's own may not be Python
            return error
        return None


class _Names(dict[str, Any]):
    """What the lines of a revision may name: what Alembic imports there, and modules of the application."""

    def __missing__(self, name: str) -> Any:
        if name in sys.modules:
            return sys.modules[name]
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
        raise KeyError(name)
