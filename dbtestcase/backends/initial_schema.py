"""The hook ``load_initial_schema``: what exists before the first revision, or before ``create_all``."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import sqlalchemy
from sqlalchemy import URL, Connection
from sqlalchemy.pool import NullPool

from dbtestcase.drivers import own, patient
from dbtestcase.errors import ConfigurationError

__all__ = ["build_initial_schema", "run_initial_schema"]


def run_initial_schema(hook: Callable[[Connection], object] | None, connection: Connection, label: str) -> None:
    """Call the hook, if there is one, in the transaction of the connection.

    :param label: what is being made, for messages.
    :raises ConfigurationError: it is asynchronous.
    """
    if hook is None:
        return
    try:
        returned = hook(connection)
    except Exception as error:
        error.add_note(f"dbtestcase: raised in load_initial_schema(), before {label}")
        raise
    if inspect.isawaitable(returned):
        close = getattr(returned, "close", None)
        if close is not None:
            close()
        raise ConfigurationError(
            f"{getattr(hook, '__qualname__', 'load_initial_schema')}() is asynchronous, and nobody awaits it.",
            cause="`async def`: the hook runs once, when the database is made, whatever the tests are like.",
            remedy="write `def load_initial_schema(cls, connection)`, with the plain Connection that it is given.",
        )


def build_initial_schema(hook: Callable[[Connection], object] | None, url: URL, label: str) -> None:
    """Call the hook, if there is one, with a connection to the database at ``url``; what it makes is committed."""
    if hook is None:
        return
    engine = own(patient(sqlalchemy.create_engine(url, poolclass=NullPool)))
    try:
        with engine.connect() as connection:
            run_initial_schema(hook, connection, label)
            connection.commit()
    finally:
        engine.dispose()
