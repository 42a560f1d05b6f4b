"""Warnings about what two connections would not have shown each other, and one does."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import DirtyReadWarning
from ..reporting import find_call_site, warn_at
from .connections import Client
from .savepoints import Owner
from .schema_facts import SchemaFacts
from .session_settings import Flow
from .statements import Statement

__all__ = ["warn_of_dirty_reads", "warn_of_locks"]


def warn_of_dirty_reads(client: Client, statement: Statement, writers: Iterable[Owner], facts: SchemaFacts) -> Flow:
    """Warn if the statement may see rows that another client has written and not committed."""
    for other in writers:
        if isinstance(other, Client) and _is_news(client, other):
            if facts.knows_relations:
                yield from facts.load_relations()
                if not facts.may_see(statement, other.writes.values()):
                    continue
            _warn(client, other, "has unfinished writes: it may see rows that production would not show")


def warn_of_locks(client: Client, lockers: Iterable[Client]) -> None:
    """Warn if the client takes rows that another one has locked."""
    for other in lockers:
        if _is_news(client, other):
            _warn(client, other, "has locked rows: it may get rows that production would let it wait for, or skip")


def _is_news(client: Client, other: Client) -> bool:
    return other is not client and not other.own and other.name not in client.warned


def _warn(client: Client, other: Client, what: str) -> None:
    client.warned.add(other.name)
    call_site = find_call_site()
    warn_at(
        f"{client} runs a statement while {other} {what}.",
        DirtyReadWarning,
        call_site.filename if call_site else __file__,
        call_site.lineno if call_site else 0,
        source=client,
    )
