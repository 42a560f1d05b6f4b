"""The life of a test without a runner: isolated(), Life and AsyncLife."""

import asyncio
import textwrap
import unittest

from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from dbtestcase import AsyncDatabaseTest, ConfigurationError, DatabaseTest, LeakError, TruncatingDatabaseTest
from dbtestcase.cases.life import Life
from tests.support import forgetful
from tests.support.blog_models import Author, Base
from tests.support.inner import run_inner
from tests.support.runners import ROOT, run_python

engine = create_engine("postgresql+psycopg://production.invalid/blog")
async_engine = create_async_engine("postgresql+psycopg://production.invalid/blog")
events: list[str] = []


def save(name: str) -> None:
    with Session(engine) as session:
        session.add(Author(name=name))
        session.commit()


class Blog(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]
    ada: Author

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = Author(name="Ada")
        cls.session.add(cls.ada)

    def setUp(self) -> None:
        events.append("setUp")

    def tearDown(self) -> None:
        events.append("tearDown")

    @classmethod
    def tearDownClass(cls) -> None:
        events.append("tearDownClass")
        super().tearDownClass()


class Committing(TruncatingDatabaseTest):
    metadata = Base.metadata
    engines = [engine]


class AsyncBlog(AsyncDatabaseTest):
    metadata = Base.metadata
    engines = [async_engine]

    async def asyncSetUp(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def asyncTearDown(self) -> None:
        events.append("asyncTearDown")


class IsolatedTest(unittest.TestCase):
    def setUp(self) -> None:
        events.clear()

    def test_what_is_on_self_is_on_test(self) -> None:
        with Blog.isolated() as test:
            save("Grace")
            test.assertRowCount(Author, 2)
            self.assertEqual(test.ada.name, "Ada")
            self.assertEqual(len(test.session.scalars(select(Author)).all()), 2)
        self.assertEqual(events, ["setUp", "tearDown", "tearDownClass"])

    def test_each_starts_from_the_same_rows(self) -> None:
        life = Life(Blog)
        self.assertTrue(life.begin_class())
        self.addCleanup(life.end_class)
        for _ in range(2):
            with Blog.isolated() as test:
                test.assertRowCount(Author, 1)
                save("Grace")
        self.assertNotIn("tearDownClass", events)  # whoever began it ends it

    def test_a_leak_is_raised_at_the_end(self) -> None:
        with self.assertRaisesRegex(LeakError, "isolated"):
            with Blog.isolated():
                self.left = forgetful.unfinished_session(engine, "Grace")
        with Blog.isolated() as test:
            test.assertRowCount(Author, 1)

    def test_the_error_of_the_block_gets_the_statements_and_stays_what_it_is(self) -> None:
        with self.assertRaises(ZeroDivisionError) as caught:
            with Blog.isolated():
                save("Grace")
                raise ZeroDivisionError
        self.assertRegex("\n".join(caught.exception.__notes__), "INSERT INTO authors")

    def test_a_cleanup_that_fails_beside_the_block_is_a_note_of_its_error(self) -> None:
        with self.assertRaises(ZeroDivisionError) as caught:
            with Blog.isolated() as test:
                test.addCleanup(lambda: [].pop())
                raise ZeroDivisionError
        self.assertRegex("\n".join(caught.exception.__notes__), "After it: IndexError")

    def test_a_cleanup_that_fails_alone_is_raised(self) -> None:
        with self.assertRaises(IndexError), Blog.isolated() as test:
            test.addCleanup(lambda: [].pop())

    def test_a_failing_set_up_ends_the_test_and_the_class(self) -> None:
        class Broken(Blog):
            def setUp(self) -> None:
                save("Grace")
                raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError), Broken.isolated():
            self.fail("not reached")
        self.assertIn("tearDownClass", events)
        with Blog.isolated() as test:
            test.assertRowCount(Author, 1)

    def test_a_failing_class_set_up_leaves_nothing(self) -> None:
        class Broken(Blog):
            @classmethod
            def setUpTestData(cls) -> None:
                raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError), Broken.isolated():
            self.fail("not reached")
        with Blog.isolated() as test:
            test.assertRowCount(Author, 1)

    def test_committing_classes(self) -> None:
        for _ in range(2):
            with Committing.isolated() as test:
                test.assertRowCount(Author, 0)
                save("Grace")
                test.assertRowCount(Author, 1)

    def test_one_inside_of_another_is_refused(self) -> None:
        with Blog.isolated(), self.assertRaisesRegex(ConfigurationError, "Committing was to begin while .*Blog"):
            with Committing.isolated():
                self.fail("not reached")

    def test_not_a_class_of_ours(self) -> None:
        for wrong in (unittest.TestCase, Blog(), None):
            with self.subTest(wrong), self.assertRaisesRegex(ConfigurationError, "is not a class of this library"):
                Life(wrong)  # type: ignore[arg-type]


class WrongCallsTest(unittest.TestCase):
    """Beginnings and ends that do not fit each other are errors that say what to call."""

    def setUp(self) -> None:
        events.clear()
        self.life = Life(Blog)

    def test_a_test_begins_its_class_which_is_to_be_ended(self) -> None:
        self.life.begin_test("first")
        self.life.end_test()
        self.life.end_class()
        self.assertEqual(events, ["setUp", "tearDown", "tearDownClass"])

    def test_a_second_beginning(self) -> None:
        self.addCleanup(self.life.end_class)
        self.life.begin_test("first")
        self.addCleanup(self.life.end_test)
        with self.assertRaisesRegex(ConfigurationError, "Blog was to begin while .*first is running"):
            self.life.begin_test("second")

    def test_an_end_without_a_beginning(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, r"end_test\(\) was called for Blog, and no test runs"):
            self.life.end_test()

    def test_a_class_that_ends_with_a_test_that_did_not(self) -> None:
        self.life.begin_test("first")
        self.left = forgetful.unfinished_session(engine, "Grace")
        with self.assertRaises(ExceptionGroup) as caught:
            self.life.end_class()
        forgotten, leak = caught.exception.exceptions
        self.assertRegex(str(forgotten), "Blog was to end while .*first runs")
        self.assertIsInstance(leak, LeakError)
        self.assertEqual(events, ["setUp", "tearDown", "tearDownClass"])

    def test_a_test_that_nobody_ends_is_an_error_of_the_next_class(self) -> None:
        class Next(DatabaseTest):
            metadata = Base.metadata

            def test_it(self) -> None:
                self.assertRowCount(Author, 0)

        self.life.begin_test("first")
        self.addCleanup(self.life.end_test)
        result = run_inner(Next)
        self.assertRegex(result.errors[0][1], r"Next was to begin while .*first had not ended")
        self.assertEqual((run_inner(Next).errors, result.testsRun), ([], 0))

    def test_what_is_written_between_two_tests_is_an_error_and_undone(self) -> None:
        for case, rows in ((Blog, 1), (Committing, 0)):
            life: Life[DatabaseTest] = Life(case)
            life.begin_class()
            for name in ("by a layer's setUp", "between tests"):
                with self.subTest(name, case=case.__name__):
                    save(name)
                    with self.assertRaisesRegex(
                        ConfigurationError, r"written to the test database at \S*:\d+ in save before"
                    ):
                        life.begin_test("first")
                    life.begin_test("second").assertRowCount(Author, rows)
                    with Session(engine) as session:  # reading is nobody's business
                        session.scalars(select(Author)).all()
                    life.end_test()
                    with Session(engine) as session:
                        session.scalars(select(Author)).all()
            life.end_class()

    def test_a_process_that_ends_before_its_test_says_so(self) -> None:
        script = """
            from dbtestcase import DatabaseTest, Life
            class Plain(DatabaseTest):
                url = "sqlite://"
            Life(Plain).begin_test("the last one")
        """
        done = run_python(["-c", textwrap.dedent(script)], cwd=ROOT)
        self.assertRegex(done.stderr, r"Plain.the last one was never ended: .*Call end_test\(\)")


class AsyncIsolatedTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        events.clear()

    async def test_hooks_and_sessions_are_in_the_loop_that_runs(self) -> None:
        for _ in range(2):
            async with AsyncBlog.isolated() as test:
                self.assertIs(test.loop, asyncio.get_running_loop())
                test.session.add(Author(name="Ada"))
                await test.session.commit()
                async with AsyncSession(async_engine) as session:
                    self.assertEqual(len((await session.scalars(select(Author))).all()), 1)
        self.assertEqual(events, ["asyncTearDown", "asyncTearDown"])

    async def test_a_leak_is_raised(self) -> None:
        with self.assertRaises(LeakError):
            async with AsyncBlog.isolated():
                self.left = await forgetful.unfinished_connection(async_engine, "Grace")
        await self.left.close()
        async with AsyncBlog.isolated() as test:
            test.assertRowCount(Author, 0)


class SessionClassTest(unittest.IsolatedAsyncioTestCase):
    def test_every_session_of_the_tests_own_is_of_that_class(self) -> None:
        class Own(Session):
            pass

        class Notes(DatabaseTest):
            metadata = Base.metadata
            session_class = Own

            @classmethod
            def setUpTestData(cls) -> None:
                seen.append(type(cls.session))

        seen: list[type] = []
        with Notes.isolated() as test, test.session_scope() as scoped:
            seen += [type(test.session), type(scoped)]
        self.assertEqual(seen, [Own] * 3)

    async def test_the_same_of_async_classes(self) -> None:
        class Own(Session):
            pass

        class OwnAsync(AsyncSession):
            sync_session_class = Own

        class Notes(AsyncDatabaseTest):
            metadata = Base.metadata
            session_class = OwnAsync

        async with Notes.isolated() as test, test.session_scope() as scoped:
            with test.sync_session_scope() as sync_scoped:
                seen = [type(each) for each in (test.session, scoped, test.sync_session, sync_scoped)]
        self.assertEqual(seen, [OwnAsync, OwnAsync, Own, Own])


if __name__ == "__main__":
    unittest.main()
