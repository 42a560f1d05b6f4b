"""What the lives of committing classes and tests do otherwise: real connections, and migrations beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from ..backends import Recipe
from ..isolation import CleanedRecipe, Isolation, TruncatingIsolation, open_truncating_run
from ..settings import Settings
from . import scopes
from .migrating import MigratedClass, MigratedTest
from .per_class import ClassLifecycle

if TYPE_CHECKING:
    from ..migrations import Target

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class CommittingClass(MigratedClass):
    """The life of a class whose commits are real."""

    def recipe(self, settings: Settings) -> Recipe:
        migrates = self.cls.migrations is not None
        return CleanedRecipe(super().recipe(settings) if migrates else ClassLifecycle.recipe(self, settings))

    def tables(self) -> tuple[list[MetaData], str]:
        return super().tables() if self.cls.migrations is not None else ClassLifecycle.tables(self)

    @property
    def resets_ids(self) -> bool:
        return True

    def make_isolation(self, engines: list[Any]) -> Isolation:
        run, aliases = self.run_of(
            engines,
            lambda database, url, _: scopes.of_run(
                ("committing", id(database), url.drivername),
                lambda: open_truncating_run(database, url, existing=self.cls.database == "existing"),
            ),
            transactional=False,
        )
        return TruncatingIsolation(run, aliases=aliases)

    def migration_target(self, isolation: Isolation) -> Target:
        from ..migrations import Target

        return Target(isolation.engine.url)


class CommittingTest(MigratedTest):
    """The life of a test whose commits are real."""

    @contextlib.contextmanager
    def flushed(self) -> Iterator[None]:
        # A migration sees only what is committed, and would wait for ever for the locks of an open transaction.
        for session in self.sessions:
            session.commit()
        connection = self.given("connection")
        if connection is not None:
            connection.commit()
        yield
        for session in self.sessions:
            session.expire_all()

    @contextlib.contextmanager
    def counting(self) -> Iterator[Session]:
        with super().counting() as session:
            is_idle = isinstance(session, Session) and not session.in_transaction()  # a team may give another
            yield session
            if is_idle and (transaction := session.get_transaction()) is not None:
                transaction.close()  # it would keep a lock on SQLite; unlike a rollback, this expires nothing

    def end(self) -> None:
        try:
            if (self._given or self.sessions) and self.of_class.run is not None:  # else they are the parent process's
                with self.closing():
                    self.close_own()  # what they hold is nobody's fault, and would stand in the way
        finally:
            super().end()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Whatever closes sessions of the test's own; what fails there since the disk was full has been told."""
        run = self.of_class.run
        was_full = run is not None and run.isolation.disk_was_full
        try:
            yield
        except Exception:
            if not (was_full and self.failed):  # a server that had no room for its log has ended meanwhile
                raise
