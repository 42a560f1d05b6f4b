"""The cases whose database is made by Alembic, and the checks of the migrations themselves."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import URL

from ..backends import test_database
from ..backends.recipes import Recipe
from ..errors import ConfigurationError, MigrationError
from ..isolation.engines import resolve_engines
from ..migrations import MigrationRecipe
from ..settings import read_settings
from . import scopes
from .base import DatabaseTest

if TYPE_CHECKING:
    from ..migrations.project import Project
    from ..migrations.redirect import Target

__all__ = ["MigratedDatabaseTest", "MigrationChecks", "Migrations"]

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class Migrations(DatabaseTest):
    """What every kind of migrated case has in common: the recipe, the methods and the assertions."""

    migrations: ClassVar[Any] = "alembic.ini"
    """Path of an ``alembic.ini`` or ``pyproject.toml``, or an Alembic ``Config``.  A relative path is looked for in the
    test module's folder, in those above it up to the project's, and in the current folder."""

    x_arguments: ClassVar[Sequence[str] | Mapping[str, str]] = ()
    """What ``alembic -x`` would be given: ``["tenant=acme"]`` or ``{"tenant": "acme"}``."""

    # -- in a test

    def upgrade(self, revision: str = "head") -> None:
        """Upgrade the test database; undone with the test.

        :param revision: an identifier or the beginning of one, ``+1``, ``head``, ``heads``, ``label@head``.
        :raises MigrationError: the revision raises, or there is none of that name.
        """
        with self._flushed():
            self._project().upgrade(self._migration_target(), revision)

    def downgrade(self, revision: str) -> None:
        """Downgrade the test database; undone with the test.

        :param revision: an identifier or the beginning of one, ``-1``, ``base``.
        :raises MigrationError: the revision raises, or there is none of that name below the current one.
        """
        with self._flushed():
            self._project().downgrade(self._migration_target(), revision)

    def current_revision(self) -> str | None:
        """The revision that the test database is at; ``None`` at base.

        :raises MigrationError: it is at several (see :meth:`current_revisions`).
        """
        revisions = self.current_revisions()
        if len(revisions) > 1:
            raise MigrationError(
                f"The database is at {len(revisions)} revisions: {', '.join(revisions)}.",
                cause="The project has several lines of revisions, or one is between a branch and its merge.",
                remedy="Ask for current_revisions(), which returns all of them.",
            )
        return revisions[0] if revisions else None

    def current_revisions(self) -> tuple[str, ...]:
        """The revisions that the test database is at, one for each line."""
        return self._project().current_revisions(self._migration_target())

    # -- assertions

    def assertSingleHead(self) -> None:
        """Fail if two revisions follow the same one, unmerged.

        Branches with labels of their own, and lines without a common revision, may have a head each.
        """
        from ..migrations.heads import stray_heads

        stray = stray_heads(self._project().script)
        if stray:
            identifiers = " ".join(head.revision for head in stray)
            heads = "".join(f"\n  {head.revision} ({head.doc})\n    {head.path}" for head in stray)
            self.fail(
                f"{self._recipe().label} has {len(stray)} heads:{heads}\n"
                f"Join them: alembic merge -m 'merge heads' {identifiers}"
            )

    def assertModelsMatchMigrations(self, *, exclude: Collection[str] = ()) -> None:
        """Fail if the models differ from the migrated database; the message is the missing ``upgrade()``.

        Compared are tables, columns with types, server defaults and comments, primary and foreign keys, unique, CHECK
        and exclusion constraints, indexes, enums and sequences (elsewhere than on PostgreSQL: what ``alembic check``
        compares).

        :param exclude: names to pass over, also with ``*``: ``["legacy_*", "post.rating", "ix_post_title"]``.
        """
        from ..migrations.compare import compare

        missing = compare(self._project(), self._migration_target(), metadata=self.metadata, exclude=exclude)
        if missing:
            body = "\n".join("    " + line for operation in missing for line in operation.splitlines())
            self.fail(
                f"The models and the database at the head of {self._recipe().label} differ. A revision that makes "
                f"them the same:\n\ndef upgrade() -> None:\n{body}\n\n"
                "Write it (`alembic revision -m …`), correct the models, or name what may differ in `exclude`."
            )

    def assertStairway(self, *, exclude: Collection[str] = ()) -> None:
        """Fail if a revision, taken up, down and up again, leaves the schema other than it was.

        It is done in an empty database of its own, where every statement is committed for real (with
        ``database = "existing"``: inside the test).

        :param exclude: names of what may differ, or identifiers of revisions that are only upgraded.
        """
        from ..migrations.walk import stairway

        with self._empty_database() as (target, reset):
            problems = stairway(self._project(), target, exclude=exclude, reset=reset)
        if problems:
            self.fail("\n\n".join(str(problem) for problem in problems))

    def assertUpgradeEmptyAndBack(self, *, exclude: Collection[str] = ()) -> None:
        """Fail if an empty database, upgraded to head and downgraded to base, is not empty again.

        :param exclude: names of what may be left.
        """
        from ..migrations.walk import round_trip

        with self._empty_database() as (target, _):
            problems = round_trip(self._project(), target, exclude=exclude)
        if problems:
            self.fail("\n\n".join(str(problem) for problem in problems))

    # -- inside

    @classmethod
    def _recipe(cls) -> Recipe:
        return cls._migration_recipe().with_base_data(cls._base_data())

    @classmethod
    def _migration_recipe(cls) -> MigrationRecipe:
        """What was read of the project's files, once a run."""
        migrations, x_arguments = cls.migrations, cls.x_arguments
        if migrations is None:
            raise ConfigurationError(
                f"{cls.__qualname__}.migrations is None.",
                cause="the attribute was reset",
                remedy='migrations = "alembic.ini", or use DatabaseTest with `metadata`',
            )
        owner = next(base for base in cls.__mro__ if "migrations" in vars(base))
        module = sys.modules[(cls if owner is Migrations else owner).__module__]
        file = getattr(module, "__file__", None)
        folder = Path(file).parent if file else None
        source = str(migrations) if isinstance(migrations, (str, Path)) else migrations
        arguments = tuple(x_arguments.items() if isinstance(x_arguments, Mapping) else x_arguments)

        @contextlib.contextmanager
        def read() -> Iterator[MigrationRecipe]:
            yield MigrationRecipe(migrations, relative_to=folder, x_arguments=x_arguments)

        return scopes.enter("run", ("migrations", source, folder, arguments), read)

    @classmethod
    def _project(cls) -> Project:
        return cls._migration_recipe().project

    def _migration_target(self) -> Target:
        """The test database, for env.py: seen through the sandbox."""
        from ..migrations.redirect import Target

        isolation = self._isolation_now()
        return Target(isolation.engine.url, contained=True, engine=isolation.own_engine)

    @contextlib.contextmanager
    def _flushed(self) -> Iterator[None]:
        """What the test's session holds goes to the database before, and is read again after."""
        session = self.__dict__.get("session")
        if session is not None:
            session.flush()
        yield
        if session is not None:
            session.expire_all()

    @contextlib.contextmanager
    def _empty_database(self) -> Iterator[tuple[Target, Callable[[], object] | None]]:
        """An empty database, and a function that empties it again."""
        from ..migrations.redirect import Target

        if self.database == "existing":  # the role may not create databases: the test's own, which begins at head
            yield self._migration_target(), None
            return
        settings = read_settings()
        server_url, disposable = self._server_url(settings, resolve_engines(self.engines))
        configured = self._configured_url(settings)
        base = (configured.database if configured is not None else None) or "test"
        with test_database(
            server_url, _Empty(), base=f"{base}_walk", settings=settings, disposable=disposable
        ) as database:
            yield Target(database.url), database.reclone


class MigratedDatabaseTest(Migrations):
    """A :class:`DatabaseTest` whose database is made by ``alembic upgrade head``, once, and kept as a template.

    .. code-block:: python

        class RenameTest(MigratedDatabaseTest):
            migrations = "alembic.ini"

            def test_names_are_joined(self):
                self.downgrade("0008")
                self.session.execute(text("INSERT INTO customer (first_name, last_name) VALUES ('Ada', 'Lovelace')"))
                self.upgrade("0009")
                self.assertEqual(self.session.scalar(text("SELECT full_name FROM customer")), "Ada Lovelace")
    """


class MigrationChecks:
    """Mixin for a Migrated class: the tests that every project with migrations should have.

    .. code-block:: python

        class MigrationsTest(MigrationChecks, MigratedDatabaseTest):
            migrations = "alembic.ini"
    """

    exclude_from_comparison: ClassVar[Collection[str]] = ()
    """Names that :meth:`test_models_match_migrations` passes over."""

    exclude_from_stairway: ClassVar[Collection[str]] = ()
    """Names, or identifiers of revisions, that the two tests of downgrades pass over."""

    if TYPE_CHECKING:
        assertSingleHead: Callable[[], None]
        assertModelsMatchMigrations: Callable[..., None]
        assertStairway: Callable[..., None]
        assertUpgradeEmptyAndBack: Callable[..., None]

    def test_single_head(self) -> None:
        """No two revisions follow the same one."""
        self.assertSingleHead()

    def test_models_match_migrations(self) -> None:
        """The models are what the migrations make."""
        self.assertModelsMatchMigrations(exclude=self.exclude_from_comparison)

    def test_stairway(self) -> None:
        """Each revision can be taken up, down and up again."""
        self.assertStairway(exclude=self.exclude_from_stairway)

    def test_upgrade_empty_and_back(self) -> None:
        """From an empty database to head and back to base."""
        self.assertUpgradeEmptyAndBack(exclude=self.exclude_from_stairway)


class _Empty:
    """The recipe of an empty database."""

    label = "an empty database"

    def fingerprint(self) -> str:
        return "empty"

    def build(self, url: URL) -> None:
        """Nothing to do."""
