"""Async tests: each in a loop of its own, all in one transaction, whatever the driver."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import unittest
import warnings
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

from dbtestcase import AsyncDatabaseTest, DBTestCaseWarning, DirtyReadWarning, LeakError, SandboxConflict, SandboxEscape
from dbtestcase.sandbox import scheduler
from tests.support.forgetful import adds_later


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    notes: orm.Mapped[list[Note]] = orm.relationship(back_populates="author")


class Note(Base):
    __tablename__ = "note"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str]
    facts: orm.Mapped[dict[str, Any] | None] = orm.mapped_column(sa.JSON)
    author_id: orm.Mapped[int | None] = orm.mapped_column(sa.ForeignKey("author.id"))
    author: orm.Mapped[Author | None] = orm.relationship(back_populates="notes")


class Audit(Base):
    __tablename__ = "audit"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str]


def nowhere(driver: str) -> str:
    return f"postgresql+{driver}://nobody@nowhere.invalid/none"


class Doors:
    """The tests; ``driver`` and the application's engine are the classes'."""

    driver: str
    metadata = Base.metadata
    loops: set[asyncio.AbstractEventLoop]

    @classmethod
    def setUpClass(cls):
        cls.calls = 0  # a runner that shares tests out may begin the class anew
        super().setUpClass()

    @classmethod
    def setUpTestData(cls):
        cls.calls += 1
        cls.ada = Author(name="Ada", notes=[Note(text="first")])
        cls.session.add(cls.ada)

    async def count(self) -> int:
        return await self.session.scalar(sa.select(sa.func.count()).select_from(Note))

    async def write(self, text: str) -> None:
        async with self.sessions() as session:
            session.add(Note(text=text))
            await session.flush()
            await asyncio.sleep(0.001)
            await session.commit()

    async def check_gather(self):
        self.assertEqual(await self.count(), 1)
        await asyncio.gather(*(self.write(f"note {i}") for i in range(8)))
        self.assertEqual(await self.count(), 9)

    # the pool has two connections, so that tasks wait for it: its queue is bound to the loop of each test
    async def test_gather_a(self):
        await self.check_gather()

    async def test_gather_b(self):
        await self.check_gather()

    async def test_each_test_has_a_loop_of_its_own_a(self):
        self.check_loop()

    async def test_each_test_has_a_loop_of_its_own_b(self):
        self.check_loop()

    def check_loop(self):
        loop = asyncio.get_running_loop()
        self.assertNotIn(loop, self.loops)
        self.loops.add(loop)
        self.assertEqual(type(self).calls, 1)

    async def test_sync_and_async_code_share_the_transaction(self):
        await self.write("async")
        self.assertEqual(self.sync_session.scalar(sa.select(sa.func.count()).select_from(Note)), 2)
        self.sync_session.add(Note(text="sync"))
        self.sync_session.commit()
        self.assertEqual(await self.count(), 3)
        with self.sync_engine.begin() as connection:
            connection.execute(sa.insert(Note).values(text="core"))
        self.assertRowCount(Note, 4)

    async def test_class_data_arrive_attached_and_fresh(self):
        self.assertIn(self.ada, self.session)
        self.assertEqual([note.text for note in self.ada.notes], ["first"])
        self.ada.name = "Countess"
        await self.session.commit()
        await self.session.refresh(self.ada)
        self.assertEqual(self.ada.name, "Countess")

    async def test_class_data_are_not_changed_by_other_tests(self):
        self.assertEqual(self.ada.name, "Ada")

    async def test_session_scope_commits_and_rolls_back(self):
        async with self.session_scope() as session:
            session.add(Note(text="kept"))
        with self.assertRaises(ZeroDivisionError):
            async with self.session_scope() as session:
                session.add(Note(text="gone"))
                await session.flush()
                raise ZeroDivisionError
        self.assertEqual(await self.count(), 2)

    async def test_an_integrity_error_does_not_poison_another_session(self):
        async with self.sessions() as session, self.sessions() as other:
            session.add(Author(name="Ada"))
            with self.assertRaises(sa.exc.IntegrityError):
                await session.flush()
            other.add(Note(text="fine"))
            await other.commit()
            await session.rollback()
        self.assertEqual(await self.count(), 2)

    async def test_a_lazy_load_fails_as_in_production(self):
        async with self.sessions() as session:
            author = (await session.scalars(sa.select(Author))).one()
            with self.assertRaisesRegex(sa.exc.SQLAlchemyError, "greenlet_spawn has not been called"):
                author.notes  # noqa: B018

    async def test_savepoints_streams_and_run_sync(self):
        async with self.sessions() as session:
            with contextlib.suppress(sa.exc.IntegrityError):
                async with session.begin_nested():
                    session.add(Author(name="Ada"))
            session.add(Note(text="second"))
            await session.commit()
            found = [row.text async for row in await session.stream_scalars(sa.select(Note).order_by(Note.id))]
            self.assertEqual(found, ["first", "second"])
        async with self.application.begin() as connection:
            await connection.run_sync(lambda sync: sync.execute(sa.insert(Note).values(text="third")))
        async with self.application.connect() as connection:
            self.assertEqual(await connection.scalar(sa.select(sa.func.count()).select_from(Note)), 3)

    async def test_autocommit_keeps_each_statement(self):
        engine = self.application.execution_options(isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(sa.insert(Note).values(text="auto", facts={"a": [1]}))
            with self.assertRaises(sa.exc.IntegrityError):
                await connection.execute(sa.insert(Author).values(name="Ada"))
        self.assertEqual(await self.count(), 2)
        self.assertEqual(await self.session.scalar(sa.select(Note.facts).where(Note.text == "auto")), {"a": [1]})

    async def test_a_scoped_session(self):
        scoped = async_scoped_session(self.sessions, scopefunc=asyncio.current_task)
        scoped.add(Note(text="scoped"))
        await scoped.commit()
        await scoped.remove()
        self.assertEqual(await self.count(), 2)

    async def test_an_engine_made_in_the_middle(self):
        engine = create_async_engine(self.database_url)
        async with engine.begin() as connection:
            await connection.execute(sa.insert(Note).values(text="made"))
        self.assertEqual(await self.count(), 2)
        await engine.dispose()

    async def test_an_engine_that_is_enlisted(self):
        engine = self.enlist(create_async_engine(nowhere(self.driver)))
        async with engine.begin() as connection:
            await connection.execute(sa.insert(Note).values(text="enlisted"))
        self.assertEqual(await self.count(), 2)

    async def test_a_task_group_with_one_that_fails(self):
        async def fail():
            async with self.sessions() as session:
                session.add(Note(text="gone"))
                await session.flush()
                raise ZeroDivisionError

        with self.assertRaises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.write("one"))
                group.create_task(fail())
        self.assertNotIn("gone", [n.text for n in await self.session.scalars(sa.select(Note))])

    async def test_what_a_transaction_awaits_does_not_wait_for_it(self):
        async def in_a_group(text):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.write(text))

        async def in_two_steps(text):
            await asyncio.create_task(in_a_group(text))

        def watched(text):
            task = asyncio.create_task(self.write(text))
            for callback in (mock.Mock(), mock.MagicMock(), [].append, functools.partial(print, file=io.StringIO())):
                task.add_done_callback(callback)
            return task

        ways = {
            "a task with callbacks of any kind": watched,
            "its end, which SQLAlchemy makes a task of": self.begin_and_write,
            "a task": lambda text: asyncio.create_task(self.write(text)),
            "gather": lambda text: asyncio.gather(self.write(text), asyncio.sleep(0)),
            "shield": lambda text: asyncio.shield(self.write(text)),
            "wait": lambda text: asyncio.wait([asyncio.create_task(self.write(text))]),
            "wait_for": lambda text: asyncio.wait_for(self.write(text), 60),
            "a group": in_a_group,
            "a task that awaits a group": in_two_steps,
        }
        for way, write in ways.items():
            with self.subTest(way), mock.patch.object(scheduler, "PATIENCE", 90):
                async with asyncio.timeout(60), self.sessions() as session:
                    session.add(Audit(text=way))
                    await session.flush()
                    await write(way)
                    await session.commit()
        self.assertEqual(await self.count(), 1 + len(ways))

    async def begin_and_write(self, text):
        async with self.sessions.begin() as session:
            session.add(Note(text=text))

    async def test_cancellation_in_the_middle_of_a_transaction(self):
        begun = asyncio.Event()

        async def endless():
            async with self.sessions() as session:
                session.add(Note(text="gone"))
                await session.flush()
                begun.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(endless())
        await begun.wait()
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertEqual(await self.count(), 1)
        await self.write("after")
        self.assertEqual(await self.count(), 2)

    async def test_a_timeout_around_a_slow_statement_ends_it_afterwards(self):
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0.05), self.sessions() as session:
                await session.execute(sa.text("SELECT pg_sleep(0.2)"))
                await asyncio.sleep(0)
        await self.write("after")
        self.assertEqual(await self.count(), 2)

    async def test_an_async_generator_left_open(self):
        async def texts():
            async with self.sessions() as session:
                async for note in await session.stream_scalars(sa.select(Note)):
                    yield note.text

        generator = texts()
        self.assertEqual(await anext(generator), "first")
        await self.write("meanwhile")
        await generator.aclose()
        self.assertEqual(await self.count(), 2)

    async def test_another_thread_with_a_loop_of_its_own(self):
        def on_a_thread():
            async def write():
                engine = create_async_engine(self.database_url)
                async with engine.begin() as connection:
                    await connection.execute(sa.insert(Note).values(text="thread"))
                await engine.dispose()

            asyncio.run(write())

        await asyncio.to_thread(on_a_thread)
        self.assertEqual(await self.count(), 2)

    async def test_transaction_control_as_text_is_refused(self):
        async with self.application.connect() as connection:
            for text in ("COMMIT", "/* x */ ROLLBACK", "BEGIN"):
                with self.subTest(text), self.assertRaises(SandboxEscape):
                    await connection.execute(sa.text(text))

    async def test_a_rollback_under_what_another_committed_is_a_conflict(self):
        async with self.sessions() as first, self.sessions() as second:
            first.add(Note(text="first"))
            await first.flush()
            second.add(Author(name="Grace"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DirtyReadWarning)
                await second.commit()
            with self.assertRaises(SandboxConflict):
                await first.rollback()

    def test_a_plain_method_may_use_the_sync_side(self):
        self.sync_session.add(Note(text="plain"))
        self.sync_session.commit()
        self.assertRowCount(Note, 2)


class PsycopgTest(Doors, AsyncDatabaseTest):
    driver = "psycopg"
    application = create_async_engine(nowhere("psycopg"), pool_size=2, max_overflow=0)
    sessions = async_sessionmaker(application, expire_on_commit=False)
    engines = [application]
    loops: set[asyncio.AbstractEventLoop] = set()

    async def test_the_drivers_own_connection(self):
        async with self.application.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            async with raw.transaction():
                await raw.execute("INSERT INTO note (text) VALUES ('raw')")
            async with raw.cursor() as cursor, cursor.copy("COPY note (text) FROM STDIN") as copy:
                await copy.write_row(("copied",))
            await raw.commit()
        self.assertEqual(await self.count(), 3)


class AsyncpgTest(Doors, AsyncDatabaseTest):
    driver = "asyncpg"
    application = create_async_engine(nowhere("asyncpg"), pool_size=2, max_overflow=0)
    sessions = async_sessionmaker(application, expire_on_commit=False)
    engines = [application]
    loops: set[asyncio.AbstractEventLoop] = set()

    async def test_the_drivers_own_connection(self):
        async with self.application.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            await raw.execute("INSERT INTO note (text) VALUES ($1)", "raw")
            self.assertEqual(await raw.fetchval("SELECT count(*) FROM note"), 2)
            with self.assertRaisesRegex(SandboxEscape, "transaction"):
                raw.transaction()
        self.assertEqual(await self.count(), 2)  # as with asyncpg itself: outside of a transaction it is kept at once

    async def test_a_wrong_argument_leaves_the_transaction_as_it_is(self):
        before = await self.count()
        async with self.application.begin() as connection:
            await connection.execute(sa.insert(Note).values(text="kept"))
            with self.assertRaisesRegex(sa.exc.DBAPIError, "invalid input for query argument"):
                await connection.exec_driver_sql("INSERT INTO note (text) VALUES ($1)", (1,))
            await connection.execute(sa.insert(Note).values(text="kept, too"))
        self.assertEqual(await self.count(), before + 2)


class NothingStaysTest(unittest.TestCase):
    """Inner tests, whose reports are looked at."""

    def run_inner(self, *methods):
        namespace = {"metadata": Base.metadata, "engines": [PsycopgTest.application]}
        namespace.update({f"test_{i}": method for i, method in enumerate(methods)})
        inner = type("Inner", (AsyncDatabaseTest,), namespace)
        result = unittest.TextTestRunner(stream=io.StringIO()).run(
            unittest.defaultTestLoader.loadTestsFromTestCase(inner)
        )
        return [str(error) for _, error in result.errors + result.failures]

    def test_a_forgotten_commit_fails_its_test_alone(self):
        session = AsyncSession(PsycopgTest.application)

        async def forgets(test):
            await adds_later(session, Note(text="x"))

        async def is_fine(test):
            test.assertRowCount(Note, 0)

        problems = self.run_inner(forgets, is_fine)
        asyncio.run(session.close())
        self.assertEqual(len(problems), 1, problems)
        self.assertIn("was left with unfinished writes", problems[0])
        self.assertIn("in adds_later", problems[0])
        self.assertIn(LeakError.__name__, problems[0])

    def test_a_task_that_still_runs_is_named(self):
        async def leaves_a_task(test):
            test.task = asyncio.create_task(asyncio.sleep(60), name="lazybones")

        with self.assertWarnsRegex(DBTestCaseWarning, "left the task 'lazybones' running"):
            self.assertEqual(self.run_inner(leaves_a_task), [])
