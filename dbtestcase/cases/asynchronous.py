"""The async variants of the cases: the same life, the same wire; what is awaited is added here.

Each test has an event loop of its own.
"""

from __future__ import annotations

import contextlib
import sys
import unittest
from typing import Any, ClassVar, Self

from sqlalchemy import ColumnExpressionArgument, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from ..reporting import name_of
from .async_lives import (
    AsyncClass,
    AsyncCommittingClass,
    AsyncCommittingTest,
    AsyncMigratedClass,
    AsyncMigratedTest,
    AsyncTest,
)
from .attributes import Given
from .base import DatabaseTest
from .blocking import run_blocking
from .life import isolated_async
from .lifecycle import Lifecycle
from .migrated import Migrations
from .truncating import TruncatingDatabaseTest

__unittest = True


class _AsyncLife(DatabaseTest, unittest.IsolatedAsyncioTestCase):
    """What all async cases share."""

    session_class: ClassVar[type[Session] | type[AsyncSession]] = AsyncSession

    session: Given[Session, AsyncSession]  # type: ignore[assignment]
    """The test's own session, in the same transaction as the application's; closed at its end, never committed.

    On the class, in :meth:`setUpTestData`, it is a plain ``Session``."""

    sync_session: Given[object, Session] = Given()
    """A ``Session`` in the same transaction; made when it is asked for, closed at the end of the test."""

    engine: Given[AsyncEngine, AsyncEngine]  # type: ignore[assignment]
    """An async engine on the test database, on the class and on a test, while the class runs."""

    sync_engine: Given[Engine, Engine]
    """A sync engine in the same transaction."""

    _dbtestcase = Lifecycle[AsyncClass, AsyncTest](AsyncClass, AsyncTest)

    def session_scope(self) -> contextlib.AbstractAsyncContextManager[AsyncSession]:  # type: ignore[override]
        """A new session of the test's own: commit at the end, rollback on an error, always closed."""
        return self._dbtestcase.blocks.asynchronous("session_scope()", self._dbtestcase.async_scope)

    def sync_session_scope(self) -> contextlib.AbstractContextManager[Session]:
        """The same, for synchronous code."""
        return super().session_scope()

    @classmethod
    def isolated(cls, name: str = "isolated") -> contextlib.AbstractAsyncContextManager[Self]:  # type: ignore[override]
        """One test's life outside of any runner, in the loop that runs: ``async with BlogTest.isolated() as test:``.

        :param name: how messages call the test.
        """
        return isolated_async(cls, name, sys._getframe(1).f_code.co_filename)

    def __reduce__(self) -> tuple[Any, ...]:
        # unittest-parallel sends tests to its workers; the base class keeps a context, which cannot be pickled
        return type(self), (name_of(self),)

    def assertRowCount(
        self, entity_or_table: Any, n: int, *criteria: ColumnExpressionArgument[bool], msg: str | None = None
    ) -> None:
        run_blocking(lambda: super(_AsyncLife, self).assertRowCount(entity_or_table, n, *criteria, msg=msg))

    def _callAsync(self, func: Any, /, *args: Any, **kwargs: Any) -> Any:
        # unittest runs the loop for an asyncSetUp that nobody has overridden as well, which costs more than all that
        # the harness does; the loop is there already
        if getattr(func, "__func__", None) is unittest.IsolatedAsyncioTestCase.asyncSetUp:
            return None
        return super()._callAsync(func, *args, **kwargs)  # type: ignore[misc]


class AsyncDatabaseTest(_AsyncLife):
    """:class:`DatabaseTest` for async tests: each in its own event loop, all in one transaction per class.

    .. code-block:: python

        class PublishTest(AsyncDatabaseTest):
            metadata = models.Base.metadata
            engines = [db.async_engine]

            async def test_publish(self):
                await publish("Hello")
                self.assertEqual(await self.session.scalar(select(func.count()).select_from(Post)), 1)
    """


class AsyncMigratedDatabaseTest(Migrations, AsyncDatabaseTest):
    """:class:`MigratedDatabaseTest` for async tests.

    ``upgrade`` and ``downgrade`` are plain methods here too; the event loop waits for them.  What
    ``self.session`` holds is not flushed by them: ``await self.session.flush()`` or ``commit()`` before.

    .. code-block:: python

        class RenameTest(AsyncMigratedDatabaseTest):
            migrations = "alembic.ini"

            async def test_names_are_joined(self):
                self.downgrade("0008")
                await self.session.execute(text("INSERT INTO customer (first_name, last_name) VALUES ('Ada', 'Byron')"))
                self.upgrade("0009")
                self.assertEqual(await self.session.scalar(text("SELECT full_name FROM customer")), "Ada Byron")
    """

    _dbtestcase = Lifecycle[AsyncMigratedClass, AsyncMigratedTest](AsyncMigratedClass, AsyncMigratedTest)


class AsyncTruncatingDatabaseTest(_AsyncLife, TruncatingDatabaseTest):
    """:class:`TruncatingDatabaseTest` for async tests: each in its own event loop, with connections of its own.

    .. code-block:: python

        class QueueTest(AsyncTruncatingDatabaseTest):
            metadata = models.Base.metadata
            engines = [db.async_engine]

            async def test_two_workers_take_different_jobs(self):
                jobs = await asyncio.gather(queue.take(), queue.take())
                self.assertEqual(len(set(jobs)), 2)
    """

    _dbtestcase = Lifecycle[AsyncCommittingClass, AsyncCommittingTest](AsyncCommittingClass, AsyncCommittingTest)
