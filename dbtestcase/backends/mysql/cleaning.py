"""Cleaning on MySQL and MariaDB: what was touched is told by ``cleaning_state``, and put back.

The reference rows are copied into temporary tables of the cleaner's own connection: nobody else sees them, the server
keeps them exactly as they are, and they end with the connection.  A touched table is emptied and filled again with
foreign keys unchecked, and its ``AUTO_INCREMENT`` set back.  The application's triggers fire at that as at anything, so
tables that have any are done first, and the others after them; where rows would have to pass through a trigger, or the
schema was changed, the database is made anew.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import URL

from dbtestcase.backends.cleaners import Cleaner, Reclonable
from dbtestcase.backends.cleaning_report import Look, Opened, Report, Session, in_the_way, may_yet_finish
from dbtestcase.backends.mysql.cleaning_state import State, definitions, keep_counters, quoted, read_state
from dbtestcase.drivers.patience import patiently
from dbtestcase.errors import CleaningError, MissingExtra
from dbtestcase.reporting.urls import shown, without_secrets

__all__ = ["BACKEND", "Link", "MySQLBackend", "MySQLCleaner"]

ATTEMPTS = 5
GRACE = 0.25  # seconds for a connection to end its work by itself
PATIENCE = 5.0  # seconds for one that was ended to be gone
PAUSE = 0.002
_GONE = {1094}  # no such connection
_DRIVERS = ("pymysql", "mysqldb")


class Link:
    """The cleaner's own connection, in autocommit mode."""

    def __init__(self, url: URL) -> None:
        self.database = str(url.database)
        self._connection = _connect(url)
        self._connection.autocommit(True)
        self.rows(
            "SET SESSION foreign_key_checks = 0, unique_checks = 0, lock_wait_timeout = 2,"
            " innodb_lock_wait_timeout = 2, wait_timeout = 31536000, sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"
        )
        self.own_changes = 0

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run one statement."""
        cursor = self._connection.cursor()
        try:
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        finally:
            cursor.close()

    def change(self, statement: str) -> None:
        """Run a statement that the server counts as a change of the schema."""
        self.rows(statement)
        self.own_changes += 1

    def number(self, error: Exception) -> int:
        """The server's number of an error; 0 if it has none."""
        number = error.args[0] if error.args else 0
        return number if isinstance(number, int) else 0

    def close(self) -> None:
        self._connection.close()


def _connect(url: URL) -> Any:
    drivers = (url.get_driver_name(), *_DRIVERS)
    for driver in (each for each in drivers if each in _DRIVERS):
        target = url.set(drivername=f"{url.get_backend_name()}+{driver}")
        cls: Any = target.get_dialect()
        try:
            dbapi = cls.import_dbapi()
        except ImportError:
            continue
        args, parameters = cls(dbapi=dbapi).create_connect_args(target)
        if driver == "pymysql" and "unix_socket" in parameters and "ssl" not in parameters:
            parameters["ssl_disabled"] = True  # PyMySQL would read the machine's certificates
        try:
            return patiently(functools.partial(dbapi.connect, *args, **parameters), url)
        except dbapi.Error as error:
            raise CleaningError(
                f"The cleaning cannot connect to {shown(url)}: {without_secrets(error, url)}.",
                cause="the server has stopped, or a test dropped the database.",
                remedy="look into the server's log; leave dropping the test database to dbtestcase.",
            ) from error
    raise MissingExtra("pymysql", "mysql", "Cleaning databases of MySQL and MariaDB")


class MySQLCleaner(Cleaner):
    """See the module."""

    def __init__(self, url: URL, database: Reclonable | None) -> None:
        self._url = url
        self._database = database
        self._open()

    def _open(self) -> None:
        self._link = Link(self._url)
        self._names = (f"_dbtestcase_{n}" for n in itertools.count(1))
        self._definitions = definitions(self._link)
        self._state = read_state(self._link)
        self._made = self._copy_all(self._state)
        self._made_counters = dict(self._state.counters)
        self._kept: tuple[dict[str, str], dict[str, int]] | None = None
        self._state = read_state(self._link)  # the copies were counted, on some servers

    # -- cleaning

    def clean(
        self,
        *,
        expected: Collection[int] = (),
        lasting: Collection[int] = (),
        opened: Mapping[int, Opened] | None = None,
        look: Look = Look.TOUCHED,
    ) -> Report:
        report = Report()
        ended: list[Session] = []
        for attempt in range(ATTEMPTS):
            ended += self._end(expected, lasting, opened or {}, hesitate=attempt == 0)
            now = read_state(self._link)
            changed = self._changes(now) if now.changes != self._state.changes else []
            touched = now.touched_since(self._state)
            if now.changes != self._state.changes:
                touched = sorted(now.tables.keys() | now.sequences)  # a change of the schema starts counters anew
            refilled = [] if changed else self._behind_triggers(touched)
            if changed or refilled:
                lost = self._reclone(changed or [f"rows of {name}, which has triggers" for name in refilled])
                report = report.joined(Report(altered=tuple(changed), recloned=True, lost=lost))
                expected = ()
                continue
            self._link.own_changes = 0
            for name in touched:
                self._put_back(name, now)
            after = read_state(self._link)
            disturbed = after.touched_since(now) != [] and self._disturbed(now, after, touched)
            disturbed |= after.changes - now.changes != self._link.own_changes
            self._state = after
            report = report.joined(_report(touched, now))
            if not disturbed:
                return report.joined(Report(ended=tuple(ended)))
            self._mark_stale(touched, after)
        raise CleaningError(
            f"The database {self._url.database!r} could not be put back: somebody goes on writing.",
            cause="a thread or process of the test that has not ended, or triggers that write into each other's tables",
            remedy="wait for them at the end of the test",
        )

    def _changes(self, now: State) -> list[str]:
        found = definitions(self._link)
        names = sorted(found.keys() | self._definitions.keys())
        return [name for name in names if found.get(name) != self._definitions.get(name)]

    def _disturbed(self, now: State, after: State, touched: list[str]) -> bool:
        return any(name not in touched for name in after.touched_since(now))

    def _mark_stale(self, touched: list[str], after: State) -> None:
        """What our own triggers or others have changed meanwhile is to be looked at again."""
        before = {n: mark for n, mark in after.tables.items() if n in touched}
        others = {n: object() for n in after.tables if n not in touched}
        self._state = State(before | others, after.counters, after.sequences, after.changes)

    def _triggers(self) -> set[str]:
        return {name.removeprefix("trigger ") for name in self._definitions if name.startswith("trigger ")}

    def _behind_triggers(self, touched: list[str]) -> list[str]:
        """The touched tables whose rows would pass through triggers when they are put back."""
        if not self._triggers():
            return []
        query = (
            "SELECT DISTINCT EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = DATABASE()"
        )
        with_triggers = {str(name) for (name,) in self._link.rows(query)}
        touched.sort(key=lambda name: (name not in with_triggers, name))
        copies, _ = self._wanted()
        return [name for name in touched if name in with_triggers and name in copies]

    def _wanted(self) -> tuple[dict[str, str], dict[str, int]]:
        return self._kept or (self._made, self._made_counters)

    def _put_back(self, name: str, now: State) -> None:
        copies, counters = self._wanted()
        if name in now.sequences:
            self._link.change(f"ALTER SEQUENCE {quoted(name)} RESTART {counters[name]}")
            return
        self._link.rows(f"DELETE FROM {quoted(name)}")
        if name in copies:
            columns = ", ".join(self._columns(name))
            self._link.rows(f"INSERT INTO {quoted(name)} ({columns}) SELECT {columns} FROM {quoted(copies[name])}")
        if name in counters and now.counters.get(name) != counters[name]:
            self._link.change(f"ALTER TABLE {quoted(name)} AUTO_INCREMENT = {counters[name]}")

    def _columns(self, name: str) -> list[str]:
        rows = self._link.rows(f"SHOW COLUMNS FROM {quoted(name)}")
        return [
            quoted(str(row[0]))
            for row in rows
            if "GENERATED" not in str(row[5]).upper().replace("DEFAULT_GENERATED", "")
        ]

    def _reclone(self, changes: list[str]) -> bool:
        if self._database is None:
            raise CleaningError(
                f"The test changed the schema of {self._url.database!r}: {', '.join(changes)}.",
                cause="there is nothing from which the database could be made anew.",
                remedy="let the test undo its change of the schema, or use a database that dbtestcase makes by itself.",
            )
        lost = self._kept is not None
        self._link.close()
        self._database.reclone()
        self._open()
        return lost

    # -- what is to be put back

    def _copy_all(self, state: State) -> dict[str, str]:
        """Copy every table that has rows."""
        copies = {}
        for name in state.tables:
            if self._link.rows(f"SELECT EXISTS (SELECT 1 FROM {quoted(name)})")[0][0]:
                copies[name] = next(self._names)
                self._link.rows(f"CREATE TEMPORARY TABLE {quoted(copies[name])} AS SELECT * FROM {quoted(name)}")
        return copies

    def keep(self) -> None:
        now = read_state(self._link)
        if now.changes != self._state.changes and (changes := self._changes(now)):
            raise CleaningError(
                f"The rows of a class were made with a change of the schema: {', '.join(changes)}.",
                cause="setUpTestData() that makes or changes tables",
                remedy="make tables in metadata, migrations or load_base_data()",
            )
        self.forget()
        self._kept = (self._copy_all(now), dict(now.counters))
        self._state = read_state(self._link)

    def forget(self) -> None:
        if self._kept is None:
            return
        copies, _ = self._kept
        for copy in copies.values():
            self._link.rows(f"DROP TEMPORARY TABLE {quoted(copy)}")
        self._kept = None
        now = read_state(self._link)
        self._state = State({name: object() for name in now.tables}, {}, now.sequences, now.changes)

    # -- others

    def others(self) -> list[Session]:
        return self._others({})

    def _others(self, opened: Mapping[int, Opened]) -> list[Session]:
        try:
            rows = self._link.rows(_SESSIONS.format(trx="t.trx_id IS NOT NULL", join=_JOIN))
        except Exception as error:
            if self._link.number(error) != 1227:
                raise
            rows = self._link.rows(_SESSIONS.format(trx="0", join=""))  # without PROCESS: one's own only
        return [
            Session(
                pid=int(number),
                user=str(user),
                state="active" if command not in ("Sleep", "") else "idle in transaction" if holds else "idle",
                query=str(query or ""),
                holds=bool(holds),
                opened=opened.get(int(number)),
            )
            for number, user, command, query, holds in rows
        ]

    def _end(
        self, expected: Collection[int], lasting: Collection[int], opened: Mapping[int, Opened], *, hesitate: bool
    ) -> list[Session]:
        doomed = in_the_way(self._others(opened), expected, lasting)
        until = time.monotonic() + GRACE
        while hesitate and may_yet_finish(doomed, threading.get_ident()) and time.monotonic() < until:
            self._link.rows(f"DO SLEEP({PAUSE})")
            doomed = in_the_way(self._others(opened), expected, lasting)
        for session in doomed:
            try:
                self._link.rows(f"KILL {session.pid}")
            except Exception as error:
                if self._link.number(error) not in _GONE:
                    raise CleaningError(
                        f"The test left behind a {session}, which stands in the way of the cleaning: {error}.",
                        cause="the user of the tests may not end connections of another user",
                        remedy="end it in the test",
                    ) from error
        until = time.monotonic() + PATIENCE
        numbers = {session.pid for session in doomed}
        while numbers & {session.pid for session in self._others({})} and time.monotonic() < until:
            self._link.rows(f"DO SLEEP({PAUSE})")
        return doomed

    def close(self) -> None:
        self._link.close()


_JOIN = "LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID"
_SESSIONS = (
    "SELECT p.ID, p.USER, p.COMMAND, p.INFO, {trx} FROM information_schema.PROCESSLIST p {join}"
    " WHERE p.DB = DATABASE() AND p.ID <> CONNECTION_ID() AND p.COMMAND <> 'Killed' ORDER BY p.ID"
)


def _report(touched: list[str], now: State) -> Report:
    return Report(
        restored=tuple(name for name in touched if name not in now.sequences),
        rewound=tuple(name for name in touched if name in now.sequences),
    )


class MySQLBackend:
    """See :class:`dbtestcase.backends.cleaners.Backend`."""

    def install(self, url: URL) -> None:
        link = Link(url)
        try:
            keep_counters(link)
        finally:
            link.close()

    def connect(self, url: URL, database: Reclonable | None) -> Cleaner:
        return MySQLCleaner(url, database)


BACKEND = MySQLBackend()
