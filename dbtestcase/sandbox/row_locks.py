"""``SKIP LOCKED`` and ``NOWAIT``: rows that another connection has locked are not locked for this one here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from ..errors import SandboxConflict
from .connections import Client
from .rules import COMMITTING
from .savepoints import Owner
from .schema_facts import SchemaFacts
from .session_objects import SessionObjects, nothing
from .session_settings import Flow
from .statements import Kind, Statement
from .topics import Topic


class RowLocks(SessionObjects):
    """Who has locked rows, by which statements."""

    topics: ClassVar[Topic] = Topic.IMPATIENT

    def __init__(self, facts: SchemaFacts, unfinished: Callable[[], Iterable[Owner]]) -> None:
        self._facts = facts
        self._unfinished = unfinished
        self._locked: dict[Client, list[tuple[int, Statement]]] = {}

    @property
    def used(self) -> bool:  # type: ignore[override]
        return bool(self._locked)

    def concerns(self, statement: Statement, topics: Topic) -> bool:
        return statement.kind is Kind.LOCK or Topic.IMPATIENT in topics

    def check(self, client: Client, statement: Statement) -> Flow:
        if Topic.IMPATIENT not in statement.topics:
            return
        holders = {each: [s for _, s in locked] for each, locked in self._locked.items()}
        for writer in self._unfinished():
            if isinstance(writer, Client) and not writer.own:
                holders.setdefault(writer, []).extend(writer.writes.values())
        holders.pop(client, None)
        if holders and self._facts.knows_relations:
            yield from self._facts.load_relations()
        for holder, statements in holders.items():
            if self._facts.may_meet(statement, statements):
                raise SandboxConflict(
                    f"{client} takes rows without waiting (SKIP LOCKED, NOWAIT) while {holder} has locked rows of the "
                    "same table: it would get these too.",
                    cause="row locks keep nobody out on the one connection of the sandbox",
                    remedy="end the other transaction first, or " + COMMITTING,
                )

    def after(self, client: Client, statement: Statement) -> Flow:
        if statement.kind is Kind.LOCK and not client.each_statement:
            self._locked.setdefault(client, []).append((client.depth, statement))
        return nothing()

    def ended(self, client: Client, *, committed: bool) -> Flow:
        self._locked.pop(client, None)
        return nothing()

    def rolled_back_to(self, client: Client, depth: int) -> None:
        if client in self._locked:
            self._locked[client] = [each for each in self._locked[client] if each[0] < depth]

    def released(self, client: Client, depth: int) -> None:
        if client in self._locked:
            self._locked[client] = [(min(each, depth - 1), s) for each, s in self._locked[client]]

    def closed(self, client: Client) -> None:
        self._locked.pop(client, None)

    def forget(self, scope: int) -> Flow:
        self._locked.clear()
        return nothing()
