"""Server-side cursors: they end with their transaction, whatever the one physical transaction does.

Each function is a flow for PostgreSQL, whose server lists the cursors that are open.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import SandboxConflict
from .connections import Client
from .rules import COMMITTING
from .session_settings import Flow, literal

__all__ = ["close_cursors", "find_cursors", "free_cursor_name", "name_is_taken", "open_cursor"]

_OPEN = "SELECT name FROM pg_catalog.pg_cursors WHERE "


def close_cursors(names: Iterable[str], *, holdable: bool = False) -> Flow:
    """Close what the server has not: its own rollback closes only the cursors whose savepoint is still there."""
    listed = ", ".join(map(literal, names))
    rows = yield f"{_OPEN}name IN ({listed}){'' if holdable else ' AND NOT is_holdable'}"
    for (name,) in rows:
        quoted = str(name).replace('"', '""')
        yield f'CLOSE "{quoted}"'


def find_cursors(client: Client, clients: Iterable[Client]) -> Flow:
    """A function of the server may have opened cursors: those that nobody else has declared are the client's."""
    others = {name for each in clients for name in each.cursors}
    rows = yield f"{_OPEN}name <> '' AND NOT is_holdable"
    for (name,) in rows:
        if name not in others:
            client.cursors[str(name)] = client.depth


def open_cursor(name: str) -> str:
    """The query that has a row if a cursor is open."""
    return f"{_OPEN}name = {literal(name)}"


def free_cursor_name(client: Client, name: str, clients: Iterable[Client]) -> Flow:
    """The client is about to declare a cursor; refused where another has an open one of that name."""
    holder = next((each for each in clients if each is not client and name in each.cursors), None)
    if holder is None:
        return
    rows = yield open_cursor(name)
    if not rows:
        del holder.cursors[name]  # closed by its own statement
        return
    raise name_is_taken(name, holder)


def name_is_taken(name: str, holder: Client) -> SandboxConflict:
    """The error where a client declares a cursor while another has an open one of that name."""
    return SandboxConflict(
        f"The cursor {name!r} cannot be declared: {holder} has an open one of that name.",
        cause="names of server-side cursors belong to a session of the server, and all connections share one here",
        remedy="close the first cursor before the second is declared, give each a name of its own, or " + COMMITTING,
    )
