"""The async variant of the committing cases."""

from __future__ import annotations

from .async_lives import AsyncCommittingClass, AsyncCommittingTest
from .asynchronous import _AsyncLife
from .lifecycle import Lifecycle
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

    _dbtestcase = Lifecycle[AsyncCommittingClass, AsyncCommittingTest](AsyncCommittingClass, AsyncCommittingTest)
