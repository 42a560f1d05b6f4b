"""The logging that env.py configures, kept from the process of the tests; the application's own stays.

``alembic`` has its process to itself, the tests have not: ``fileConfig`` closes every handler and disables every
logger, so that ``assertLogs`` would see nothing.  Told apart are the two by who asks for it.  A module that env.py is
the first to import configures the logging that the application has wherever it runs: that stays.  What env.py or a
revision does itself, or calls a function for, is undone, and ``fileConfig`` and ``dictConfig``, which cannot be undone,
do nothing.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ATTRIBUTES = ("level", "disabled", "propagate")


@dataclass
class _State:
    """What a logger is to be in the end."""

    level: int = logging.NOTSET
    disabled: bool = False
    propagate: bool = True
    handlers: list[logging.Handler] = field(default_factory=list)


@contextmanager
def loggers_kept(folders: Sequence[Path]) -> Iterator[None]:
    """Undo what env.py and revisions, which lie in these folders, do to the loggers while the block lasts."""
    keeper = _Keeper(folders)
    patches: list[tuple[Any, str, Any]] = [
        (logging.config, "fileConfig", keeper.configuring(logging.config.fileConfig)),
        (logging.config, "dictConfig", keeper.configuring(logging.config.dictConfig)),
        (logging.Logger, "addHandler", keeper.watching_handlers(logging.Logger.addHandler)),
        (logging.Logger, "removeHandler", keeper.watching_handlers(logging.Logger.removeHandler)),
        (logging.Logger, "__setattr__", keeper.watching_attributes()),
    ]
    before = [(owner, name, getattr(owner, name), name in vars(owner)) for owner, name, _ in patches]
    disabled = logging.root.manager.disable
    for owner, name, replacement in patches:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original, own in before:
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)
        logging.root.manager.disable = disabled
        keeper.restore()


class _Keeper:
    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(f"{folder}/" for folder in folders)
        self._wanted = {
            logger: _State(logger.level, logger.disabled, logger.propagate, list(logger.handlers))
            for logger in _loggers()
        }

    def restore(self) -> None:
        for logger in _loggers():
            wanted = self._wanted.get(logger) or _State()
            if logger.handlers != wanted.handlers:
                logger.handlers[:] = wanted.handlers
            logger.disabled, logger.propagate = wanted.disabled, wanted.propagate
            if logger.level != wanted.level:
                logger.setLevel(wanted.level)  # which clears the caches of isEnabledFor()

    def configuring(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``fileConfig`` or ``dictConfig``: the application's own is done and stays, as a whole."""

        def configure(*arguments: Any, **options: Any) -> Any:
            return None if self._by_env_py() else original(*arguments, **options)

        return configure

    def watching_handlers(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def change(logger: logging.Logger, handler: logging.Handler) -> None:
            original(logger, handler)
            if not self._by_env_py():
                wanted = self._wanted.setdefault(logger, _State()).handlers
                if handler in wanted and handler not in logger.handlers:
                    wanted.remove(handler)
                elif handler not in wanted and handler in logger.handlers:
                    wanted.append(handler)

        return change

    def watching_attributes(self) -> Callable[..., None]:
        def set_attribute(logger: logging.Logger, name: str, value: Any) -> None:
            object.__setattr__(logger, name, value)
            if name in _ATTRIBUTES and not self._by_env_py():
                setattr(self._wanted.setdefault(logger, _State()), name, value)
            elif name == "handlers" and not self._by_env_py():
                self._wanted.setdefault(logger, _State()).handlers = list(value)

        return set_attribute

    def _by_env_py(self) -> bool:
        """Whether env.py or a revision asks for it, rather than a module that is being imported, or another thread."""
        frame = sys._getframe(2)
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(self._folders):
                return True
            if file.startswith("<frozen importlib"):
                return False
            frame = frame.f_back  # type: ignore[assignment]
        return False


def _loggers() -> Iterator[logging.Logger]:
    yield logging.getLogger()
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger
