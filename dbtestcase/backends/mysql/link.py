"""The cleaner's own connection to a MySQL or MariaDB server."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import closing
from typing import Any

from sqlalchemy import URL

from ...drivers import arguments_of, patiently
from ...errors import MissingExtra
from ..cleaning_report import cannot_connect

Rows = Callable[[str], list[tuple[Any, ...]]]
"""Runs one statement: of a :class:`Link`, or of an administrator's connection."""

LOCK_SECONDS = 1
_DRIVERS = ("pymysql", "mysqldb")
_LOST = {0, 1927, 2006, 2013, 2055}
_LOCKED = {1205, 1213}
_SETTINGS = (
    "foreign_key_checks = 0, unique_checks = 0, autocommit = 1, time_zone = '+00:00',"
    f" lock_wait_timeout = {LOCK_SECONDS}, innodb_lock_wait_timeout = {LOCK_SECONDS}, wait_timeout = 31536000,"
    " sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"
)
_MARIADB = ", check_constraint_checks = 0, system_versioning_alter_history = 'KEEP'"
_MYSQL = ", information_schema_stats_expiry = 0"
_UNKNOWN_VARIABLE = 1193


class ServerSaid(Exception):
    """What the server, or its silence, answered to a statement."""

    def __init__(self, statement: str, error: Exception) -> None:
        number = error.args[0] if error.args else 0
        self.number = number if isinstance(number, int) else 0
        self.statement = statement
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
        super().__init__(text or "the connection is gone")

    @property
    def lost(self) -> bool:
        """The connection is gone."""
        return self.number in _LOST

    @property
    def locked(self) -> bool:
        """Somebody held a lock for too long."""
        return self.number in _LOCKED

    def __str__(self) -> str:
        statement = " ".join(self.statement.split())
        return f"{self.args[0]} ({statement if len(statement) < 100 else statement[:97] + '...'})"


def number_of(error: BaseException) -> int:
    """The server's number of an error, or of its cause; 0 if it has none."""
    if isinstance(error, ServerSaid):
        return error.number
    arguments = error.__cause__.args if error.__cause__ is not None else ()
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


class Link:
    """A connection in autocommit mode, with what checks rows switched off."""

    def __init__(self, url: URL) -> None:
        self.database = str(url.database)
        self._connection = _connect(url)
        ((version, self.id),) = self.rows("SELECT VERSION(), CONNECTION_ID()")
        self.is_mariadb = "mariadb" in str(version).lower()
        self.settle()
        self.inserts_history = self.is_mariadb and self._may_insert_history()
        self.file_name = self._file_name()

    def settle(self) -> None:
        """Give the session its settings, also after it had those of something that was made anew."""
        self.rows("SET NAMES utf8mb4")
        self.rows(f"SET SESSION {_SETTINGS}{_MARIADB if self.is_mariadb else _MYSQL}")

    def _may_insert_history(self) -> bool:
        try:
            self.rows("SET SESSION system_versioning_insert_history = 1")  # MariaDB 10.11
        except ServerSaid as error:
            if error.number != _UNKNOWN_VARIABLE:
                raise
            return False
        return True

    def _file_name(self) -> str:
        """The database's name as InnoDB writes it, which has its own way with all but letters, digits, underscores."""
        ((name,),) = self.rows(f"SELECT CAST(CONVERT({literal(self.database)} USING filename) AS BINARY)")
        return name.decode("ascii") if isinstance(name, bytes) else str(name)

    def rows(self, query: str | bytes) -> list[tuple[Any, ...]]:
        """Run one statement; :exc:`ServerSaid` where the server refuses it, or cannot be reached any more."""
        try:
            with closing(self._connection.cursor()) as cursor:
                cursor.execute(query)
                return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        except (self._connection.Error, OSError) as error:
            raise ServerSaid(query if isinstance(query, str) else query.decode("latin1"), error) from error

    def close(self) -> None:
        """Close the connection; nothing happens where it is gone already."""
        try:
            self._connection.close()
        except self._connection.Error:
            return


def _connect(url: URL) -> Any:
    drivers = (url.get_driver_name(), *_DRIVERS)
    for driver in (each for each in drivers if each in _DRIVERS):
        target = url.set(drivername=f"{url.get_backend_name()}+{driver}")
        cls: Any = target.get_dialect()
        try:
            dbapi = cls.import_dbapi()
        except ImportError:
            continue
        args, parameters = arguments_of(cls(dbapi=dbapi), target)
        parameters["charset"] = "utf8mb4"
        try:
            return patiently(functools.partial(dbapi.connect, *args, **parameters), url)
        except dbapi.Error as error:
            raise cannot_connect(url, error) from error
    raise MissingExtra("pymysql", "mysql", "Cleaning databases of MySQL and MariaDB")


def quoted(name: str) -> str:
    """An identifier, as a statement takes it."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A string, as a statement takes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
