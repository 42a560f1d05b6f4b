"""What the lives of migrated classes and tests have besides: the project, its recipe, and databases to migrate."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import MetaData

from ..backends import MetadataRecipe, Recipe, test_database
from ..errors import ConfigurationError
from ..isolation import resolve_engines
from ..migrations import MigrationRecipe
from ..settings import Settings, read_settings
from . import scopes
from .configuration import metadata_in
from .per_class import ClassLifecycle
from .per_test import TestLifecycle

if TYPE_CHECKING:
    from ..migrations import Project, Target

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class MigratedClass(ClassLifecycle):
    """The life of a class whose database is made by Alembic."""

    def recipe(self, settings: Settings) -> Recipe:
        return self.migration_recipe().with_hooks(*self.hooks())

    def tables(self) -> tuple[list[MetaData], str]:
        return metadata_in(self.cls), self.migration_recipe().label

    def migration_recipe(self) -> MigrationRecipe:
        """What was read of the project's files, once a run."""
        migrations, x_arguments = self.cls.migrations, self.cls.x_arguments
        if migrations is None:
            raise ConfigurationError(
                f"{self.cls.__qualname__}.migrations is None.",
                cause="the attribute was reset",
                remedy='migrations = "alembic.ini", or use DatabaseTest with `metadata`',
            )
        owner = self.bases.owner("migrations") if self.bases.overrides("migrations") else self.cls
        assert owner is not None
        file = getattr(sys.modules[owner.__module__], "__file__", None)
        folder = Path(file).parent if file else None
        source = str(migrations) if isinstance(migrations, (str, Path)) else migrations
        arguments = tuple(x_arguments.items() if isinstance(x_arguments, Mapping) else x_arguments)

        def read() -> contextlib.nullcontext[MigrationRecipe]:
            return contextlib.nullcontext(MigrationRecipe(migrations, relative_to=folder, x_arguments=x_arguments))

        return scopes.of_run(("migrations", source, folder, arguments), read)


class MigratedTest(TestLifecycle):
    """The life of a test that may migrate the database."""

    of_class: MigratedClass

    @property
    def project(self) -> Project:
        """The Alembic project."""
        return self.of_class.migration_recipe().project

    @property
    def label(self) -> str:
        """How messages call the project."""
        return self.of_class.recipe(read_settings()).label

    def migration_target(self) -> Target:
        """The test database, for env.py."""
        return self.of_class.migration_target(self.isolation)

    @contextlib.contextmanager
    def flushed(self) -> Iterator[None]:
        """What the test's session holds goes to the database before, and is read again after."""
        session = vars(self.test).get("session")
        if session is not None:
            session.flush()
        yield
        if session is not None:
            session.expire_all()

    @contextlib.contextmanager
    def empty_database(self) -> Iterator[tuple[Target, Callable[[], object] | None]]:
        """An empty database, and a function that empties it again."""
        from ..migrations import Target

        cls, of_class = self.of_class.cls, self.of_class
        if cls.database == "existing":  # the role may not create databases: the test's own, which begins at head
            yield self.migration_target(), None
            return
        settings = read_settings()
        server_url, disposable = of_class.server_url(settings, resolve_engines(cls.engines))
        configured = of_class.configured_url(settings)
        base = (configured.database if configured is not None else None) or "test"
        _, initial_schema = of_class.hooks()
        empty = MetadataRecipe([], initial_schema=initial_schema, label="an empty database")
        fetch = of_class.template_source(settings, server_url, disposable=disposable)
        with test_database(
            server_url, empty, base=f"{base}_walk", settings=settings, disposable=disposable, fetch=fetch
        ) as database:
            yield Target(database.url), database.reclone
