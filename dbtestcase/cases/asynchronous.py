"""The async variants of the cases: the same life, the same wire; what is awaited is added here.

Each test has an event loop of its own.  The wire has none: its connections block, so nothing depends on a loop that has
ended, and sync code (factories, ``sync_session``) shares the transaction of async code.
"""

from __future__ import annotations

import asyncio
import contextlib
import unittest
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from ..errors import DBTestCaseWarning
from .base import DatabaseTest
from .blocking import run_blocking

__all__ = ["AsyncDatabaseTest"]

__unittest = True


class _OwnAsyncSession:
    """``session``: on the class the (sync) session of its data, on a test a new ``AsyncSession``."""

    def __get__(self, test: _AsyncLife | None, cls: type[_AsyncLife]) -> Any:
        if test is None:
            return cls._class_session()
        session = test.__dict__["session"] = test._make_async_session()
        return session


class _AsyncLife(DatabaseTest, unittest.IsolatedAsyncioTestCase):
    """What all async cases share."""

    if TYPE_CHECKING:
        session: AsyncSession  # type: ignore[assignment]
        engine: AsyncEngine  # type: ignore[assignment]
        sync_engine: Engine
    else:
        session = _OwnAsyncSession()

    @property
    def sync_session(self) -> Session:
        """A ``Session`` in the same transaction; made when it is asked for, closed at the end of the test."""
        found: Session | None = self.__dict__.get("_sync_session")
        if found is None:
            found = self.__dict__["_sync_session"] = self._make_session()
            self._sessions.append(found)
        return found

    @contextlib.asynccontextmanager
    async def session_scope(self) -> AsyncIterator[AsyncSession]:  # type: ignore[override]
        """A new session of the test's own: commit at the end, rollback on an error, always closed."""
        async with self._new_async_session() as session, session.begin():
            yield session

    @contextlib.contextmanager
    def sync_session_scope(self) -> Iterator[Session]:
        """The same, for synchronous code."""
        with super().session_scope() as session:
            yield session

    def __reduce__(self) -> tuple[Any, ...]:
        # unittest-parallel sends tests to its workers; the base class keeps a context, which cannot be pickled
        return type(self), (self._testMethodName,)

    # -- inside

    @classmethod
    def _offer_engines(cls, isolation: Any) -> None:
        application, _ = isolation.async_engines()
        cls.engine = application
        cls.sync_engine = isolation.engine
        cls.database_url = application.url.render_as_string(hide_password=False)

    @classmethod
    def _offered(cls) -> tuple[str, ...]:
        return (*super()._offered(), "sync_engine")

    def _new_async_session(self) -> AsyncSession:
        _, own = self._isolation_now().async_engines()
        return AsyncSession(own)

    def _make_async_session(self) -> AsyncSession:
        session = self._new_async_session()
        self.addAsyncCleanup(self._close_async, session)
        return session

    async def _close_async(self, session: AsyncSession) -> None:
        if self.__dict__.get("session") is session:
            del self.__dict__["session"]
        await session.close()

    def _own_session(self) -> Session:
        """The session that class data are attached to."""
        return self.session.sync_session

    def _row_session(self) -> Session:
        return self.session.sync_session

    def assertRowCount(
        self, entity_or_table: Any, n: int, *criteria: ColumnElement[bool], msg: str | None = None
    ) -> None:
        run_blocking(lambda: super(_AsyncLife, self).assertRowCount(entity_or_table, n, *criteria, msg=msg))

    @classmethod
    def _async_factory_session(cls) -> AsyncSession | None:
        state = cls._state()
        return state.test.session if state is not None and isinstance(state.test, _AsyncLife) else None

    @classmethod
    def _run_factory(cls, make: Callable[[], Any]) -> Any:
        state = cls._state()
        return run_blocking(make) if state is not None and state.test is not None else make()

    def _callAsync(self, func: Any, /, *args: Any, **kwargs: Any) -> Any:
        # unittest runs the loop for an asyncSetUp that nobody has overridden as well, which costs more than all that
        # the harness does; the loop is there already
        if getattr(func, "__func__", None) is unittest.IsolatedAsyncioTestCase.asyncSetUp:
            return None
        return super()._callAsync(func, *args, **kwargs)  # type: ignore[misc]

    def _end_test(self) -> None:
        self._warn_of_tasks()
        state = type(self)._state()
        try:
            super()._end_test()
        finally:
            self.__dict__.pop("_sync_session", None)
            if state is not None:
                state.isolation.end_loop()

    def _warn_of_tasks(self) -> None:
        runner = getattr(self, "_asyncioRunner", None)
        if runner is None:
            return
        for task in asyncio.all_tasks(runner.get_loop()):
            warnings.warn(
                f"{self.id()} left the task {task.get_name()!r} running ({task.get_coro()!r}); it is cancelled now.",
                DBTestCaseWarning,
                stacklevel=2,
            )


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
