"""Files and URLs of SQLite databases: where they are, copying them, taking another's content."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL

from ...errors import DatabaseError
from ...server import private_folder as folder_of_ours
from ..filelocks import FileLock
from ..names import is_database_name

PATIENCE = 5  # seconds to wait for another connection's transaction


def is_in_memory(url: URL) -> bool:
    """Whether the URL names a database in memory."""
    name = url.database or ":memory:"
    return name.removeprefix("file:") in (":memory:", "") or url.query.get("mode") == "memory" or "vfs" in url.query


def file_of(url: URL) -> Path:
    """The file that the URL names."""
    return Path((url.database or "").removeprefix("file:")).absolute()


def in_memory_url(url: URL, name: str) -> URL:
    """The URL of a database in memory that several connections of this process share."""
    query = {key: value for key, value in url.query.items() if key not in ("mode", "cache", "vfs", "uri")}
    if sqlite3.sqlite_version_info >= (3, 36):
        return url.set(database=f"file:/{quote(name)}", query={**query, "vfs": "memdb", "uri": "true"})
    # Connections that share a cache lock tables rather than wait for each other: only where there is nothing better.
    return url.set(database=f"file:{quote(name)}", query={**query, "mode": "memory", "cache": "shared", "uri": "true"})


def build_url(url: URL) -> URL:
    """``url`` for the synchronous driver of the standard library."""
    return url.set(drivername="sqlite+pysqlite")


def open_uri(url: URL, *, mode: str = "") -> sqlite3.Connection:
    """A plain connection to the database of a URL, in autocommit mode; ``mode=ro`` changes not even the file's time."""
    if is_in_memory(url):
        options = "&".join(f"{key}={url.query[key]}" for key in ("vfs", "mode", "cache") if key in url.query)
        uri = f"{url.database}?{options}"
    else:
        uri = f"file:{quote(str(file_of(url)))}" + (f"?mode={mode}" if mode else "")
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=PATIENCE)


def replace_content(target: sqlite3.Connection, source: Path | None, shown: str) -> None:
    """Make the database of ``target`` the same as the file ``source``, or empty; other connections may stay open.

    :raises DatabaseError: another connection is in the middle of a transaction and stays there.
    """
    until = time.monotonic() + PATIENCE

    def give_up(_status: int, _remaining: int, _total: int) -> None:
        if time.monotonic() > until:
            raise TimeoutError

    uri = "file::memory:" if source is None else f"file:{quote(str(source))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as origin:
        try:
            origin.backup(target, progress=give_up, sleep=0.01)
        except TimeoutError as error:
            raise DatabaseError(
                f"The database {shown} cannot be put back: it was locked for {PATIENCE} s.",
                cause="a connection of the application or of a test is in the middle of a transaction.",
                remedy="commit, roll back or close it at the end of the test.",
            ) from error


def is_spoilt(error: sqlite3.DatabaseError) -> bool:
    """Whether a file is no database of SQLite's any more."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def private_folder() -> Path:
    """The folder of this user's databases: in RAM where there is such a place, else in the temp folder."""
    ram = Path("/dev/shm")
    place = ram if os.access(ram, os.W_OK | os.X_OK) and not os.environ.get("TMPDIR") else Path(tempfile.gettempdir())
    return folder_of_ours(place, name="dbtestcase-sqlite", mode=0o700)


def remove(file: Path) -> None:
    """Remove a database and the files that SQLite puts beside it."""
    for suffix in ("-journal", "-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            file.with_name(file.name + suffix).unlink()


def remove_orphans(folder: Path, *, dry: bool = False) -> Iterator[str]:
    """Remove the databases whose owner is gone; their files."""
    for path in folder.glob("*.lock"):
        lock = FileLock(path)
        if is_database_name(path.stem) and lock.acquire(wait=False):
            database = path.with_suffix(".db")
            if database.exists():
                yield str(database)
            if not dry:
                remove(database)
            lock.release(remove=not dry)
