"""The hooks of a recipe: ``load_initial_schema``, before revisions or ``create_all``, and ``load_base_data``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy
from sqlalchemy import URL, Connection
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from ..drivers import own, patient
from ..errors import ConfigurationError


def run_initial_schema(hook: Callable[[Connection], object] | None, connection: Connection, label: str) -> None:
    """Call the hook, if there is one, in the transaction of the connection.

    :raises ConfigurationError: it is asynchronous.
    """
    if hook is None:
        return
    try:
        returned = hook(connection)
    except Exception as error:
        error.add_note(f"dbtestcase: raised in load_initial_schema(), before {label}")
        raise
    _refuse_unfinished(returned, hook, "Connection")


def _refuse_unfinished(returned: object, hook: Callable[..., object], given: str) -> None:
    """Refuse what a hook has given back instead of running, with or without a decorator around it."""
    is_generator = inspect.isgenerator(returned) or inspect.isasyncgen(returned)
    if not is_generator and not inspect.isawaitable(returned):
        return
    close = getattr(returned, "close", None)
    if close is not None:
        close()
    name = getattr(hook, "__qualname__", "the hook")
    if is_generator:
        raise ConfigurationError(
            f"{name}() is a generator, and nobody iterates over it.",
            cause="a `yield` in it: the hook runs once, when the database is made.",
            remedy="take the `yield` away.",
        )
    raise ConfigurationError(
        f"{name}() is asynchronous, and nobody awaits it.",
        cause="`async def`: the hook runs once, when the database is made, whatever the tests are like.",
        remedy=f"write a plain `def`, with the synchronous {given} that it is given.",
    )


def build_initial_schema(hook: Callable[[Connection], object] | None, url: URL, label: str) -> None:
    """Call the hook, if there is one, with a connection to the database at ``url``; what it makes is committed."""
    if hook is None:
        return
    with connected(url) as connection:
        run_initial_schema(hook, connection, label)
        connection.commit()


@contextmanager
def connected(url: URL) -> Iterator[Connection]:
    """A connection of our own, of an engine that ends with the block."""
    engine = own(patient(sqlalchemy.create_engine(url, poolclass=NullPool)))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def load_base_data(hook: Callable[[Session], object] | None, connection: Connection, label: str) -> None:
    """Call the hook, if there is one, with a session; its rows are committed, in a transaction that runs to its end."""
    if hook is None:
        return
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        try:
            returned = hook(session)
            session.flush()
        except Exception as error:
            error.add_note(f"dbtestcase: raised while the base data of {label} were loaded")
            raise
        _refuse_unfinished(returned, hook, "Session")
        session.commit()
