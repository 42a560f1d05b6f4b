"""session_scope: committed at the end, rolled back on an error, always closed."""

import asyncio
import unittest
from typing import Any
from unittest import mock

from sqlalchemy import create_engine, func, inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from dbtestcase.data.sessions import async_session_scope, session_scope
from tests.support.blog_models import Base, Tag


class SessionScopeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        self.addCleanup(self.engine.dispose)
        Base.metadata.create_all(self.engine)
        self.maker = sessionmaker(self.engine)
        self.scoped = scoped_session(self.maker)

    def count(self) -> int:
        with Session(self.engine) as session:
            found: int = session.scalar(select(func.count()).select_from(Tag))
            return found

    def test_it_commits_and_closes_whatever_gives_the_session(self) -> None:
        with self.engine.connect() as connection:
            for number, given in enumerate(
                [self.engine, connection, self.maker, self.scoped, lambda: Session(self.engine)], 1
            ):
                with self.subTest(given), session_scope(given) as session:
                    session.add(tag := Tag(name=f"{number}"))
                self.assertTrue(inspect(tag).detached)
                self.assertEqual(self.count(), number)

    def test_it_rolls_back_on_an_error(self) -> None:
        for error in (ZeroDivisionError, KeyboardInterrupt):
            for given in (self.engine, self.maker, self.scoped):
                with self.subTest(error=error, given=given):
                    with self.assertRaises(error), session_scope(given) as session:
                        session.add(tag := Tag(name="lost"))
                        session.flush()
                        raise error
                    self.assertEqual(self.count(), 0)
                    self.assertNotIn(tag, session)

    def test_it_is_closed_when_the_commit_fails(self) -> None:
        with self.assertRaises(IntegrityError), session_scope(self.engine) as session:
            session.add(Tag(name=None))
        self.assertFalse(session.in_transaction())
        self.assertEqual(self.count(), 0)

    def test_the_registry_gives_a_new_session_afterwards(self) -> None:
        with session_scope(self.scoped) as session:
            self.assertIs(self.scoped(), session)
        self.assertIsNot(self.scoped(), session)
        self.scoped.remove()


class AsyncSessionScopeTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine

        self.engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        self.addAsyncCleanup(self.engine.dispose)
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        self.maker: Any = async_sessionmaker(self.engine)
        self.scoped: Any = async_scoped_session(self.maker, asyncio.current_task)

    async def count(self) -> int:
        async with self.maker() as session:
            found: int = await session.scalar(select(func.count()).select_from(Tag))
            return found

    async def test_it_commits_and_closes(self) -> None:
        for number, given in enumerate([self.engine, self.maker, self.scoped], 1):
            with self.subTest(given):
                async with async_session_scope(given) as session:
                    session.add(tag := Tag(name=f"{number}"))
                self.assertTrue(inspect(tag).detached)
                self.assertEqual(await self.count(), number)

    async def test_it_rolls_back_on_an_error_and_when_it_is_cancelled(self) -> None:
        for error in (ZeroDivisionError, asyncio.CancelledError):
            with self.subTest(error), self.assertRaises(error):
                async with async_session_scope(self.maker) as session:
                    session.add(Tag(name="lost"))
                    await session.flush()
                    raise error
            self.assertEqual(await self.count(), 0)

    async def test_it_is_closed_when_the_rollback_fails(self) -> None:
        session = self.maker()
        with mock.patch.object(session, "rollback", side_effect=OSError), self.assertRaises(OSError):
            with mock.patch.object(session, "close", wraps=session.close) as close:
                async with async_session_scope(lambda: session):
                    raise ZeroDivisionError
        close.assert_awaited_once()


if __name__ == "__main__":
    unittest.main()
