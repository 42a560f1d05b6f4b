"""The library's own connections by psycopg: what is put around those of an application does not concern them."""

from __future__ import annotations

from typing import Any

import psycopg

from .harness import harness_connections
from .psycopg.hooks import as_written


class _OwnCursor(psycopg.Cursor[Any]):
    _start_query, _execute_gen = as_written(psycopg.Cursor, "_start_query", "_execute_gen")


class OwnConnection(psycopg.Connection[Any]):
    dbtestcase_own = True  # for those who watch a database: it may be connected to that very one
    _start_query, _commit_gen = as_written(psycopg.Connection, "_start_query", "_commit_gen")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _OwnCursor


def lock_holders(pid: int, *args: Any, **keywords: Any) -> str:
    """Who holds locks in a database besides the server's process ``pid``, for a message.

    :param args: with the keywords, where the database is, as ``psycopg.connect()`` takes it.
    """
    try:
        with harness_connections(), psycopg.connect(*args, **keywords, autocommit=True) as judge:
            rows = judge.execute(
                "SELECT DISTINCT a.pid, a.usename, a.application_name, a.state, left(a.query, 200) "
                "FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                "WHERE l.granted AND l.locktype IN ('relation', 'transactionid', 'tuple', 'advisory') "
                "AND a.datname = current_database() AND a.pid NOT IN (%s, pg_backend_pid()) "
                "AND a.xact_start IS NOT NULL",
                (pid,),
            ).fetchall()
    except psycopg.Error as error:
        return f"(who holds it could not be found out: {error})"
    if not rows:
        return "(the holder has ended meanwhile)"
    return "\n".join(
        f"Held by process {pid} ({user}{', ' + name if name else ''}, {state}): {query}"
        for pid, user, name, state, query in rows
    )
