"""One connection to a MySQL or MariaDB server, beside the test databases: it makes and drops them, and holds leases."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import URL

from ...drivers import arguments_of, arrivals_at, descriptor_of, patiently
from ...errors import CannotCreateDatabase, ConfigurationError, DatabaseError, MissingExtra, ServerUnreachable
from ...reporting import shown, without_secrets
from ..admin_connections import AdminConnection

CONNECT_TIMEOUT = 30  # seconds
PATIENCE = 60  # seconds to wait for what another connection has locked
DENIED = {1044, 1142, 1227, 1370}  # the server's numbers for what a user may not do

_SYNCHRONOUS = {"pymysql": "pymysql", "mysqldb": "MySQLdb", "mysqlconnector": "mysql.connector"}
_DISTRIBUTIONS = {"MySQLdb": "mysqlclient", "mysql": "mysql-connector-python"}


def build_url(url: URL, database: str | None) -> URL:
    """``url`` with a synchronous driver (its own where it is one) and another database, or none."""
    driver = url.drivername.partition("+")[2]
    if driver not in _SYNCHRONOUS:
        found = [name for name, module in _SYNCHRONOUS.items() if importlib.util.find_spec(module.partition(".")[0])]
        if not found:
            raise MissingExtra("pymysql", "mysql", "Making databases on MySQL and MariaDB")
        driver = found[0]
    return url._replace(drivername=f"{url.get_backend_name()}+{driver}", database=database)


class Admin(AdminConnection):
    """A connection in autocommit mode, renewed with its locks where the server has ended it."""

    def __init__(self, url: URL, database: str | None = None) -> None:
        super().__init__(url)
        self._database = database
        self._locks: set[str] = set()
        self._connect()
        self._all.add(self)

    def _connect(self, *, again: bool = False) -> None:
        url, target = self.url, build_url(self.url, self._database)
        dialect_class: Any = target.get_dialect()
        self._dbapi: Any = _imported(dialect_class, target)
        positional, options = arguments_of(dialect_class(dbapi=self._dbapi), target)
        options.setdefault("connect_timeout", CONNECT_TIMEOUT)

        def connect() -> Any:
            if "unix_socket" in options:
                with socket.socket(socket.AF_UNIX) as probe:  # PyMySQL leaves its socket open where this fails
                    probe.connect(str(options["unix_socket"]))
            return self._dbapi.connect(*positional, **options)

        try:
            self._connection = patiently(connect, url, restarting=again)
        except (self._dbapi.Error, OSError) as error:
            raise _unreachable(url, error) from error
        autocommit = getattr(self._connection, "autocommit", None)
        if callable(autocommit):
            autocommit(True)
        else:
            self._connection.autocommit = True
        # The lease must outlive every idle time; what others have locked must not be waited for for ever.
        ((self.version, self.user),) = self._ask("SELECT VERSION(), CURRENT_USER()")
        self._ask(
            f"SET SESSION wait_timeout = 31536000, lock_wait_timeout = {PATIENCE}, sql_mode = 'NO_BACKSLASH_ESCAPES'"
        )

    def rows(self, query: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query with ``%s`` parameters, or of one without any, as it stands."""
        self.renew()
        return self._ask(query, parameters)

    run = rows

    def renew(self) -> None:
        """Connect again where the connection was lost, and take its locks again; asks the socket, not the server.

        :raises DatabaseError: another run has taken a database of this one meanwhile.
        """
        descriptor = descriptor_of(self._connection)
        if descriptor is None or (descriptor >= 0 and not arrivals_at(descriptor)()):  # else it is the end
            return
        with suppress(self._dbapi.Error, OSError):
            self._connection.close()
        self._connect(again=True)
        self.renewals += 1
        for name in self._locks:
            if self._ask("SELECT GET_LOCK(%s, %s)", (name, PATIENCE)) != [(1,)]:
                raise DatabaseError(
                    f"A database of this run on {shown(self.url)} was taken by another run.",
                    cause="the connection that held its lock was ended (by an administrator, a timeout or a restart).",
                    remedy="run the tests again; let nothing end idle connections of this user.",
                )

    def _ask(self, query: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(query, parameters) if parameters else cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        except self._dbapi.Error as error:
            raise self._translated(query, error) from error
        finally:
            cursor.close()

    def _translated(self, statement: str, error: Exception) -> DatabaseError:
        number, text = _parts(error)
        if number in DENIED:
            return CannotCreateDatabase(
                f"The user {self.user} may not do what a test database needs on {shown(self.url)}:"
                f" {text} ({statement.split('(')[0].strip()[:100]}).",
                cause="it has no rights on databases that begin with the base name.",
                remedy=f"let an administrator run GRANT ALL PRIVILEGES ON `{self.url.database or 'test'}\\_%`.* TO the"
                ' user; or write database = "existing" in the test class, to use the database that the URL names.',
            )
        return DatabaseError(
            f"The server at {shown(self.url)} refuses {statement.split('(')[0].strip()[:100]!r}: {text}.",
            cause="a connection of another program has locked what is needed, or the server's disk is full.",
            remedy="mend what the server says and run again.",
        )

    def lock(self, name: str, *, wait: int = 0) -> bool:
        """Take the lock that stands for a database and ends with this connection, waiting for so many seconds."""
        if lock_name(name) in self._locks:  # by another database of this process: the server would give it twice
            return False
        ((taken,),) = self.rows("SELECT GET_LOCK(%s, %s)", (lock_name(name), wait))
        if taken:
            self._locks.add(lock_name(name))
        return bool(taken)

    def unlock(self, name: str) -> None:
        """Give the lock back."""
        self._locks.discard(lock_name(name))
        self.rows("SELECT RELEASE_LOCK(%s)", (lock_name(name),))

    def is_used(self, database: str) -> bool:
        """Whether another connection that can be seen uses a database."""
        query = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = %s AND ID <> CONNECTION_ID()"
        ((count,),) = self.rows(query, (database,))
        return bool(count)

    def end_connections(self, database: str) -> None:
        """End the other connections that use a database."""
        for (number,) in self.rows(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = %s AND ID <> CONNECTION_ID()", (database,)
        ):
            try:
                self.run(f"KILL {int(number)}")
            except CannotCreateDatabase:
                raise
            except DatabaseError:
                continue  # it has ended by itself

    def _close(self) -> None:
        with suppress(self._dbapi.Error):  # the server has closed it before
            self._connection.close()

    def _descriptor(self) -> int | None:
        with suppress(self._dbapi.Error):  # mysqlclient of one that is closed
            return descriptor_of(self._connection)
        return None


def lock_name(name: str) -> str:
    """At most 64 characters, whatever the database's name is."""
    return "dbtestcase_" + hashlib.sha256(name.encode()).hexdigest()[:40]


def _imported(dialect_class: Any, url: URL) -> Any:
    try:
        return dialect_class.import_dbapi()
    except ImportError as error:
        what = f"A URL such as {shown(url)}"
        distribution = _DISTRIBUTIONS.get((error.name or "").partition(".")[0])
        if distribution is None:
            raise MissingExtra(error.name or "pymysql", "mysql", what) from error
        raise ConfigurationError(
            f"{what} needs the module {error.name!r}, which is not installed.",
            cause="the driver that the URL names comes with none of the extras of dbtestcase",
            remedy=f"pip install {distribution}, or name another driver, such as mariadb+pymysql://",
        ) from error


def _parts(error: Exception) -> tuple[int, str]:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    return number, str(error.args[1]) if len(error.args) > 1 else str(error)


def _unreachable(url: URL, error: Exception) -> ServerUnreachable:
    host = url.host or url.query.get("unix_socket") or "the local socket"
    return ServerUnreachable(
        f"The {url.get_backend_name()} server at host {host}, port {url.port or 3306} cannot be reached for database"
        f" {url.database!r} ({shown(url)}): {without_secrets(_parts(error)[1], url)}",
        cause="it does not run, the host, the port or the user is wrong, or a firewall lies between."
        + (" The environment says a password: MYSQL_PWD." if "MYSQL_PWD" in os.environ else ""),
        remedy="start it or correct the URL; where the URL names no host a disposable server is started.",
    )
