"""The rows that tests have rolled back are removed now and then, between the outer transactions of classes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import sqlalchemy as sa

from dbtestcase import DatabaseTest
from dbtestcase.isolation import rollback, sandbox_run
from dbtestcase.sandbox.rules import PostgreSQLRules
from tests.support.inner import InnerRuns
from tests.support.postgresql import PostgreSQLTestCase
from tests.support.scratch import connect

metadata = sa.MetaData()
notes = sa.Table("notes", metadata, sa.Column("id", sa.Integer, primary_key=True))


def case(vacuumed: list[int], **attributes: Any) -> type[DatabaseTest]:
    """A class of three tests that write; its first one notes how often the table was vacuumed."""

    def write(self: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(notes.insert(), [{"id": number} for number in range(10)])

    def look(self: Any) -> None:
        url = sa.make_url(self.database_url)
        with connect(url) as judge:
            row = judge.execute("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'notes'").fetchone()
            vacuumed.append(row[0] if row else -1)
        write(self)

    tests = {"test_1": look, "test_2": write, "test_3": write}
    return type("Case", (DatabaseTest,), {"metadata": metadata, **tests, **attributes})


class DeadRowsTest(InnerRuns):
    def test_tables_are_vacuumed_between_classes_after_many_tests(self) -> None:
        vacuumed: list[int] = []
        statement = "SELECT 'VACUUM (SKIP_LOCKED) public.notes'"
        with (
            mock.patch.object(rollback, "RENEWAL", 3),
            mock.patch.object(sandbox_run, "RENEWAL", 3),
            mock.patch.object(PostgreSQLRules, "bloated", statement),
        ):
            for scope in ("class", "class", "test"):
                self.assertPassed(case(vacuumed, transaction_scope=scope), tests=3)
        first, second, third = vacuumed
        self.assertEqual((second - first, third - second), (1, 1))

    def test_they_are_not_after_few(self) -> None:
        vacuumed: list[int] = []
        for _ in range(2):
            self.assertPassed(case(vacuumed), tests=3)
        self.assertEqual(vacuumed[0], vacuumed[1])


class WhichTablesTest(PostgreSQLTestCase):
    def test_those_with_dead_rows_are_named(self) -> None:
        with self.database("dead_rows") as url, connect(url, autocommit=True) as connection:
            if connection.info.server_version < 150000:
                self.skipTest("PostgreSQL 14 and older cannot be told to note dead rows at once")

            def named() -> Any:
                connection.execute("SELECT pg_stat_force_next_flush()")
                return connection.execute(PostgreSQLRules.bloated.encode()).fetchone()

            connection.execute("CREATE TABLE item (id int)")
            self.assertEqual(named(), (None,))
            connection.execute("BEGIN")
            connection.execute("INSERT INTO item SELECT n FROM generate_series(1, 1000) n")
            connection.execute("ROLLBACK")
            self.assertEqual(named(), ("VACUUM (SKIP_LOCKED) public.item",))
            connection.execute("VACUUM item")
            self.assertEqual(named(), (None,))
