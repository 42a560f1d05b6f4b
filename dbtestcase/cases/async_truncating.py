"""The async variant of the committing cases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import MigrationError
from ..isolation.truncation import TruncatingIsolation
from .asynchronous import _AsyncLife
from .truncating import TruncatingDatabaseTest

__all__ = ["AsyncTruncatingDatabaseTest"]

__unittest = True


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

    @contextlib.contextmanager
    def _flushed(self) -> Iterator[None]:
        session = self.__dict__.get("session")
        if session is not None and session.in_transaction():
            raise MigrationError(
                f"{self.id()} was about to migrate while its session is in a transaction.",
                cause="the migration works on a connection of its own: it would not see the session's rows, and would "
                "wait for its locks",
                remedy="await self.session.commit() before upgrade() or downgrade()",
            )
        with super()._flushed():
            yield
        if session is not None:
            session.expire_all()

    def _begin_test(self) -> None:
        super()._begin_test()
        # run after the test's own cleanups and before _end_test()
        self.addAsyncCleanup(self._close_pools)

    async def _close_pools(self) -> None:
        state = type(self)._state()
        if state is not None and isinstance(state.isolation, TruncatingIsolation):
            await state.isolation.close_pools()
