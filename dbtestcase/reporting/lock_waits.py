"""Who blocks whom: a wait for a lock, seen while it lasts, named on both sides.

PostgreSQL's own message of a lock timeout says neither who held the lock nor what for, and when it arrives the wait is
over.  A :class:`LockWatch` looks while the statement still waits, and notes what it saw on the error.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, event

from .queries import Query, Recording
from .said import says
from .urls import for_psycopg

LOCK_ERRORS = frozenset({"55P03", "40P01", "57014"})  # lock_not_available, deadlock_detected, query_canceled
PATIENCE = 20.0  # seconds that a statement waits for a transaction in which nothing happens

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

_CANCEL = """
    SELECT pg_cancel_backend(waiting.pid)
      FROM pg_stat_activity waiting
     CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) blocker (pid)
      JOIN pg_stat_activity blocking ON blocking.pid = blocker.pid
     WHERE waiting.datname = current_database() AND waiting.pid = ANY(%(ours)s)
       AND clock_timestamp() - waiting.query_start > make_interval(secs => %(patience)s)
       AND blocking.state LIKE 'idle in transaction%%'
       AND clock_timestamp() - blocking.state_change > make_interval(secs => %(patience)s)
"""


def who_blocks(url: URL, lines: Mapping[int, str] | None = None) -> str:
    """Describe all waits for locks in a PostgreSQL database, as they are now; empty if nobody waits.

    :param lines: for a backend's process id, where its last statement came from.
    """
    lines = lines or {}
    with _connect(url) as connection:
        waits = connection.execute(_WAITS).fetchall()
    return "\n".join(_described(*wait, lines=lines) for wait in waits)


class LockWatch:
    """Watches for statements that wait for locks, in a thread that all watches share, on a connection of its own.

    Entered for a class of tests; it costs nothing until a statement has run for longer than ``after`` seconds, well
    below the server's ``lock_timeout`` and ``deadlock_timeout``.  The error of a lock timeout or a deadlock gets a note
    that names both sides, wherever it is raised.
    """

    def __init__(self, url: URL, recording: Recording, *, after: float = 0.2) -> None:
        self._url = url
        self._recording = recording
        self.after = after
        self._looking = threading.Lock()
        self._ended = False
        self._explained = 0
        self._reporting = threading.Lock()
        self.report = ""
        """What was seen last."""

    def __enter__(self) -> LockWatch:
        _watcher.add(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _watcher.remove(self)
        with self._looking:  # who goes on with the database need not reckon with a connection of ours
            self._ended = True

    def look(self) -> None:
        """Find out who blocks whom, if a statement has run for long enough."""
        now = perf_counter()
        if not any(query.running and now - query.started > self.after for query in self._recording.entries[-100:]):
            return
        with self._looking:
            if self._ended:
                return
            explained = self._explained
            try:
                lines = _lines_by_backend(self._recording.entries)
                seen = who_blocks(self._url, lines)
            except psycopg.OperationalError:
                return  # the server is going away; whoever needs it will be told so
            with self._reporting:
                if self._explained == explained:  # else what was seen has become an error meanwhile
                    self.report = seen or self.report
            if seen and any(query.running and now - query.started > PATIENCE for query in self._recording.entries):
                self._end_hopeless(list(lines))

    def _end_hopeless(self, ours: list[int]) -> None:
        """Cancel what waits for somebody who does nothing: mostly a session of the same thread, which never will."""
        with contextlib.suppress(psycopg.Error), _connect(self._url) as connection:
            connection.execute(_CANCEL, {"patience": PATIENCE, "ours": ours})

    def explain(self, errors: list[BaseException]) -> None:
        """Note on the errors of a wait for a lock who was waited for."""
        with self._reporting:
            report, self.report = self.report, ""
            self._explained += 1
        if report:
            for error in errors:
                error.add_note(report)


class _Watcher:
    """The thread of all watches: it goes on from class to class, and ends where there is nothing more to watch.

    A process that forks has it no longer while it does: Python warns of threads that a child would miss.
    """

    def __init__(self) -> None:
        self._watches: tuple[LockWatch, ...] = ()  # replaced, never changed
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._called = threading.Event()
        self._listens = False

    def add(self, watch: LockWatch) -> None:
        with self._lock:
            if not self._listens:
                self._listens = True
                event.listen(Engine, "handle_error", self._explain)
                os.register_at_fork(before=self._pause, after_in_parent=self._go_on, after_in_child=self._forked)
            self._watches += (watch,)
            self._start()

    def remove(self, watch: LockWatch) -> None:
        with self._lock:
            self._watches = tuple(each for each in self._watches if each is not watch)

    def _start(self) -> None:
        if self._thread is None:
            self._called.clear()
            self._thread = threading.Thread(target=self._run, name="dbtestcase-lock-watch", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._called.wait(min((each.after for each in self._watches), default=_IDLE)):
            for watch in self._watches:
                watch.look()
            with self._lock:
                if not self._watches:
                    self._thread = None
                    return

    def _pause(self) -> None:
        thread = self._thread
        if thread is not None:
            self._called.set()
            thread.join()
            self._thread = None

    def _go_on(self) -> None:
        with self._lock:
            if self._watches:
                self._start()

    def _forked(self) -> None:
        self._watches, self._thread, self._lock = (), None, threading.Lock()

    def _explain(self, context: Any) -> None:
        if self._watches and says(context.original_exception, LOCK_ERRORS):
            errors = [
                error for error in (context.sqlalchemy_exception, context.original_exception) if error is not None
            ]
            for watch in self._watches:
                watch.explain(errors)


_IDLE = 0.2
"""Seconds that the thread waits for the next class."""

_watcher = _Watcher()


def _connect(url: URL) -> psycopg.Connection[Any]:
    # Not through an Engine: an engine that points to the test database is led into the sandbox.
    positional, named = for_psycopg(url)
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
    if pid is None and hasattr(driver_connection, "get_server_pid"):  # asyncpg
        pid = driver_connection.get_server_pid()
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
