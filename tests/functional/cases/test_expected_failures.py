"""``expectedFailure`` and ``xfail`` are for failures of the application: what the library refuses or loses is none."""

import tempfile
import textwrap
import unittest

from tests.support.pytest_runs import PytestCase
from tests.support.runners import SERIAL_RUNNERS, each_runner, write_suite
from tests.support.samples import a_share

SUITE = """
    import unittest
    import sqlalchemy as sa
    from dbtestcase import AsyncDatabaseTest, DatabaseTest

    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
    engine = sa.create_engine("postgresql+psycopg://production.invalid/shop")
    other = sa.create_engine("postgresql+psycopg://production.invalid/other")

    def end_of_connection(connection):
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    class Case(DatabaseTest):
        metadata = metadata
        engines = [engine]

    class MethodTest(Case):
        @unittest.expectedFailure
        def test_of_the_application(self):
            self.assertRowCount(item, 1)

        @unittest.expectedFailure
        def test_part_of_the_application(self):
            with self.subTest("part"):
                self.assertRowCount(item, 1)

        @unittest.expectedFailure
        def test_no_bad_border(self):
            other.connect()

        @unittest.expectedFailure
        def test_no_bad_part(self):
            with self.subTest("part"):
                other.connect()

        @unittest.expectedFailure
        def test_no_bad_wrapped(self):
            try:
                other.connect()
            except Exception:
                raise ValueError("no order")

        @unittest.expectedFailure
        def test_no_bad_lost(self):
            with engine.begin() as connection:
                end_of_connection(connection)

    @unittest.expectedFailure
    class ClassTest(Case):
        def test_no_bad_conflict(self):
            with engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")

    class AsyncTest(AsyncDatabaseTest, Case):
        @unittest.expectedFailure
        async def test_of_the_application(self):
            self.assertRowCount(item, 1)

        @unittest.expectedFailure
        async def test_no_bad_border(self):
            other.connect()

        @unittest.expectedFailure
        async def test_no_bad_lost(self):
            await self.session.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
"""


class UnittestTest(unittest.TestCase):
    def test_a_refusal_and_a_lost_connection_are_errors_under_each_runner(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {"test_it.py": SUITE})
            for runner, outcome in each_runner(folder, a_share(SERIAL_RUNNERS, 2)):
                with self.subTest(runner):
                    self.assertEqual(outcome.failed + outcome.errors, 7, outcome.output)
                    for words in ("OutsideDatabase", "ActiveSqlTransaction", "its connection was lost"):
                        self.assertIn(f"is expected to fail, but not like this: {words}", outcome.output)
                    self.assertRegex(outcome.output, r"expected failures=3|3 xfailed")


class XfailTest(PytestCase):
    def test_so_they_are_with_the_mark_of_pytest(self) -> None:
        output = self.run_pytest(
            textwrap.dedent("""
                import pytest, unittest
                import shop
                import sqlalchemy as sa
                from dbtestcase import ConfigurationError, OutsideDatabase
                from conftest import Notes
                from models import engine

                other = sa.create_engine("postgresql+psycopg://production.invalid/other")
                pytestmark = pytest.mark.xfail

                def test_of_the_application(db):
                    assert 1 == 2

                @pytest.mark.xfail(raises=ConfigurationError)
                def test_that_asks_for_it(db):
                    other.connect()

                @pytest.mark.xfail(raises=(Exception, ValueError))
                def test_no_bad_border_of_any_kind(db):
                    other.connect()

                @pytest.mark.xfail(raises=getattr(pytest, "RaisesExc", lambda kind: kind)(Exception))
                def test_no_bad_border_that_is_matched(db):
                    other.connect()

                def test_says_so(db):
                    pytest.xfail("not yet")

                def test_no_bad_border(db):
                    other.connect()

                def test_swallowed(db):
                    shop.swallow(other)
                    assert 1 == 2

                def test_left_behind(db):
                    shop.leave(engine)
                    assert 1 == 2

                def test_swallowed_and_passed(db):
                    shop.swallow(other)

                def test_no_bad_lost(db):
                    with engine.connect() as connection:
                        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

                class CaseTest(Notes):
                    def test_of_the_application(self):
                        self.fail("so it is")

                    def test_no_bad_border(self):
                        other.connect()

                    def test_no_bad_lost(self):
                        with engine.connect() as connection:
                            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
            """),
            **{
                "shop.py": """
                    from sqlalchemy.orm import Session
                    from models import Note

                    def swallow(engine):
                        try:
                            engine.connect()
                        except Exception:
                            pass

                    def leave(engine):
                        global session
                        session = Session(engine)
                        session.add(Note(text="left"))
                        session.flush()
                """
            },
        )
        self.assertRegex(output, r"6 failed, 6 xfailed, 1 xpassed, 3 errors")
        self.assertEqual(output.count("LeakError: OutsideDatabase was raised and swallowed during"), 2, output)
        self.assertEqual(output.count("was left with unfinished writes by"), 1, output)
        self.assertEqual(output.count("is expected to fail, but not like this: OutsideDatabase"), 4, output)
        self.assertEqual(output.count("is expected to fail, but not like this: its connection was lost"), 2, output)


if __name__ == "__main__":
    unittest.main()
