"""DatabaseTest with pg8000, the driver that has no libpq: contained like the others."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.orm import Session

from dbtestcase import DatabaseTest, SandboxEscape
from tests.support.inner import InnerRuns
from tests.support.requirements import require_module

metadata = sa.MetaData()
author = sa.Table(
    "author", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text, unique=True)
)


class Pg8000Test(InnerRuns):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_module("pg8000")

    def run_contained(self, do: Any, rows: int, **options: Any) -> None:
        engine = sa.create_engine("postgresql+pg8000://nobody@localhost:1/shop", **options)
        self.addCleanup(engine.dispose)

        class Case(DatabaseTest):
            url = "postgresql+pg8000://"
            engines = [engine]

            def count(self) -> Any:
                with engine.connect() as connection:
                    return connection.scalar(sa.select(sa.func.count()).select_from(author))

            def test_1(self) -> None:
                do(self, engine)
                self.assertEqual(self.count(), rows)

            def test_2(self) -> None:
                self.assertEqual(self.count(), 0)

        Case.metadata = metadata
        self.assertPassed(Case, tests=2)

    def test_transactions_savepoints_and_errors_are_contained(self) -> None:
        def do(test: Any, engine: sa.Engine) -> None:
            with engine.begin() as connection:
                connection.execute(author.insert().values(name="Ada"))
            with engine.connect() as connection, test.assertRaises(sa.exc.IntegrityError):
                connection.execute(author.insert().values(name="Ada"))
            with Session(engine) as session:
                session.execute(author.insert().values(name="Bob"))
                with session.begin_nested():
                    session.execute(author.insert().values(name="Cid"))
                session.commit()
                session.execute(author.insert().values(name="lost"))

        self.run_contained(do, rows=3)

    def test_autocommit_isolation_levels_and_ddl_are_contained(self) -> None:
        def do(test: Any, engine: sa.Engine) -> None:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(author.insert().values(name="Ada"))
            with engine.begin() as connection:
                connection.execute(text("CREATE TABLE extra (id int)"))
                connection.execute(author.insert(), [{"name": "Bob"}, {"name": "Cid"}])

        self.run_contained(do, rows=3, isolation_level="REPEATABLE READ")

    def test_what_runs_without_a_cursor_is_contained_or_refused(self) -> None:
        def do(test: Any, engine: sa.Engine) -> None:
            raw = engine.raw_connection()
            connection: Any = raw.driver_connection
            connection.run("INSERT INTO author (name) VALUES (:name)", name="Ada")
            connection.commit()
            connection.run("INSERT INTO author (name) VALUES ('lost')")
            with test.assertRaises(SandboxEscape):
                connection.run("COMMIT")
            connection.rollback()
            for name in ("prepare", "prepare_statement", "execute_simple", "execute_unnamed", "send_QUERY"):
                with (
                    test.subTest(name),
                    test.assertRaisesRegex(SandboxEscape, rf"{name}\(\).* would bypass"),
                ):
                    getattr(connection, name)("COMMIT")
            raw.close()

        self.run_contained(do, rows=1)

    def test_adapters_are_those_of_the_connection_that_they_were_registered_on(self) -> None:
        def do(test: Any, engine: sa.Engine) -> None:
            raws = [engine.raw_connection() for _ in range(2)]
            one, other = (raw.driver_connection for raw in raws)

            def read(connection: Any, value: Any) -> Any:
                cursor = connection.cursor()
                cursor.execute("SELECT %s", (value,))
                return cursor.fetchone()[0]

            one.register_in_adapter(25, str.upper)
            one.register_out_adapter(complex, lambda value: f"{value.real:g}")
            test.assertEqual([read(each, "a") for each in (one, other, one)], ["A", "a", "A"])
            test.assertEqual([read(each, 2 + 1j) for each in (one, other)], ["2", "(2+1j)"])
            for raw in raws:
                raw.close()

        self.run_contained(do, rows=0)

    def test_errors_and_autocommit_are_as_pg8000_has_them(self) -> None:
        def do(test: Any, engine: sa.Engine) -> None:
            raw = engine.raw_connection()
            connection: Any = raw.driver_connection
            cursor = connection.cursor()
            cursor.execute("INSERT INTO author (name) VALUES ('Ada')")
            wrong: Any = engine.dialect.loaded_dbapi.ProgrammingError  # type: ignore[attr-defined]
            connection.autocommit = True  # the transaction goes on until it is ended
            cursor.execute("INSERT INTO author (name) VALUES ('Bob')")
            connection.rollback()
            cursor.execute("INSERT INTO author (name) VALUES ('Cid')")
            connection.rollback()
            for statement, code in (("RELEASE SAVEPOINT a", "25P01"), ("SAVEPOINT a", "25P01"), ("SELEC", "42601")):
                with test.assertRaises(wrong) as caught:
                    cursor.execute(statement)
                test.assertEqual(caught.exception.args[0]["C"], code)
            connection.autocommit = False
            connection.commit()  # what failed by itself is over
            with test.assertRaises(wrong):
                cursor.execute("SELEC")
            with test.assertRaises(wrong) as caught:
                cursor.execute("SELECT 1")
            test.assertEqual(caught.exception.args[0]["C"], "25P02")
            raw.close()

        self.run_contained(do, rows=1)

    def test_each_connection_hears_what_is_said_to_it_and_waits_for_no_notification(self) -> None:
        def do(test: Any, engine: sa.Engine) -> None:
            raws = [engine.raw_connection() for _ in range(2)]
            one, other = (raw.driver_connection for raw in raws)
            one.cursor().execute("DO $$ BEGIN RAISE NOTICE 'said'; END $$")
            test.assertEqual((len(one.notices), len(other.notices)), (1, 0))
            test.assertFalse(one.notifications)
            one.cursor().execute("LISTEN news")
            with test.assertRaisesRegex(SandboxEscape, "would wait in vain"):
                len(one.notifications)
            test.assertFalse(other.notifications)
            for raw in raws:
                raw.close()

        self.run_contained(do, rows=0)

    def test_commit_as_text_is_refused(self) -> None:
        def do(test: Any, engine: sa.Engine) -> None:
            with engine.connect() as connection:
                connection.execute(author.insert().values(name="Ada"))
                with test.assertRaises(SandboxEscape):
                    connection.execute(text("COMMIT"))

        self.run_contained(do, rows=0)
