"""Sessions that a test leaves open: they are told of the rollback that ended the test.

A global ``scoped_session`` that nobody removes is still in its transaction when the test ends, and holds objects whose
rows are gone.  On a database whose rows are deleted after each test the next test would find these objects, here it
would find a connection that is no longer its own.  Told that everything was rolled back, the session is as new.  The
same goes for the sessions of a pool's threads, which wait for the next test's work.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session


class OpenSessions:
    """The sessions of the application whose transactions have begun in a sandbox, whose connections have a key."""

    def __init__(self, key_of: Callable[[Connection], Any]) -> None:
        self._key_of = key_of
        self._begun: list[tuple[weakref.ref[Session], Any, threading.Thread]] = []

    def __enter__(self) -> OpenSessions:
        event.listen(Session, "after_begin", self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        event.remove(Session, "after_begin", self._note)
        self._begun.clear()

    def _note(self, session: Session, transaction: object, connection: Connection) -> None:
        key = self._key_of(connection)
        if key is not None:
            self._begun.append((weakref.ref(session), key, threading.current_thread()))

    def roll_back(self, is_open: Callable[[Any], bool]) -> list[Exception]:
        """Roll back the sessions whose connection is not open any more; what the application's own listeners raised.

        Those of this thread, and of threads that wait for work in a pool.  Any other thread may be using its session
        now; what it does is refused when it asks for the connection.
        """
        problems: list[Exception] = []
        kept = []
        for reference, key, thread in self._begun:
            session = reference()
            if session is None or not session.in_transaction():
                continue
            if is_open(key):
                kept.append((reference, key, thread))
            elif thread is threading.current_thread() or _waits_for_work(thread):
                try:
                    session.rollback()
                except Exception as error:  # a listener of the application's: the test is answerable for it
                    problems.append(error)
        self._begun = kept
        return problems


_POOLS = ("threading", "queue", "concurrent.futures", "multiprocessing.pool", "anyio")
"""The modules whose code is all that a thread of a pool runs while it has nothing to do."""


def _waits_for_work(thread: threading.Thread) -> bool:
    """Whether a thread is one of a pool's that has nothing to do: no code but the pool's own is on its stack."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if not any(name == pool or name.startswith(f"{pool}.") for pool in _POOLS):
            return False
        frame = frame.f_back
    return True
