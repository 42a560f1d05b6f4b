"""Cleaning on SQLite: the whole database is copied back, page by page, if anybody has committed anything.

``PRAGMA data_version`` says without a look at any table whether another connection has committed since the last
cleaning.  The copy is SQLite's own backup from a database in memory, so everything is put back exactly: rows, counters,
tables that a test made or dropped, ``user_version``.  It costs what the size of the database costs (some 0.3 ms for a
megabyte), which is little for the databases of tests.

SQLite has no server that knows its connections; those of this process are known by what the pools have lent.  Who holds
a lock beside them is looked for only when it stands in the way (:mod:`dbtestcase.backends.sqlite.locks`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from sqlalchemy import URL

from ...errors import CleaningError
from ..cleaners import Cleaner, Reclonable
from ..cleaning_report import (
    NOBODY,
    Look,
    Opened,
    Report,
    Session,
    Standing,
    in_the_way,
    may_yet_finish,
    still_writing,
)
from . import files, locks

PATIENCE = 2.0  # seconds to wait for another process's transaction
ATTEMPTS = 3
GRACE = 0.05  # seconds for a connection to end its transaction by itself
PAUSE = 0.002


def connect(url: URL) -> sqlite3.Connection:
    """A connection for the cleaning, in autocommit mode."""
    dialect = url.set(drivername="sqlite+pysqlite").get_dialect()()
    args, parameters = dialect.create_connect_args(url.set(drivername="sqlite+pysqlite"))
    uri = bool(parameters.get("uri", False))
    return sqlite3.connect(str(args[0]), isolation_level=None, check_same_thread=False, timeout=0.0, uri=uri)


class SQLiteCleaner(Cleaner):
    """Keeps a copy of the database in memory."""

    shrinks = True

    def __init__(self, url: URL, database: Reclonable | None) -> None:
        self._url = url
        self._file = None if files.is_in_memory(url) else files.file_of(url)
        self._open()
        self._journal = self._journal_mode()
        self._made = self._copied()
        self._kept: sqlite3.Connection | None = None
        self._version = self._data_version()
        self._stale = False  # forget() has changed what is to be put back

    def _open(self) -> None:
        self._connection = connect(self._url)
        self._connection.execute("PRAGMA schema_version").fetchone()  # opens the file, and makes it where there is none
        self._inode = self._inode_now()

    def clean(self, standing: Standing = NOBODY, look: Look = Look.TOUCHED) -> Report:
        ended: list[Session] = []
        restored: tuple[str, ...] = ()
        for attempt in range(ATTEMPTS):
            ended += self._end(*standing, hesitate=attempt == 0)
            if self._inode_now() != self._inode:  # the application deletes its file to begin anew
                self._connection.close()
                self._open()
                self._stale = True
            try:
                ended += self._wait_for_locks()
            except sqlite3.DatabaseError as error:
                if self._file is None or not files.is_spoilt(error):
                    raise
                self._delete_file(self._file)
                ended += self._wait_for_locks()
            before = self._data_version()
            if not self._stale and before == self._version:
                return Report(restored=restored, ended=tuple(ended))
            # To ask for the mode is to read the whole schema, which the copy before has thrown away.
            if self._journal != "wal" and self._has_log() and self._journal_mode() == "wal":
                self._set_journal_mode(self._journal)  # a write-ahead log keeps the size of its pages
            self._copy(self._kept or self._made, self._connection)
            if self._journal == "wal" != self._journal_mode():
                self._set_journal_mode(self._journal)
            self._stale = False
            restored = ("the whole database",)
            self._version = self._data_version()
            if self._version == before:
                return Report(restored=restored, ended=tuple(ended))
            self._stale = True  # somebody has committed meanwhile
        raise still_writing(str(self._url.database), ended)

    def _has_log(self) -> bool:
        """Whether there may be a write-ahead log: in memory nobody could have taken the lock before."""
        return self._file is not None and self._file.with_name(f"{self._file.name}-wal").exists()

    def _delete_file(self, file: Path) -> None:
        """Begin with an empty file: nothing can be copied over one that the test has spoilt."""
        self._connection.close()
        files.remove(file)
        self._open()
        self._stale = True

    def _wait_for_locks(self) -> list[Session]:
        """Wait until nobody holds a lock that the next test would meet; end those of this process that do."""
        if self._is_free(GRACE):
            return []
        ended = locks.end_holders(self._file, str(self._url.database))
        if not self._is_free(PATIENCE):
            raise self._locked()
        return ended

    def _is_free(self, patience: float) -> bool:
        until = time.monotonic() + patience
        while True:
            try:
                self._connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN and self._file is None:
                    self._leave_log()
                if time.monotonic() > until:
                    return False
                time.sleep(PAUSE)
            else:
                self._connection.execute("ROLLBACK")
                return True

    def _leave_log(self) -> None:
        """Take a database in memory out of WAL mode, which only who locks it exclusively can enter, and open, there."""
        with contextlib.closing(connect(self._url)) as connection, contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # only now does it know the mode
            connection.execute("PRAGMA journal_mode = DELETE")

    def _locked(self) -> CleaningError:
        return locks.unknown_holder(self._file, str(self._url.database), PATIENCE)

    def _end(
        self, expected: Collection[int], lasting: Collection[int], opened: Mapping[int, Opened], *, hesitate: bool
    ) -> list[Session]:
        def doomed() -> list[Session]:
            return in_the_way([_session(number, each) for number, each in opened.items()], expected, lasting)

        until = time.monotonic() + locks.GRACE
        while hesitate and may_yet_finish(doomed(), threading.get_ident()) and time.monotonic() < until:
            time.sleep(PAUSE)
        ended = doomed()
        for session in ended:
            if session.opened is not None and session.opened.connection is not None:
                if session.opened.thread != threading.get_ident():
                    session.opened.bar()
                locks.end_connection(session.opened)
        return ended

    def keep(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = self._copied()
        self._version = self._data_version()

    def forget(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
            self._stale = True

    def left(self, opened: Mapping[int, Opened]) -> list[Session]:
        return [_session(number, each) for number, each in opened.items()]

    def others(self) -> list[Session]:
        return []

    def close(self) -> None:
        for connection in (self._connection, self._made, self._kept):
            if connection is not None:
                connection.close()

    def _data_version(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _copied(self) -> sqlite3.Connection:
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        self._copy(self._connection, copy)
        return copy

    def _inode_now(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self._file)
            return found.st_dev, found.st_ino
        return None

    def _journal_mode(self) -> str:
        (mode,) = self._connection.execute("PRAGMA journal_mode").fetchone()
        return str(mode)

    def _set_journal_mode(self, mode: str) -> None:
        try:
            self._connection.execute(f"PRAGMA journal_mode = {mode}")
        except sqlite3.OperationalError as error:
            raise self._locked() from error

    def _copy(self, source: sqlite3.Connection, target: sqlite3.Connection) -> None:
        until = time.monotonic() + PATIENCE

        def progress(status: int, remaining: int, total: int) -> None:
            # called after each attempt: SQLite itself would wait for ever
            if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > until:
                raise self._locked()

        source.backup(target, progress=progress, sleep=PAUSE)


def _session(number: int, opened: Opened) -> Session:
    busy = locks.in_transaction(opened.connection)
    return Session(pid=number, state="idle in transaction" if busy else "idle", holds=busy, opened=opened)


class SQLiteBackend:
    """See :class:`dbtestcase.backends.cleaners.Cleaning`."""

    def install(self, url: URL) -> None:
        """Nothing is kept in the database itself."""

    def uninstall(self, url: URL) -> None:
        """Nothing is kept in the database itself."""

    def connect(self, url: URL, database: Reclonable | None) -> Cleaner:
        return SQLiteCleaner(url, database)


BACKEND = SQLiteBackend()
