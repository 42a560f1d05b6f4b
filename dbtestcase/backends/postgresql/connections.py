"""Who else is connected to a PostgreSQL database, and how they are made to leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from dbtestcase.backends.cleaning_report import Opened, Session, in_the_way, may_yet_finish
from dbtestcase.errors import CleaningError

__all__ = ["BUSY", "WORKING", "Connections", "still_there"]

GRACE = 0.25  # seconds for a connection to end its work, or its process to go, by itself
PAUSE = 0.002
TERMINATION = 5000  # milliseconds

# Whether somebody works in the database, or is connected who is not expected to be.  (The view pg_stat_activity would
# join two catalogs that are of no use here.)
WORKING = """
  exists (select from pg_stat_get_activity(null) a
           where a.datid = {database} and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
             and (coalesce(a.state, 'idle') <> 'idle' or a.pid <> all ({expected}) and a.pid <> all ({lasting})))
"""

# The same, or keeps an advisory lock for which the next test might wait.
BUSY = (
    WORKING
    + """
  or exists (select from pg_locks l
              where l.locktype = 'advisory' and l.database = {database} and l.pid <> pg_backend_pid()
                and l.pid <> all ({lasting}))
"""
)

_SESSIONS = b"""
select a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''), coalesce(a.state, ''),
       coalesce(a.query, ''),
       a.backend_xid is not null or exists (
         select from pg_locks l where l.pid = a.pid and l.granted and l.locktype = 'relation' and l.relation >= 16384
            and l.mode not in ('AccessShareLock', 'RowShareLock')),
       exists (select from pg_locks l where l.pid = a.pid and l.granted and l.locktype = 'advisory')
  from pg_stat_activity a
 where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
 order by a.backend_start
"""


class Connections:
    """The other connections to the database of ``connection``."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection
        row = connection.execute(b"select oid from pg_database where datname = current_database()").fetchone()
        assert row is not None
        self.database: int = row[0]

    def others(self, opened: Mapping[int, Opened]) -> list[Session]:
        """All of them, in the order in which they were opened."""
        return [
            Session(
                pid=pid,
                application=application,
                user=user,
                state=state,
                query=query,
                holds=holds,
                advisory=advisory,
                opened=opened.get(pid),
            )
            for pid, application, user, state, query, holds, advisory in self._connection.execute(_SESSIONS)
        ]

    def end(
        self,
        expected: Collection[int],
        lasting: Collection[int],
        opened: Mapping[int, Opened],
        *,
        hesitate: bool,
    ) -> list[Session]:
        """End the connections that stand in the way of a cleaning.

        :param hesitate: give those that may be about to finish a moment to do so.
        :returns: those that were ended, and the prepared transactions that were rolled back.
        :raises CleaningError: one cannot be ended.
        """
        doomed = in_the_way(self.others(opened), expected, lasting)
        deadline = time.monotonic() + GRACE
        while hesitate and may_yet_finish(doomed, threading.get_ident()) and time.monotonic() < deadline:
            # Another process's end is nothing that can be awaited, only looked for.
            self._connection.execute(b"select pg_sleep(%b)", (PAUSE,))
            doomed = in_the_way(self.others(opened), expected, lasting)
        ended = []
        for session in doomed:
            if self._terminate(session):
                ended.append(session)
        return ended + self._roll_back_prepared()

    def end_all(self, pids: Collection[int]) -> None:
        """End the connections with these pids, if they are there."""
        for session in self.others({}):
            if session.pid in pids:
                self._terminate(session)

    def _terminate(self, session: Session) -> bool:
        """Whether it was still there."""
        try:
            row = self._connection.execute(
                b"select pg_terminate_backend(pid, %b) from pg_stat_activity where pid = %b", (TERMINATION, session.pid)
            ).fetchone()
        except psycopg.errors.InsufficientPrivilege as error:
            raise _stays(session, "the role of the tests may not end connections of another role") from error
        if row is not None and not row[0]:
            raise _stays(session, f"the server did not end it within {TERMINATION / 1000:g} s")
        return row is not None

    def _roll_back_prepared(self) -> list[Session]:
        rolled_back = []
        for gid, owner in self._connection.execute(
            b"select gid, owner::text from pg_prepared_xacts where database = current_database()"
        ).fetchall():
            self._connection.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)), prepare=False)
            rolled_back.append(
                Session(
                    pid=0, user=owner, state="prepared transaction", query=f"PREPARE TRANSACTION '{gid}'", holds=True
                )
            )
        return rolled_back


def still_there(sessions: Collection[Session]) -> CleaningError:
    """The error for a database that never comes to rest."""
    names = "; ".join(str(replace(session)) for session in sessions) or "nobody who could be named"
    return CleaningError(
        f"The database could not be cleaned, because others go on working in it: {names}.",
        cause="a thread or a process that the test started is still running, and connects again when it is ended.",
        remedy="stop it before the test ends (join the thread, wait for the process), with addCleanup.",
    )


def _stays(session: Session, why: str) -> CleaningError:
    return CleaningError(
        f"The database could not be cleaned: {session} could not be ended.",
        cause=why,
        remedy="close it before the test ends, with addCleanup.",
    )
