"""For tests on a real PostgreSQL: a server, recipes, and a judge with a connection of its own."""

import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, Column, Integer, MetaData, Table, Text
from sqlalchemy.orm import Session

from dbtestcase.backends.names import lock_key
from dbtestcase.backends.postgresql.catalog import LEASE_LOCKS
from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.settings import Settings
from tests.support.servers import postgresql_url

CACHE = Settings(cache=Path("unused"))  # only whether there is one matters to databases
NO_CACHE = Settings(cache=None)


class PostgreSQLTestCase(unittest.TestCase):
    """Every test must leave the server's databases and roles as they were, but for templates."""

    url: URL

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.url = postgresql_url()

    def setUp(self) -> None:
        super().setUp()
        before = self.names()
        self.addCleanup(lambda: self.assertEqual(self.names(), before, "databases were left behind"))

    @contextmanager
    def connection(self, url: URL | None = None) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
        url = url or self.url
        host = url.host or str(url.query["host"])
        with psycopg.connect(
            host=host, port=url.port, user=url.username, password=url.password, dbname=url.database, autocommit=True
        ) as connection:
            yield connection

    def ask(self, statement: str, url: URL | None = None) -> list[Any]:
        """What a connection of the judge's own sees; or does, in autocommit mode."""
        with self.connection(url) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def names(self) -> set[str]:
        """The names of the databases, without templates."""
        rows = self.ask("SELECT datname FROM pg_database WHERE datname NOT LIKE 'dbtestcase_template_%'")
        return {name for (name,) in rows}

    def templates(self) -> set[str]:
        return {name for (name,) in self.ask("SELECT datname FROM pg_database")} - self.names()

    def wait_until_unowned(self, name: str) -> None:
        """Wait until the server has noticed that a database's owner is dead."""
        try:
            self.ask(f"SET lock_timeout = '30s'; SELECT pg_advisory_lock({LEASE_LOCKS}, {lock_key(name)})")
        except psycopg.errors.LockNotAvailable:
            holders = self.ask(
                "SELECT a.pid, a.application_name, a.backend_start, a.state, a.state_change, a.wait_event, a.query"
                " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
                f" AND l.classid = {LEASE_LOCKS} AND l.objid = {lock_key(name) % 2**32}"
            )
            raise AssertionError(f"the lease of {name} is still held by {holders}") from None

    @contextmanager
    def database(self, name: str) -> Iterator[URL]:
        """A database that somebody else made."""
        quoted = sql.Identifier(name)
        with self.connection() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(quoted))
        try:
            yield self.url.set(database=name)
        finally:
            with self.connection() as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))

    @contextmanager
    def role(self, name: str, options: str = "") -> Iterator[URL]:
        """An ordinary role that may log in."""
        self.ask(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' {options}")
        try:
            yield self.url.set(username=name, password="secret")
        finally:
            self.ask(f"DROP ROLE {name}")


def recipe(name: str, rows: int = 0) -> MetadataRecipe:
    """One table of this name, with so many rows of base data."""
    metadata = MetaData()
    table = Table(name, metadata, Column("id", Integer, primary_key=True), Column("title", Text))

    def load(session: Session) -> None:
        session.execute(table.insert(), [{"title": f"row {number}"} for number in range(rows)])

    return MetadataRecipe(metadata, load if rows else None)


class CountingRecipe(MetadataRecipe):
    """Knows where it was built."""

    def __init__(self, name: str) -> None:
        super().__init__(recipe(name).metadata)
        self.built: list[URL] = []

    def build(self, url: URL) -> None:
        self.built.append(url)
        super().build(url)
