"""One connection to a PostgreSQL server, beside the test databases: it makes and drops them and holds their leases.

It speaks psycopg whatever driver the application uses, and costs no SQLAlchemy engine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import Conninfo
from sqlalchemy import URL

from ...drivers import KEEPALIVES, OwnConnection, address_beside, arrivals_at, patiently
from ...errors import ConfigurationError, ServerUnreachable
from ...reporting import for_driver, limit_named_by, shown, without_secrets
from ..admin_connections import AdminConnection

CONNECT_TIMEOUT = 30  # seconds; for servers that do not even refuse

_T = TypeVar("_T")

#: Options of other drivers' URLs that libpq knows by another name.
_RENAMED = {"ssl": "sslmode", "timeout": "connect_timeout", "application_name": "application_name"}


def build_url(url: URL, database: str) -> URL:
    """``url`` for psycopg (synchronous) and another database; options that only other drivers know are left out."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"service"}
    query: dict[str, Any] = {}
    for name, value in for_driver(url, "postgresql+psycopg").query.items():
        name = _RENAMED.get(name, name)
        if name == "sslmode" and value in ("true", "True", "1"):
            value = "require"
        if name in known and name != "dbname":
            query[name] = value
    return url.set(drivername="postgresql+psycopg", database=database, query=query)


def connection_arguments(url: URL, database: str) -> dict[str, Any]:
    """What ``psycopg.connect`` takes to reach ``database`` on the server of ``url``."""
    target = build_url(url, database)
    arguments: dict[str, Any] = dict(target.get_dialect()().create_connect_args(target)[1])
    arguments.setdefault("connect_timeout", CONNECT_TIMEOUT)
    arguments.setdefault("application_name", "dbtestcase")
    return arguments


class Admin(AdminConnection):
    """A connection in autocommit mode, renewed with its locks where the server has ended it.

    :param database: by default ``postgres``, or the URL's where that is refused.
    :param lock_timeout: seconds to wait for a lock; 0: for ever.
    """

    def __init__(self, url: URL, database: str | None = None, *, lock_timeout: float = 0) -> None:
        super().__init__(url)
        _refuse_another_address(url)
        self._settings = f"SET statement_timeout = 0; SET lock_timeout = {int(lock_timeout * 1000)}; {KEEPALIVES}"
        self._settings += "; SET default_transaction_read_only = off"  # PGOPTIONS, a role or a database may say on
        # Not the named database first, where there is a choice: a connection would keep others from dropping it.
        self._databases = (database,) if database else tuple(dict.fromkeys(("postgres", url.database or "postgres")))
        self._mutex = threading.RLock()
        self._locks: set[tuple[int, int]] = set()
        self._patient = True
        self.pinned = 0
        """How many things go on that must not lose the connection's locks without need."""
        self._connection = self._connect()
        self._all.add(self)

    @classmethod
    def _target(cls, url: URL) -> Hashable:
        return repr(sorted(connection_arguments(url, "").items())), url.database

    def _connect(self, *, again: bool = False) -> psycopg.Connection[tuple[Any, ...]]:
        first: psycopg.Error | None = None
        for database in self._databases:
            arguments = connection_arguments(self.url, database)
            try:
                return patiently(
                    lambda arguments=arguments: self._open(arguments),  # type: ignore[misc]
                    self.url,
                    restarting=again,
                )
            except psycopg.errors.ConnectionTimeout as error:
                raise _unreachable(self.url, error) from error
            except psycopg.errors.LockNotAvailable:  # connected, and somebody has taken the lock meanwhile
                raise
            except psycopg.OperationalError as error:
                first = first or error
        assert first is not None
        raise _unreachable(self.url, first) from first

    def _open(self, arguments: dict[str, Any], *, again: bool = True) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect, and take the locks: once more, where an administrator ends the connection meanwhile."""
        connection: psycopg.Connection[tuple[Any, ...]] = OwnConnection.connect(**arguments, autocommit=True)
        try:
            # A server may be set to end idle sessions and long statements; the leases must outlive both.
            idle = "; SET idle_session_timeout = 0" if connection.info.server_version >= 140000 else ""
            connection.execute((self._settings + idle).encode())
            for kind, key in self._locks:
                connection.execute("SELECT pg_advisory_lock(%s, %s)::text", (kind, key))
        except BaseException as error:
            lost = connection.closed
            connection.close()
            if not (again and lost and isinstance(error, psycopg.OperationalError)):
                raise
            return self._open(arguments, again=False)
        return connection

    @property
    def version(self) -> int:
        """The server's version as a number, such as 150018."""
        return self._connection.info.server_version

    @property
    def version_name(self) -> str:
        """The server's version as it writes it, such as ``15.18 (Debian 15.18-0+deb12u1)``."""
        return self._connection.info.parameter_status("server_version") or str(self.version)

    @property
    def user(self) -> str:
        """The role that is connected."""
        return self._connection.info.user

    @property
    def closed(self) -> bool:
        """Whether the connection was closed or lost, and its locks with it."""
        return self._connection.closed

    # -- locks

    def lock(self, kind: int, key: int) -> None:
        """Hold an advisory lock, also over the loss of the connection; waits for who holds it now."""
        if (kind, key) not in self._locks:
            self.rows("SELECT pg_advisory_lock(%(kind)s, %(key)s)::text", {"kind": kind, "key": key})
            self.keep_lock(kind, key)

    def keep_lock(self, kind: int, key: int) -> None:
        """Take a lock, which a statement has taken, again where the connection is lost."""
        self._locks.add((kind, key))

    def holds(self, kind: int, key: int) -> bool:
        """Whether :meth:`lock` was called for it."""
        return (kind, key) in self._locks

    def unlock(self, kind: int, key: int) -> None:
        """Give a lock back; does nothing where it is not held."""
        if (kind, key) in self._locks:
            self._locks.discard((kind, key))
            if not self.closed:
                self.rows("SELECT pg_advisory_unlock(%(kind)s, %(key)s)", {"kind": kind, "key": key})

    # -- losing and renewing the connection

    def renew(self) -> None:
        """Connect again where the connection was lost, and take its locks again; asks the socket, not the server.

        Does nothing in a process that was forked from the one that connected.
        """
        if self.pid != os.getpid():
            return
        with self._mutex:
            if _is_lost(self._connection):
                from ...server import refuse_unwatched  # seldom needed

                self._connection.close()
                refuse_unwatched(str(self.url.query.get("host", "")))
                patient, self._patient = self._patient, False  # of one restart nobody waits for twice
                self._connection = self._connect(again=patient)
                self._patient = True
                self.renewals += 1

    def spare(self) -> None:
        """Close the connection until its next use, unless something is being done under its locks."""
        if not self.inherited and not self.pinned:
            self._connection.close()

    def _do(self, work: Callable[[psycopg.Connection[tuple[Any, ...]]], _T]) -> _T:
        """Do something that may be done twice: once more, where the connection is lost in the middle."""
        self.renew()
        try:
            return work(self._connection)
        except psycopg.OperationalError:
            if not self._connection.closed:
                raise
        self.renew()
        return work(self._connection)

    def execute(self, statement: LiteralString, **parts: str | int | sql.Composable) -> None:
        """Run a statement; a ``str`` fills ``{name}`` as an identifier, ``sql.Literal`` as a value."""
        self._do(lambda connection: connection.execute(_filled(statement, parts)))

    def run(self, statement: str | sql.Composed) -> None:
        """Run a statement as it stands."""
        text = statement.encode() if isinstance(statement, str) else statement
        self._do(lambda connection: connection.execute(text))

    def rows(self, query: LiteralString, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query with ``%(name)s`` parameters."""
        return self._do(lambda connection: connection.execute(query, parameters).fetchall())

    def _close(self) -> None:
        self._connection.close()

    def _descriptor(self) -> int | None:
        return None if self._connection.closed else self._connection.fileno()


def _is_lost(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """Whether the server has ended the connection since it was used last."""
    if connection.closed:
        return True
    pgconn = connection.pgconn
    arrived = arrivals_at(pgconn.socket)
    try:
        while arrived():  # nobody has asked for anything: a notice, or the end
            pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return connection.closed


def _filled(statement: LiteralString, parts: dict[str, Any]) -> sql.Composed:
    quoted = {name: sql.Identifier(part) if isinstance(part, str) else part for name, part in parts.items()}
    return sql.SQL(statement).format(**quoted)


def _refuse_another_address(url: URL) -> None:
    host = url.host or url.query.get("host") or ""
    if not isinstance(host, str) or "hostaddr" in url.query or not (address := address_beside(host)):
        return
    raise ConfigurationError(
        f"The environment leads connections to {address}, and not to the server of {shown(url)}.",
        cause="PGHOSTADDR, or hostaddr of the service that PGSERVICE names: libpq connects there whatever the host is",
        remedy="unset it for the tests; or write hostaddr= into the URL's query, where that server is meant",
    )


def _variables() -> str:
    known = [option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar]
    found = [name for name in (*known, "PGSERVICE") if name in os.environ]
    return f" The environment has a say in it: {', '.join(dict.fromkeys(found))}." if found else ""


def _unreachable(url: URL, error: psycopg.Error) -> ServerUnreachable:
    host = url.host or url.query.get("host") or "the local socket"
    port = url.port or url.query.get("port") or 5432
    reason = without_secrets(error, url)
    cause, remedy = limit_named_by(error) or (
        "it does not run, the host, the port or the role is wrong, or a firewall lies between." + _variables(),
        "start it or correct the URL; where no URL is given a disposable server is started.",
    )
    return ServerUnreachable(
        f"The PostgreSQL server at host {host}, port {port} cannot be reached for database {url.database!r}"
        f" ({shown(url)}): {reason}",
        cause=cause,
        remedy=remedy,
    )
