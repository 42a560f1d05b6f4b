"""Databases that stand for an application's real ones, and what an independent connection sees there."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, make_url

from tests.support import mariadb
from tests.support.scratch import connect
from tests.support.servers import postgresql_url

__all__ = ["MariaDBProduction", "PostgreSQLProduction", "SQLiteProduction", "once_at_most"]


def once_at_most(most: int, count: Callable[[], int]) -> int:
    """How many clients there are, once there are no more than so many: a server takes notice of an end when it can."""
    until = time.monotonic() + 60
    while (clients := count()) > most and time.monotonic() < until:
        time.sleep(0.01)
    return clients


class PostgreSQLProduction:
    """A database with an empty table ``note`` on a server of the tests."""

    drivers = ("psycopg", "psycopg2", "pg8000")
    async_drivers = ("psycopg", "asyncpg")

    def __init__(self, name: str) -> None:
        self.name = name
        server = postgresql_url()
        with connect(server, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            admin.execute(f"CREATE DATABASE {name}".encode())
        self._url = server.set(database=name)
        with connect(self._url, autocommit=True) as connection:
            connection.execute("CREATE TABLE note (id serial PRIMARY KEY, text text)")

    def url(self, driver: str) -> URL:
        """Its URL for a driver."""
        url = self._url.set(drivername=f"postgresql+{driver}")
        if driver == "pg8000":
            socket = f"{url.query['host']}/.s.PGSQL.{url.query.get('port', 5432)}"
            url = url.difference_update_query(["host", "port"]).update_query_dict({"unix_sock": socket})
        return url

    def rows(self) -> list[str]:
        """What has been committed there."""
        with connect(self._url, autocommit=True, application_name="judge") as judge:
            return [text for (text,) in judge.execute("SELECT text FROM note ORDER BY id")]

    def clients(self, most: int = 0) -> int:
        """How many connections there are besides the judge's, once there are at most so many, or after a minute."""
        with connect(self._url, autocommit=True, application_name="judge") as judge:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND backend_type = 'client backend' AND application_name <> 'judge'"  # one may not have ended yet
            )
            return once_at_most(most, lambda: int(judge.execute(query).fetchall()[0][0]))

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error), connect(postgresql_url(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)".encode())


class MariaDBProduction:
    """The same on a MariaDB."""

    drivers = ("pymysql", "mysqldb")
    async_drivers = ("aiomysql", "asyncmy")

    def __init__(self, name: str) -> None:
        self._url, self.name = mariadb.mariadb_url(), name
        self._ask(f"DROP DATABASE IF EXISTS {name}", None)
        self._ask(f"CREATE DATABASE {name}", None)
        self._ask("CREATE TABLE note (id int AUTO_INCREMENT PRIMARY KEY, text varchar(99)) ENGINE = InnoDB")

    def _ask(self, statement: str, *database: str | None) -> list[Any]:
        name = database[0] if database else self.name
        with contextlib.closing(mariadb.connect(self._url, name)) as judge, judge.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def url(self, driver: str) -> URL:
        return self._url.set(drivername=f"mariadb+{driver}", database=self.name)

    def rows(self) -> list[str]:
        return [text for (text,) in self._ask("SELECT text FROM note ORDER BY id")]

    def clients(self, most: int = 0) -> int:
        query = f"SELECT count(*) FROM information_schema.processlist WHERE db = '{self.name}'"
        return once_at_most(most, lambda: int(self._ask(query)[0][0]) - 1)

    def close(self) -> None:
        self._ask(f"DROP DATABASE {self.name}", None)


class SQLiteProduction:
    """The same in a file."""

    drivers = ("pysqlite",)
    async_drivers = ("aiosqlite",)

    def __init__(self, folder: str) -> None:
        self.file = Path(folder, "real.db")
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            connection.execute("CREATE TABLE note (id integer PRIMARY KEY, text text)")

    def url(self, driver: str) -> URL:
        return make_url(f"sqlite+{driver}:///{self.file}")

    def rows(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.file)) as judge:
            return [text for (text,) in judge.execute("SELECT text FROM note ORDER BY id")]

    def clients(self, most: int = 0) -> int:
        return 0

    def close(self) -> None:
        self.file.unlink()
