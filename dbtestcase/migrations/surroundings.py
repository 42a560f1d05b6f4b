"""A thread of its own for an env.py that is called where a loop runs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["beside_running_loop"]

T = TypeVar("T")


def beside_running_loop(function: Callable[[], T]) -> T:
    """Call a function; where this thread runs an event loop, in another: an async env.py calls ``asyncio.run``."""
    if not _loop_is_running():
        return function()
    outcome: list[Any] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append((context.run(function), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="dbtestcase migrations")
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        try:
            raise error
        finally:
            outcome.clear()  # the traceback holds this frame
    return value  # type: ignore[no-any-return]


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
