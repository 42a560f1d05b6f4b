"""Waiting for a server that has no connection left, or is just starting: up to a limit, and by name after it.

A farm's workers come and go: a server that refuses one of them now has room for it when another has ended.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import URL, Dialect, Engine, event

from ..errors import ServerUnreachable
from ..reporting import doing, says, shown, without_secrets
from .connecting import watch_attaching

FULL_SECONDS = 60.0
"""How long to wait for a free connection."""
FULL_AGAIN_SECONDS = 5.0
"""How long once that was in vain: the run has failed, and the rest of it need not take a minute a class or test."""
STARTING_SECONDS = 30.0
"""How long to wait for a server that starts, ends or recovers."""
OWN_CONNECTIONS = 2  # of a process at rest: one that holds the leases, one for the tests' transaction

_T = TypeVar("_T")
_in_vain: set[URL] = set()
"""Servers that had no connection left to the end, and none since."""

# A refused connection has an SQLSTATE (asyncpg, pg8000) or a number (MySQL's drivers); libpq gives its words only.
_FULL_CODES = {"53300", 1040, 1203, 1226}
_FULL_WORDS = (
    "too many clients already",
    "too many connections",
    "remaining connection slots are reserved",
    "max_user_connections",
    "could not fork new process",
)
_STARTING_CODES = {"57P03"}
_STARTING_WORDS = (
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "consistent recovery state has not been yet reached",
)
_GONE_WORDS = ("connection refused", "no such file or directory", "server closed the connection unexpectedly")


def is_full(error: BaseException) -> bool:
    """Whether a server refused a connection because it, or its machine, has no more (SQLSTATE 53300, MySQL's 1040)."""
    # a server that cannot fork says so and hangs up, before pg8000, which asks for TLS first, has read what it said
    return isinstance(error, BrokenPipeError) or says(error, _FULL_CODES, _FULL_WORDS)


def is_starting(error: BaseException, *, restarting: bool = False) -> bool:
    """Whether a server refused a connection as it starts or ends; if it was there before, also where none listens."""
    words = _STARTING_WORDS + _GONE_WORDS if restarting else _STARTING_WORDS
    return says(error, _STARTING_CODES, words)


def patiently(
    connect: Callable[[], _T], url: URL, *, restarting: bool = False, spare: Callable[[], object] | None = None
) -> _T:
    """Connect, and wait where the server is full or just starting.

    :param url: for messages, and where the server is.
    :param restarting: the server was there before, so nobody listening means that it starts again.
    :param spare: called where the server is full, to close what this process can spare: processes that all hold
        something, and all wait for one more, would wait for ever.
    :raises ServerUnreachable: there was no connection left for :data:`FULL_SECONDS`, or for
        :data:`FULL_AGAIN_SECONDS` where that has happened before.
    :raises Exception: what ``connect`` raises for any other reason.
    """
    began = time.monotonic()
    pause = 0.02
    while True:
        try:
            made = connect()
            if _in_vain:
                _in_vain.discard(_server_of(url))
            return made
        except Exception as error:
            full = is_full(error)
            if not full and not (is_starting(error, restarting=restarting and _may_come_back(url))):
                raise
            waited = time.monotonic() - began
            patience = min(FULL_AGAIN_SECONDS, FULL_SECONDS) if _server_of(url) in _in_vain else FULL_SECONDS
            if waited > (patience if full else STARTING_SECONDS):
                if full:
                    _in_vain.add(_server_of(url))
                    raise _no_connection_left(url, error, waited) from error
                raise
        if full and spare is not None:
            spare()
        what = "waiting for a free connection on" if full else "waiting for the start of"
        with doing(f"{what} {shown(url)}"):
            time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.5, 0.5)


def patient(engine: Engine, spare: Callable[[], object] | None = None) -> Engine:
    """Let an engine of our own connect :func:`patiently`; the engine."""

    def connect(dialect: Dialect, _record: object, arguments: Any, parameters: Any) -> Any:
        watch_attaching(dialect, arguments, parameters)
        return patiently(lambda: dialect.connect(*arguments, **parameters), engine.url, spare=spare)

    event.listen(engine, "do_connect", connect)
    return engine


def _server_of(url: URL) -> URL:
    return url.set(drivername=url.get_backend_name(), database="")


def _may_come_back(url: URL) -> bool:
    """Whether a server that is gone may come again: the folder of its socket stays, a disposable one's goes with it."""
    folder = str(url.host or url.query.get("host") or "")
    socket = str(url.query.get("unix_sock") or url.query.get("unix_socket") or "")
    folder = os.path.dirname(socket) if socket else folder
    return not folder.startswith("/") or os.path.isdir(folder)


def _no_connection_left(url: URL, error: Exception, waited: float) -> ServerUnreachable:
    return ServerUnreachable(
        f"The server {shown(url)} has no connection left ({without_secrets(error, url)}); waited {waited:.0f} s.",
        cause=f"its max_connections, or the limit of the role or the database, is less than what all programs use: "
        f"each process of a run holds {OWN_CONNECTIONS} at rest, and those that the application opens besides "
        "(committing classes, a pool of its own); or its machine has no process or memory left for one more.",
        remedy="run fewer processes (pytest -n, --processes), or raise max_connections to twice the processes of all "
        "hosts and what the application opens; SHOW max_connections says what it is.",
    )
