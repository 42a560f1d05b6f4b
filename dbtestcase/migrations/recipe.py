"""A test database made by migrations: what a template is built from."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from dbtestcase.backends import sources
from dbtestcase.drivers.patience import patient
from dbtestcase.migrations.fingerprint import fingerprint
from dbtestcase.migrations.layout import Layout, find_layout

if TYPE_CHECKING:
    from alembic.config import Config

    from dbtestcase.migrations.project import Project

__all__ = ["MigrationRecipe"]


class MigrationRecipe:
    """Upgrade an empty database to the head of an Alembic project, then load the reference rows.

    :param migrations: path of an ``alembic.ini`` or ``pyproject.toml``, or an Alembic ``Config``.
    :param base_data: called with a session at head; what it adds is committed.
    :param relative_to: where the search for a relative path begins: a test module's file or folder.
    :param x_arguments: what ``alembic -x`` would be given: ``["tenant=acme"]`` or ``{"tenant": "acme"}``.
    :raises ConfigurationError: there is no such project.
    :raises MissingExtra: Alembic is not installed.
    """

    def __init__(
        self,
        migrations: str | Path | Config,
        *,
        base_data: Callable[[Session], object] | None = None,
        relative_to: Path | None = None,
        x_arguments: Sequence[str] | Mapping[str, str] = (),
    ) -> None:
        self.layout: Layout = find_layout(migrations, relative_to=relative_to)
        self.base_data = base_data
        if isinstance(x_arguments, Mapping):
            x_arguments = [f"{name}={value}" for name, value in x_arguments.items()]
        self.x_arguments = tuple(x_arguments)

    def with_base_data(self, base_data: Callable[[Session], object] | None) -> MigrationRecipe:
        """The same migrations with another hook; what was read of their files is not read again."""
        other = copy.copy(self)
        other.base_data = base_data
        return other

    @property
    def label(self) -> str:
        return self.layout.label

    @cached_property
    def project(self) -> Project:
        """The scripts, which imports Alembic."""
        from dbtestcase.migrations.project import Project

        return Project(self.layout, x_arguments=self.x_arguments)

    def fingerprint(self) -> str:
        if self.base_data is None:
            return self._files
        return hashlib.sha256(f"{self._files} {sources.digest_of(self.base_data)}".encode()).hexdigest()

    @cached_property
    def _files(self) -> str:
        return fingerprint(self.layout, x_arguments=self.x_arguments)

    def build(self, url: URL) -> None:
        self.project.build(url)
        if self.base_data is None:
            return
        engine = patient(create_engine(url, poolclass=NullPool))
        try:
            with Session(engine) as session, session.begin():
                self._load(session)
        finally:
            engine.dispose()

    def create_in(self, connection: Connection) -> None:
        """The same inside the sandbox that ``connection`` belongs to, which is neither committed nor rolled back.

        :raises MigrationError: a migration raises, or does what PostgreSQL cannot do inside a transaction.
        """
        from dbtestcase.migrations.redirect import Target

        self.project.build(Target(connection.engine.url, contained=True, engine=connection.engine))
        if self.base_data is not None:
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                self._load(session)
                session.commit()

    def _load(self, session: Session) -> None:
        assert self.base_data is not None
        try:
            self.base_data(session)
            session.flush()
        except Exception as error:
            error.add_note(f"dbtestcase: raised while the base data of {self.label} were loaded")
            raise
