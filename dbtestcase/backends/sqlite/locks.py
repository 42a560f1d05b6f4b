"""Who holds a lock on a database of SQLite, which has no server to ask; and how a connection of any driver is ended."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ...errors import CleaningError
from ..cleaning_report import Opened, Session

GRACE = 0.25  # seconds for a thread whose statement was interrupted to roll back by itself
PAUSE = 0.002
THREAD_PATIENCE = 1.0  # seconds for the thread of an asynchronous connection to end


def in_transaction(connection: Any) -> bool:
    """Whether a driver's connection, or SQLAlchemy's adapter of one, is in a transaction."""
    connection = getattr(connection, "driver_connection", connection)
    with contextlib.suppress(ValueError, sqlite3.ProgrammingError):  # closed meanwhile
        return bool(getattr(connection, "in_transaction", False))
    return False


def end_connection(opened: Opened) -> None:
    """End a connection, in whatever event loop it was made; one that is closed already stays so.

    Beside other threads, any of which may be inside of a statement of it at this moment, it is only interrupted, and
    where that does not end its transaction, rolled back: to close it, or to use it while another closes it, could crash
    the process.
    """
    connection = opened.connection
    driver = getattr(connection, "driver_connection", connection)
    if isinstance(driver, sqlite3.Connection):
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed meanwhile, or good for another thread alone
            driver.interrupt()
            if threading.active_count() == 1:
                driver.close()
                return
            until = time.monotonic() + GRACE
            while in_transaction(driver) and time.monotonic() < until:
                time.sleep(PAUSE)
            with opened.kept_open() as is_open:
                for statement in ("PRAGMA query_only = ON", "ROLLBACK") if is_open and in_transaction(driver) else ():
                    with contextlib.suppress(sqlite3.OperationalError):  # interrupted, or nothing to roll back
                        driver.execute(statement).close()
        return
    with contextlib.suppress(ValueError, sqlite3.ProgrammingError):
        driver._conn.interrupt()
    worker = getattr(driver, "_thread", driver)
    if hasattr(driver, "stop"):  # aiosqlite 0.22
        driver.stop()
    elif (real := getattr(driver, "_connection", None)) is not None:
        driver._tx.put_nowait((_Nobody(), real.close))
        driver._running = False
    worker.join(THREAD_PATIENCE)


class _Nobody:
    """Takes the place of the future of an event loop that has ended."""

    def get_loop(self) -> _Nobody:
        return self

    def call_soon_threadsafe(self, *_: object) -> None:
        """Nobody waits for the result."""


def end_holders(file: Path | None, shown: str) -> list[Session]:
    """End the connections of this process that no pool knows and that are in a transaction on the database."""
    ended = []
    # A cancelled task may leave the cursor of a closed connection in a cycle, with the lock of its half-read rows.
    gc.collect()
    # By their type: isinstance() asks for __class__, and lazy objects, as Django's settings, answer that with work.
    found = [each for each in gc.get_objects() if issubclass(type(each), sqlite3.Connection) and in_transaction(each)]
    until = time.monotonic() + GRACE
    while found and threading.active_count() > 1 and time.monotonic() < until:
        # One that a thread is at work with may be closed by it at any moment, and to use it then would crash.
        time.sleep(PAUSE)
        found = [each for each in found if in_transaction(each)]
    for connection in found:
        if in_transaction(connection) and _is_on(connection, file, shown):
            opened = Opened("a line that no pool knows (sqlite3.connect)", connection=connection)
            end_connection(opened)
            ended.append(Session(pid=id(connection), state="idle in transaction", holds=True, opened=opened))
    return ended


def _is_on(connection: sqlite3.Connection, file: Path | None, shown: str) -> bool:
    try:
        names = [str(path) for _, _, path in connection.execute("PRAGMA database_list")]
    except sqlite3.Error:  # another thread's
        return False
    if file is None:
        return any(name and name in unquote(shown) for name in names)
    return any(name and os.path.realpath(name) == os.path.realpath(file) for name in names)


def unknown_holder(file: Path | None, shown: str, patience: float) -> CleaningError:
    """The error that says who holds the lock, as far as the system tells."""
    holders = _processes(file) if file is not None else []
    who = f"; it is held by {', '.join(holders)}" if holders else ""
    error = CleaningError(
        f"The database {shown!r} was locked for {patience:g} s, so it could not be put back{who}.",
        cause="a connection of another process, or of a thread, that no pool knows is in a transaction",
        remedy="let the test wait for its processes and threads, and close the connections that it makes by itself",
    )
    error.by_others = True
    return error


def _processes(file: Path) -> list[str]:
    """The processes that hold a lock on a file, as Linux lists them."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        inodes = {os.stat(each).st_ino for each in (file, file.with_name(file.name + "-shm")) if each.exists()}
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if "->" not in words and len(words) > 5 and words[5].rpartition(":")[2].isdigit():
                pid = int(words[4])
                if int(words[5].rpartition(":")[2]) in inodes and pid > 0:
                    found[pid] = _named(pid)
    return [found[pid] for pid in sorted(found)]


def _named(pid: int) -> str:
    if pid == os.getpid():
        return f"this process ({pid})"
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
        return f"process {pid} ({command[:80]})"
    return f"process {pid}"
