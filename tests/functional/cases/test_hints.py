"""A failure whose cause is known says so; a build that failed is tried once; class data end with setUpClass."""

import contextlib
import io
import tempfile
import unittest
from typing import Any

from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table, create_engine, func, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from dbtestcase import AsyncDatabaseTest, DatabaseTest, TruncatingDatabaseTest
from tests.support.forgetful import executes
from tests.support.inner import InnerRuns, run_inner
from tests.support.requirements import require_module
from tests.support.runners import run_suite, write_suite

METADATA = MetaData()
NOTE = Table("note", METADATA, Column("id", Integer, primary_key=True), Column("text", String))
EDIT = Table(
    "edit", METADATA, Column("id", Integer, primary_key=True), Column("at", DateTime, server_default=func.now())
)
LATER = MetaData()
Table("early", LATER, Column("id", Integer, primary_key=True))


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)


class WrittenInCTest(InnerRuns):
    def test_what_takes_only_a_connection_of_psycopg2_says_where_to_go(self) -> None:
        require_module("psycopg2")
        from psycopg2.extensions import adapt

        class Adapted(DatabaseTest):
            metadata = Base.metadata
            url = "postgresql+psycopg2://"

            def test_it(self) -> None:
                adapt("é").prepare(self.session.connection().connection.dbapi_connection)

        self.assertFailed(Adapted, pattern="written in C[^$]*use TruncatingDatabaseTest")


class ExpiredTest(InnerRuns):
    def test_what_has_to_be_awaited_after_a_commit_is_said(self) -> None:
        class Expired(AsyncDatabaseTest):
            metadata = Base.metadata

            async def test_it(self) -> None:
                task = Task()
                self.session.add(task)
                await self.session.commit()
                task.id  # noqa: B018

        self.assertFailed(Expired, pattern="MissingGreenlet[^$]*await self.session.refresh")

    def test_nothing_is_said_of_commits_where_nothing_had_expired(self) -> None:
        engine = create_engine("postgresql+asyncpg://app@db.invalid/shop")

        class Blocking(AsyncDatabaseTest):
            metadata = Base.metadata
            engines = [engine]

            async def test_it(self) -> None:
                engine.connect()

        self.assertFailed(Blocking, pattern=r"MissingGreenlet(?![^$]*self\.session\.refresh)")


class TablesTest(InnerRuns):
    def test_a_missing_table_says_what_metadata_holds(self) -> None:
        class NoTables(DatabaseTest):
            def test_it(self) -> None:
                self.session.execute(select(NOTE))

        class OtherTables(DatabaseTest):
            metadata = METADATA

            def test_it(self) -> None:
                self.session.execute(text("SELECT * FROM customer"))

        class LateTable(DatabaseTest):
            metadata = LATER

            def test_it(self) -> None:
                late = Table("late", LATER, Column("id", Integer, primary_key=True), extend_existing=True)
                self.session.execute(select(late))

        class OnSqlite(NoTables):
            url = "sqlite://"

        for cls, words in [
            (NoTables, 'the table "note" was not made.*NoTables has no `metadata`.*metadata = Base.metadata'),
            (OnSqlite, 'the table "note" was not made.*OnSqlite has no `metadata`'),
            (
                OtherTables,
                'the table "customer" was not made.*`metadata` of \\S*OtherTables holds edit, note.*not be imported',
            ),
            (LateTable, 'the table "late" was not made.*`metadata` holds it now.*Import it at the top'),
        ]:
            with self.subTest(cls.__name__):
                self.assertFailed(cls, pattern=words)

    def test_what_could_not_be_made_is_tried_once_and_an_extension_is_named_with_the_ways_out(self) -> None:
        class Lacking(DatabaseTest):
            metadata = METADATA

            @classmethod
            def load_base_data(cls, session: Session) -> None:
                print("TRIED")
                session.execute(text('CREATE EXTENSION "no-such-extension"'))

            def test_it(self) -> None: ...

        class Second(Lacking): ...

        class Sound(DatabaseTest):
            metadata = METADATA

            def test_it(self) -> None:
                self.assertRowCount(NOTE, 0)

        with contextlib.redirect_stdout(io.StringIO()) as printed:
            result = run_inner(Lacking, Second, Sound)
        said = [words for _, words in result.errors]
        self.assertEqual((printed.getvalue().count("TRIED"), len(said), result.testsRun), (1, 2, 1))
        self.assertRegex(said[0], "DBTESTCASE_POSTGRES_BIN[^$]*DBTESTCASE_URL")
        self.assertRegex(said[1], "Second was not made: it failed for a class before this one")


class FlushedTest(InnerRuns):
    def test_what_the_tests_own_file_flushes_is_arranged_and_what_the_application_flushes_is_lost(self) -> None:
        application = create_engine("postgresql+psycopg://app@db.invalid/shop")
        session = scoped_session(sessionmaker(application))

        class Flushing(DatabaseTest):
            metadata = METADATA
            engines = [application]

            def test_arranged(self) -> None:
                session.execute(insert(NOTE).values(text="of the test"))
                self.assertEqual(len(session.execute(select(NOTE)).all()), 1)

            def test_of_the_application(self) -> None:
                executes(session, insert(NOTE).values(text="of the application"))

            def test_of_the_application_in_the_tests_transaction(self) -> None:
                session.execute(select(NOTE))
                executes(session, insert(NOTE).values(text="of the application"))

            def test_the_next_one(self) -> None:
                self.assertRowCount(NOTE, 0)

        result = run_inner(Flushing)
        said = {test.id().rpartition(".")[2]: words for test, words in result.errors}
        self.assertEqual(
            set(said), {"test_of_the_application", "test_of_the_application_in_the_tests_transaction"}, said
        )
        self.assertIn("a commit() was forgotten", said["test_of_the_application"])
        both = said["test_of_the_application_in_the_tests_transaction"]
        self.assertRegex(both, r"the test's own file has begun the transaction[^$]*session\.remove\(\)")


class DriversTest(InnerRuns):
    def test_an_application_of_another_driver_that_is_made_in_set_up_is_told_the_url_to_write(self) -> None:
        class Made(DatabaseTest):
            metadata = METADATA

            def setUp(self) -> None:
                self.application = create_engine("postgresql+psycopg2://app@db.invalid/shop")

            def test_it(self) -> None:
                with self.application.begin() as connection:
                    connection.execute(insert(NOTE).values(text="x"))
                self.assertRowCount(NOTE, 1)

        class Enlisted(Made):
            def setUp(self) -> None:
                super().setUp()
                self.enlist(self.application)

        class OfTheDriver(Made):
            url = "postgresql+psycopg2://"

        class Told(Enlisted, OfTheDriver): ...

        url = r'`url = "postgresql\+psycopg2://"` on the class'
        self.assertFailed(Made, pattern=rf"OutsideDatabase: .*[^$]*`self\.enlist\(engine\)`, and {url}\)")
        self.assertFailed(OfTheDriver, pattern=r"`self\.enlist\(engine\)`\)")
        self.assertFailed(
            Enlisted, pattern=rf"SandboxEscape: .*'psycopg2'[^$]*{url} where a test or setUp\(\) makes it"
        )
        self.assertPassed(Told, tests=1)


class NumbersAndTimesTest(InnerRuns):
    def test_a_number_that_a_test_counts_on_hints_at_reset_sequences(self) -> None:
        class Body:
            metadata = METADATA
            session: Session
            assertEqual: Any

            def check(self) -> None:
                note_id = self.session.execute(insert(NOTE).returning(NOTE.c.id)).scalar_one()
                self.assertEqual(note_id, 1_000_000)

            test_1 = check

        class Counting(Body, DatabaseTest): ...

        class Resetting(Body, DatabaseTest):
            reset_sequences = True

        class Committing(Body, TruncatingDatabaseTest): ...

        self.assertFailed(Counting, pattern=r"Counting\.reset_sequences = True")
        for cls in (Resetting, Committing):
            ((_, said),) = run_inner(cls).failures
            self.assertNotIn("reset_sequences = True", said)

    def test_a_failure_that_has_nothing_to_do_with_ids_gets_no_hint(self) -> None:
        class Plain(DatabaseTest):
            metadata = METADATA

            def test_it(self) -> None:
                count = 1
                self.assertEqual(count, 2)

        ((_, said),) = run_inner(Plain).failures
        self.assertNotIn("dbtestcase:", said)

    def test_rows_that_now_makes_equal_are_explained(self) -> None:
        class Tied(DatabaseTest):
            metadata = METADATA

            def make(self) -> None:
                for _ in range(2):
                    with Session(self.engine) as session:
                        session.execute(insert(EDIT))
                        session.commit()

            def test_a_comparison(self) -> None:
                self.make()
                first, second = self.session.scalars(select(EDIT.c.at)).all()
                self.assertLess(first, second)

            def test_an_order(self) -> None:
                self.make()
                found = self.session.scalars(select(EDIT.c.id).order_by(EDIT.c.at)).all()
                self.assertEqual(list(found), [0, 0])

        said = [words for _, words in run_inner(Tied).failures]
        self.assertEqual(len(said), 2)
        for words in said:
            self.assertIn("now() is the time at which the outer transaction began", words)


class ClassDataTest(InnerRuns):
    def test_rows_between_set_up_class_and_the_first_set_up_belong_to_the_first_test(self) -> None:
        application = create_engine("postgresql+psycopg://app@db.invalid/shop")
        for base in (DatabaseTest, TruncatingDatabaseTest):

            class Rows(base):  # type: ignore[misc,valid-type]
                metadata = METADATA
                engines = [application]

                @classmethod
                def setUpClass(cls) -> None:
                    super().setUpClass()
                    cls.session.execute(insert(NOTE).values(text="of the class"))

                def run(self, result: Any = None) -> Any:
                    if self._testMethodName == "test_1":  # as pytest's setup_method() and autouse fixtures do
                        with application.begin() as connection:
                            connection.execute(insert(NOTE).values(text="of the first test"))
                    return super().run(result)

                def texts(self) -> set[str]:
                    return set(self.session.scalars(select(NOTE.c.text)))

                def test_1(self) -> None:
                    self.assertEqual(self.texts(), {"of the class", "of the first test"})

                def test_2(self) -> None:
                    self.assertEqual(self.texts(), {"of the class"})

            with self.subTest(base.__name__):
                self.assertPassed(Rows, tests=2)

    def test_the_same_under_pytest(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_suite(
                folder,
                {
                    "test_inner.py": """
                    import pytest
                    import sqlalchemy as sa
                    from dbtestcase import DatabaseTest

                    engine = sa.create_engine("postgresql+psycopg://app@db.invalid/shop")
                    metadata = sa.MetaData()
                    note = sa.Table("note", metadata, sa.Column("text", sa.String))

                    class RowsTest(DatabaseTest):
                        metadata = metadata
                        engines = [engine]

                        @pytest.fixture(autouse=True)
                        def rows(self):
                            with engine.begin() as connection:
                                connection.execute(note.insert().values(text="of the test"))

                        def check(self):
                            self.assertRowCount(note, 1)

                        test_1 = test_2 = test_3 = check
                    """
                },
            )
            run_suite(folder, "pytest").expect(passed=3)

    def test_an_error_of_one_class_never_fails_the_next_one(self) -> None:
        class Bad(DatabaseTest):
            metadata = METADATA
            engines = [create_engine("postgresql+psycopg://app@db.invalid/shop"), create_engine("sqlite://")]

            def test_it(self) -> None: ...

        class BadData(DatabaseTest):
            metadata = METADATA

            @classmethod
            def setUpTestData(cls) -> None:
                cls.session.execute(insert(NOTE).values(text="lost"))
                raise ZeroDivisionError

            def test_it(self) -> None: ...

        class Good(DatabaseTest):
            metadata = METADATA

            def test_it(self) -> None:
                self.assertRowCount(NOTE, 0)

        result = run_inner(Bad, BadData, Good)
        self.assertEqual((len(result.errors), result.testsRun, result.failures), (2, 1, []))


if __name__ == "__main__":
    unittest.main()
