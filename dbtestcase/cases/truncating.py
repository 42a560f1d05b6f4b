"""Test cases whose commits are real, on a database of which only what was touched is put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from ..backends.recipes import Recipe
from ..isolation.rollback import Isolation
from ..isolation.truncation import CleanedRecipe, TruncatingIsolation, truncating_run
from ..settings import Settings
from . import scopes
from .migrated import Migrations

if TYPE_CHECKING:
    from ..migrations.redirect import Target

__all__ = ["TruncatingDatabaseTest"]

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

    migrations: ClassVar[Any] = None
    """Path of an ``alembic.ini`` or an Alembic ``Config``, where migrations make the tables instead of ``metadata``.

    ``upgrade`` and ``downgrade`` work on a connection of their own: what the test's own sessions hold is committed
    before.  The database is made anew from its template after the test."""

    @classmethod
    def _recipe(cls) -> Recipe:
        recipe = super()._recipe() if cls.migrations is not None else super(Migrations, cls)._recipe()
        return CleanedRecipe(recipe)

    @classmethod
    def _make_isolation(cls, settings: Settings, engines: list[Any]) -> Isolation:
        server_url, disposable = cls._server_url(settings, engines)
        database = cls._open_database(settings, server_url, disposable=disposable, transactional=False)
        url = database.url.set(drivername=server_url.drivername)
        run = scopes.enter(
            "run",
            ("committing", id(database), url.drivername),
            lambda: truncating_run(database, url, lent=cls.database == "existing"),
        )
        return TruncatingIsolation(run)

    def _migration_target(self) -> Target:
        from ..migrations.redirect import Target

        return Target(self._isolation_now().engine.url)

    @contextlib.contextmanager
    def _flushed(self) -> Iterator[None]:
        # A migration sees only what is committed, and would wait for ever for the locks of an open transaction.
        for session in self._sessions:
            session.commit()
        connection = self.__dict__.get("_connection")
        if connection is not None:
            connection.commit()
        yield
        for session in self._sessions:
            session.expire_all()

    def _end_test(self) -> None:
        if type(self)._state() is not None:
            self._close_own()  # what the test's own sessions hold is nobody's fault, and would stand in the way
        super()._end_test()
