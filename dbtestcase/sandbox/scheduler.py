"""Who is next on the one wire, for threads and for tasks.

Four rules, in this order:

1. One statement (or COPY, stream, pipeline) at a time.  Another thread or task waits for its end; code of the very
   thread that is in the middle of one would wait for itself and gets :exc:`SandboxBusy`.
2. A transaction that has written makes the statements of other live threads and tasks wait for its end, as row locks
   would, for :data:`PATIENCE` seconds; then they go on (and a ``DirtyReadWarning`` tells).  The test's own session
   makes nobody wait: what a test flushed are its fixtures.
3. Two that would wait for each other are a deadlock: :exc:`SandboxConflict`, at once.
4. Who has waited longer goes first, so that nobody starves beside a thread that never rests.

The harness takes the wire like everybody else (:meth:`Scheduler.seized`), between two statements of other threads.

The collector may run the finalizer of a pool anywhere, also in the middle of a decision made here; what it asks for is
refused with :exc:`SandboxBusy`, as in the middle of a statement.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator

from ..errors import SandboxBusy, SandboxClosed, SandboxConflict, SandboxTimeout
from .tickets import Actor, Reason, Ticket, Wait, current_actor, runs

PATIENCE = 2.0
"""Seconds to wait for another thread's or task's unfinished transaction."""

WIRE_TIMEOUT = 30.0
"""Seconds to wait for another thread's or task's COPY, stream or pipeline."""

INTERRUPT_TIMEOUT = 5.0
"""Seconds to wait for a statement that was interrupted because its test has ended."""

COURTESY = 0.25
"""Seconds to let somebody go first who has waited longer."""

LOOK = 0.25
"""Seconds after which one that waits looks whether time has passed for the others too."""


class Scheduler:
    """The queue in front of the wire.

    :param unfinished: gives the tickets of those whose transactions have written and are not over.
    :param alone: whether there is none of these but perhaps the one given.
    """

    _clock = staticmethod(time.monotonic)  # kept here: tests that freeze the time replace the module's
    inherited_from = 0
    """The pid of the process that the wire belongs to, if this one was forked from it."""

    def __init__(self, unfinished: Callable[[], Iterable[Ticket]], alone: Callable[[Ticket], bool]) -> None:
        self._unfinished = unfinished
        self._alone = alone
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._deciding = False
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._waiting: dict[Actor, Wait] = {}  # the first comes first
        self._threads = 0
        self._holder: Ticket | None = None
        self._holding: Actor | None = None
        self._occupant: Ticket | None = None
        self._occupying: Actor | None = None
        self._harness = Ticket("the test framework", own=True)
        _all.add(self)

    # -- what the connections do

    def acquire(self, ticket: Ticket) -> None:
        """Wait for the wire and take it.

        :raises SandboxBusy: this very thread is in the middle of a COPY, stream or pipeline.
        :raises SandboxConflict: a deadlock.
        :raises SandboxTimeout: the wire stayed busy.
        """
        if self.take_at_once(ticket):
            return
        actor = current_actor()
        with self._decision(ticket):
            limits = _Limits(self._clock)
            try:
                while (wait := self._obstacle(ticket, actor, limits, blocking=True)) is not None:
                    if (remaining := self._remaining(wait, limits)) > 0:
                        if actor not in self._waiting:
                            self._wake_all()  # who gives way to a task of this thread does so in vain now
                        self._waiting[actor] = wait
                        self._wait(remaining)
                self._take(ticket, actor)
            finally:
                self._leave(actor)

    def take_at_once(self, ticket: Ticket) -> bool:
        """The common case of :meth:`acquire`, in little time: nobody else is there; whether it is that case."""
        with self._lock:
            if self._deciding:
                raise self._interrupted(ticket)
            self._deciding = True
            try:
                if self._holder is not None or self._occupant is not None or self._waiting or not self._alone(ticket):
                    return False
                task = None if asyncio._get_running_loop() is None else asyncio.current_task()
                actor = ticket.actor
                if actor is None or actor.task is not task or actor.thread is not threading.current_thread():
                    ticket.actor = actor = Actor(threading.current_thread(), task)
                self._holder, self._holding = ticket, actor
                return True
            finally:
                self._deciding = False

    async def acquire_async(self, ticket: Ticket) -> None:
        """The same for a task; the loop goes on while it waits."""
        if asyncio._get_running_loop() is None:
            self.acquire(ticket)  # driven by hand, without a loop: there is nobody to give way to
            return
        await asyncio.sleep(0)  # every driver gives the other tasks a chance here
        if self.take_at_once(ticket):
            return
        actor = current_actor()
        loop = asyncio.get_running_loop()
        limits = _Limits(self._clock)
        try:
            while True:
                with self._decision(ticket):
                    wait = self._obstacle(ticket, actor, limits, blocking=False)
                    remaining = self._remaining(wait, limits) if wait is not None else 0.0
                    if wait is None:
                        self._take(ticket, actor)
                        return
                    if remaining <= 0:
                        continue
                    sleeper = (loop, loop.create_future())
                    self._sleepers.add(sleeper)
                    self._waiting[actor] = wait
                try:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(remaining):
                            await sleeper[1]
                finally:
                    with self._lock:
                        self._sleepers.discard(sleeper)
        finally:
            with self._lock:
                self._leave(actor)

    def release(self, ticket: Ticket) -> None:
        """Give the wire back, unless it was taken away meanwhile; those who wait see what has ended by now."""
        with self._lock:
            if self._holder is ticket:
                self._holder = self._holding = None
            if self._threads or self._sleepers:
                self._wake_all()

    def has_wire(self, ticket: Ticket) -> bool:
        """Whether what the wire is doing, if anything, is this one's."""
        return (self._holder or self._occupant) is ticket

    def occupy(self, ticket: Ticket) -> None:
        """Keep the wire for one client from statement to statement (a pipeline); to be called while it has the wire."""
        self._occupant, self._occupying = ticket, self._holding

    def vacate(self) -> None:
        """The end of :meth:`occupy`."""
        with self._lock:
            self._occupant = self._occupying = None
            self._wake_all()

    # -- what the harness does

    def seized(self, interrupt: Callable[[], None], cut: Callable[[str], None]) -> Seizure:
        """Take the wire for the harness: at the end of a test, whoever is in the middle of something.

        A statement of another thread is waited for, and interrupted after :data:`PATIENCE` seconds; if that is of no
        avail, the connection is cut and the wire taken.  What this very thread has begun and not finished (a stream,
        say) is over.

        :param interrupt: makes a statement that runs fail, where the driver can.
        :param cut: makes it fail in any case, and the wire useless; it is given the reason.
        """
        return Seizure(self, interrupt, cut)

    def seize(self, interrupt: Callable[[], None], cut: Callable[[str], None]) -> bool:
        """Take the wire for the harness (see :meth:`seized`).

        :returns: whether it has to be released: it was not the harness's already.
        """
        holding = self._holding
        if self._holder is self._harness and holding is not None and holding.thread is threading.current_thread():
            return False
        if self.take_at_once(self._harness):
            return True
        actor = current_actor()
        with self._decision(self._harness):
            try:
                self._wait_for_statement(actor, interrupt, cut)
                self._take(self._harness, actor)
            finally:
                self._leave(actor)
        return True

    def free(self) -> None:
        """The harness gives the wire back."""
        self.release(self._harness)

    def _wait_for_statement(self, actor: Actor, interrupt: Callable[[], None], cut: Callable[[str], None]) -> None:
        def cut_off() -> None:
            cut(f"{self._holding} was in the middle of a statement, COPY or stream when the test ended, and went on")

        for seconds, then in ((PATIENCE, interrupt), (INTERRUPT_TIMEOUT, cut_off), (COURTESY, None)):
            deadline = self._clock() + seconds
            while (holder := self._holder_elsewhere(actor)) is not None:
                self._waiting[actor] = Wait(self._harness, holder, Reason.WIRE, blocking=True)
                if not self._wait(max(deadline - self._clock(), 0.0)):
                    break
            else:
                return
            if then is not None:
                then()

    def _holder_elsewhere(self, actor: Actor) -> Ticket | None:
        """Who is in the middle of a statement in another thread."""
        holding = self._holding
        if holding is None or holding.thread is actor.thread or not runs(holding.thread) or self.inherited_from:
            return None
        return self._holder

    def reset(self) -> None:
        """A test is over: forget whoever was in the middle of something."""
        with self._lock:
            if self._holder is not self._harness:
                self._holder = self._holding = None
            self._occupant = self._occupying = None
            self._wake_all()

    def forked(self) -> None:
        """This process was forked from the wire's: two processes cannot share a connection."""
        self.inherited_from = self.inherited_from or os.getppid()
        self._lock = threading.RLock()  # a thread that is not here may have held it
        self._changed = threading.Condition(self._lock)
        self._deciding = False
        self._threads = 0
        self._sleepers.clear()
        self._waiting.clear()
        self._holder = _PARENT

    # -- inside

    @contextlib.contextmanager
    def _decision(self, ticket: Ticket) -> Iterator[None]:
        """Nobody else decides anything meanwhile, neither another thread nor a finalizer in this one."""
        with self._lock:
            if self._deciding:
                raise self._interrupted(ticket)
            self._deciding = True
            try:
                yield
            finally:
                self._deciding = False

    def _interrupted(self, ticket: Ticket) -> SandboxBusy:
        return SandboxBusy(
            f"{ticket.name} cannot run a statement: this thread is just about to run one.",
            cause="the garbage collector, or a signal, runs code of the application that uses the database",
            remedy="close connections and sessions where they were opened",
        )

    def _wait(self, seconds: float) -> bool:
        """Let the others go on until something has changed; whether it has, within that time."""
        self._threads += 1
        self._deciding = False
        try:
            return self._changed.wait(seconds)
        finally:
            self._deciding = True
            self._threads -= 1

    def _leave(self, actor: Actor) -> None:
        """Wait no longer; those who came later need not give way any more."""
        if self._waiting.pop(actor, None) is not None:
            self._wake_all()

    def _wake_all(self) -> None:
        if self._threads:
            self._changed.notify_all()
        for loop, future in self._sleepers:
            with contextlib.suppress(RuntimeError):  # that loop was closed meanwhile
                loop.call_soon_threadsafe(_wake, future)

    def _take(self, ticket: Ticket, actor: Actor) -> None:
        self._holder, self._holding = ticket, actor
        ticket.actor = actor

    def _obstacle(self, ticket: Ticket, actor: Actor, limits: _Limits, *, blocking: bool) -> Wait | None:
        """Who is in the way.  ``blocking``: waiting stops everything else on this thread."""
        if self.inherited_from:
            raise self._inherited(ticket)
        holder, holding = self._holder, self._holding
        if holder is None and self._occupant is not ticket:
            holder, holding = self._occupant, self._occupying
        if holder is not None and holding is not None:
            if holding == actor or (blocking and holding.thread is actor.thread):
                raise SandboxBusy(
                    f"{ticket.name} cannot run a statement: {holder.name} is in the middle of a COPY, a stream or a "
                    f"pipeline ({holding}).",
                    cause="in the sandbox all connections share one wire, and this code would wait for itself",
                    remedy="finish reading or writing first, or use TruncatingDatabaseTest (real connections)",
                )
            if not holding.alive and holding.task is not None:
                # a task that was cancelled in the middle of it
                self._holder = self._holding = self._occupant = self._occupying = None
            else:
                return Wait(ticket, holder, Reason.WIRE, blocking)
        unfinished = list(self._unfinished())
        for other in unfinished:
            if other is ticket or other.own or other.waited_out or other.actor is None or other.actor == actor:
                continue
            if not other.actor.alive or (other.actor.thread is actor.thread and (blocking or other.actor.task is None)):
                continue
            if other.actor.awaits(actor):
                continue
            self._refuse_deadlock(ticket, actor, other, unfinished)
            return Wait(ticket, other, Reason.TRANSACTION, blocking)
        stopped = {each.thread for each, wait in self._waiting.items() if wait.blocking}
        for each, wait in self._waiting.items():
            if each == actor:
                break
            if each.thread is actor.thread or (each.thread in stopped and not wait.blocking) or each in limits.passed:
                continue
            if all(other.own or other.waited_out or other is wait.ticket for other in unfinished):
                return Wait(ticket, wait.ticket, Reason.QUEUE, blocking)
        return None

    def _inherited(self, ticket: Ticket) -> SandboxClosed:
        return SandboxClosed(
            f"{ticket.name[0].upper()}{ticket.name[1:]} belongs to process {self.inherited_from}, from which process "
            f"{os.getpid()} was forked; nothing was sent.",
            cause="os.fork() or multiprocessing in the middle of a test: the child has inherited the application's "
            "engines, and two processes cannot share the one connection of the sandbox",
            remedy="use TruncatingDatabaseTest, where the child can have real connections of its own, or start "
            "the child before the test class begins",
        )

    def _refuse_deadlock(self, ticket: Ticket, actor: Actor, other: Ticket, unfinished: list[Ticket]) -> None:
        seen, each = set[Actor](), other.actor
        while each is not None and each not in seen:
            seen.add(each)
            if each == actor:
                raise SandboxConflict(
                    f"Deadlock: {ticket.name} ({actor}) waits for the unfinished transaction of {other.name} "
                    f"({other.actor}), which waits for {ticket.name}.",
                    cause="both have written and neither has committed; on one connection they cannot take turns",
                    remedy="commit sooner in one of them, or use TruncatingDatabaseTest to test the two side by side",
                )
            wait = self._waiting.get(each)
            # who waits learns of it only when it is woken: what it waits for may be over already
            is_over = (
                wait is None
                or (wait.reason is Reason.TRANSACTION and wait.obstacle not in unfinished)
                or (wait.reason is Reason.WIRE and wait.obstacle not in (self._holder, self._occupant))
            )
            each = None if wait is None or is_over or wait.reason is Reason.QUEUE else wait.obstacle.actor

    def _remaining(self, wait: Wait, limits: _Limits) -> float:
        """Seconds left to wait; 0 once it has been waited for in vain."""
        remaining = limits.remaining(wait)
        if remaining > 0:
            return remaining
        if wait.reason is Reason.WIRE:
            raise SandboxTimeout(
                f"The wire was busy for {WIRE_TIMEOUT:g} s: {wait.obstacle.name} is still in the middle of a COPY, a "
                f"stream or a pipeline ({wait.obstacle.actor}).",
                cause="a generator or a context manager that was never finished",
                remedy="close it, or use TruncatingDatabaseTest, where each connection is real",
            )
        if wait.reason is Reason.TRANSACTION:
            wait.obstacle.waited_out = True
        else:
            limits.passed.update(each for each, other in self._waiting.items() if other.ticket is wait.obstacle)
        return 0.0


class Seizure:
    """``with``: the harness has the wire.  A class, since each test passes here a few times."""

    __slots__ = ("_cut", "_interrupt", "_is_mine", "_scheduler")

    def __init__(self, scheduler: Scheduler, interrupt: Callable[[], None], cut: Callable[[str], None]) -> None:
        self._scheduler, self._interrupt, self._cut = scheduler, interrupt, cut

    def __enter__(self) -> None:
        self._is_mine = self._scheduler.seize(self._interrupt, self._cut)

    def __exit__(self, *exc_info: object) -> None:
        if self._is_mine:
            self._scheduler.free()


class _Limits:
    """How long one that waits will do so, for each of those in its way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looked = clock()
        self._deadlines: dict[tuple[int, Reason], float] = {}
        self.passed: set[Actor] = set()
        """Those that were let go first and did not go."""

    def remaining(self, wait: Wait) -> float:
        """Seconds until the deadline, which is set at the first question, or until the next look.

        Where this process stood still (stopped, in a debugger, its event loop blocked) nobody else could go on either.
        """
        now = self._clock()
        lost = max(now - self._looked - 2 * LOOK, 0.0)
        self._looked = now
        for key in self._deadlines if lost else ():
            self._deadlines[key] += lost
        seconds = {Reason.WIRE: WIRE_TIMEOUT, Reason.TRANSACTION: PATIENCE, Reason.QUEUE: COURTESY}[wait.reason]
        return min(self._deadlines.setdefault((id(wait.obstacle), wait.reason), now + seconds) - now, LOOK)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_PARENT = Ticket("the process that this one was forked from", own=False)
_all: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def _forked() -> None:
    for scheduler in list(_all):
        scheduler.forked()


os.register_at_fork(after_in_child=_forked)
