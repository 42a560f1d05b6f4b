"""Threads that go on when the test that started them has ended: what they do must not land in the next test."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Collection
from types import FrameType
from typing import Any

from ..errors import SandboxClosed
from ..reporting import is_application

# Where a thread is that waits for work; one that a test leaves there may well serve the next one.
_WAITING = {"threading", "queue", "selectors", "socketserver", "concurrent", "multiprocessing", "asyncio", "anyio"}

# What a thread asks there between two pieces of its work.
_POLLING = {"is_set", "is_alive", "empty", "full", "qsize", "done", "cancelled", "running"}

_AT_A_SOCKET = {"socket", "ssl", "select"}
_FEW_LOOKS, _LOOKS, _MORE_LOOKS = 5, 25, 50
_LOOKS_OF_BARRED = 500  # what still runs on the server then is ended there
_PAUSE = 0.002  # seconds
_DATABASE = {"sqlalchemy", "psycopg", "psycopg2", "pg8000", "asyncpg", "pymysql", "MySQLdb", "aiosqlite", "dbtestcase"}


class LeftThreads:
    """Which threads were started in a test and were still at work at its end."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._running: list[threading.Thread] = []
        self._left: dict[int, tuple[weakref.ref[threading.Thread], str, FrameType | None]] = {}
        self._loops: dict[str, tuple[weakref.ref[threading.Thread], str]] = {}
        """Packages whose loop a test has left, such as a scheduler's, which has a pool do its jobs."""
        self._jobs: dict[int, FrameType | None] = {}
        self._waiting: dict[Any, int] = {}
        """How much waited in the queue of each pool when the test began."""
        self._timers: list[threading.Thread] = []
        self._turned_away: set[int] = set()
        """The threads that were refused since they were barred."""
        self.refused: dict[str, str] = {}
        """The threads that were refused a connection, and the tests that had started them."""
        _all.add(self)

    def begin_class(self) -> None:
        """What runs now belongs to no test."""
        self._running = threading.enumerate()
        self._seen.update(self._running)

    def begin_test(self) -> None:
        """What is being done now belongs to no test, or to an earlier one."""
        self._jobs = _jobs()
        self._waiting = {queue: queue.qsize() for queue in _pools().values()}
        self._timers = _timers()

    def begin_sandboxed_test(self) -> None:
        """The same, where only the workers of pools are of interest: other threads are known as a whole."""
        pools = _pools()
        if pools or self._jobs:
            self._jobs = _jobs()
            self._waiting = {queue: queue.qsize() for queue in pools.values()}

    def new_jobs(self) -> set[int]:
        """The threads that are at something which was begun since :meth:`begin_test`."""
        self._frames_once_begun({each.ident or 0 for each in threading.enumerate()} - self._jobs.keys())
        new = {ident for ident, job in _jobs().items() if job is not None and self._jobs.get(ident) is not job}
        return new | {each.ident or 0 for each in _timers() if each not in self._timers}  # a number may be another's

    def at_work(self) -> set[int]:
        """The threads that are at anything at all."""
        return {ident for ident, job in _jobs().items() if job is not None}

    def end_class(self) -> None:
        """Hold on to no thread, nor to what one that is gone was at."""
        self._running = []
        self._jobs.clear()
        self._waiting.clear()
        self._timers.clear()
        self.refused.clear()
        if self._left:
            here = set(threading.enumerate())
            self._left = {ident: each for ident, each in self._left.items() if each[0]() in here}

    def end_test(self, label: str, besides: Collection[threading.Thread] = ()) -> None:
        """Note who is still at work, besides those that may be."""
        running, pools = threading.enumerate(), _pools()
        if pools:
            self._end_jobs(label, pools.keys() - set(besides))
        if running == self._running:
            return
        self._running = [] if besides else running  # those that may be are looked at again at the end of the test
        if len(running) == 1:
            self._left.clear()
            return
        current = threading.current_thread()
        known = {current, *besides}
        fresh = [each for each in running if each not in known and each not in self._seen]
        if not fresh:
            return
        frames = self._frames_once_begun({each.ident or 0 for each in fresh})
        for thread in fresh:
            self._seen.add(thread)
            frame = frames.get(thread.ident or 0)
            if frame is not None and (isinstance(thread, threading.Timer) or _goes_on(frame)):
                self._note(thread, label, frame)

    def _end_jobs(self, label: str, workers: Collection[threading.Thread]) -> None:
        """Note what pools are at since the test began; what waits in their queues is let begin, not in the next one."""
        frames = self._frames_once_begun({each.ident or 0 for each in workers})
        for thread in workers:
            frame = frames.get(thread.ident or 0)
            job = _job_of(frame)
            if frame is None or job is None or self._jobs.get(thread.ident or 0) is job:
                continue
            if _goes_on(frame) or _uses_database(frame):
                self._note(thread, label, frame)

    def _frames_once_begun(self, idents: Collection[int]) -> dict[int, FrameType]:
        """The frames of all threads, after these have come to what they were started for: ``start()`` is back before.

        Jobs that a pool was handed since are begun as well by then, unless all of its threads are at others.
        """
        for _ in range(_LOOKS):
            frames = sys._current_frames()
            begin = any(ident in idents and _begins(frame) for ident, frame in frames.items())
            if not begin and not self._has_new_jobs_to_begin(frames):
                break
            time.sleep(_PAUSE)
        return frames

    def _has_new_jobs_to_begin(self, frames: dict[int, FrameType]) -> bool:
        """Whether a job in a queue may be of this test: not where all that a pool has done since is what it was at."""
        for thread, queue in _pools().items():
            if size := queue.qsize():
                job = _job_of(frames.get(thread.ident or 0))
                if size > self._waiting.get(queue, 0) or job is not self._jobs.get(thread.ident or 0):
                    return True
        return False

    def bar(self, idents: Collection[int], label: str) -> dict[int, str]:
        """Let threads have no connection any more; one of a pool has none for what it does now.

        :param idents: of threads that were found at work.
        :returns: their names.
        """
        frames = sys._current_frames()
        barred = [thread for thread in threading.enumerate() if thread.ident in idents]
        for thread in barred:
            self._turned_away.discard(thread.ident or 0)
            self._note(thread, label, frames.get(thread.ident or 0))
        return {thread.ident or 0: thread.name for thread in barred}

    def let_arrive(self, idents: Collection[int]) -> None:
        """Wait until threads that were barred have sent what they were about to send; what comes after is refused."""
        for _ in range(_LOOKS_OF_BARRED):
            frames = sys._current_frames()
            if not any(_uses_database(frames.get(ident)) for ident in set(idents) - self._turned_away):
                return
            time.sleep(_PAUSE)

    def restless(self, idents: Collection[int], users: Collection[int]) -> tuple[set[int], bool]:
        """Those of these threads that go on by themselves: that use the database all the while, or sleep in between.

        One that waits for work, ends, or is about to, is let go at once.

        :param users: those that have used the database, at which it is looked more often.
        :returns: them, and whether any had to be waited for, and may have written in that time.
        """
        timers = {each.ident or 0 for each in _timers()} & set(idents)
        seen, others, look = dict.fromkeys(set(idents) - timers, 0), set[int](), 0
        while seen and look < _MORE_LOOKS:
            look += 1
            frames = sys._current_frames()
            for ident in list(seen):
                frame = frames.get(ident)
                if frame is None or _rests(frame):
                    del seen[ident]
                elif look > _FEW_LOOKS and ident not in users:
                    del seen[ident]
                    others.add(ident)
                else:
                    seen[ident] += _uses_database(frame)
            if not seen or (look == _LOOKS and min(seen.values()) > _LOOKS / 2):
                break
            time.sleep(_PAUSE)  # what another thread does is nothing that can be awaited
        return timers | others | seen.keys(), look > 1

    def _note(self, thread: threading.Thread, label: str, frame: FrameType | None) -> None:
        self._left[thread.ident or 0] = weakref.ref(thread), label, _job_of(frame)
        loop = _loop_of(frame)
        if loop is not None and not is_application(loop.f_code.co_filename):
            self._loops[_module_of(loop)] = weakref.ref(thread), label

    def refuse(self) -> None:
        """Somebody asks for a connection: refuse a thread of a test that has ended."""
        if not self._left:
            return
        reference, label, job = self._left.get(threading.get_ident(), (None, "", None))
        thread, now = threading.current_thread(), _job_of(sys._getframe(1))
        if reference is None and self._loops and now is not None and thread is not threading.main_thread():
            loop, label = self._loops.get(_module_of(now), (None, ""))
            started = loop() if loop is not None else None
            if started is not None and started.is_alive():
                raise self._refusal(thread, f"works for {started.name!r}, which was started by {label}", label)
        is_same = isinstance(thread, threading.Timer) or job is now
        if reference is not None and not (reference() is thread and is_same):
            del self._left[threading.get_ident()]  # another thread, or another piece of work
        elif reference is not None:
            raise self._refusal(thread, f"was started by {label}", label)

    def _refusal(self, thread: threading.Thread, how: str, label: str) -> SandboxClosed:
        self._turned_away.add(threading.get_ident())
        self.refused[thread.name] = label
        return SandboxClosed(
            f"The thread {thread.name!r} {how}, which has ended; it asked for a connection and got none.",
            cause="a thread that its test did not wait for; its rows would be in the test that runs now",
            remedy="join it (stop the scheduler) before the test ends",
        )


_all: weakref.WeakSet[LeftThreads] = weakref.WeakSet()


def refuse_left() -> None:
    """Refuse a thread of a test that has ended, also where its class has."""
    for each in list(_all):
        each.refuse()


def _jobs() -> dict[int, FrameType | None]:
    """What all threads but this one are at, those too that `threading` does not know of."""
    here = threading.get_ident()
    return {ident: _job_of(frame) for ident, frame in sys._current_frames().items() if ident != here}


def _timers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if isinstance(each, threading.Timer)]


def _pools() -> dict[threading.Thread, Any]:
    """The workers of pools, and the queues that they take their jobs from."""
    pools = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", None)
    return {thread: queue for thread, queue in list(pools.items()) if thread.is_alive()} if pools else {}


def _begins(frame: FrameType | None) -> bool:
    """Whether a thread has not come yet to what it was started for (or has just ended)."""
    while frame is not None and _module_of(frame) == "threading" and frame.f_code.co_name != "wait":
        frame = frame.f_back
    return frame is None


def _waits(frame: FrameType) -> bool:
    return _module_of(frame) in _WAITING and frame.f_code.co_name not in _POLLING and not _begins(frame)


def _goes_on(frame: FrameType) -> bool:
    """Whether a thread does something without being asked; one that waits may well serve the next test."""
    return not _waits(frame) or _wakes_by_itself(frame)


def _rests(frame: FrameType) -> bool:
    """Whether a thread does nothing until somebody else wants something of it."""
    waits = _waits(frame) or _module_of(frame) in _AT_A_SOCKET
    return waits and not _wakes_by_itself(frame) and not _uses_database(frame)


def _wakes_by_itself(frame: FrameType | None) -> bool:
    return _loop_of(frame) is not None


def _loop_of(frame: FrameType | None) -> FrameType | None:
    """The code of an application or library that waits for an event, for a certain time: ``while not stop.wait(5)``."""
    is_timed = False
    while frame is not None and _module_of(frame) == "threading":
        is_timed |= frame.f_locals.get("timeout") is not None
        frame = frame.f_back
    return frame if is_timed and frame is not None and _module_of(frame) not in _WAITING | _DATABASE else None


def _uses_database(frame: FrameType | None) -> bool:
    while frame is not None:
        if _module_of(frame) in _DATABASE:
            return True
        frame = frame.f_back
    return False


def _job_of(frame: FrameType | None) -> FrameType | None:
    """The outermost code on a stack that is not that of a thread or of a pool."""
    job = None
    while frame is not None:
        if _module_of(frame) not in _WAITING:
            job = frame
        frame = frame.f_back
    return job


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]
