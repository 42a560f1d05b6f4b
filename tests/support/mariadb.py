"""For tests on a real MariaDB: a server of this process's own, recipes, and a judge with a connection of its own."""

import atexit
import functools
import os
import unittest
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pymysql
from sqlalchemy import URL, make_url

from dbtestcase.backends.mysql.admin import lock_name
from dbtestcase.cases import close_all
from dbtestcase.errors import ProgramsNotFound
from dbtestcase.server import disposable_server
from dbtestcase.server.mariadb import find_mariadb
from dbtestcase.settings import read_settings
from tests.support.requirements import require

SYSTEM = {"information_schema", "mysql", "performance_schema", "sys"}
REMEDY = "apt-get install mariadb-server, or name a server in TESTS_MARIADB_URL"


def require_mariadb() -> None:
    """Go on if there is a MariaDB; else skip the running test by name."""
    if "TESTS_MARIADB_URL" in os.environ:
        return
    try:
        find_mariadb()
    except ProgramsNotFound as error:
        require(False, f"MariaDB ({error.what})", REMEDY)


@functools.cache
def mariadb_url() -> URL:
    """A server, as its administrator; it lives as long as this process.  Skips by name where there is none."""
    if url := os.environ.get("TESTS_MARIADB_URL"):
        return make_url(url)
    require_mariadb()
    server = disposable_server(read_settings(), kind="mariadb")
    atexit.register(server.close)
    atexit.register(close_all)  # before it: what classes have made there
    with closing(connect(server.url, None)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        for (name,) in cursor.fetchall():  # kept for the project's other tests: not in this server
            if name not in SYSTEM:
                cursor.execute(f"DROP DATABASE `{name}`")
    return server.url.set(database="shop")


def connect(url: URL, database: str | None) -> "pymysql.Connection[Any]":
    return pymysql.connect(
        unix_socket=url.query.get("unix_socket"),
        host=url.host,
        port=url.port or 3306,
        user=url.username,
        password=str(url.password or ""),
        database=database,
        autocommit=True,
        ssl_disabled=True,
    )


class MariaDBTestCase(unittest.TestCase):
    """Every test must leave no databases of ours that are not for the next run; those are dropped."""

    url: URL

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.url = mariadb_url()

    def setUp(self) -> None:
        super().setUp()
        self.drop_ours()  # other tests of this process have a server with it, and keep what the next run could use
        self.addCleanup(self.drop_ours)

    def drop_ours(self) -> None:
        for name in self.names():
            self.ask(f"DROP DATABASE `{name.replace('`', '``')}`")

    def ask(self, statement: str, database: str | None = None) -> list[Any]:
        """What a connection of the judge's own sees; or does, in autocommit mode."""
        with closing(connect(self.url, database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def names(self) -> set[str]:
        """The names of the databases that are not the server's."""
        return {name for (name,) in self.ask("SHOW DATABASES")} - SYSTEM

    def wait_until_unowned(self, name: str) -> None:
        """Wait until the server has noticed that a database's owner is dead."""
        self.ask(f"SELECT GET_LOCK('{lock_name(name)}', 30)")

    @contextmanager
    def user(self, name: str, *rights: str) -> Iterator[URL]:
        """An ordinary user."""
        self.ask(f"CREATE USER {name}@localhost IDENTIFIED BY 'secret'")
        for right in rights:
            self.ask(f"GRANT {right} TO {name}@localhost")
        try:
            yield self.url.set(username=name, password="secret")
        finally:
            self.ask(f"DROP USER {name}@localhost")
