"""The async variant of the migrated cases."""

from __future__ import annotations

from .async_lives import AsyncMigratedClass, AsyncMigratedTest
from .asynchronous import AsyncDatabaseTest
from .lifecycle import Lifecycle
from .migrated import Migrations

__all__ = ["AsyncMigratedDatabaseTest"]

__unittest = True  # keeps these frames out of the tracebacks of failing tests


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
