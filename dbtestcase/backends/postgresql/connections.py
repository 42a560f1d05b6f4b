"""Who else is connected to a PostgreSQL database, and how they are made to leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

import psycopg
from psycopg import sql

from ...errors import CleaningError
from ..cleaning_report import Opened, Session, may_yet_finish, still_writing

Connection = psycopg.Connection[tuple[Any, ...]]

GRACE = 1.0  # seconds for a connection to end its work, or its process to go, by itself
PAUSE = 0.002
TERMINATION = 60.0  # seconds
APPLICATION = "dbtestcase"

# Whether somebody works in the database; how many of those that are expected are there; how many others.  (The view
# pg_stat_activity would join two catalogs that are of no use here.)
PRESENT = """
  select coalesce(bool_or(coalesce(a.state, 'idle') <> 'idle'), false),
         count(*) filter (where a.pid = any ({expected})),
         count(*) filter (where a.pid <> all ({expected}) and a.pid <> all ({lasting}))
    from pg_stat_get_activity(null) a
   where a.datid = {database} and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
"""

# Whether somebody keeps an advisory lock for which the next test might wait; whether one has prepared a transaction.
LOCKED = """
  exists (select from pg_locks l
           where l.locktype = 'advisory' and l.database = {database} and l.pid <> pg_backend_pid()
             and l.pid <> all ({lasting}))
"""
PREPARED = """
  (current_setting('max_prepared_transactions') <> '0'
   and exists (select from pg_prepared_xact() p where p.dbid = {database}))
"""

_SESSIONS = b"""
with held as materialized (
  select pid, bool_or(locktype = 'advisory') as advisory,
         bool_or(locktype = 'relation' and relation >= 16384
                 and mode not in ('AccessShareLock', 'RowShareLock')) as some
    from pg_locks where granted group by pid)
select a.pid, coalesce(a.application_name, ''), coalesce(pg_get_userbyid(a.usesysid)::text, ''), coalesce(a.state, ''),
       coalesce(a.query, ''), a.backend_xid is not null or coalesce(h.some, false), coalesce(h.advisory, false)
  from pg_stat_get_activity(null) a left join held h on h.pid = a.pid
 where a.datid = (select oid from pg_database where datname = current_database())
   and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
 order by a.backend_start
"""

_IS_THERE = b"select exists (select from pg_stat_get_activity(%b::int) where pid is not null)"


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
        self, expected: Collection[int], lasting: Collection[int], opened: Mapping[int, Opened], *, hesitate: bool
    ) -> list[Session]:
        """End the connections that stand in the way of a cleaning, and roll back prepared transactions; which it was.

        :param hesitate: give those that may be about to finish a moment to do so.
        """
        doomed = self._in_the_way(expected, lasting, opened, disturbed=not hesitate)
        deadline = time.monotonic() + GRACE
        while hesitate and may_yet_finish(doomed, threading.get_ident()) and time.monotonic() < deadline:
            # Another process's end is nothing that can be awaited, only looked for.
            self._connection.execute(b"select pg_sleep(%b)", (PAUSE,))
            doomed = self._in_the_way(expected, lasting, opened, disturbed=not hesitate)
        ended = []
        for session in doomed:
            if self._terminate(session):
                ended.append(session)
        return ended + self._roll_back_prepared()

    def _in_the_way(
        self, expected: Collection[int], lasting: Collection[int], opened: Mapping[int, Opened], *, disturbed: bool
    ) -> list[Session]:
        """What does nothing may stay without a lock; while somebody works on, what did something just now may not."""
        recent = self._recent() if disturbed else set()
        return [
            session
            for session in self.others(opened)
            if session.busy
            or (session.pid not in lasting and (session.advisory or session.pid in recent - set(expected)))
        ]

    def _recent(self) -> set[int]:
        query = b"select pid from pg_stat_get_activity(null) where state_change > clock_timestamp() - interval '50 ms'"
        return {pid for (pid,) in self._connection.execute(query)}

    def end_all(self, lasting: Collection[int]) -> None:
        """End all connections but those of ``lasting``."""
        for session in self.others({}):
            if session.pid not in lasting and session.application != APPLICATION:
                self._terminate(session)

    def _terminate(self, session: Session) -> bool:
        """Whether it was still there."""
        try:
            there = self._connection.execute(
                b"select pg_terminate_backend(pid) from pg_stat_activity where pid = %b", (session.pid,)
            ).fetchone()
        except psycopg.errors.InsufficientPrivilege as error:
            raise _stays(session, "the role of the tests may not end connections of another role") from error
        deadline = time.monotonic() + TERMINATION
        # pg_terminate_backend() itself would wait in steps of a tenth of a second.
        while there and self._connection.execute(_IS_THERE, (session.pid,)).fetchone() == (True,):
            if time.monotonic() > deadline:
                raise _stays(session, f"the server did not end it within {TERMINATION:g} s")
            self._connection.execute(b"select pg_sleep(%b)", (PAUSE,))
        return there is not None

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


def still_there(database: str, sessions: Collection[Session], error: Exception | None) -> CleaningError:
    """The error for a database that never comes to rest, or whose server refuses the cleaning."""
    if error is not None:
        return CleaningError(
            f"The database could not be cleaned, also when it was made anew: {type(error).__name__}:"
            f" {str(error).strip()}.",
            cause="rows that went in once do not go in again: a CHECK or a function that depends on the time, on a"
            " setting or on other rows.",
            remedy="make them in setUp(), or let the constraint depend on its own row alone.",
        )
    return still_writing(database, sessions)


def _stays(session: Session, why: str) -> CleaningError:
    return CleaningError(
        f"The database could not be cleaned: {session} could not be ended.",
        cause=why,
        remedy="close it before the test ends, with addCleanup.",
    )
