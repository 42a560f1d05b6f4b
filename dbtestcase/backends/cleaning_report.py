"""What a cleaning found and did; and which connections stand in its way.  Decisions only, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import URL

from ..errors import CleaningError
from ..reporting import limit_named_by, shown, without_secrets

T = TypeVar("T")


class Look(IntEnum):
    """How closely sequences and advisory locks are looked at; reading all of them takes time where they are many.

    ``TOUCHED``: those of the tables that a test touched, those that no table uses, and all of them where a statement
    was rolled back.  It misses a sequence that was moved by its name alone, by ``SELECT nextval('…')``, and an advisory
    lock that an expected connection has taken: it is for who has seen all statements.
    ``ALL``: it misses only a ``setval(…, false)`` on a sequence whose table was not touched.
    ``EXACT``: it misses nothing.
    """

    TOUCHED = 0
    ALL = 1
    EXACT = 2


class Opened(NamedTuple):
    """Where (``file:line``) a connection was opened, and by which thread; the driver's where only we can end it.

    ``bar``: keeps its thread from sending anything more.  ``kept_open``: whether it is open; no pool closes it while
    this is entered.
    """

    where: object
    thread: int | None = None
    connection: Any = None
    bar: Callable[[], object] = lambda: None
    kept_open: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True)


class Standing(NamedTuple):
    """The connections of this process, by the server's pids: what is to be known before those in the way are ended.

    ``expected``: may stay open as long as they are idle (those in pools).  ``lasting``: were there before the test, so
    they may hold advisory locks as well.  ``opened``: where each was opened.
    """

    expected: Collection[int] = ()
    lasting: Collection[int] = ()
    opened: Mapping[int, Opened] = MappingProxyType({})


NOBODY = Standing()


@dataclass(frozen=True, kw_only=True)
class Session:
    """A connection to the test database as its server sees it.

    ``pid``: the server's process.  ``holds``: it has written, or holds locks that the cleaning would have waited for.
    ``advisory``: it holds advisory locks.  ``opened``: where, for one of this process.
    """

    pid: int
    application: str = ""
    user: str = ""
    state: str = "idle"
    query: str = ""
    holds: bool = False
    advisory: bool = False
    opened: Opened | None = None

    @property
    def busy(self) -> bool:
        """Whether it is in a transaction or runs a statement."""
        return self.state not in ("idle", "")

    def __str__(self) -> str:
        if not self.pid:
            return f"{self.state} ({_one_line(self.query)})"
        name = f"{self.application!r}, " if self.application else ""
        text = f"connection {self.pid} ({name}{self.state}"
        if self.advisory:
            text += ", holds an advisory lock"
        if self.query:
            text += f"; {'running' if self.state == 'active' else 'its last statement'}: {_one_line(self.query)}"
        text += ")"
        return f"{text}, opened at {self.opened.where}" if self.opened else text


class Report(NamedTuple):
    """What one cleaning did.

    ``restored``: tables.  ``rewound``: sequences.  ``refreshed``: materialized views.  ``altered``: changes of the
    schema that the test made.  ``recloned``: the database was made anew, so every connection to it is gone.
    ``lost``: the rows of the class (see ``keep()``) are gone.  ``ended``: connections that the test left behind and
    that were ended.  ``absent``: the pids of expected connections that the test itself had ended.  ``broke``: what the
    test did for which it must fail, in words that follow its name.  ``of_server``: what has changed on the server
    itself, and stays.
    """

    restored: tuple[str, ...] = ()
    rewound: tuple[str, ...] = ()
    refreshed: tuple[str, ...] = ()
    large_objects: bool = False
    altered: tuple[str, ...] = ()
    recloned: bool = False
    lost: bool = False
    ended: tuple[Session, ...] = ()
    absent: tuple[int, ...] = ()
    broke: str = ""
    of_server: tuple[str, ...] = ()

    @property
    def blocking(self) -> tuple[Session, ...]:
        """The ended connections for which the cleaning would have had to wait, or that still wrote."""
        return tuple(session for session in self.ended if session.holds)

    def joined(self, other: Report) -> Report:
        """This report and that of the cleaning after it, as one."""
        return Report(
            restored=_union(self.restored, other.restored),
            rewound=_union(self.rewound, other.rewound),
            refreshed=_union(self.refreshed, other.refreshed),
            large_objects=self.large_objects or other.large_objects,
            altered=_union(self.altered, other.altered),
            recloned=self.recloned or other.recloned,
            lost=self.lost or other.lost,
            ended=self.ended + other.ended,
            absent=_union(self.absent, other.absent),
            broke=self.broke or other.broke,
            of_server=self.of_server + other.of_server,
        )


def in_the_way(sessions: Iterable[Session], expected: Collection[int], lasting: Collection[int]) -> list[Session]:
    """The sessions to be ended before the cleaning: those left behind, and those with a lock that would stay."""
    return [s for s in sessions if s.busy or (s.pid not in lasting and (s.advisory or s.pid not in expected))]


def may_yet_finish(sessions: Iterable[Session], thread: int) -> bool:
    """Whether any of these may end its work by itself in a moment.

    A server's thread rolls back after it has sent its answer, or looks busy for a moment more, also when its connection
    is back in a pool; a closed connection's process takes a moment to go; what this very thread has left open stays.
    """
    for session in sessions:
        user = session.opened.thread if session.opened is not None else 0
        if user != thread and (user is not None or session.state == "active"):
            return True
    return False


def still_writing(database: str, sessions: Collection[Session]) -> CleaningError:
    """The error for a database that never comes to rest, with those who were ended in vain."""
    names = "; ".join(map(str, sessions)) or "a connection that nobody was found to hold"
    error = CleaningError(
        f"The database {database!r} could not be put back, because others go on working in it: {names}.",
        cause="a thread or a process that the test started is still running, and connects again when it is ended.",
        remedy="stop it before the test ends (join the thread, wait for the process), with addCleanup.",
    )
    error.by_others = True
    return error


def cannot_connect(url: URL, error: Exception) -> CleaningError:
    """The error for a cleaner that gets no connection."""
    cause, remedy = limit_named_by(error) or (
        "the server has stopped, or a test dropped the database.",
        "look into the server's log; leave dropping the test database to dbtestcase.",
    )
    what = f"The cleaning cannot connect to {shown(url)}: {without_secrets(error, url)}."
    return CleaningError(what, cause=cause, remedy=remedy)


def _union(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(first + second))


def _one_line(query: str) -> str:
    line = " ".join(query.split())
    return line if len(line) <= 200 else line[:197] + "..."
