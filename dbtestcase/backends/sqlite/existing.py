"""A SQLite file that exists already: guarded, leased, emptied and built anew, and left empty."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing

from sqlalchemy import Connection

from ...errors import DatabaseError, ServerUnreachable
from ...reporting import doing, shown
from ..existing import MARK_TABLE, check_safe
from ..filelocks import FileLock
from ..interface import Database, Request, create_in
from . import files

_OBJECTS = (
    "SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'"
)


class ExistingFile(Database):
    """The file that the URL names.

    Its lease is a lock on a file elsewhere: closing a second descriptor of the database's own file would take SQLite's
    locks from it.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._owner = os.getpid()
        self.url = request.server_url
        self.built = False
        self._changed = False
        self._file = files.file_of(self.url)
        self._was_there = self._file.exists()
        digest = hashlib.sha256(os.fsencode(self._file.resolve())).hexdigest()[:32]
        self._lock = FileLock(files.private_folder() / f"{digest}.lent")
        self._check()
        with doing(f"waiting for another run that uses {self._file}"):
            self._lock.acquire(wait=True)
        try:
            self._check()  # the run that we waited for may have changed what is there
            if not request.transactional:
                self.reclone()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        if not self._file.parent.is_dir():
            raise ServerUnreachable(
                f"The database {self._file} ({shown(self.url)}) cannot be made: there is no such folder.",
                cause="the path in the URL is wrong; a relative one begins at the current folder.",
                remedy="correct it: four slashes begin an absolute path (sqlite:////home/ada/shop_test.db).",
            )
        if not self._file.exists():
            return
        try:
            with closing(files.open_uri(self.url, mode="ro")) as connection:
                names = [name for _, name, _ in connection.execute(_OBJECTS)]
        except sqlite3.Error as error:
            raise DatabaseError(
                f"The file {self._file} ({shown(self.url)}) cannot be read: {error}.",
                cause="it is no SQLite database, or another program is in the middle of a transaction.",
                remedy="name another file in the URL.",
            ) from error
        check_safe(shown(self.url), self._file.stem, relations=names, marked=MARK_TABLE in names)

    def create_in(self, connection: Connection) -> None:
        if self.built:
            super().create_in(connection)
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # until the transaction ends
        found = connection.exec_driver_sql(_OBJECTS).all()
        quote = connection.dialect.identifier_preparer.quote_identifier
        # A virtual table takes the tables that it keeps its data in with it, and forbids to drop them by name.
        for kind, name, _ in sorted(
            found, key=lambda row: (row[0] == "table", "VIRTUAL" not in (row[2] or "").upper())
        ):
            connection.exec_driver_sql(f"DROP {kind} IF EXISTS {quote(name)}")
        create_in(self._request.recipe, connection)

    def reclone(self) -> None:
        self._changed = True
        with closing(files.open_uri(self.url)) as connection:
            files.replace_content(connection, None, self.name)
            connection.execute(f"CREATE TABLE {MARK_TABLE} (made_at TEXT DEFAULT CURRENT_TIMESTAMP)")
        self._request.recipe.build(files.build_url(self.url))
        self.built = True

    def close(self) -> None:
        if self._owner != os.getpid():
            return
        try:
            if self._changed:
                self._changed = False
                if self._was_there:
                    with closing(files.open_uri(self.url)) as connection:
                        files.replace_content(connection, None, self.name)
                else:
                    files.remove(self._file)
        finally:
            self._lock.release(remove=True)
