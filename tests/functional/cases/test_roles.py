"""The role of the tests: a URL's user is never replaced silently, and policies that bind nobody are named."""

from __future__ import annotations

import tempfile
import unittest

from tests.support.runners import Outcome, run_suite, write_suite

POLICIES = """
    from sqlalchemy import DDL, Column, Integer, MetaData, Table, create_engine, event, text
    from dbtestcase import *

    metadata = MetaData()
    Table("doc", metadata, Column("id", Integer, primary_key=True))
    event.listen(metadata, "after_create", DDL(
        "ALTER TABLE doc ENABLE ROW LEVEL SECURITY; ALTER TABLE doc FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY none ON doc USING (false); GRANT ALL ON doc TO pg_monitor"))
    engine = create_engine("postgresql+psycopg://production.invalid/shop"{arguments})

    class Case({base}):
        metadata = metadata
        engines = [engine]

        def test_rows(self):
            with engine.begin() as connection:
                connection.execute(text("SELECT * FROM doc"))

        def test_more(self):
            self.assertRowCount(metadata.tables["doc"], 0)

    class Later(Case):
        pass
"""
ROLE = ', connect_args={"options": "-c role=pg_monitor"}'
USER = """
    from sqlalchemy import MetaData
    from dbtestcase import DatabaseTest

    class Case(DatabaseTest):
        metadata = MetaData()
        url = "{url}"

        def test_user(self):
            self.assertEqual(self.session.connection().exec_driver_sql("SELECT current_user").scalar(), "postgres")
"""


class RoleTest(unittest.TestCase):
    def run_case(self, source: str) -> Outcome:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        return run_suite(write_suite(folder, {"test_case.py": source}), "unittest", warnings="default")

    def test_policies_that_bind_nobody_are_named_once(self) -> None:
        for base in ("DatabaseTest", "TruncatingDatabaseTest"):
            with self.subTest(base):
                outcome = self.run_case(POLICIES.format(base=base, arguments=""))
                outcome.expect(passed=4)
                self.assertEqual(outcome.output.count("RowSecurityWarning: Row-level"), 1)
                self.assertIn("SET ROLE", outcome.output)

    def test_nothing_is_said_where_connections_take_a_role(self) -> None:
        outcome = self.run_case(POLICIES.format(base="DatabaseTest", arguments=ROLE))
        outcome.expect(passed=4)
        self.assertNotIn("RowSecurityWarning", outcome.output)

    def test_a_user_that_a_disposable_server_has_not_is_refused_by_name(self) -> None:
        outcome = self.run_case(USER.format(url="postgresql+psycopg://shop_app:hush@/shop"))
        self.assertIn("names the user 'shop_app'", outcome.output)
        self.assertIn("-c role=shop_app", outcome.output)
        self.assertNotIn("hush", outcome.output)
        self.run_case(USER.format(url="postgresql+psycopg://postgres@/shop")).expect(passed=1)


if __name__ == "__main__":
    unittest.main()
