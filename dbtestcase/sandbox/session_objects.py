"""What a connection owns in the server's session beside rows, and when it ends: one interface for all such things.

One session of the server carries all connections of a sandbox.  What PostgreSQL keeps by session or by transaction
(temporary tables, prepared statements, the mode of constraints, locks, a snapshot) is kept apart here: each kind is a
subclass of :class:`SessionObjects` in a module of its own.  A kind that nobody uses costs nothing.
"""

from __future__ import annotations

from typing import ClassVar

from .connections import Client
from .session_settings import Flow
from .statements import Statement
from .topics import Topic


def nothing() -> Flow:
    """A flow that sends nothing."""
    return
    yield


class SessionObjects:
    """One kind of thing: ``topics`` of statements concern it while nobody uses it; while it is ``used``, all do."""

    topics: ClassVar[Topic] = Topic.NONE
    used = False

    def concerns(self, statement: Statement, topics: Topic) -> bool:
        """Whether a statement is to be shown to it; ``topics`` are its own and those of the functions that it calls."""
        return self.used or bool(self.topics & topics)

    def check(self, client: Client, statement: Statement) -> Flow:
        """Before anything is done for a statement: refuse what would give another result than production."""
        return nothing()

    def before(self, client: Client, statement: Statement) -> Flow:
        """The statement is the next to be sent: give the session the state of this client."""
        return nothing()

    def replace(self, client: Client, statement: Statement) -> str | None:
        """What to send in the statement's place."""
        return None

    def after(self, client: Client, statement: Statement) -> Flow:
        """The statement has run."""
        return nothing()

    def committing(self, client: Client) -> Flow:
        """The client is about to commit what it has written."""
        return nothing()

    def ended(self, client: Client, *, committed: bool) -> Flow:
        """The client's transaction is over."""
        return nothing()

    def rolled_back_to(self, client: Client, depth: int) -> None:
        """The client has gone back to one of its savepoints: ``depth`` counts those set up to and with it."""

    def released(self, client: Client, depth: int) -> None:
        """The client has released the savepoint at that depth: what was done above it belongs to the one below."""

    def undone(self) -> None:
        """The server has rolled back to a savepoint, whosoever."""

    def closed(self, client: Client) -> None:
        """The connection was closed."""

    def forget(self, scope: int) -> Flow:
        """What ran in a scope was rolled back; nothing of it may reach what comes next."""
        return nothing()
