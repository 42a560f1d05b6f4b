"""What the lives of async classes and tests do otherwise; the wire has no event loop, each test has one.

The wire's connections block, so nothing depends on a loop that has ended, and sync code (factories, ``sync_session``)
shares the transaction of async code.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..errors import ConfigurationError, DBTestCaseError, DBTestCaseWarning, MigrationError
from ..isolation import Isolation, TruncatingIsolation
from ..reporting import loop_runner_of
from .blocking import run_blocking
from .committing import CommittingClass, CommittingTest
from .migrating import MigratedClass, MigratedTest
from .per_class import ClassLifecycle
from .per_test import TestLifecycle

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class AsyncClass(ClassLifecycle):
    """The life of an async class."""

    given = (*ClassLifecycle.given, "sync_engine", "sync_session")
    asynchronous = True

    def offers(self, isolation: Isolation) -> dict[str, Any]:
        application, _ = isolation.async_engines()
        url = application.url.render_as_string(hide_password=False)
        return {"engine": application, "sync_engine": isolation.engine, "database_url": url}

    @property
    def sync_session_class(self) -> type[Session]:
        made_of: type[Session] = self.cls.session_class.sync_session_class
        return made_of

    def async_factory_session(self) -> Any:
        run = self.run
        return run.test.test.session if run is not None and run.test is not None else None

    def run_factory(self, make: Callable[[], Any]) -> Any:
        run = self.run
        return run_blocking(make) if run is not None and run.test is not None else make()


class AsyncMigratedClass(AsyncClass, MigratedClass):
    """The life of an async class whose database is made by Alembic."""


class AsyncCommittingClass(AsyncClass, CommittingClass):
    """The life of an async class whose commits are real."""


class AsyncTest(TestLifecycle):
    """The life of an async test."""

    def make_session(self) -> Any:
        if not self.is_awaited:
            raise ConfigurationError(
                f"{self.test.id()} asked for `session`, which is an AsyncSession, in a plain function.",
                cause="a forgotten `async`: its commit() would give back a coroutine that nobody runs",
                remedy="write `async def`, or use `sync_session`, a Session in the same transaction",
            )
        return self.new_async_session()

    def make_sync_session(self) -> Session:
        """A sync session in the same transaction."""
        return self.new_session()

    def new_async_session(self) -> AsyncSession:
        """A session that its user closes."""
        _, own = self.isolation.async_engines()
        session: AsyncSession = self.test.session_class(own)
        return session

    @contextlib.asynccontextmanager
    async def async_scope(self) -> AsyncIterator[AsyncSession]:
        """A new session that is committed at the end."""
        async with self.new_async_session() as session, session.begin():
            yield session

    def row_session(self) -> Session:
        own = self.test.session.sync_session if self.is_awaited else self.test.sync_session
        session: Session = own
        return session

    def own_sessions(self) -> list[Session]:
        session = self.given("session")
        return [*self.sessions, *([session.sync_session] if session is not None else [])]

    def run_on_session(self, function: Callable[[], Any]) -> Any:
        return run_blocking(function)

    def finish(self, given_back: Any) -> Any:
        runner = loop_runner_of(self.test)
        if runner is None or not inspect.iscoroutine(given_back):
            return super().finish(given_back)
        return runner.run(given_back, context=contextvars.copy_context())  # the test's own, which is entered here

    def begin(self) -> None:
        super().begin()
        runner = loop_runner_of(self.test)
        loop = runner.get_loop() if runner is not None else asyncio._get_running_loop()
        if loop is not None and loop.get_exception_handler() is None:
            loop.set_exception_handler(_note_unretrieved)

    def end(self) -> None:
        self._warn_of_tasks()
        run = self.of_class.run
        try:
            super().end()
        finally:
            if run is not None:
                run.isolation.end_loop()

    def close_own(self) -> None:
        # after the rollback, which has no order to keep: closed before it, rows that the test has flushed could not be
        # taken back where the application has committed since
        session = self.take_back("session")
        if session is not None:
            run_blocking(session.sync_session.close)
        super().close_own()

    def _warn_of_tasks(self) -> None:
        runner = loop_runner_of(self.test)
        if runner is None:
            return
        for task in asyncio.all_tasks(runner.get_loop()):
            warnings.warn(
                f"{self.test.id()} left the task {task.get_name()!r} running ({task.get_coro()!r}); it is cancelled "
                "now.",
                DBTestCaseWarning,
                stacklevel=2,
            )


def _note_unretrieved(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A task has failed, and nobody will ever ask for its error: one of ours was swallowed."""
    error = context.get("exception")
    if isinstance(error, DBTestCaseError):
        error.of_lost_task = True
    loop.default_exception_handler(context)


class AsyncMigratedTest(AsyncTest, MigratedTest):
    """The life of an async test that may migrate the database."""

    @contextlib.contextmanager
    def flushed(self) -> Iterator[None]:
        sync_session = self.given("sync_session")
        if sync_session is not None:
            sync_session.flush()
        yield
        for session in (sync_session, vars(self.test).get("session")):
            if session is not None:
                session.expire_all()


class AsyncCommittingTest(AsyncTest, CommittingTest):
    """The life of an async test whose commits are real."""

    def make_session(self) -> Any:
        session = super().make_session()
        self.test.addAsyncCleanup(self._close_async, session)  # its connection is the loop's
        return session

    @contextlib.contextmanager
    def counting(self) -> Iterator[Session]:
        """A session of its own: the connection of the async one waits for the loop, and its transaction may be old."""
        session = self.given("session")
        if session is not None and (session.new or session.dirty or session.deleted):
            raise ConfigurationError(
                f"{self.test.id()} counts rows while its `session` holds changes that were not sent.",
                cause="an add() without a commit(): in a committing class only what is committed is counted",
                remedy="await self.session.commit() before assertRowCount()",
            )
        with self.of_class.sync_session_class(self.isolation.own_engine) as counting:
            yield counting

    async def _close_async(self, session: AsyncSession) -> None:
        self.take_back("session")
        with self.closing():
            await session.close()

    def begin(self) -> None:
        super().begin()
        # run after the test's own cleanups and before end()
        self.test.addAsyncCleanup(self._close_pools)

    @contextlib.contextmanager
    def flushed(self) -> Iterator[None]:
        session = vars(self.test).get("session")
        if session is not None and session.in_transaction():
            raise MigrationError(
                f"{self.test.id()} was about to migrate while its session is in a transaction.",
                cause="the migration works on a connection of its own: it would not see the session's rows, and would "
                "wait for its locks",
                remedy="await self.session.commit() before upgrade() or downgrade()",
            )
        with super().flushed():
            yield
        if session is not None:
            session.expire_all()

    async def _close_pools(self) -> None:
        run = self.of_class.run
        if run is not None and isinstance(run.isolation, TruncatingIsolation):
            await run.isolation.close_pools()
