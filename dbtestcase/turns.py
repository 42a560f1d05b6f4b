"""Whose turn it is on the one wire, for threads and for tasks.

Three rules, in this order:

1. One statement (or COPY, stream, pipeline) at a time.  Another thread or task waits for its end; code of the very
   thread that is in the middle of one would wait for itself and gets :exc:`SandboxBusy`.
2. A transaction that has written makes the statements of other live threads and tasks wait for its end, as row locks
   would, for :data:`PATIENCE` seconds; then they go on (and a ``DirtyReadWarning`` tells).  The test's own session
   makes nobody wait: what a test flushed are its fixtures.
3. Two that would wait for each other are a deadlock: :exc:`SandboxConflict`, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable

from .errors import SandboxBusy, SandboxClosed, SandboxConflict, SandboxTimeout

__all__ = ["PATIENCE", "Actor", "Turns", "current_actor"]

PATIENCE = 2.0
"""Seconds to wait for another thread's or task's unfinished transaction."""

WIRE_TIMEOUT = 30.0
"""Seconds to wait for another thread's or task's COPY, stream or pipeline."""


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


class Turn:
    """What a client shows of itself to those who wait for it."""

    __slots__ = ("actor", "name", "own", "waited_out")

    def __init__(self, name: str, own: bool) -> None:
        self.name = name
        self.own = own
        self.actor: Actor | None = None
        self.waited_out = False  # somebody waited in vain: nobody waits for this transaction again


class Turns:
    """The queue in front of the wire.

    :param unfinished: gives the turns of those whose transactions have written and are not over.
    :param alone: whether there is none of these but perhaps the one given.
    """

    _clock = staticmethod(time.monotonic)  # kept here: tests that freeze the time replace the module's
    inherited_from = 0
    """The pid of the process that the wire belongs to, if this one was forked from it."""

    def __init__(self, unfinished: Callable[[], Iterable[Turn]], alone: Callable[[Turn], bool]) -> None:
        self._unfinished = unfinished
        self._alone = alone
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._waiting: dict[Actor, Turn] = {}
        self._threads = 0
        self._holder: Turn | None = None
        self._holding: Actor | None = None
        self._occupant: Turn | None = None
        self._occupying: Actor | None = None
        _all.add(self)

    def acquire(self, turn: Turn) -> None:
        """Wait for the wire and take it.

        :raises SandboxBusy: this very thread is in the middle of a COPY, stream or pipeline.
        :raises SandboxConflict: a deadlock.
        :raises SandboxTimeout: the wire stayed busy.
        """
        with self._lock:
            if self._take_at_once(turn):
                return
        actor = current_actor()
        with self._changed:
            deadlines: dict[int, float] = {}
            while (obstacle := self._obstacle(turn, actor, blocking=True)) is not None:
                remaining = self._remaining(obstacle, deadlines)
                if remaining > 0:
                    self._threads += 1
                    self._waiting[actor] = obstacle
                    try:
                        self._changed.wait(remaining)
                    finally:
                        self._threads -= 1
                        del self._waiting[actor]
            self._take(turn, actor)

    async def acquire_async(self, turn: Turn) -> None:
        """The same for a task; the loop goes on while it waits."""
        if asyncio._get_running_loop() is None:
            self.acquire(turn)  # driven by hand, without a loop: there is nobody to give way to
            return
        await asyncio.sleep(0)  # every driver gives the other tasks a chance here
        actor = current_actor()
        loop = asyncio.get_running_loop()
        deadlines: dict[int, float] = {}
        while True:
            with self._changed:
                obstacle = self._obstacle(turn, actor, blocking=False)
                remaining = self._remaining(obstacle, deadlines) if obstacle is not None else 0.0
                if obstacle is None:
                    self._take(turn, actor)
                    return
                if remaining <= 0:
                    continue
                sleeper = (loop, loop.create_future())
                self._sleepers.add(sleeper)
                self._waiting[actor] = obstacle
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(remaining):
                        await sleeper[1]
            finally:
                with self._changed:
                    self._sleepers.discard(sleeper)
                    self._waiting.pop(actor, None)

    def release(self) -> None:
        """Give the wire back."""
        with self._lock:
            self._holder = self._holding = None
            if self._threads or self._sleepers:
                self._wake_all()

    def changed(self) -> None:
        """Somebody's transaction is over: let those who wait look again."""
        with self._lock:
            if self._threads or self._sleepers:
                self._wake_all()

    def occupy(self, turn: Turn) -> None:
        """Keep the wire for one client from statement to statement (a pipeline); to be called while it has its turn."""
        self._occupant, self._occupying = turn, self._holding

    def vacate(self) -> None:
        """The end of :meth:`occupy`."""
        with self._changed:
            self._occupant = self._occupying = None
            self._wake_all()

    def reset(self) -> None:
        """A test is over: forget whoever was in the middle of something."""
        with self._changed:
            self._holder = self._holding = self._occupant = self._occupying = None
            self._wake_all()

    def forked(self) -> None:
        """This process was forked from the wire's: two processes cannot share a connection."""
        self.inherited_from = self.inherited_from or os.getppid()
        self._lock = threading.Lock()  # a thread that is not here may have held it
        self._changed = threading.Condition(self._lock)
        self._threads = 0
        self._sleepers.clear()
        self._waiting.clear()
        self._holder = _PARENT

    def _wake_all(self) -> None:
        if self._threads:
            self._changed.notify_all()
        for loop, future in self._sleepers:
            with contextlib.suppress(RuntimeError):  # that loop was closed meanwhile
                loop.call_soon_threadsafe(_wake, future)

    def _take_at_once(self, turn: Turn) -> bool:
        """The common case, in little time: nobody else is there."""
        if self._holder is not None or self._occupant is not None or asyncio._get_running_loop() is not None:
            return False
        if not self._alone(turn):
            return False
        actor = turn.actor
        if actor is None or actor.task is not None or actor.thread is not threading.current_thread():
            actor = current_actor()
            turn.actor = actor
        self._holder, self._holding = turn, actor
        return True

    def _take(self, turn: Turn, actor: Actor) -> None:
        self._holder, self._holding = turn, actor
        turn.actor = actor

    def _obstacle(self, turn: Turn, actor: Actor, *, blocking: bool) -> Turn | None:
        """Who is in the way.  ``blocking``: waiting stops everything else on this thread."""
        if self.inherited_from:
            raise SandboxClosed(
                f"{turn.name[0].upper()}{turn.name[1:]} belongs to process {self.inherited_from}, from which process "
                f"{os.getpid()} was forked; nothing was sent.",
                cause="os.fork() or multiprocessing in the middle of a test: the child has inherited the application's "
                "engines, and two processes cannot share the one connection of the sandbox",
                remedy="use TruncatingDatabaseTest, where the child can have real connections of its own, or start "
                "the child before the test class begins",
            )
        holder, holding = self._holder, self._holding
        if holder is None and self._occupant is not turn:
            holder, holding = self._occupant, self._occupying
        if holder is not None and holding is not None:
            if holding == actor or (blocking and holding.thread is actor.thread):
                raise SandboxBusy(
                    f"{turn.name} cannot run a statement: {holder.name} is in the middle of a COPY, a stream or a "
                    f"pipeline ({holding}).",
                    cause="in the sandbox all connections share one wire, and this code would wait for itself",
                    remedy="finish reading or writing first, or use TruncatingDatabaseTest (real connections)",
                )
            if not holding.alive and holding.task is not None:
                # a task that was cancelled in the middle of it
                self._holder = self._holding = self._occupant = self._occupying = None
            else:
                return holder
        for other in self._unfinished():
            if other is turn or other.own or other.waited_out or other.actor is None or other.actor == actor:
                continue
            if not other.actor.alive or (other.actor.thread is actor.thread and (blocking or other.actor.task is None)):
                continue
            self._refuse_deadlock(turn, actor, other)
            return other
        return None

    def _refuse_deadlock(self, turn: Turn, actor: Actor, other: Turn) -> None:
        seen, each = set[Actor](), other.actor
        while each is not None and each not in seen:
            seen.add(each)
            if each == actor:
                raise SandboxConflict(
                    f"Deadlock: {turn.name} ({actor}) waits for the unfinished transaction of {other.name} "
                    f"({other.actor}), which waits for {turn.name}.",
                    cause="both have written and neither has committed; on one connection they cannot take turns",
                    remedy="commit sooner in one of them, or use TruncatingDatabaseTest to test the two side by side",
                )
            blocker = self._waiting.get(each)
            each = blocker.actor if blocker is not None else None

    def _remaining(self, obstacle: Turn, deadlines: dict[int, float]) -> float:
        """Seconds left to wait for ``obstacle``; 0 once it has been waited for in vain."""
        busy = obstacle is self._holder or obstacle is self._occupant
        now = self._clock()
        deadline = deadlines.setdefault(id(obstacle) * 2 + busy, now + (WIRE_TIMEOUT if busy else PATIENCE))
        if now < deadline:
            return deadline - now
        if busy:
            raise SandboxTimeout(
                f"The wire was busy for {WIRE_TIMEOUT:g} s: {obstacle.name} is still in the middle of a COPY, a stream "
                f"or a pipeline ({obstacle.actor}).",
                cause="a generator or a context manager that was never finished",
                remedy="close it, or use TruncatingDatabaseTest, where each connection is real",
            )
        obstacle.waited_out = True
        return 0.0


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_PARENT = Turn("the process that this one was forked from", own=False)
_all: weakref.WeakSet[Turns] = weakref.WeakSet()


def _forked() -> None:
    for turns in list(_all):
        turns.forked()


os.register_at_fork(after_in_child=_forked)
