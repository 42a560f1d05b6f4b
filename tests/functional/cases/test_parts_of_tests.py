"""rolled_back(): a part of a test is undone at its end; each example of Hypothesis is one."""

from __future__ import annotations

import asyncio
import threading
import unittest
from typing import Any, ClassVar

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dbtestcase import (
    AsyncDatabaseTest,
    AsyncTruncatingDatabaseTest,
    ConfigurationError,
    DatabaseTest,
    LeakError,
    TruncatingDatabaseTest,
)
from tests.support import forgetful
from tests.support.blog_models import Author, Base
from tests.support.inner import InnerRuns

engine = create_engine("postgresql+psycopg://production.invalid/blog")
async_engine = create_async_engine("postgresql+psycopg://production.invalid/blog")
few = settings(max_examples=5, deadline=None, database=None, suppress_health_check=[HealthCheck.differing_executors])


def save(name: str) -> int:
    with Session(engine) as session:
        author = Author(name=name)
        session.add(author)
        session.commit()
        return author.id


class RolledBackTest(DatabaseTest):
    metadata = Base.metadata
    engines: ClassVar[Any] = [engine]
    ada: ClassVar[Author]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = Author(name="Ada")
        cls.session.add(cls.ada)

    def test_what_a_part_commits_is_undone_and_what_came_before_stays(self) -> None:
        save("before")
        for _ in range(3):
            with self.rolled_back():
                save("in it")
                self.assertRowCount(Author, 3)
            self.assertRowCount(Author, 2)

    def test_parts_within_parts(self) -> None:
        with self.rolled_back():
            save("outer")
            with self.rolled_back():
                save("inner")
                self.assertRowCount(Author, 3)
            self.assertRowCount(Author, 2)
        self.assertRowCount(Author, 1)

    def test_the_tests_session_holds_what_it_held(self) -> None:
        """Flushed before, and then added, changed, deleted, committed in the part: the same instances, as before."""
        grace = Author(name="Grace")
        self.session.add(grace)
        self.session.flush()
        self.ada.name = "Ada Lovelace"
        with self.rolled_back():
            self.assertEqual(self.ada.name, "Ada Lovelace")
            self.ada.name = "changed"
            self.session.delete(grace)
            self.session.add(new := Author(name="new"))
            self.session.commit()
            self.assertRowCount(Author, 2)
        self.assertEqual((self.ada.name, grace.name), ("Ada Lovelace", "Grace"))
        self.assertNotIn(new, self.session)
        grace.name = "Grace Hopper"
        self.session.commit()
        self.assertRowCount(Author, 2)

    def test_pending_changes_of_a_part_are_gone(self) -> None:
        with self.rolled_back():
            self.ada.name = "changed"
            self.session.add(Author(name="never flushed"))
        self.session.commit()
        self.assertEqual(self.ada.name, "Ada")
        self.assertRowCount(Author, 1)

    def test_the_connection_of_the_test(self) -> None:
        self.connection.execute(sa.insert(Author).values(name="before", version=1))
        with self.rolled_back():
            self.connection.execute(sa.insert(Author).values(name="in it", version=1))
        self.assertEqual(self.connection.scalar(select(sa.func.count()).select_from(Author)), 2)

    def test_a_registry_that_nobody_removes_is_as_new(self) -> None:
        registry = scoped_session(sessionmaker(engine))
        self.addCleanup(registry.remove)
        self.assertEqual(len(registry.scalars(select(Author)).all()), 1)
        for _ in range(2):
            with self.rolled_back():
                registry.add(Author(name="x"))
                registry.commit()
                self.assertEqual(len(registry.scalars(select(Author)).all()), 2)
            self.assertEqual(len(registry.scalars(select(Author)).all()), 1)

    def test_a_leak_is_raised_at_the_parts_end(self) -> None:
        with self.assertRaisesRegex(LeakError, "unfinished writes by .*test_a_leak_is_raised"), self.rolled_back():
            left = forgetful.unfinished_session(engine, "x")
        self.assertRowCount(Author, 1)
        left.close()

    def test_what_the_application_has_not_finished_before_is_an_error(self) -> None:
        with forgetful.unfinished_session(engine, "x"):
            with self.assertRaisesRegex(LeakError, "unfinished writes"), self.rolled_back():
                self.fail("not reached")

    def test_a_scope_that_is_open_around_it_is_an_error(self) -> None:
        with self.session_scope() as session:
            session.add(Author(name="x"))
            session.flush()
            with self.assertRaisesRegex(ConfigurationError, "unfinished writes"), self.rolled_back():
                self.fail("not reached")
        self.assertRowCount(Author, 2)

    def test_an_error_comes_through_with_its_evidence(self) -> None:
        with self.assertRaises(ZeroDivisionError) as caught, self.rolled_back():
            save("x")
            raise ZeroDivisionError
        self.assertRegex("\n".join(caught.exception.__notes__), "INSERT INTO authors")
        self.assertRowCount(Author, 1)

    def test_a_thread_that_a_part_leaves_at_work_gets_no_connection_later(self) -> None:
        go, done, errors = threading.Event(), threading.Event(), list[BaseException]()

        def work() -> None:
            while not go.is_set():
                sum(range(100))
            try:
                save("late")
            except BaseException as error:
                errors.append(error)
            done.set()

        with self.rolled_back():
            threading.Thread(target=work, daemon=True).start()
        go.set()
        done.wait(60)
        self.assertRegex(repr(errors), "SandboxClosed.*has ended")
        self.assertRowCount(Author, 1)

    def test_sub_tests(self) -> None:
        for name in ("a", "b"):
            with self.subTest(name), self.rolled_back():
                save(name)
                self.assertRowCount(Author, 2)

    @few
    @given(name=st.text("abc", max_size=3))
    def test_each_example_starts_from_the_same_rows(self, name: str) -> None:
        self.assertRowCount(Author, 1)
        self.assertEqual(self.ada.name, "Ada")
        self.ada.name = name
        save(name)


class IdsTest(DatabaseTest):
    metadata = Base.metadata
    engines: ClassVar[Any] = [engine]
    reset_sequences = True

    def test_ids_start_from_the_same_number_in_each_part(self) -> None:
        save("before")
        found = []
        for _ in range(2):
            with self.rolled_back():
                found.append(save("x"))
        self.assertEqual(found[0], found[1])


class ExampleHooksTest(DatabaseTest):
    """What the user has written for Hypothesis runs in the part too."""

    metadata = Base.metadata
    engines: ClassVar[Any] = [engine]
    ended: ClassVar[list[object]] = []

    def setup_example(self) -> str:
        save("by setup_example")
        return "token"

    def teardown_example(self, token: object) -> None:
        self.ended.append(token)

    @few
    @given(st.integers(0, 3))
    def test_hooks(self, number: int) -> None:
        self.assertRowCount(Author, 1)

    def tearDown(self) -> None:
        self.assertEqual(set(self.ended), {"token"})
        self.assertRowCount(Author, 0)


class AsyncPartsTest(AsyncDatabaseTest):
    metadata = Base.metadata
    engines: ClassVar[Any] = [async_engine]

    async def asyncSetUp(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.session.add(Author(name="Ada"))
        await self.session.flush()

    async def save(self) -> None:
        async with AsyncSession(async_engine) as session:
            session.add(Author(name="x"))
            await session.commit()

    async def test_parts(self) -> None:
        for _ in range(2):
            with self.rolled_back():
                await self.save()
                self.session.add(Author(name="y"))
                await self.session.commit()
                self.assertRowCount(Author, 3)
            self.assertRowCount(Author, 1)

    @few
    @given(st.integers(0, 3))
    async def test_examples_run_in_the_tests_loop(self, number: int) -> None:
        self.assertIs(asyncio.get_running_loop(), self.loop)
        await self.save()
        self.session.add(Author(name=str(number)))
        self.assertRowCount(Author, 3)


class CommittingPartsTest(TruncatingDatabaseTest):
    metadata = Base.metadata
    engines: ClassVar[Any] = [engine]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.session.add(Author(name="Ada"))

    def test_a_part_is_put_back(self) -> None:
        found = []
        for _ in range(2):
            with self.rolled_back():
                found.append(save("x"))
                self.assertRowCount(Author, 2)
            self.assertRowCount(Author, 1)
        self.assertEqual(found[0], found[1])

    def test_rows_from_before_it_are_an_error(self) -> None:
        save("x")
        with self.assertRaisesRegex(ConfigurationError, "after the test had written .*authors"), self.rolled_back():
            self.fail("not reached")

    @few
    @given(st.integers(0, 3))
    def test_examples(self, number: int) -> None:
        self.assertRowCount(Author, 1)
        save(str(number))


class FailingExamplesTest(InnerRuns):
    def test_the_failing_example_shows_its_statements(self) -> None:
        class Failing(DatabaseTest):
            metadata = Base.metadata
            engines: ClassVar[Any] = [engine]

            @few
            @given(st.integers(0, 9))
            def test_fails(self, number: int) -> None:
                save(f"number {number}")
                assert number < 1

        [(_, text)] = self.assertFailed(Failing, pattern=r"(Falsifying example|Failing test case)")
        self.assertRegex(text, r"INSERT INTO authors[^\n]*\n?[^\n]*number 1")

    def test_an_asynchronous_example_that_nobody_awaits_is_an_error(self) -> None:
        class Unawaited(DatabaseTest):
            metadata = Base.metadata

            @few
            @given(st.integers())
            async def test_it(self, number: int) -> None:
                raise AssertionError

        self.assertFailed(Unawaited, pattern="gave back <coroutine .*which nobody runs")

    def test_asynchronous_committing_classes_are_told(self) -> None:
        class Committing(AsyncTruncatingDatabaseTest):
            metadata = Base.metadata
            engines: ClassVar[Any] = [async_engine]

            async def test_it(self) -> None:
                with self.rolled_back():
                    pass

        self.assertFailed(Committing, pattern="use AsyncDatabaseTest")

    def test_an_asynchronous_class_before_it_is_no_reason_to_refuse_one(self) -> None:
        class Before(AsyncTruncatingDatabaseTest):
            metadata = Base.metadata
            engines: ClassVar[Any] = [async_engine]

            async def test_it(self) -> None:
                self.session.add(Author(name="x"))
                await self.session.commit()

        class After(TruncatingDatabaseTest):
            metadata = Base.metadata
            engines: ClassVar[Any] = [engine]

            def test_it(self) -> None:
                with self.rolled_back():
                    save("y")
                self.assertRowCount(Author, 0)

        self.assertPassed(Before, After, Before, tests=3)


class CleanupsOutsideOfRunTest(unittest.TestCase):
    def test_nothing_is_swallowed(self) -> None:
        class Plain(DatabaseTest):
            metadata = Base.metadata

            def test_it(self) -> None: ...

        test = Plain("test_it")
        events: list[str] = []
        test.addCleanup(events.append, "last")
        test.addCleanup(lambda: [].pop())
        with self.assertRaises(IndexError):
            test.doCleanups()
        self.assertEqual(events, ["last"])
        test.addCleanup(lambda: [].pop())
        test.addCleanup(lambda: {}["x"])
        with self.assertRaises(ExceptionGroup):
            test.doCleanups()


if __name__ == "__main__":
    unittest.main()
