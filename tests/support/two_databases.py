"""Two databases of one schema: one is seen through the sandbox, in the other everything is committed for real."""

import unittest
from typing import ClassVar

import psycopg
from sqlalchemy import URL

from tests.support.servers import postgresql_url


class TwoDatabases(unittest.TestCase):
    """``url`` leads to the one for the sandbox; ``arguments``, for psycopg and psycopg2, to the real one."""

    name: ClassVar[str]
    schema: ClassVar[str]
    url: ClassVar[URL]
    arguments: ClassVar[dict[str, str]]
    admin: ClassVar[psycopg.Connection]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        server = postgresql_url()
        address = {"host": str(server.query["host"]), "user": str(server.username)}
        cls.admin = psycopg.connect(**address, dbname=str(server.database), autocommit=True)
        cls.addClassCleanup(cls.admin.close)
        for name in (f"{cls.name}_sandboxed", f"{cls.name}_real"):
            cls.admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cls.admin.execute(f"CREATE DATABASE {name}")
            cls.addClassCleanup(cls.admin.execute, f"DROP DATABASE {name} WITH (FORCE)")
            with psycopg.connect(**address, dbname=name, autocommit=True) as connection:
                connection.execute(cls.schema)
        cls.arguments = {**address, "dbname": f"{cls.name}_real"}
        cls.url = server.set(database=f"{cls.name}_sandboxed")

    def real_connection(self) -> psycopg.Connection:
        """One to the real database, until the test ends."""
        connection = psycopg.connect(**self.arguments, autocommit=True)
        self.addCleanup(connection.close)
        return connection
