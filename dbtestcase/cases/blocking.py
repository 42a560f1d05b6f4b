"""Sync code on an async session, in the middle of an async test: factories, row counts.

SQLAlchemy's async sessions do their I/O in a greenlet that hands awaitables to the event loop; outside of it an
attribute that would load raises ``MissingGreenlet``.  In the sandbox a statement never waits for the loop: its
awaitables are done when they have been asked a few times.  So sync code can be given a greenlet of its own, and be done
before it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import SandboxConflict

T = TypeVar("T")


def run_blocking(function: Callable[[], T]) -> T:
    """Call ``function``, which may use an ``AsyncSession``'s ``sync_session``, and return what it returns.

    No other task runs meanwhile.

    :raises SandboxConflict: it would have to wait for another task.
    :raises ImportError: greenlet is not installed (``pip install 'dbtestcase[asyncio]'``).
    """
    from sqlalchemy.util.concurrency import greenlet_spawn, in_greenlet

    if in_greenlet():
        return function()
    return run_coroutine(greenlet_spawn(function))


def run_coroutine(running: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing but the sandbox, with or without a loop; a conflict where it does."""
    try:
        while True:
            awaited = running.send(None)
            if awaited is not None:  # a future: whoever fulfils it cannot run before this returns
                raise SandboxConflict(
                    "Sync code on an async session had to wait for another task.",
                    cause="a factory or assertRowCount() while another task is in the middle of a transaction, a "
                    "factory in a committing class, or a cleanup that needs the loop",
                    remedy="await that task first, or run the code by `await session.run_sync(…)`",
                )
    except StopIteration as finished:
        value: T = finished.value
        return value
    finally:
        running.close()
