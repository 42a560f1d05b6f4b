"""Who can wait for the wire, and what a client shows of itself to those who wait for it."""

from __future__ import annotations

import asyncio
import enum
import threading
from dataclasses import dataclass


class Actor:
    """A thread, or a task of one: somebody who can wait or be waited for."""

    __slots__ = ("task", "thread")

    def __init__(self, thread: threading.Thread, task: asyncio.Task[object] | None) -> None:
        self.thread = thread
        self.task = task

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Actor) and other.thread is self.thread and other.task is self.task

    def __hash__(self) -> int:
        return hash((id(self.thread), id(self.task)))

    @property
    def alive(self) -> bool:
        """Whether it may still do something."""
        return not self.task.done() if self.task is not None else self.thread.is_alive()

    def __str__(self) -> str:
        if self.task is not None:
            return f"task {self.task.get_name()!r}"
        return f"thread {self.thread.name!r}"


def current_actor() -> Actor:
    """Who is running this."""
    task = None
    if asyncio._get_running_loop() is not None:
        task = asyncio.current_task()
    return Actor(threading.current_thread(), task)


class Ticket:
    """What a client shows of itself to those who wait for it."""

    __slots__ = ("actor", "name", "own", "waited_out")

    def __init__(self, name: str, own: bool) -> None:
        self.name = name
        self.own = own
        self.actor: Actor | None = None
        self.waited_out = False  # somebody waited in vain: nobody waits for this transaction again


class Reason(enum.Enum):
    """What somebody waits for the end of."""

    WIRE = "a statement, COPY, stream or pipeline"
    TRANSACTION = "an unfinished transaction"
    QUEUE = "somebody who has waited longer"


@dataclass(frozen=True)
class Wait:
    """Somebody who waits: ``ticket`` for ``obstacle``.  ``blocking``: nothing else runs on that thread meanwhile."""

    ticket: Ticket
    obstacle: Ticket
    reason: Reason
    blocking: bool
