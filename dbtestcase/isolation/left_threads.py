"""Threads that go on when the test that started them has ended: what they do must not land in the next test."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Collection
from types import FrameType

from ..errors import SandboxClosed

# Where a thread is that waits for work; one that a test leaves there may well serve the next one.
_WAITING = {"threading", "queue", "selectors", "socketserver", "concurrent", "multiprocessing", "asyncio", "anyio"}

# What a thread asks there between two pieces of its work.
_POLLING = {"is_set", "is_alive", "empty", "full", "qsize", "done", "cancelled", "running"}

_AT_A_SOCKET = {"socket", "ssl", "select"}
_LOOKS, _PAUSE = 25, 0.002  # seconds
_DATABASE = {"sqlalchemy", "psycopg", "psycopg2", "pg8000", "asyncpg", "pymysql", "MySQLdb", "aiosqlite", "dbtestcase"}


class LeftThreads:
    """Which threads were started in a test and were still at work at its end."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._running: list[threading.Thread] = []
        self._left: dict[int, tuple[weakref.ref[threading.Thread], str, FrameType | None]] = {}

    def begin_class(self) -> None:
        """What runs now belongs to no test."""
        self._running = threading.enumerate()
        self._seen.update(self._running)

    def end_class(self) -> None:
        """Hold on to no thread, nor to what one that is gone was at."""
        self._running = []
        here = set(threading.enumerate())
        self._left = {ident: each for ident, each in self._left.items() if each[0]() in here}

    def end_test(self, label: str, besides: Collection[threading.Thread] = ()) -> None:
        """Note who is still at work, besides those that may be."""
        running = threading.enumerate()
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
        frames = sys._current_frames()
        for thread in fresh:
            self._seen.add(thread)
            frame = frames.get(thread.ident or 0)
            if frame is None:
                continue
            if _module_of(frame) not in _WAITING or frame.f_code.co_name in _POLLING:
                self._note(thread, label, frame)

    def bar(self, idents: Collection[int], label: str) -> dict[int, str]:
        """Let threads have no connection any more; one of a pool has none for what it does now.

        :param idents: of threads that were found at work.
        :returns: their names.
        """
        frames = sys._current_frames()
        barred = [thread for thread in threading.enumerate() if thread.ident in idents]
        for thread in barred:
            self._note(thread, label, frames.get(thread.ident or 0))
        return {thread.ident or 0: thread.name for thread in barred}

    def restless(self, idents: Collection[int]) -> set[int]:
        """Those of these threads that go on using the database; one that rests, or is about to, is let go at once."""
        seen = dict.fromkeys(idents, 0)
        for look in range(1, _LOOKS + 1):
            frames = sys._current_frames()
            for ident in list(seen):
                frame = frames.get(ident)
                seen[ident] += frame is not None and _uses_database(frame)
                if frame is None or _rests(frame) or seen[ident] < min(look // 5, 1):
                    del seen[ident]
            if not seen:
                break
            time.sleep(_PAUSE)  # what another thread does is nothing that can be awaited
        return {ident for ident, times in seen.items() if times > _LOOKS / 2}

    def _note(self, thread: threading.Thread, label: str, frame: FrameType | None) -> None:
        self._left[thread.ident or 0] = weakref.ref(thread), label, _job_of(frame)

    def refuse(self) -> None:
        """Somebody asks for a connection: refuse a thread of a test that has ended."""
        if not self._left:
            return
        reference, label, job = self._left.get(threading.get_ident(), (None, "", None))
        thread = threading.current_thread()
        if reference is not None and (reference() is not thread or job is not _job_of(sys._getframe(1))):
            del self._left[threading.get_ident()]  # another thread, or another piece of work
        elif reference is not None:
            raise SandboxClosed(
                f"The thread {thread.name!r} was started by {label}, which has ended; it asked for a connection and "
                "got none.",
                cause="a thread that its test did not wait for; its rows would be in the test that runs now",
                remedy="join it before the test ends",
            )


def _rests(frame: FrameType) -> bool:
    is_waiting = _module_of(frame) in _WAITING | _AT_A_SOCKET and frame.f_code.co_name not in _POLLING
    return is_waiting and not _uses_database(frame)


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
