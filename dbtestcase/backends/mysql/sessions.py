"""The other connections to a database of MySQL or MariaDB: which stand in the way, and how they are ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

from sqlalchemy import URL

from dbtestcase.backends.cleaning_report import Opened, Session, may_yet_finish
from dbtestcase.backends.mysql.link import Link, ServerSaid, literal
from dbtestcase.errors import CleaningError

__all__ = ["Sessions"]

GRACE = 0.25  # seconds for a connection to end its work by itself
PATIENCE = 5.0  # seconds for one that was ended to be gone
PAUSE = 0.002
_MAY_NOT = 1227
_GONE = 1094  # no such connection

_HOLDS = "coalesce(t.trx_rows_modified + t.trx_tables_locked + t.trx_rows_locked > 0, 0)"
_BLOCKING = (
    "SELECT DISTINCT holder.trx_mysql_thread_id FROM information_schema.INNODB_LOCK_WAITS w"
    " JOIN information_schema.INNODB_TRX holder ON holder.trx_id = w.blocking_trx_id"
    " JOIN information_schema.INNODB_TRX waiter ON waiter.trx_id = w.requesting_trx_id"
    " WHERE waiter.trx_mysql_thread_id = "
)


class Sessions:
    """Sees and ends connections by means of the cleaner's own."""

    def __init__(self, url: URL, link: Link) -> None:
        self._url = url
        self._link = link
        self._sees_transactions = True

    def others(self, opened: Mapping[int, Opened]) -> list[Session]:
        """The other connections that use the database, and those of this process wherever they have gone."""
        numbers = ", ".join(map(str, opened)) or "NULL"
        return self._read(f"p.DB = {literal(self._link.database)} OR p.ID IN ({numbers})", opened)

    def _read(self, where: str, opened: Mapping[int, Opened]) -> list[Session]:
        where = f"({where}) AND p.ID <> CONNECTION_ID() AND p.COMMAND NOT IN ('Killed', 'Daemon')"
        columns = "SELECT p.ID, p.USER, p.COMMAND, p.INFO"
        if self._sees_transactions:
            join = "LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID"
            query = f"{columns}, t.trx_id IS NOT NULL, {_HOLDS} FROM information_schema.PROCESSLIST p {join}"
        else:  # without the right PROCESS: one's own connections only, and not what they hold
            query = f"{columns}, 0, 0 FROM information_schema.PROCESSLIST p"
        try:
            rows = self._link.rows(f"{query} WHERE {where} ORDER BY p.ID")
        except ServerSaid as error:
            if error.number != _MAY_NOT or not self._sees_transactions:
                raise
            self._sees_transactions = False
            return self._read(where, opened)
        return [
            Session(
                pid=int(number),
                user=str(user),
                state="active" if command not in ("Sleep", "") else "idle in transaction" if begun else "idle",
                query=str(query or ""),
                holds=bool(holds),
                opened=opened.get(int(number)),
            )
            for number, user, command, query, begun, holds in rows
        ]

    def end(self, opened: Mapping[int, Opened], *, hesitate: bool) -> list[Session]:
        """End the connections that are in a transaction or run a statement; one that rests blocks nothing."""
        doomed = self._busy(opened)
        until = time.monotonic() + GRACE
        while hesitate and may_yet_finish(doomed, threading.get_ident()) and time.monotonic() < until:
            self._link.rows(f"DO SLEEP({PAUSE})")
            doomed = self._busy(opened)
        self._kill(self._link, doomed)
        until = time.monotonic() + PATIENCE
        numbers = {session.pid for session in doomed}
        while numbers & {session.pid for session in self.others(opened)} and time.monotonic() < until:
            self._link.rows(f"DO SLEEP({PAUSE})")
        return doomed

    def _busy(self, opened: Mapping[int, Opened]) -> list[Session]:
        return [session for session in self.others(opened) if session.busy]

    def _kill(self, link: Link, sessions: Collection[Session]) -> None:
        for session in sessions:
            try:
                link.rows(f"KILL {session.pid}")
            except ServerSaid as error:
                if error.number != _GONE:
                    raise CleaningError(
                        f"The test left behind a {session}, which stands in the way of the cleaning: {error}.",
                        cause="the user of the tests may not end connections of another user",
                        remedy="end it in the test",
                    ) from error

    def end_holders(self, refused: ServerSaid, opened: Mapping[int, Opened]) -> list[Session]:
        """End who holds the lock that a statement of the cleaner's waited for in vain: it waits for it once more.

        :raises CleaningError: nobody can be named for it.
        """
        with closing(Link(self._url)) as observer, ThreadPoolExecutor(1) as pool:
            around = Sessions(self._url, observer)
            waiting = pool.submit(self._link.rows, refused.statement)
            ended: list[Session] = []
            while not wait([waiting], timeout=0.02).done:
                try:
                    numbers = [str(number) for (number,) in observer.rows(_BLOCKING + str(self._link.id))]
                except ServerSaid:  # MySQL, and users without the right
                    continue
                if numbers:
                    found = around._read(f"p.ID IN ({', '.join(numbers)})", opened)
                    self._kill(observer, found)
                    ended += found
            problem = waiting.exception()
            if ended or problem is None:
                return ended
            if not isinstance(problem, ServerSaid) or not problem.locked:
                raise problem
            # The lock of a table or of its definition: the server does not say whose it is.
            ours = [each for each in around.others(opened) if each.pid != self._link.id]
            if not ours:
                raise self._unknown_holder(refused, around)
            self._kill(observer, ours)
            return ours

    def _unknown_holder(self, refused: ServerSaid, around: Sessions) -> CleaningError:
        found = around._read(f"p.DB IS NULL OR p.DB <> {literal(self._link.database)}", {})
        named = "; ".join(str(session) for session in found if session.pid != self._link.id)
        return CleaningError(
            f"The database {self._link.database!r} could not be put back, because somebody holds a lock: {refused}.",
            cause=f"a connection that has chosen another database, or none, has locked a table of this one: {named}"
            if named
            else "a connection that the user of the tests may not see has locked a table",
            remedy="end its transaction, UNLOCK TABLES or close it in the test",
        )
