"""Who blocks whom: a wait for a lock, seen while it lasts, named on both sides.

PostgreSQL's own message of a lock timeout says neither who held the lock nor what for, and when it arrives the wait is
over.  A :class:`LockWatch` looks while the statement still waits, and notes what it saw on the error.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, event

from .queries import Query, Recording

__all__ = ["LockWatch", "who_blocks"]

LOCK_ERRORS = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected

_WAITS = """
    SELECT waiting.pid, waiting.application_name, waiting.query,
           extract(epoch FROM clock_timestamp() - waiting.query_start)::float8,
           lock.mode, lock.locktype,
           coalesce(lock.relation, row_lock.relation)::regclass::text,
           blocking.pid, blocking.application_name, blocking.query, blocking.state,
           extract(epoch FROM clock_timestamp() - blocking.state_change)::float8
      FROM pg_stat_activity waiting
     CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) blocker (pid)
      JOIN pg_stat_activity blocking ON blocking.pid = blocker.pid
      LEFT JOIN LATERAL (SELECT mode, locktype, relation FROM pg_locks
                          WHERE pid = waiting.pid AND NOT granted LIMIT 1) lock ON true
      LEFT JOIN LATERAL (SELECT relation FROM pg_locks
                          WHERE pid = waiting.pid AND locktype = 'tuple' LIMIT 1) row_lock ON true
     WHERE waiting.datname = current_database()
     ORDER BY waiting.query_start, blocking.pid
"""


def who_blocks(url: URL, lines: Mapping[int, str] | None = None) -> str:
    """Describe all waits for locks in a PostgreSQL database, as they are now.

    :param url: the database.
    :param lines: for a backend's process id, where its last statement came from.
    :returns: two sentences for each wait; empty if nobody waits.
    :raises psycopg.OperationalError: the server cannot be reached.
    """
    lines = lines or {}
    with _connect(url) as connection:
        waits = connection.execute(_WAITS).fetchall()
    return "\n".join(_described(*wait, lines=lines) for wait in waits)


class LockWatch:
    """Watches for statements that wait for locks, in a thread of its own, on a connection of its own.

    Entered for a class of tests; it costs nothing until a statement has run for longer than ``after``.  The error of a
    lock timeout or a deadlock gets a note that names both sides, wherever it is raised.

    :param url: the database, PostgreSQL.
    :param recording: the statements of the test.
    :param after: seconds after which a running statement is looked at; well below the server's ``lock_timeout`` and
        ``deadlock_timeout``.
    """

    def __init__(self, url: URL, recording: Recording, *, after: float = 0.2) -> None:
        self._url = url
        self._recording = recording
        self._after = after
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="dbtestcase-lock-watch", daemon=True)
        self.report = ""
        """What was seen last."""

    def __enter__(self) -> LockWatch:
        event.listen(Engine, "handle_error", self._explain)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        event.remove(Engine, "handle_error", self._explain)

    def _watch(self) -> None:
        while not self._ended.wait(self._after):
            now = perf_counter()
            recent = self._recording.entries[-100:]
            if not any(query.running and now - query.started > self._after for query in recent):
                continue
            try:
                seen = who_blocks(self._url, _lines_by_backend(self._recording.entries))
            except psycopg.OperationalError:
                continue  # the server is going away; whoever needs it will be told so
            self.report = seen or self.report

    def _explain(self, context: Any) -> None:
        if self.report and getattr(context.original_exception, "sqlstate", None) in LOCK_ERRORS:
            for error in (context.sqlalchemy_exception, context.original_exception):
                if error is not None:
                    error.add_note(self.report)
            self.report = ""


def _connect(url: URL) -> psycopg.Connection[Any]:
    # Not through an Engine: an engine that points to the test database is led into the sandbox.
    plain = url.set(drivername="postgresql+psycopg")
    positional, named = plain.get_dialect()().create_connect_args(plain)
    return psycopg.connect(*positional, **named, autocommit=True, application_name="dbtestcase lock watch")


def _lines_by_backend(entries: list[Query]) -> dict[int, str]:
    """For each connection that is still open, where its last statement came from."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines: dict[int, str] = {}
    for query in entries:
        connection = query.connection()
        if connection is None or connection.closed or query.origin is None:
            continue
        backend = _backend_pid(connection.connection.dbapi_connection)
        if backend is not None:
            lines[backend] = f"{query.origin}, thread {names.get(query.thread, query.thread)}"
    return lines


def _backend_pid(dbapi_connection: Any) -> int | None:
    driver_connection = getattr(dbapi_connection, "driver_connection", None) or dbapi_connection
    info = getattr(driver_connection, "info", None)
    pid = getattr(info, "backend_pid", None)
    return pid if isinstance(pid, int) else None


def _described(
    pid: int,
    name: str,
    statement: str,
    seconds: float,
    mode: str | None,
    kind: str | None,
    table: str | None,
    blocking_pid: int,
    blocking_name: str,
    blocking_statement: str,
    blocking_state: str,
    blocking_seconds: float,
    *,
    lines: Mapping[int, str],
) -> str:
    lock = f"a {mode} on {'a row' if kind in ('transactionid', 'tuple') else kind}" if mode else "a lock"
    target = f" of {table}" if table and kind != "relation" else f" {table}" if table else ""
    return (
        f"{_backend(pid, name)} has waited {seconds:.1f} s for {lock}{target}:\n"
        f"    {_one_line(statement)}\n"
        f"{_line(pid, lines)}"
        f"  {_backend(blocking_pid, blocking_name)} holds it, {blocking_state} for {blocking_seconds:.1f} s; "
        f"its last statement:\n"
        f"    {_one_line(blocking_statement)}\n"
        f"{_line(blocking_pid, lines)}"
    ).rstrip("\n")


def _backend(pid: int, name: str) -> str:
    return f"backend {pid}" + (f" ({name})" if name else "")


def _line(pid: int, lines: Mapping[int, str]) -> str:
    return f"    run at {lines[pid]}\n" if pid in lines else ""


def _one_line(statement: str) -> str:
    return " ".join(statement.split())
