"""Who can wait for the wire, and what a client shows of itself to those who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial


def runs(thread: threading.Thread) -> bool:
    """Whether a thread has not ended.

    A signal's handler that raises in the middle of a ``join()``, as timeouts do, makes Python before 3.13 say that a
    thread has ended which goes on.
    """
    return thread.is_alive() or thread in threading.enumerate()


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
        return not self.task.done() if self.task is not None else runs(self.thread)

    def awaits(self, other: Actor) -> bool:
        """Whether this task goes on when the other one has ended, and not before.

        SQLAlchemy ends ``async with Session.begin()`` in a task of its own; ``gather()`` and groups make others.  Only
        by private attributes does asyncio show who waits for whom; a task that has none is waited for as any other.
        """
        if self.task is None or other.task is None or other.thread is not self.thread:
            return False
        tasks = asyncio.all_tasks(self.task.get_loop())
        seen: set[object] = set()
        pending = [other.task]
        while pending:
            ending = pending.pop()
            seen.add(ending)
            woken = {id(ending), *map(id, _futures_set_by(ending))}
            for task in tasks - seen:
                if (waited := getattr(task, "_fut_waiter", None)) is not None and id(waited) in woken:
                    if task is self.task:
                        return True
                    pending.append(task)
        return False

    def __str__(self) -> str:
        if self.task is not None:
            return f"task {self.task.get_name()!r}"
        return f"thread {self.thread.name!r}"


def _futures_set_by(task: asyncio.Task[object]) -> Iterator[object]:
    """The futures that a task's end may set, as far as its callbacks show them: those of asyncio and anyio do."""
    for callback, _ in getattr(task, "_callbacks", None) or ():
        held = [getattr(callback, "__self__", None), *(callback.args if isinstance(callback, partial) else ())]
        for cell in getattr(callback, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # an empty one
                held.append(cell.cell_contents)
        for each in held:
            yield each
            yield from list(getattr(each, "__dict__", {}).values())


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
