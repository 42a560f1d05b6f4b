"""What env.py does to the process, kept from it or put back: loggers; and a thread of its own where a loop runs."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import logging.config
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["beside_running_loop", "loggers_kept"]

T = TypeVar("T")


@contextmanager
def loggers_kept() -> Iterator[None]:
    """Keep env.py from configuring the test process's logging.

    ``fileConfig`` closes every handler and disables the application's loggers: ``assertLogs`` would see nothing.  It
    cannot be undone afterwards, so that it does nothing while the environment runs.  Levels, handlers and flags that
    env.py sets by hand are put back.
    """
    root = logging.getLogger()
    before = {logger: _state(logger) for logger in _loggers(root)}
    file_config, dict_config = logging.config.fileConfig, logging.config.dictConfig
    logging.config.fileConfig = logging.config.dictConfig = _configure_nothing
    try:
        yield
    finally:
        logging.config.fileConfig, logging.config.dictConfig = file_config, dict_config
        for logger, state in before.items():
            if state != _state(logger):
                level, handlers, logger.disabled, logger.propagate = state
                logger.handlers[:] = handlers
                logger.setLevel(level)


def beside_running_loop(function: Callable[[], T]) -> T:
    """Call a function; in a thread of its own where this one runs an event loop.

    An asynchronous env.py calls ``asyncio.run``, which refuses to run in a thread that already runs a loop.
    The loop waits meanwhile, as it does for every statement of a test.
    """
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


def _loggers(root: logging.Logger) -> Iterator[logging.Logger]:
    yield root
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _state(logger: logging.Logger) -> tuple[int, list[logging.Handler], bool, bool]:
    return logger.level, list(logger.handlers), logger.disabled, logger.propagate


def _configure_nothing(*arguments: Any, **options: Any) -> None:
    """Stand in for ``fileConfig`` and ``dictConfig``."""
