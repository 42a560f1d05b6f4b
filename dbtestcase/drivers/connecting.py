"""What an engine would do to connect: arguments, listeners that have a say in them, or a function of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from sqlalchemy import URL, Dialect
from sqlalchemy.pool import Pool

from .endpoints import connect_arguments
from .led_connections import Lead, led, made_by
from .sqlalchemy_internals import call_creator, has_events

_OURS = __name__.partition(".")[0] + "."

Open = Callable[[list[Any], dict[str, Any]], Any]
"""Makes a connection to the test database of the arguments that the driver would be given."""


def arguments_of(dialect: Dialect, url: URL) -> tuple[Sequence[Any], MutableMapping[str, Any]]:
    """What ``dialect.connect()`` takes to go where a URL of ours says."""
    args, parameters = dialect.create_connect_args(url)
    if dialect.driver == "pymysql" and "unix_socket" in parameters and "ssl" not in parameters:
        parameters["ssl_disabled"] = True  # PyMySQL would read the machine's certificates, which takes 20 to 60 ms
    return args, parameters


def connecting(original: Pool, dialect: Dialect, open: Open, name: str) -> Callable[[Any], Any]:
    """What connects as an engine's own pool would, to somewhere else; it takes the record of the connection.

    :param name: the engine's URL, for errors.
    :raises ConfigurationError: a function of the application's connects by means that cannot be led.
    """
    found = connect_arguments(original)

    def call(record: Any) -> Any:
        return made_by(
            lambda: call_creator(original, record, led), _lead(dialect, open), f"The creator of the engine {name}"
        )

    def connect(record: Any) -> Any:
        args, parameters = found or ((), {})
        return connect_as_asked(dialect, record, list(args), dict(parameters), open, name)

    return call if found is None else connect


def connect_as_asked(
    dialect: Dialect,
    record: Any,
    args: list[Any],
    parameters: dict[str, Any],
    open: Open,
    name: str = "",
    *,
    after: Any = None,
) -> Any:
    """Connect with these arguments, once the application's ``do_connect`` listeners have changed them in place.

    :param after: only those that come after this one, which is running.
    :raises ConfigurationError: one of them, or ``async_creator_fn``, connects by means that cannot be led.
    """
    name = name or f"{dialect.name}+{dialect.driver}"
    listeners = list(dialect.dispatch.do_connect) if has_events(dialect) else []
    for listener in listeners[listeners.index(after) + 1 if after in listeners else 0 :]:
        if str(getattr(listener, "__module__", "")).startswith(_OURS):
            continue
        listen = functools.partial(listener, dialect, record, args, parameters)
        lead, what = _lead(dialect, open), f"A do_connect listener of the engine {name}"
        if (made := made_by(listen, lead, what, may_decline=True)) is not None:
            return made
    if dialect.is_async and parameters.get("async_creator_fn") is not None:
        module: Any = dialect.loaded_dbapi

        def connect() -> Any:
            return module.connect(*args, **parameters | {"async_creator_fn": led(parameters["async_creator_fn"])})

        return made_by(connect, _lead(dialect, open), f"The async_creator_fn of the engine {name}")
    return open(args, parameters)


def watch_attaching(dialect: Dialect, args: Sequence[Any], parameters: dict[str, Any]) -> None:
    """Have a connection that is about to be made look at the files of SQLite that it attaches."""
    if dialect.name == "sqlite":
        from .sqlite.attaching import watch

        watch(dialect, args, parameters)


def _lead(dialect: Dialect, open: Open) -> Lead:
    return Lead(dialect, lambda keywords: open([], keywords))
