"""What is said while a run lasts: one line where a start-up takes longer than a second; warnings, where they belong."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from . import report

PATIENCE = 1.0  # seconds


def say(text: str) -> None:
    """Write one line for the person who waits, and get it out at once."""
    print(f"dbtestcase: {text}", file=sys.stderr, flush=True)


class _Progress:
    """What one process has been busy with, for how long, and whether it has said so."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.parts: list[str] = []
        self.spent = 0.0
        self.said = False

    def speak(self) -> None:
        parts = self.parts[-1:]  # the innermost; none if it ended in this moment
        if parts and not self.said:
            self.said = True
            say(f"{parts[0]} ...")


_progress = _Progress()


@contextmanager
def doing(what: str, phase: str = "start") -> Iterator[None]:
    """Do a part of the start-up, in the thread that waits for it.

    When all parts together have taken a second, one line says what is going on; a process says it once.  A part may
    hold parts: the innermost one is named.

    :param what: a participle and its object, such as ``initialising PostgreSQL 18.6``.
    :param phase: what the report counts it as: ``"start"`` of a server, or ``"template"``.
    """
    recorder = report.recorder()
    with recorder.phase(phase, what) if recorder is not None else nullcontext(), _saying(what):
        yield


@contextmanager
def _saying(what: str) -> Iterator[None]:
    global _progress
    if _progress.pid != os.getpid():  # inherited through a fork
        _progress = _Progress()
    progress = _progress
    if progress.said or progress.parts:
        progress.parts.append(what)
        try:
            yield
        finally:
            progress.parts.pop()
        return
    started = time.monotonic()
    timer = threading.Timer(max(PATIENCE - progress.spent, 0.0), progress.speak)
    timer.daemon = True
    progress.parts.append(what)
    timer.start()
    try:
        yield
    finally:
        progress.parts.pop()
        timer.cancel()
        timer.join()
        progress.spent += time.monotonic() - started


def warn_at(message: str, category: type[Warning], filename: str, lineno: int, source: Any = None) -> None:
    """Give a warning of ``source`` that belongs to a line, as Python's filters want it: ignored, once, as an error."""
    recorder = report.recorder()
    if recorder is not None:  # before the warning, which may be an error
        where = os.path.relpath(filename) if filename.startswith(os.getcwd()) else filename
        recorder.write("warning", category=category.__name__, line=f"{where}:{lineno}", text=message)
    warnings.warn_explicit(message, category, filename, lineno, source=source)
