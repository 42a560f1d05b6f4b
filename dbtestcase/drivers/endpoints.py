"""Which databases a connection may reach: enough of a URL, of a driver's arguments or of a connection to compare."""

from __future__ import annotations

import contextlib
import functools
import getpass
import inspect
import ipaddress
import itertools
import os
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from sqlalchemy import URL, Dialect
from sqlalchemy.pool import Pool

from ..settings import read_once
from .sqlalchemy_internals import creator_of

_LOCAL = {
    *("", "localhost", "127.0.0.1", "::1", "0.0.0.0", "/var/run/postgresql", "/run/postgresql", "/tmp"),
    *("/var/run/mysqld/mysqld.sock", "/run/mysqld/mysqld.sock", "/tmp/mysql.sock"),
}
_PORTS = {"postgresql": "5432", "mysql": "3306"}
_FAMILIES = {"mariadb": "mysql"}
_WITHOUT_ADDRESSES = {"asyncpg", "pg8000"}
_ENVIRONMENT = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER"}


def family_of(dialect: str) -> str:
    """The kind of database that a dialect's name stands for: MySQL and MariaDB are one, with two names in URLs."""
    return _FAMILIES.get(dialect, dialect)


@dataclass(frozen=True)
class Endpoint:
    """One database of one server."""

    dialect: str
    host: str
    port: str
    database: str


def meet(some: Set[Endpoint], others: Set[Endpoint]) -> bool:
    """Whether a database is among both; its host's name is looked up only where everything else is the same."""
    return not some.isdisjoint(others) or any(_are_one(one, other) for one in some for other in others)


def _are_one(one: Endpoint, other: Endpoint) -> bool:
    if one.dialect == other.dialect == "sqlite":
        return one.host == other.host == "" and _is_same_file(one.database, other.database)
    return (one.dialect, one.port, one.database) == (other.dialect, other.port, other.database) and same_host(
        one.host, other.host
    )


def _is_same_file(one: str, other: str) -> bool:
    """Whether two names are one file's: by a hard link, a mount, or a file system that knows no upper case."""
    with contextlib.suppress(OSError, ValueError):
        return os.path.samefile(one, other)
    return False


def endpoints_of_url(url: URL) -> frozenset[Endpoint]:
    """The databases that a URL names, one for each of its hosts; none for one in memory that nobody else can name."""
    made: Any = url.get_dialect()
    dialect = _dialect(made)
    args, parameters = dialect.create_connect_args(url)
    return _endpoints(dialect.name, args, parameters, dialect.driver)


@functools.cache
def _dialect(cls: Any) -> Any:
    return cls()


def endpoints_of_arguments(
    dialect: Dialect | str, args: Sequence[Any], parameters: Mapping[str, Any]
) -> frozenset[Endpoint]:
    """The databases that ``dialect.connect(*args, **parameters)`` would try to reach; a text is ``name+driver``."""
    name, _, driver = (dialect if isinstance(dialect, str) else f"{dialect.name}+{dialect.driver}").partition("+")
    return _endpoints(name, args, parameters, driver)


def endpoints_of_pool(pool: Pool, dialect: Dialect, url: URL) -> frozenset[Endpoint]:
    """The databases that an engine's pool connects to; with ``creator=`` those that its URL names, perhaps none."""
    found = connect_arguments(pool)
    if found is not None:
        return endpoints_of_arguments(dialect, *found)
    if not (url.host or url.database or url.query):
        return frozenset()
    return endpoints_of_arguments(dialect, *dialect.create_connect_args(url))


def connect_arguments(pool: Pool) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
    """What ``create_engine`` gives to ``connect()``, from the closure of the pool's creator; None for another."""
    creator = creator_of(pool)
    if getattr(creator, "__module__", "") != "sqlalchemy.engine.create" or not inspect.isfunction(creator):
        return None
    variables = inspect.getclosurevars(creator).nonlocals
    return variables.get("cargs_tup") or variables.get("cargs") or (), variables.get("cparams") or {}


def endpoints_of_connection(connection: Any) -> frozenset[Endpoint]:
    """The database that a DBAPI connection of PostgreSQL has reached; none where that cannot be told."""
    real = getattr(connection, "_connection", connection)  # SQLAlchemy's adapters of async drivers
    info = getattr(real, "info", None)
    if info is not None and hasattr(info, "dbname"):
        with contextlib.suppress(Exception):  # a driver says it in its own way that the connection is closed
            return _reached(info.host, _address_of(info), info.port, info.dbname)
    address, parameters = getattr(real, "_addr", None), getattr(real, "_params", None)
    if address is not None and parameters is not None:  # asyncpg
        host, port = address if isinstance(address, tuple) else (os.path.dirname(address), address.rsplit(".", 1)[-1])
        return _reached(host, "", port, parameters.database)
    return frozenset()


def _address_of(info: Any) -> str:
    """What libpq has connected to, whatever the name of the host is: psycopg and psycopg2 say it differently."""
    given = getattr(info, "dsn_parameters", None)
    if given is not None:
        return str(given.get("hostaddr") or "")
    with contextlib.suppress(Exception):  # libpq before 12 does not say
        return str(info.hostaddr)
    return ""


def _reached(host: str, address: str, port: Any, database: str) -> frozenset[Endpoint]:
    return frozenset([Endpoint("postgresql", _host(address or host), str(port or _PORTS["postgresql"]), database)])


def _endpoints(
    dialect: str, args: Sequence[Any], parameters: Mapping[str, Any], driver: str = ""
) -> frozenset[Endpoint]:
    dialect = family_of(dialect)
    if dialect == "sqlite":
        return _sqlite_endpoints(str(args[0]) if args else str(parameters.get("database", "")))
    values = {name: value for name, value in parameters.items() if value is not None}
    if dialect == "postgresql":
        values = _as_libpq_reads(args, values, driver)
    name = values.get("dbname") or values.get("database") or values.get("db") or values.get("user") or ""
    socket = values.get("unix_socket") or values.get("unix_sock")
    # where there is an address, the host beside it is only the name by which certificates are checked
    addresses, names = _listed(values.get("hostaddr")), _listed(socket or values.get("host"))
    hosts = [address or host for address, host in itertools.zip_longest(addresses, names, fillvalue="")] or [""]
    ports = _listed(values.get("port"))
    several = ports if len(ports) == len(hosts) else [ports[0] if ports else ""] * len(hosts)
    return frozenset(
        Endpoint(dialect, _host(host), port or _PORTS.get(dialect, ""), str(name))
        for host, port in zip(hosts, several, strict=True)
    )


def _sqlite_endpoints(name: str) -> frozenset[Endpoint]:
    path, query = parts_of_file_name(name)
    if not name or path in ("", ":memory:") or "mode=memory" in query:
        # one in memory is a connection's own, unless it has a name to be shared by
        shared = "cache=shared" in query
        return frozenset([Endpoint("sqlite", "memory", "", path)]) if shared else frozenset()
    return frozenset([Endpoint("sqlite", "", "", os.path.realpath(path))])


def parts_of_file_name(name: str) -> tuple[str, str]:
    """The path and the parameters in what SQLite is told to open."""
    if not name.startswith("file:"):
        return name, ""
    path, _, query = map(unquote, name.removeprefix("file:").partition("#")[0].partition("?"))
    path = path.partition("\0")[0]  # %00 ends it
    if path.startswith("//"):  # a host, which can only be this one
        path = "/" + path[2:].partition("/")[2]
    return path, query


def _as_libpq_reads(args: Sequence[Any], values: Mapping[str, Any], driver: str) -> dict[str, Any]:
    """Connection strings, the service file and the environment, in libpq's order; others know no address."""
    text = (args[0] if args else None) or values.get("conninfo") or values.get("dsn")
    found = dict(values)
    if isinstance(text, str):
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        with contextlib.suppress(psycopg.Error):  # the driver will say what is wrong with it
            found = {**conninfo_to_dict(text), **values}
    found = {**service_of(str(found.get("service") or os.environ.get("PGSERVICE") or "")), **found}
    if "database" in found:
        found.setdefault("dbname", found["database"])
    if driver in _WITHOUT_ADDRESSES:
        found["hostaddr"] = ""
    for name, variable in _ENVIRONMENT.items():
        if os.environ.get(variable):
            found.setdefault(name, os.environ[variable])
    if not found.get("user") and (name := _users_name()):
        found["user"] = name
    return found


def address_beside(host: str) -> str:
    """The address to which libpq connects whatever host it is given, where that is another one; else nothing.

    The environment and a service say so (``PGHOSTADDR``, ``hostaddr``), and beside a host nobody expects it.
    """
    service = os.environ.get("PGSERVICE", "")
    address = service_of(service).get("hostaddr") or os.environ.get("PGHOSTADDR", "")
    if not address or (host and not host.startswith("/") and same_host(host, address)):
        return ""
    return address


@read_once
def environment() -> tuple[str | None, ...]:
    """The variables that have a say in where connections go."""
    names = (*_ENVIRONMENT.values(), "PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR")
    return tuple(map(os.environ.get, names))


def _users_name() -> str:
    variables = ("LOGNAME", "USER", "LNAME", "USERNAME")
    return _asked_for_name(os.getuid(), *map(os.environ.get, variables))


@functools.lru_cache(maxsize=16)
def _asked_for_name(uid: int, *variables: str | None) -> str:
    try:
        return getpass.getuser()  # the first of these variables, else the account's name
    except (KeyError, OSError):  # a user without a name
        return ""


def service_of(name: str) -> dict[str, str]:
    """What libpq's service files say of a service: the user's, else the system's."""
    if not name:
        return {}
    folder = os.environ.get("PGSYSCONFDIR", "/etc")
    for path in (os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf", os.path.join(folder, "pg_service.conf")):
        with contextlib.suppress(OSError), open(os.path.expanduser(path), encoding="utf-8", errors="replace") as file:
            if (found := _section(file, name)) is not None:
                return found
    return {"host": f"service {name}"}


def _section(lines: Iterable[str], name: str) -> dict[str, str] | None:
    """As libpq reads it: whatever stands in other sections, without lines that go on, the first of two that differ."""
    found: dict[str, str] | None = None
    for line in map(str.strip, lines):
        if line.startswith("["):
            if found is not None:
                break
            found = {} if line.startswith(f"[{name}]") else None
        elif found is not None and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key.strip(), value.strip())
    return found


def _listed(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(each or "") for each in value]
    return str(value).split(",") if value not in (None, "") else []


def _host(name: str) -> str:
    name = name.rstrip("/") if name.startswith("/") else name.rstrip(".").lower()
    folder, _, file = name.rpartition("/")
    if file.startswith(".s.PGSQL."):  # pg8000 names the socket, libpq its folder
        name = folder
    return LOCAL if name in _LOCAL else name


LOCAL = ""
"""What stands for this machine."""

_PATIENCE = 2.0  # seconds for a name server that does not answer; what it does not know cannot be connected to either


@functools.lru_cache(maxsize=256)
def same_host(one: str, other: str) -> bool:
    """Whether two hosts may be one; a socket anywhere may be that of the server that listens on this machine's port."""
    sockets = [name for name in (one, other) if name.startswith(("/", "@"))]
    if len(sockets) == 2:
        return os.path.realpath(one) == os.path.realpath(other)
    if sockets:
        return LOCAL in _addresses(other if sockets == [one] else one)
    return not _addresses(one).isdisjoint(_addresses(other))


def _addresses(name: str) -> frozenset[str]:
    """The addresses of a name; :data:`LOCAL` for each of this machine's own."""
    if name == LOCAL:
        return frozenset([LOCAL])
    found = _resolved(name)
    return found | {LOCAL} if any(map(_is_own, found)) else found


def _is_own(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_unspecified or address in _resolved(socket.gethostname())


@functools.lru_cache(maxsize=256)
def _resolved(name: str) -> frozenset[str]:
    with contextlib.suppress(ValueError):
        return frozenset([str(ipaddress.ip_address(name.strip("[]").partition("%")[0]))])
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            for *_, address in socket.getaddrinfo(name, None):
                found.append(str(address[0]).partition("%")[0])

    thread = threading.Thread(target=ask, name="dbtestcase name server", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return frozenset(found)
