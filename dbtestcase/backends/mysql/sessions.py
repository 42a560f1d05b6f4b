"""The other connections to a database of MySQL or MariaDB: which stand in the way, and how they are ended."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

from sqlalchemy import URL

from ...errors import CleaningError
from ..cleaning_report import Opened, Session, may_yet_finish
from .link import Link, ServerSaid, literal

GRACE = 1.0  # seconds for a connection to end its work by itself
PATIENCE = 60.0  # seconds for one that was ended to be gone
PAUSE = 0.002
LOOK = 0.15  # seconds between two looks at who waits for whom: within 0.1 s the server says the same again
PREPARED_LOOKS = 5
_NOBODYS = "0"
"""The connection of a transaction that was prepared by one that is gone."""

_MAY_NOT = 1227
_GONE = 1094  # no such connection

_THREAD = re.compile(r" thread id (\d+),")
_HOLDS = re.compile(r"undo log entries [1-9]|[1-9]\d* lock struct|, locked [1-9]")
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

    def others(self, opened: Mapping[int, Opened], resting: Collection[int] = ()) -> list[Session]:
        """The other connections that use the database, and ours wherever they are; ``resting``: those in pools."""
        numbers = ", ".join(map(str, opened)) or "NULL"
        return self._read(f"DB = {literal(self._link.database)} OR ID IN ({numbers})", opened, resting)

    def _read(self, where: str, opened: Mapping[int, Opened], resting: Collection[int] = ()) -> list[Session]:
        rows = self._link.rows(
            f"SELECT ID, USER, COMMAND, INFO FROM information_schema.PROCESSLIST WHERE ({where})"
            " AND ID <> CONNECTION_ID() AND COMMAND NOT IN ('Killed', 'Daemon') ORDER BY ID"
        )
        begun = self._transactions() if any(int(number) not in resting for number, *_ in rows) else {}
        return [
            Session(
                pid=pid,
                user=str(user),
                state="active" if command not in ("Sleep", "") else "idle in transaction" if pid in begun else "idle",
                query=str(query or ""),
                holds=begun.get(pid, False),
                opened=opened.get(pid),
            )
            for number, user, command, query in rows
            for pid in [int(number)]
        ]

    def _transactions(self) -> dict[int, bool]:
        """The connections that are in a transaction, and whether each has written or locked anything.

        ``INNODB_TRX`` would say the same of a moment ago: it stays as it was while anybody looks at it now and then.
        """
        if not self._sees_transactions:
            return {}
        try:
            ((_, _, text),) = self._link.rows("SHOW ENGINE INNODB STATUS")
        except ServerSaid as error:
            if error.number != _MAY_NOT:
                raise
            self._sees_transactions = False  # without the right PROCESS: one's own connections, and not what they hold
            return {}
        found = {}
        for block in str(text).split("\n---TRANSACTION ")[1:]:
            thread = _THREAD.search(block)
            if thread is not None and ", ACTIVE" in block.partition("\n")[0]:
                found[int(thread[1])] = _HOLDS.search(block) is not None
        return found

    def end(self, opened: Mapping[int, Opened], resting: Collection[int], *, hesitate: bool) -> list[Session]:
        """End the connections that are in a transaction or run a statement; one that rests blocks nothing."""
        doomed = self._busy(opened, resting)
        until = time.monotonic() + GRACE
        while hesitate and may_yet_finish(doomed, threading.get_ident()) and time.monotonic() < until:
            self._link.rows(f"DO SLEEP({PAUSE})")
            doomed = self._busy(opened, resting)
        self._kill(self._link, doomed)
        until = time.monotonic() + PATIENCE
        numbers = {session.pid for session in doomed}
        while (
            numbers and numbers & {session.pid for session in self.others(opened, numbers)} and time.monotonic() < until
        ):
            self._link.rows(f"DO SLEEP({PAUSE})")
        return doomed

    def _busy(self, opened: Mapping[int, Opened], resting: Collection[int]) -> list[Session]:
        return [session for session in self.others(opened, resting) if session.busy]

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
        """End who holds the lock that a statement of the cleaner's waited for in vain: it waits for it once more."""
        with closing(Link(self._url)) as observer, ThreadPoolExecutor(1) as pool:
            around = Sessions(self._url, observer)
            waiting = pool.submit(self._link.rows, refused.statement)
            ended: list[Session] = []
            looks = 0
            while not wait([waiting], timeout=LOOK).done:
                try:
                    numbers = [str(number or 0) for (number,) in observer.rows(_BLOCKING + str(self._link.id))]
                except ServerSaid:  # MySQL, and users without the right
                    continue
                if numbers:
                    found = around._read(f"ID IN ({', '.join(numbers)})", opened)
                    self._kill(observer, found)
                    ended += found
                if _NOBODYS in numbers:
                    looks += 1
                    ended += self._roll_back_prepared(observer, hesitate=looks < PREPARED_LOOKS)
            problem = waiting.exception()
            if ended or problem is None:
                return ended
            if not isinstance(problem, ServerSaid) or not problem.locked:
                raise problem
            # The lock of a table or of its definition: the server does not say whose it is.
            others = around._read(f"DB IS NULL OR DB <> {literal(self._link.database)}", opened)
            outside = [each for each in others if each.pid != self._link.id]
            inside = [each for each in around.others(opened) if each.pid != self._link.id]
            suspects = [each for each in outside if each.holds] or ([] if inside else outside)
            if suspects or not inside:
                raise self._other_holder(refused, suspects)
            self._kill(observer, inside)
            return inside

    def _roll_back_prepared(self, link: Link, *, hesitate: bool) -> list[Session]:
        """End what ``XA PREPARE`` has left, of any database; of several, those of other tests may yet end there."""
        prepared = [_xid(*row) for row in link.rows("XA RECOVER")]
        if hesitate and len(prepared) > 1:
            return []
        rolled_back = []
        for name in prepared:
            try:
                link.rows(f"XA ROLLBACK {name}")
            except ServerSaid:  # somebody has ended it, or it still belongs to a connection
                continue
            state, query = "prepared transaction", f"XA PREPARE {name}"
            rolled_back.append(Session(pid=0, state=state, query=query, holds=True))
        return rolled_back

    def _other_holder(self, refused: ServerSaid, suspects: list[Session]) -> CleaningError:
        return CleaningError(
            f"The database {self._link.database!r} could not be put back, because somebody holds a lock: {refused}.",
            cause="a connection that has chosen another database, or none, has locked a table of this one: "
            + "; ".join(map(str, suspects))
            if suspects
            else "a connection that the user of the tests may not see has locked a table",
            remedy="end its transaction, UNLOCK TABLES or close it in the test",
        )


def _xid(number: object, length: object, _: object, data: object) -> str:
    """A prepared transaction's name, as ``XA`` takes it."""
    raw, cut = data if isinstance(data, bytes) else str(data).encode("latin1"), int(str(length))
    return f"X'{raw[:cut].hex()}', X'{raw[cut:].hex()}', {number}"
