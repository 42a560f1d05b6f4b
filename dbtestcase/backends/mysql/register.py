"""Our databases on a MySQL or MariaDB server: which there are, what is in them, and whether they are as they were made.

The register is a table in a database of its own, named after the base so that a right on ``base\\_%`` covers it.  A row
is written before its database is made, so that nothing of ours is ever without one; and a database is in use as long
as its owner holds its lock.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict

from ...errors import DatabaseError
from .admin import Admin
from .content import Content
from .link import number_of, quoted

_LOCKED = 1205
LONGEST = 64  # characters of a database's name
KEPT_IN_ALL = 24


class Register:
    """The register of one base name, with which the names of its databases begin."""

    def __init__(self, admin: Admin, base: str) -> None:
        self._admin = admin
        self.base = (base or "test")[: LONGEST - 34]
        self.name = f"{self.base}_dbtestcase"
        self._table = f"{quoted(self.name)}.made"

    @classmethod
    def all_on(cls, admin: Admin) -> Iterator[Register]:
        """Every register on the server that the user may read."""
        for (name,) in admin.rows(
            "SELECT TABLE_SCHEMA FROM information_schema.COLUMNS WHERE TABLE_NAME = 'made' AND COLUMN_NAME = 'build'"
            " AND TABLE_SCHEMA LIKE '%\\_dbtestcase'"
        ):
            yield cls(admin, str(name).removesuffix("_dbtestcase"))

    def new_name(self, key: str) -> str:
        """A name for a new database of a key, not used yet."""
        token = hashlib.sha256(f"{key} {time.time_ns()} {id(self)} {self._admin.pid}".encode()).hexdigest()
        return f"{self.base}_{key[:16]}_{token[:8]}"

    def ready(self, key: str) -> list[str]:
        """The names of the databases of this key that were completed, the clean ones first."""
        query = f"SELECT name FROM {self._table} WHERE build = %s AND content <> '' ORDER BY state = 'clean' DESC, name"
        return [str(name) for (name,) in self._rows(query, (key,))]

    def read(self, name: str) -> tuple[Content, bool] | None:
        """What was made, and whether it was found unchanged after its last use; to be asked by who holds the lock."""
        rows = self._rows(f"SELECT content, state FROM {self._table} WHERE name = %s AND content <> ''", (name,))
        if not rows:
            return None
        text, state = rows[0]
        found = json.loads(str(text))
        engines = [(str(table), str(engine)) for table, engine in found["engines"]]
        return Content(found["digest"], found["counters"], engines), state == "clean"

    def _rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        if parameters:  # then a driver reads every other percent sign as a placeholder, also one of the name
            query = query.replace(self._table, self._table.replace("%", "%%"))
        try:
            return self._admin.rows(query, parameters)
        except DatabaseError as error:
            if error.__cause__ is None or error.__cause__.args[0] not in (1049, 1146):  # no such database, table
                raise
        self._create()
        return self._admin.rows(query, parameters)

    def _create(self) -> None:
        self._admin.run(f"CREATE DATABASE IF NOT EXISTS {quoted(self.name)} CHARACTER SET utf8mb4")
        self._admin.run(
            f"CREATE TABLE IF NOT EXISTS {self._table} (name VARCHAR({LONGEST}) CHARACTER SET utf8mb4"
            " COLLATE utf8mb4_bin PRIMARY KEY, build CHAR(64) NOT NULL, content MEDIUMTEXT NOT NULL,"
            " state VARCHAR(16) NOT NULL, used BIGINT NOT NULL) ENGINE = InnoDB"
        )

    def write(self, name: str, key: str, content: Content | None, state: str) -> None:
        """Note what a database is; one without content is not completed."""
        text = json.dumps(asdict(content)) if content is not None else ""
        self._rows(
            f"REPLACE INTO {self._table} (name, build, content, state, used) VALUES (%s, %s, %s, %s, %s)",
            (name, key, text, state, int(time.time())),
        )

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected to it, and its row."""
        self._admin.end_connections(name)
        self._admin.run(f"DROP DATABASE IF EXISTS {quoted(name)}")
        self._rows(f"DELETE FROM {self._table} WHERE name = %s", (name,))

    def drop_unless_locked(self, name: str) -> bool:
        """Drop a database; ``False`` where a prepared transaction, which no connection holds, locks its tables."""
        try:
            self.drop(name)
        except DatabaseError as error:
            if number_of(error) != _LOCKED:
                raise
            return False
        return True

    def drop_unused(self, *, all_of_them: bool = False, dry: bool = False) -> Iterator[str]:
        """Drop what was not completed or not meant to be kept, and of the others all but the last used; their names."""
        rows = self._rows(f"SELECT name, content <> '', state FROM {self._table} ORDER BY used DESC, name")
        kept = 0
        for found, complete, state in rows:
            name = str(found)
            reusable = bool(complete) and state != "once"
            kept += reusable
            if (all_of_them or not reusable or kept > KEPT_IN_ALL) and self._admin.lock(name):
                used = self._admin.is_used(name)  # by a run that has lost the connection which held its lock
                try:
                    used = used or not (dry or self.drop_unless_locked(name))
                finally:
                    self._admin.unlock(name)
                if not used:
                    yield name
