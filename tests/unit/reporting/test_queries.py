"""What is recorded of the statements that a process sends, and what the assertions make of it."""

import asyncio
import contextlib
import gc
import sqlite3
import threading
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

from sqlalchemy import create_engine, event, insert, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.pool import QueuePool, StaticPool

from dbtestcase.cases import assertions
from dbtestcase.cases.assertions import QueryAssertions
from dbtestcase.cases.blocks import Blocks
from dbtestcase.reporting import call_sites as origins
from dbtestcase.reporting.queries import harness_statements, recording, site_of_statement
from tests.support.blog_models import Author, Base, Editor, Post, Tag


def titles_with_authors(session: Session, *options: Any) -> list[str]:
    """An application's view."""
    posts = session.scalars(select(Post).order_by(Post.id).options(*options)).all()
    return [f"{post.title} by {post.author.name}" for post in posts]  # N + 1


HERE = "tests/unit/reporting/test_queries.py"
LAZY_LINE = titles_with_authors.__code__.co_firstlineno + 3


class QueryCase(QueryAssertions):
    @property
    def _dbtestcase(self) -> "QueryCase":  # type: ignore[override]
        return self

    blocks = Blocks()

    def counts(self, connection: Any) -> bool:
        return True

    @contextlib.contextmanager
    def counting(self) -> Iterator[Session]:
        yield self.session

    def setUp(self) -> None:
        self.bind = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        self.addCleanup(self.bind.dispose)
        Base.metadata.create_all(self.bind)
        self.session = self.enterContext(Session(self.bind))
        for number in range(3):
            self.session.add(Post(title=f"Post {number}", author=Author(name=f"Author {number}")))
        self.session.commit()
        self.session.expunge_all()

    def another_engine(self) -> Engine:
        engine = create_engine("sqlite://")
        self.addCleanup(engine.dispose)
        return engine

    def fails(self, pattern: str) -> Any:
        return self.assertRaisesRegex(self.failureException, pattern)


class RecordingTest(QueryCase):
    def test_a_query_has_its_parameters_its_time_and_the_applications_line(self) -> None:
        with recording() as queries:
            titles_with_authors(self.session)
        self.assertEqual(len(queries), 4)
        self.assertIn("FROM posts", queries[0].statement)
        self.assertEqual(queries[1].parameters, (1,))
        self.assertGreater(queries[0].milliseconds or 0.0, 0.0)
        self.assertEqual(str(queries[1].origin), f"{HERE}:{LAZY_LINE} in {queries[1].origin.function}")

    def test_the_line_is_the_applications_nearest_by_whatever_way_a_statement_comes(self) -> None:
        """A listener that is called in the middle of SQLAlchemy is nearer than who asked for the statement."""

        def listener(connection: Any, *_: Any) -> None:
            if not connection.info.pop("is_asked", False):
                return
            connection.execute(text("SELECT 1"))
            connection.exec_driver_sql("SELECT 2")
            connection.scalar(text("SELECT 3"))

        def asker(ask: Any) -> None:
            connection.info["is_asked"] = True
            ask()

        first = listener.__code__.co_firstlineno
        with self.bind.connect() as connection, Session(connection) as session, recording() as queries:
            event.listen(connection, "before_execute", listener)
            for ask in (
                lambda: connection.execute(text("SELECT 4")),
                lambda: connection.scalars(text("SELECT 4")),
                lambda: session.scalar(text("SELECT 4")),
            ):
                with self.subTest(line=ask.__code__.co_firstlineno):
                    queries.clear()
                    asker(ask)
                    self.assertEqual([query.statement for query in queries], [f"SELECT {n}" for n in range(1, 5)])
                    sites = [(query.origin.function, query.origin.lineno) for query in queries]
                    self.assertEqual(sites[:3], [("listener", first + n) for n in (3, 4, 5)])
                    self.assertEqual(sites[3], ("<lambda>", ask.__code__.co_firstlineno))

    def test_another_listener_may_send_a_statement_in_the_dialects_place(self) -> None:
        sent: list[str] = []

        def send(cursor: Any, statement: str, *given: Any) -> bool:
            sent.append(statement)
            cursor.execute("SELECT 2")
            return True

        with recording() as queries, self.bind.connect() as connection:
            self.assertEqual(connection.exec_driver_sql("SELECT 1").scalar(), 1)
            for target in (Engine, self.bind):  # in the middle of a connection's life
                queries.clear()
                sent.clear()
                for name in ("do_execute", "do_execute_no_params"):
                    event.listen(target, name, send)
                for bare in (False, True):
                    connection = connection.execution_options(no_parameters=bare)
                    self.assertEqual(connection.exec_driver_sql("SELECT 1").scalar(), 2)
                for name in ("do_execute", "do_execute_no_params"):
                    event.remove(target, name, send)
                self.assertEqual(([query.statement for query in queries], sent), (["SELECT 1"] * 2, ["SELECT 1"] * 2))
                self.assertTrue(all(query.milliseconds for query in queries))
                connection = connection.execution_options(no_parameters=False)
                self.assertEqual(connection.exec_driver_sql("SELECT 1").scalar(), 1)

    def test_a_statement_without_parameters_is_sent_as_such(self) -> None:
        with recording() as queries:
            self.session.connection(execution_options={"no_parameters": True}).exec_driver_sql("SELECT 1")
        self.assertEqual([(query.statement, query.parameters) for query in queries], [("SELECT 1", ())])

    def test_savepoints_and_ends_of_transactions_are_entries_but_not_queries(self) -> None:
        with recording() as queries:
            self.session.execute(text("SELECT 1"))
            with self.session.begin_nested():
                self.session.execute(text("SELECT 2"))
            self.session.commit()
        self.assertEqual([query.statement for query in queries], ["SELECT 1", "SELECT 2"])
        kinds = [entry.statement.split()[0] for entry in queries.entries]
        self.assertEqual(kinds, ["SELECT", "SAVEPOINT", "SELECT", "RELEASE", "COMMIT"])

    def test_a_statement_that_fails_keeps_nothing_of_the_code_that_sent_it(self) -> None:
        """As in production a session that is not closed goes back to its pool with the function that made it."""
        engine = create_engine("sqlite://", poolclass=QueuePool)
        self.addCleanup(engine.dispose)

        def fail() -> None:
            session = Session(engine)
            session.execute(text("SELECT nonsense"))

        with recording() as queries:
            for _ in range(3):
                with contextlib.suppress(OperationalError):
                    fail()
                gc.collect()
                self.assertEqual(engine.pool.checkedout(), 0)
        self.assertEqual([type(query.error) for query in queries], [sqlite3.OperationalError] * 3)
        self.assertIsNone(queries[0].error.__traceback__)

    def test_a_statement_that_fails_is_recorded_without_a_time(self) -> None:
        with recording() as queries, self.assertRaises(OperationalError):
            self.session.execute(text("SELECT nonsense"))
        self.assertIsNone(queries[0].milliseconds)
        self.assertFalse(queries[0].running)
        self.assertRegex(str(queries[0].error), "no such column: nonsense")

    def test_engines_that_were_there_before_and_that_are_made_meanwhile_are_seen(self) -> None:
        before = self.another_engine()
        with before.connect() as connection, recording() as queries:
            connection.execute(text("SELECT 1"))
            with self.another_engine().connect() as other:
                other.execute(text("SELECT 2"))
        self.assertEqual(len(queries), 2)

    def test_one_listener_serves_all_recordings_and_comes_after_those_of_others(self) -> None:
        def listeners() -> int:
            return len(list(self.bind.dispatch.before_cursor_execute))

        with recording() as outer:
            ours = listeners()
            with recording() as inner:
                self.assertEqual(listeners(), ours)
                self.session.execute(text("SELECT 1"))
            self.session.execute(text("SELECT 2"))
            self.assertEqual((len(outer), len(inner)), (2, 1))
        self.session.execute(text("SELECT 3"))
        self.assertEqual(len(outer), 2)
        self.test_the_application_may_rewrite_statements()
        with recording() as again:
            self.session.execute(text("SELECT 4"))
        self.assertEqual((listeners(), again[0].statement), (ours + 1, "SELECT 4 /* mine */"))

    def test_only_the_connections_that_are_asked_for_count(self) -> None:
        with recording(lambda connection: connection.engine is self.bind) as queries:
            self.session.execute(text("SELECT 1"))
            with self.another_engine().connect() as other:
                other.execute(text("SELECT 2"))
        self.assertEqual([query.statement for query in queries], ["SELECT 1"])

    def test_the_harnesss_own_statements_are_not_recorded(self) -> None:
        with recording() as queries:
            with harness_statements():
                self.session.execute(text("SELECT 1"))
            thread = threading.Thread(target=lambda: self.session.execute(text("SELECT 2")))
            with harness_statements():
                thread.start()
                thread.join()
        self.assertEqual([query.statement for query in queries], ["SELECT 2"])

    def test_threads_are_seen(self) -> None:
        def work() -> None:
            with Session(self.bind) as session:
                session.execute(text("SELECT 1"))

        with recording() as queries:
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
                thread.join()
        self.assertEqual(len(queries), 3)
        self.assertEqual(queries[0].origin.function, "work")

    def test_several_batches_of_one_insert_are_told(self) -> None:
        with recording() as queries:
            self.session.execute(
                insert(Tag).returning(Tag.id).execution_options(insertmanyvalues_page_size=2),
                [{"name": f"{n}"} for n in range(5)],
            )
        self.assertEqual([query.later_batch for query in queries], [False, True, False])

    def test_it_ends_when_the_block_raises(self) -> None:
        with self.assertRaises(ZeroDivisionError), recording() as queries:
            raise ZeroDivisionError
        self.session.execute(text("SELECT 1"))
        self.assertEqual(len(queries), 0)

    def test_the_application_may_rewrite_statements(self) -> None:
        """Its own listeners come to the same events."""

        def comment(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> Any:
            return f"{statement} /* mine */", parameters

        event.listen(Engine, "before_cursor_execute", comment, retval=True)
        self.addCleanup(event.remove, Engine, "before_cursor_execute", comment)
        with recording() as queries:
            self.session.execute(text("SELECT 1"))
        self.assertEqual(queries[0].statement, "SELECT 1 /* mine */")


class OriginTest(unittest.TestCase):
    def test_files_of_libraries_are_passed_by(self) -> None:
        for name, application in {
            "/usr/lib/python3.11/site-packages/flask/app.py": False,
            "/usr/lib/python3/dist-packages/flask/app.py": False,
            threading.__file__: False,
            asyncio.__file__: False,
            Engine.__init__.__code__.co_filename: False,
            origins.__file__: False,
            "<string>": False,
            "<frozen importlib._bootstrap>": False,
            "<stdin>": True,
            "/srv/blog/views.py": True,
            "templates/post.html": True,
            __file__: True,
        }.items():
            with self.subTest(name):
                self.assertIs(origins._classify(name), application)

    def test_a_stack_of_libraries_has_no_origin(self) -> None:
        with (
            mock.patch.object(origins, "_classify", return_value=False),
            mock.patch.object(origins, "_is_application", origins._Files()),
        ):
            self.assertIsNone(origins.find_call_site())

    def test_another_thread_may_clear_a_recording_while_a_line_is_looked_for(self) -> None:
        with recording() as queries, create_engine("sqlite://").connect() as connection:
            connection.execute(text("SELECT 1"))

            class Entries(list[Any]):
                def __bool__(self) -> bool:
                    queries.clear()  # just then
                    return True

            queries.entries = Entries(queries.entries)
            self.assertEqual(str(site_of_statement("SELECT 1")).partition(":")[0], HERE)


class AsyncRecordingTest(unittest.IsolatedAsyncioTestCase):
    async def test_the_line_that_awaits_is_found(self) -> None:
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        self.addAsyncCleanup(engine.dispose)

        async def view() -> None:
            async with AsyncSession(engine) as session:
                await session.execute(text("SELECT 1"))

        await view()  # connects
        with recording() as queries:
            await asyncio.gather(view(), view())
        self.assertEqual([query.origin.function for query in queries], ["view", "view"])
        self.assertEqual({query.origin.lineno for query in queries}, {view.__code__.co_firstlineno + 2})
        async with engine.connect() as connection:
            with recording() as queries:
                await connection.exec_driver_sql("SELECT 1")  # whose greenlet has no other frame
        self.assertEqual(queries[0].origin.function, "test_the_line_that_awaits_is_found")


class AssertionTest(QueryCase):
    def test_assert_num_queries(self) -> None:
        with self.assertNumQueries(4) as queries:
            titles_with_authors(self.session)
        self.assertEqual(len(queries), 4)
        self.session.expunge_all()
        self.assertEqual(len(self.assertNumQueries(2, titles_with_authors, self.session, selectinload(Post.author))), 3)
        with self.fails(
            r"1 query executed, 2 expected:\n1. SELECT 1  \(\)  \[tests/unit/reporting/test_queries.py:\d+ in test"
        ):
            with self.assertNumQueries(2):
                self.session.execute(text("SELECT 1"))
        with self.fails(r"^0 queries executed, 1 expected$"), self.assertNumQueries(1):
            pass
        with self.fails(r"… and 1 more$"), self.assertNumQueries(0):
            for _ in range(51):
                self.session.execute(text("SELECT 1"))

    def test_an_error_in_the_block_is_not_hidden_by_the_count(self) -> None:
        for block in (self.assertNumQueries(5), self.assertMaxQueries(0), self.assertNoRepeatedQueries()):
            with self.assertRaises(ZeroDivisionError), block:
                self.session.execute(text("SELECT 1"))
                raise ZeroDivisionError

    def test_assert_max_queries(self) -> None:
        with self.assertMaxQueries(4):
            titles_with_authors(self.session)
        with self.fails("1 query executed, at most 0 expected"), self.assertMaxQueries(0):
            self.session.execute(text("SELECT 1"))

    def test_an_n_plus_one_is_found_with_its_line(self) -> None:
        with self.fails(
            rf"(?s)1 query was repeated:\n3 times: SELECT authors.* FROM authors .*"
            rf"  {HERE}:{LAZY_LINE} in [^:]+: 3 times, with \(1,\), \(2,\), \(3,\)\n.*selectinload"
        ):
            with self.assertNoRepeatedQueries():
                titles_with_authors(self.session)
        self.session.expunge_all()
        with self.assertNoRepeatedQueries():
            titles_with_authors(self.session, selectinload(Post.author))
        self.session.expunge_all()
        with self.assertNoRepeatedQueries(allowed=3):
            titles_with_authors(self.session)

    def test_writes_may_be_repeated(self) -> None:
        with self.assertNoRepeatedQueries():
            for name in "ab":
                self.session.execute(text("INSERT INTO tags (name) VALUES (:name)"), {"name": name})
                self.session.execute(text(" update tags SET name = :name"), {"name": name})

    def test_assert_row_count(self) -> None:
        self.assertRowCount(Post, 3)
        self.assertRowCount(Post.__table__, 3)
        self.assertRowCount(Post, 1, Post.title == "Post 1", Post.id > 0)
        self.assertRowCount(Editor, 0)
        self.session.add(Editor(name="Eve", desk="News"))
        self.assertRowCount(Editor, 1)
        self.assertRowCount(Editor, 1, Author.name == "Eve")
        with self.fails(
            r"^Post has 1 row, not 2 where posts.title = :title_1 \{'title_1': 'Post 1'\} "
            r"and posts.id > :id_1 \{'id_1': 0\}\n  \{'id': 2, 'title': 'Post 1'"
        ):
            self.assertRowCount(Post, 2, Post.title == "Post 1", Post.id > 0)
        with self.fails(r"^tags has 0 rows, not 1$"):
            self.assertRowCount(Tag.__table__, 1)
        with self.fails(r"(?s)Tag has 7 rows, not 1\n  .*\n  … and 2 more : because"):
            self.session.add_all(Tag(name=f"{n}") for n in range(7))
            self.assertRowCount(Tag, 1, msg="because")

    def test_counting_rows_counts_no_query(self) -> None:
        self.session.add(Tag(name="sql"))
        with self.assertNumQueries(1):
            self.assertRowCount(Tag, 1)

    def test_a_traceback_ends_in_the_test(self) -> None:
        self.assertTrue(vars(assertions)["__unittest"])


if __name__ == "__main__":
    unittest.main()
