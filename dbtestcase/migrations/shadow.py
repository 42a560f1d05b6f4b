"""The models' tables made for a moment where the migrated ones are, for the server to say what they come to.

Comparing the text of a CHECK constraint or of a default in Python cannot be right: the server rewrites both.  So the
migrated tables are dropped and the models' created inside a savepoint, both are looked at with the same query, and the
savepoint is rolled back.

Models that have listeners make more than tables.  They are given an empty database first, but for extensions and
schemas: what is there then they have made.  Where something cannot be made, because it needs what only the migrations
make (a function in a CHECK constraint), all that no model makes stays as the migrations made it.  Models without
listeners begin there.

All is made at once.  Where the server refuses something, it is made again piece by piece: the pieces that cannot be
made are named with the server's reason, and the rest can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection

from .listeners import made_by
from .making import Maker
from .piecemeal import Piecemeal
from .schema_state import Item, SchemaState

_WITH_TABLES = ("table", "view", "materialized view")  # views read tables, and are gone with them


@dataclass
class Shadow:
    """What is there while the models' tables are."""

    kept: set[Item]  #: what the migrations made that no model is known to make
    refused: dict[Item, str] = field(default_factory=dict)  #: what could not be made, with the server's reason


@contextmanager
def replaced(
    connection: Connection,
    maker: Maker,
    migrated: Collection[Item],
    counted: Collection[Item],
    counts: Callable[[Item], bool],
    look: Callable[[], SchemaState],
) -> Iterator[Shadow]:
    """Put what the models make in the place of what the migrations made, while the block lasts.

    :param migrated: what stands by itself.
    :param counted: what of it is compared.
    :param counts: which parts of the models' tables are to be made, where not everything can be.
    :param look: takes a snapshot.
    """
    transaction = connection.begin_nested() if connection.in_transaction() else connection.begin()
    try:
        if maker.listeners and maker.make(migrated):
            yield Shadow(kept=set())
        else:
            away = _away(maker, migrated, counted, counts, look)
            shadow = Shadow(set(migrated) - away)
            if not maker.make(away):
                maker.drop(away)
                shadow.refused = Piecemeal(maker, counts).create()
            yield shadow
    finally:
        transaction.rollback()


def _away(
    maker: Maker,
    migrated: Collection[Item],
    counted: Collection[Item],
    counts: Callable[[Item], bool],
    look: Callable[[], SchemaState],
) -> set[Item]:
    """What of the migrated things the models make themselves, or try to; at least the tables."""
    if not maker.listeners:
        return {item for item in counted if item.kind == "table"}
    with maker.connection.begin_nested() as savepoint:
        maker.drop(migrated)
        pieces = Piecemeal(maker, counts)
        pieces.create()
        made = look()
        savepoint.rollback()
    tried = [each for statement in pieces.failing for each in made_by(statement)]
    return {item for item in counted if item.kind in _WITH_TABLES} | {
        item for item in migrated if item in made or any(each.is_of(item) for each in tried)
    }
