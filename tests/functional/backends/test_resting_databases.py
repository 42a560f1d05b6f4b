"""A class whose connections rested, and whose database was dropped meanwhile, has it made again."""

import unittest
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from dbtestcase import DatabaseTest, TruncatingDatabaseTest
from dbtestcase.cases import close_all
from tests.support.farm import END_ADMINS
from tests.support.inner import InnerRuns
from tests.support.servers import postgresql_url


class RestingDatabasesTest(InnerRuns):
    def test_another_run_has_dropped_it_since_its_lease_was_lost(self) -> None:
        self.addCleanup(close_all)
        server = postgresql_url().set(database=None)
        for number, base in enumerate((DatabaseTest, TruncatingDatabaseTest)):
            one, other = (sa.MetaData() for _ in range(2))
            table = sa.Table(f"resting{number}", one, sa.Column("id", sa.Integer, primary_key=True))
            sa.Table(f"other{number}", other, sa.Column("id", sa.Integer, primary_key=True))
            names: list[str] = []

            def use(test: Any, table: sa.Table = table, names: list[str] = names) -> None:
                names.append(sa.make_url(test.database_url).database or "")
                test.assertRowCount(table, 0)
                with test.engine.begin() as connection:
                    connection.execute(table.insert().values(id=1))

            def drop(test: Any, names: list[str] = names) -> None:
                url = server.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
                with psycopg.connect(url, autocommit=True) as judge:
                    judge.execute(END_ADMINS.encode())
                    judge.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(names[0])))  # nobody is connected

            attributes: dict[str, Any] = {"url": server, "metadata": one, "test_it": use}
            first, last = (type(name, (base,), attributes) for name in ("First", "Last"))
            between = type("Between", (base,), {"url": server, "metadata": other, "test_it": drop})
            with self.subTest(base.__name__):
                self.assertPassed(first, between, last, tests=3)


if __name__ == "__main__":
    unittest.main()
