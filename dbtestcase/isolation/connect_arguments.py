"""What an engine would give to its driver's ``connect()``, after the listeners that have a say in it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.pool import Pool

from ..drivers import connect_arguments as arguments_of
from ..drivers import has_events
from ..errors import ConfigurationError

_OURS = __name__.partition(".")[0] + "."

__all__ = ["ask_listeners", "connect_arguments"]


def connect_arguments(pool: Pool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What ``create_engine()`` was given in the URL and ``connect_args``; nothing where there is a ``creator=``."""
    args, parameters = arguments_of(pool) or ((), {})
    return tuple(args), dict(parameters)


def ask_listeners(
    dialect: Dialect, record: Any, args: list[Any], parameters: dict[str, Any], *, after: Any = None, engine: str = ""
) -> None:
    """Let the application's ``do_connect`` listeners (those after the running one) change the arguments in place.

    :raises ConfigurationError: one has made a connection by its own means.
    """
    if not has_events(dialect):
        return
    listeners = list(dialect.dispatch.do_connect)
    for listener in listeners[listeners.index(after) + 1 if after in listeners else 0 :]:
        if str(getattr(listener, "__module__", "")).startswith(_OURS):
            continue
        if listener(dialect, record, args, parameters) is not None:
            raise ConfigurationError(
                f"A do_connect listener of the engine {engine or dialect.name} opened a connection by its own "
                "means: nobody knows to which database.",
                cause="an application that makes its connections itself",
                remedy="let the listener change the arguments that it is given, or switch it off in tests",
            )
