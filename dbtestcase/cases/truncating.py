"""Test cases whose commits are real, on a database of which only what was touched is put back."""

from __future__ import annotations

from typing import ClassVar

from .attributes import AlembicConfig
from .committing import CommittingClass, CommittingTest
from .lifecycle import Lifecycle
from .migrated import Migrations

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class TruncatingDatabaseTest(Migrations):
    """A test case for what one transaction cannot show: several connections, locks, ``NOTIFY``, other processes.

    The application's engines open real connections to a test database, and commits are real.  After each test what it
    touched is put back, and only that: rows, reference data, sequences, materialized views, large objects; a database
    whose schema a test changed is made anew from its template.

    .. code-block:: python

        class QueueTest(TruncatingDatabaseTest):
            metadata = models.Base.metadata
            engines = [db.engine]

            def test_two_workers_take_different_jobs(self):
                with db.engine.begin() as first, db.engine.begin() as second:
                    self.assertNotEqual(queue.take(first), queue.take(second))
    """

    migrations: ClassVar[AlembicConfig | None] = None
    """Path of an ``alembic.ini`` or an Alembic ``Config``, where migrations make the tables instead of ``metadata``.

    ``upgrade`` and ``downgrade`` work on a connection of their own: what the test's own sessions hold is committed
    before.  The database is made anew from its template after the test."""

    _dbtestcase = Lifecycle[CommittingClass, CommittingTest](CommittingClass, CommittingTest)
