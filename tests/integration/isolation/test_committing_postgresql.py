"""What committing tests on PostgreSQL leave in sessions and in an existing database: the next test finds none of it."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbtestcase import TruncatingDatabaseTest
from dbtestcase.backends.postgresql.cleaner import PostgreSQLCleaner
from dbtestcase.backends.sqlite.cleaning import SQLiteCleaner
from dbtestcase.cases import scopes
from dbtestcase.errors import CleaningError
from dbtestcase.isolation.truncation import TruncatingIsolation
from tests.support.inner import InnerRuns
from tests.support.requirements import require_module
from tests.support.samples import a_share
from tests.support.scratch import connect, dump
from tests.support.servers import postgresql_url


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column(sa.String(50))


class Committing(InnerRuns):
    def case(self, driver: str, made: Sequence[str], **attributes: Any) -> Any:
        app = sa.create_engine(f"postgresql+{driver}://nowhere/app", isolation_level="AUTOCOMMIT")
        self.addCleanup(app.dispose)

        def base(cls: Any, session: Session) -> None:
            for statement in made:
                session.connection().exec_driver_sql(statement)

        facts = {"metadata": Base.metadata, "app": app, "engines": [app], "load_base_data": classmethod(base)}
        return type("Inner", (TruncatingDatabaseTest,), {**facts, **attributes, "__module__": __name__})


FUNCTIONS = {
    "setting": "perform set_config('my.thing', 'x', false)",
    "path": "set search_path to pg_catalog",
    "in_a_branch": "if true then set my.thing to 'x'; end if",
    "by_text": "execute 'set my.thing to ''x'''",
    "temporary": "create temporary table mine (a int)",
    "channel": "listen mine",
}
LOOK = """
select coalesce(current_setting('my.thing', true), ''), current_setting('search_path'),
       (select count(*) from pg_class where relpersistence = 't'), (select count(*) from pg_listening_channels())
"""


class SessionsTest(Committing):
    def test_what_a_thread_commits_between_the_cleaning_and_the_look_at_threads_is_put_back(self) -> None:
        pool, connected, cleaned = ThreadPoolExecutor(1), threading.Event(), threading.Event()
        self.addCleanup(pool.shutdown)
        pool.submit(int).result()
        jobs: list[Any] = []
        clean = TruncatingIsolation._clean_once

        def work(engine: sa.Engine) -> None:
            with engine.connect() as connection:
                connected.set()
                cleaned.wait(60)
                connection.execute(sa.insert(Note).values(text="late"))

        def test_a(test: Any) -> None:
            jobs.append(pool.submit(work, test.app))
            connected.wait(60)

        def test_b(test: Any) -> None:
            self.assertIsNone(jobs[0].result())
            test.assertRowCount(Note, 0)

        def clean_once(isolation: Any, *args: Any) -> Any:
            report = clean(isolation, *args)
            if jobs:
                cleaned.set()
                jobs[0].exception(60)
            return report

        with mock.patch.object(TruncatingIsolation, "_clean_once", clean_once):
            self.assertPassed(self.case("psycopg", [], test_a=test_a, test_b=test_b), tests=2)

    def test_what_a_function_does_to_the_session_ends_with_its_test(self) -> None:
        made = [
            f"create function {name}() returns void language plpgsql as $$ begin {body}; end $$"
            for name, body in FUNCTIONS.items()
        ]
        asked: list[Any] = []

        def look(test: Any) -> None:
            with test.app.connect() as connection:
                asked.append(connection.exec_driver_sql(LOOK).one()[:4])

        def act(name: str) -> Callable[[Any], None]:
            def change(test: Any) -> None:
                look(test)
                with test.app.connect() as connection:
                    connection.exec_driver_sql(f"select public.{name}()")
                    test.assertNotEqual(connection.exec_driver_sql(LOOK).one()[:4], asked[0])

            return change

        for driver in a_share(("psycopg", "psycopg2"), 2):
            require_module(driver)
            asked.clear()
            tests = {f"test_{number}": act(name) for number, name in enumerate(FUNCTIONS)}
            with self.subTest(driver):
                self.assertPassed(self.case(driver, made, **tests, test_last=look), tests=len(tests) + 1)
                self.assertEqual(set(asked), {asked[0]})

    def test_what_is_done_with_a_drivers_cursor_ends_with_its_test(self) -> None:
        """Also where SQLAlchemy uses the same connection, and where no statement of its own tells of a sequence."""
        made = [f"create table counted_{number} (id serial)" for number in range(20)]  # more than are always read
        made.append("create function bump() returns bigint begin atomic select nextval('counted_4_id_seq'); end")
        made.append("create rule bumped as on delete to counted_5 do also select nextval('counted_6_id_seq')")
        look_too = LOOK + "".join(
            f", (select row(last_value, is_called)::text from counted_{n}_id_seq)" for n in range(1, 7)
        )
        found: list[Any] = []

        def look(test: Any) -> None:
            with test.app.connect() as connection:
                found.append(tuple(connection.exec_driver_sql(look_too).one()))

        def beneath(statement: str) -> Callable[[Any], None]:
            def act(test: Any) -> None:
                with test.app.connect() as connection:
                    connection.execute(sa.insert(Note), {"text": "of the test"})
                    connection.connection.cursor().execute(statement)

            return act

        def by_itself(statement: str) -> Callable[[Any], None]:
            def act(test: Any) -> None:
                connection = test.app.raw_connection()
                connection.cursor().execute(statement)
                connection.close()

            return act

        def seen(statement: str) -> Callable[[Any], None]:
            def act(test: Any) -> None:
                with test.app.connect() as connection:
                    connection.exec_driver_sql(statement)

            return act

        acts = [
            *(
                way(statement)
                for way in (beneath, by_itself)
                for statement in (
                    "set my.thing to 'x'",
                    "listen mine",
                    "select nextval('counted_1_id_seq')",
                    "select setval('counted_2_id_seq', 7, false)",
                )
            ),
            seen("insert into counted_0 values (nextval('counted_3_id_seq'))"),
            seen("select bump()"),
            seen("delete from counted_5"),
        ]
        for driver in a_share(("psycopg", "psycopg2", "pg8000"), 3):
            require_module(driver)
            found.clear()
            tests: dict[str, Any] = {"test_00": look}
            for number, act in enumerate(acts):
                tests |= {f"test_{number:02}_act": act, f"test_{number:02}_look": look}
            with self.subTest(driver):
                self.assertPassed(self.case(driver, made, **tests), tests=len(tests))
                self.assertEqual(set(found), {found[0]})

    def test_what_sqlalchemy_alone_has_used_serves_the_next_test(self) -> None:
        pids: set[int] = set()

        def write(test: Any) -> None:
            with Session(test.app) as session:
                session.add_all(Note(text=str(number)) for number in range(1_500))  # in several batches
                session.commit()
                pids.add(session.connection().exec_driver_sql("select pg_backend_pid()").scalar() or 0)

        for driver in a_share(("psycopg", "psycopg2", "pg8000"), 3):
            pids.clear()
            with self.subTest(driver):
                self.assertPassed(self.case(driver, (), test_1=write, test_2=write), tests=2)
                self.assertEqual(len(pids), 1)

    def test_a_setting_of_the_transaction_costs_no_connection(self) -> None:
        numbers: list[int] = []

        def change(test: Any) -> None:
            with test.app.connect() as connection:
                connection.exec_driver_sql("select audit()")
                numbers.append(connection.exec_driver_sql("select pg_backend_pid()").scalar())

        body = "perform set_config('my.thing', 'x', true); set local my.thing to 'y'; update note set text = 'z'"
        made = [f"create function audit() returns void language plpgsql as $$ begin {body}; end $$"]
        self.assertPassed(self.case("psycopg", made, test_1=change, test_2=change), tests=2)
        self.assertEqual(len(set(numbers)), 1)

    def test_after_a_cleaning_that_failed_the_rows_of_a_class_are_made_again_and_once(self) -> None:
        def rows(cls: Any) -> None:
            cls.session.add(Note(text="of the class"))

        def look(test: Any) -> None:
            test.assertEqual(test.session.scalars(sa.select(Note.text)).all(), ["of the class"])

        for cleaner, attributes in (PostgreSQLCleaner, {}), (SQLiteCleaner, {"url": "sqlite://", "engines": []}):
            clean = cleaner.clean

            def fail(test: Any, cleaner: Any = cleaner, clean: Any = clean) -> None:
                def fails(*args: Any) -> Any:
                    cleaner.clean = clean
                    raise CleaningError("It could not be put back this time.")

                look(test)
                test.session.add(Note(text="of the test"))
                test.session.commit()
                cleaner.clean = fails

            with self.subTest(cleaner.__name__):
                tests = {"test_1": look, "test_2": fail, "test_3": look, "test_4": look}
                case = self.case("psycopg", [], setUpTestData=classmethod(rows), **tests, **attributes)
                self.assertFailed(case, pattern="could not be put back this time", tests=4)

    def test_a_forked_process_that_ends_the_test_leaves_the_sessions_of_its_parent(self) -> None:
        def fork(test: Any) -> None:
            test.session.add(Note(text="of the test"))
            test.session.flush()
            pid = os.fork()
            if pid == 0:
                test.doCleanups()
                os._exit(0)
            os.waitpid(pid, 0)
            test.assertEqual(test.session.scalars(sa.select(Note.text)).all(), ["of the test"])

        self.assertPassed(self.case("psycopg", [], test_fork=fork), tests=1)


MADE = (
    "create table thing (a int, b text)",
    "insert into thing values (1, 'x')",
    "select lo_from_bytea(4711, 'x')",  # below the numbers that the server gives
)
ACTS = {
    "a table": "create table made (a int)",
    "a column": "alter table thing add c int",
    "a large object": "select lo_unlink(4711)",
    "another large object": "select lo_from_bytea(4712, 'y'); comment on table thing is 'changed'",
    "the schema": "drop schema public cascade",
    "the schema, made again": "drop schema public cascade; create schema public",
    "rows": "delete from thing; insert into note (text) values ('x')",
}


class ExistingTest(Committing):
    def setUp(self) -> None:
        super().setUp()
        self.server = postgresql_url()
        with connect(self.server, autocommit=True) as connection:
            connection.execute("create role lodging login password 'lodging'")
            connection.execute("create database lodging_test owner lodging")
        self.addCleanup(self.clean_up)

    def clean_up(self) -> None:
        scopes.close_all()
        with connect(self.server, autocommit=True) as connection:
            connection.execute("drop database lodging_test with (force)")
            connection.execute("drop role lodging")

    def test_everything_is_put_back_whatever_the_role(self) -> None:
        judge = self.server.set(database="lodging_test")
        for role in ("lodging", str(self.server.username)):
            seen: list[Any] = []

            def look(test: Any, seen: list[Any] = seen) -> None:
                found = dump(judge)
                found["catalog"] = [row for row in found["catalog"] if "_dbtestcase" not in row[1]]
                seen.append({name: rows for name, rows in found.items() if not name.startswith("_dbtestcase")})
                test.assertEqual(_of_things(seen[-1]), _of_things(seen[0]))

            def act(statement: str) -> Callable[[Any], None]:
                def change(test: Any) -> None:
                    look(test)
                    with test.app.connect() as connection:
                        for part in statement.split(";"):
                            connection.exec_driver_sql(part)

                return change

            url = judge.set(drivername="postgresql+psycopg", username=role)
            url = url.set(password="lodging") if role == "lodging" else url
            facts = {"url": url.render_as_string(hide_password=False), "database": "existing"}
            tests = {f"test_{number}": act(statement) for number, statement in enumerate(a_share(ACTS.values(), 3))}
            with self.subTest(role):
                case = self.case("psycopg", MADE, **tests, test_last=look, **facts, setUpTestData=_class_rows)
                self.assertPassed(case, tests=len(tests) + 1)
                scopes.close_all()


@classmethod  # type: ignore[misc]
def _class_rows(cls: Any) -> None:
    cls.session.add(Note(text="of the class"))


def _of_things(found: dict[str, Any]) -> Any:
    """Without what has a number that is new each time."""
    named = [row for row in found["catalog"] if row[0] not in ("comment", "constraint")]
    return {**found, "catalog": named}


del Committing
