"""Threads that go on when the test that started them has ended: what they do must not land in the next test."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Collection

from ..errors import SandboxClosed

__all__ = ["LeftThreads"]

# Where a thread is that waits for work; one that a test leaves there may well serve the next one.
_WAITING = {"threading", "queue", "selectors", "socketserver", "concurrent", "multiprocessing", "asyncio", "anyio"}

# What a thread asks there between two pieces of its work.
_POLLING = {"is_set", "is_alive", "empty", "full", "qsize", "done", "cancelled", "running"}


class LeftThreads:
    """Which threads were started in a test and were still at work at its end."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._running: list[threading.Thread] = []
        self._left: dict[int, tuple[weakref.ref[threading.Thread], str]] = {}

    def begin_class(self) -> None:
        """What runs now belongs to no test."""
        self._running = threading.enumerate()
        self._seen.update(self._running)

    def end_class(self) -> None:
        """Hold on to no thread."""
        self._running = []

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
            module = str(frame.f_globals.get("__name__")).partition(".")[0]
            if module not in _WAITING or frame.f_code.co_name in _POLLING:
                self._left[thread.ident or 0] = weakref.ref(thread), label

    def refuse(self) -> None:
        """Somebody asks for a connection: refuse a thread of a test that has ended."""
        if not self._left:
            return
        reference, label = self._left.get(threading.get_ident(), (None, ""))
        thread = threading.current_thread()
        if reference is not None and reference() is thread:
            raise SandboxClosed(
                f"The thread {thread.name!r} was started by {label}, which has ended; it asked for a connection and "
                "got none.",
                cause="a thread that its test did not wait for; its rows would be in the test that runs now",
                remedy="join it before the test ends",
            )
