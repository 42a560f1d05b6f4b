"""Isolation levels: what a transaction of a higher level must not see of those that committed after it began.

One wire has one snapshot, that of now.  A transaction that is alone, or beside others whose tables it does not look at,
runs as in production.  The moment at which it would see what its snapshot has not is refused.  Of serializable
transactions the dependencies are kept as well, by tables: what production would fail at its commit is refused there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..errors import SandboxConflict
from .connections import Client
from .rules import COMMITTING, Rules
from .savepoints import Owner
from .schema_facts import SchemaFacts
from .session_objects import SessionObjects, nothing
from .session_settings import Flow
from .statements import Kind, Statement
from .topics import Topic

SNAPSHOT_LEVELS = ("repeatable read", "serializable")
_NONE_NEEDED = (Kind.SETTING, Kind.CHARACTERISTICS, Kind.CONSTRAINTS, Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)


@dataclass(eq=False)
class _Transaction:
    """What is kept of one: its first and last moment, and its statements."""

    name: str
    begun: int
    serializable: bool
    ended: int = 0
    reads: dict[str, Statement] = field(default_factory=dict)
    writes: dict[str, Statement] = field(default_factory=dict)

    def runs_beside(self, other: _Transaction) -> bool:
        """Whether neither had ended when the other began."""
        return not (self.ended and self.ended <= other.begun) and not (other.ended and other.ended <= self.begun)


class Snapshots(SessionObjects):
    """The transactions that have a snapshot, and those that have committed since the oldest of them began."""

    def __init__(self, rules: Rules, facts: SchemaFacts, unfinished: Callable[[], Iterable[Owner]]) -> None:
        self._rules = rules
        self._facts = facts
        self._unfinished = unfinished
        self._now = 0
        self._open: dict[Client, _Transaction] = {}
        self._committed: list[_Transaction] = []

    @property
    def used(self) -> bool:  # type: ignore[override]
        return bool(self._open)

    def concerns(self, statement: Statement, topics: Topic) -> bool:
        return True  # whether its client asks for a snapshot is a look at an attribute

    def check(self, client: Client, statement: Statement) -> Flow:
        mine = self._open.get(client)
        if mine is None:
            yield from self._begin(client, statement)
            return
        if self._committed and self._sees_snapshot(statement):
            yield from self._facts.load_relations()
            for other in self._committed:
                if other.ended > mine.begun and self._facts.may_see(statement, other.writes.values()):
                    raise self._refusal(client, other)
        if mine.serializable:
            mine.reads[statement.text] = statement

    def _begin(self, client: Client, statement: Statement) -> Flow:
        level = self._rules.level_of(client)
        if level not in SNAPSHOT_LEVELS or client.each_statement or not statement.takes_snapshot:
            return
        if self._rules.snapshot_by_reading:
            if statement.kind is not Kind.READ or client.own:
                return
            yield from self._facts.load_relations()
            if not self._facts.reads_tables(statement):
                return
        self._now += 1
        begun = self._open[client] = _Transaction(client.name, self._now, level == "serializable")
        begun.reads[statement.text] = statement

    def _sees_snapshot(self, statement: Statement) -> bool:
        if statement.kind in _NONE_NEEDED:
            return False
        return statement.kind is Kind.READ or not self._rules.snapshot_by_reading

    def committing(self, client: Client) -> Flow:
        mine = self._open.get(client)
        if mine is None or not mine.serializable:
            return
        mine.writes = dict(client.writes) if client in self._unfinished() else {}
        beside = [each for each in self._committed if each.serializable and each.runs_beside(mine)]
        if not beside or not (mine.writes or any(each.reads for each in beside)):
            return
        yield from self._facts.load_relations()
        everyone = [mine, *beside]
        for pivot in everyone:
            into = [each for each in everyone if each is not pivot and self._depends(each, pivot)]
            out_of = [each for each in everyone if each is not pivot and self._depends(pivot, each)]
            if into and out_of and mine in (pivot, *into, *out_of):
                raise self._refusal(client, beside[-1], at_commit=True)

    def _depends(self, reader: _Transaction, writer: _Transaction) -> bool:
        """Whether one has read what the other wrote beside it, and did not see it."""
        if not reader.runs_beside(writer) or not writer.writes:
            return False
        return any(self._facts.may_see(each, writer.writes.values()) for each in reader.reads.values())

    def ended(self, client: Client, *, committed: bool) -> Flow:
        mine = self._open.pop(client, None)
        if not self._open:
            self._committed.clear()
        elif committed and (client in self._unfinished() or (mine is not None and mine.serializable)):
            self._now += 1
            over = mine or _Transaction(client.name, self._now, serializable=False)
            over.ended = self._now
            over.writes = dict(client.writes) if client in self._unfinished() else {}
            self._committed.append(over)
        return nothing()

    def closed(self, client: Client) -> None:
        self._open.pop(client, None)

    def forget(self, scope: int) -> Flow:
        self._open.clear()
        self._committed.clear()
        return nothing()

    def _refusal(self, client: Client, other: _Transaction, *, at_commit: bool = False) -> SandboxConflict:
        level = self._rules.level_of(client).upper()
        if at_commit:
            what = (
                f"The commit of {client} would fail in production (could not serialize access): its {level} "
                f"transaction and that of {other.name}, which has committed, have read what the other wrote."
            )
        else:
            what = (
                f"{client} has a snapshot of the database ({level}) and would see what {other.name} has committed "
                "since: in production it would not."
            )
        return SandboxConflict(
            what,
            cause="one connection carries both transactions and has one snapshot, that of now",
            remedy="end the first transaction before the second commits, or " + COMMITTING,
        )
