"""Which database a connection would reach: enough of a URL, of a driver's arguments or of a connection to compare."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Dialect

__all__ = ["Target", "family_of", "target_of_arguments", "target_of_connection", "target_of_url"]

_LOCAL = {"", "localhost", "127.0.0.1", "::1", "/var/run/postgresql", "/run/postgresql", "/tmp"}
_PORTS = {"postgresql": "5432", "mysql": "3306", "mariadb": "3306"}
_FAMILIES = {"mariadb": "mysql"}


def family_of(dialect: str) -> str:
    """The kind of database that a dialect's name stands for: MySQL and MariaDB are one, with two names in URLs."""
    return _FAMILIES.get(dialect, dialect)


@dataclass(frozen=True)
class Target:
    """One database of one server."""

    dialect: str
    host: str
    port: str
    database: str


def target_of_url(url: URL) -> Target | None:
    """The database that a URL names; None for one in memory."""
    cls = url.get_dialect()
    args, parameters = cls().create_connect_args(url)
    return _target(cls.name, args, parameters)


def target_of_arguments(dialect: Dialect, args: Sequence[Any], parameters: Mapping[str, Any]) -> Target | None:
    """The database that ``dialect.connect(*args, **parameters)`` would reach."""
    return _target(dialect.name, args, parameters)


def target_of_connection(connection: Any) -> Target | None:
    """The database that a DBAPI connection of PostgreSQL has reached; None where that cannot be told."""
    real = getattr(connection, "_connection", connection)  # SQLAlchemy's adapters of async drivers
    info = getattr(real, "info", None)
    if info is not None and hasattr(info, "dbname"):
        with contextlib.suppress(Exception):  # a driver says it in its own way that the connection is closed
            return _target("postgresql", (), {"host": info.host, "port": info.port, "dbname": info.dbname})
    address, parameters = getattr(real, "_addr", None), getattr(real, "_params", None)
    if address is not None and parameters is not None:  # asyncpg
        host, port = address if isinstance(address, tuple) else (os.path.dirname(address), address.rsplit(".", 1)[-1])
        return _target("postgresql", (), {"host": host, "port": port, "dbname": parameters.database})
    return None


def _target(dialect: str, args: Sequence[Any], parameters: Mapping[str, Any]) -> Target | None:
    dialect = family_of(dialect)
    if dialect == "sqlite":
        name = str(args[0]) if args else str(parameters.get("database", ""))
        if not name or ":memory:" in name or "mode=memory" in name:
            return None
        return Target(dialect, "", "", os.path.realpath(name.removeprefix("file:").split("?")[0]))
    values = dict(parameters)
    if dialect == "postgresql" and args and isinstance(args[0], str):
        with contextlib.suppress(ImportError):
            from psycopg.conninfo import conninfo_to_dict

            values = {**conninfo_to_dict(args[0]), **values}
    host = (
        values.get("host")
        or values.get("unix_socket")
        or (os.environ.get("PGHOST", "") if dialect == "postgresql" else "")
    )
    if isinstance(host, (list, tuple)):
        host = host[0] if host else ""
    port = values.get("port")
    if isinstance(port, (list, tuple)):
        port = port[0] if port else None
    if port is None and dialect == "postgresql":
        port = os.environ.get("PGPORT")
    name = values.get("dbname") or values.get("database") or values.get("db") or values.get("user") or ""
    host = str(host).rstrip("/").lower() if not str(host).startswith("/") else str(host).rstrip("/")
    return Target(dialect, "" if host in _LOCAL else host, str(port or _PORTS.get(dialect, "")), str(name))
