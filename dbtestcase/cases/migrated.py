"""The cases whose database is made by Alembic, and the checks of the migrations themselves."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigurationError, MigrationError
from .attributes import AlembicConfig
from .base import DatabaseTest
from .configuration import metadata_in
from .lifecycle import Lifecycle
from .migrating import MigratedClass, MigratedTest

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class Migrations(DatabaseTest):
    """What every kind of migrated case has in common: the recipe, the methods and the assertions."""

    migrations: ClassVar[AlembicConfig | None] = "alembic.ini"
    """Path of an ``alembic.ini`` or ``pyproject.toml``, or an Alembic ``Config``.  A relative path is looked for in the
    test module's folder, in those above it up to the project's, and in the current folder."""

    x_arguments: ClassVar[Sequence[str] | Mapping[str, str]] = ()
    """What ``alembic -x`` would be given: ``["tenant=acme"]`` or ``{"tenant": "acme"}``."""

    _dbtestcase = Lifecycle[MigratedClass, MigratedTest](MigratedClass, MigratedTest)

    # -- in a test

    def upgrade(self, revision: str = "head") -> None:
        """Upgrade the test database; undone with the test.

        :param revision: an identifier or the beginning of one, ``+1``, ``head``, ``heads``, ``label@head``.
        :raises MigrationError: the revision raises, or there is none of that name.
        """
        with self._dbtestcase.flushed():
            self._dbtestcase.project.upgrade(self._dbtestcase.migration_target(), revision)

    def downgrade(self, revision: str) -> None:
        """Downgrade the test database; undone with the test.

        :param revision: an identifier or the beginning of one, ``-1``, ``base``.
        :raises MigrationError: the revision raises, or there is none of that name below the current one.
        """
        with self._dbtestcase.flushed():
            self._dbtestcase.project.downgrade(self._dbtestcase.migration_target(), revision)

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
        return self._dbtestcase.project.current_revisions(self._dbtestcase.migration_target())

    # -- assertions

    def assertSingleHead(self) -> None:
        """Fail if two revisions follow the same one, unmerged.

        Branches with labels of their own, and lines without a common revision, may have a head each.
        """
        from ..migrations import stray_heads

        stray = stray_heads(self._dbtestcase.project.script(self._dbtestcase.migration_target()))
        if stray:
            identifiers = " ".join(head.revision for head in stray)
            heads = "".join(f"\n  {head.revision} ({head.doc})\n    {head.path}" for head in stray)
            self.fail(
                f"{self._dbtestcase.label} has {len(stray)} heads:{heads}\n"
                f"Join them: alembic merge -m 'merge heads' {identifiers}"
            )

    def assertModelsMatchMigrations(
        self, *, exclude: Collection[str] = (), all_in_models: Collection[str] = ()
    ) -> None:
        """Fail if the models differ from the migrated database; the message is the missing ``upgrade()``.

        Compared are tables, columns with types, server defaults and comments, primary and foreign keys, unique, CHECK
        and exclusion constraints, indexes, enums and sequences (elsewhere than on PostgreSQL: what ``alembic check``
        compares); and what listeners of ``before_create`` and ``after_create`` make: views, functions, triggers,
        extensions, policies and the like.  What only the migrations make beside tables is theirs.

        :param exclude: names to pass over, also with ``*``: ``["legacy_*", "post.rating", "ix_post_title"]``.
        :param all_in_models: kinds beside tables (``"view"``, ``"trigger"``) of which nothing is the migrations' own.
        """
        from ..migrations import compare_models

        life = self._dbtestcase
        models = None if self.metadata is None else metadata_in(type(self))
        missing = compare_models(
            life.project, life.migration_target(), metadata=models, exclude=exclude, all_in_models=all_in_models
        )
        if missing:
            body = "\n".join("    " + line for operation in missing for line in operation.splitlines())
            self.fail(
                f"The models and the database at the head of {self._dbtestcase.label} differ. A revision that makes "
                f"them the same:\n\ndef upgrade() -> None:\n{body}\n\n"
                "Write it (`alembic revision -m …`), correct the models, or name what may differ in `exclude`."
            )

    def assertStairway(self, *, exclude: Collection[str] = ()) -> None:
        """Fail if a revision, taken up, down and up again, leaves the schema other than it was.

        It is done in an empty database of its own, where every statement is committed for real (with
        ``database = "existing"``: inside the test).

        :param exclude: names of what may differ, or identifiers of revisions that are only upgraded.
        """
        from ..migrations import stairway

        with self._dbtestcase.empty_database() as (target, reset):
            problems = stairway(self._dbtestcase.project, target, exclude=exclude, reset=reset)
        if problems:
            self.fail("\n\n".join(str(problem) for problem in problems))

    def assertUpgradeEmptyAndBack(self, *, exclude: Collection[str] = ()) -> None:
        """Fail if an empty database, upgraded to head and downgraded to base, is not empty again.

        :param exclude: names of what may be left.
        """
        from ..migrations import round_trip

        with self._dbtestcase.empty_database() as (target, _):
            problems = round_trip(self._dbtestcase.project, target, exclude=exclude)
        if problems:
            self.fail("\n\n".join(str(problem) for problem in problems))


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

    all_in_models: ClassVar[Collection[str]] = ()
    """Kinds beside tables, such as ``"view"`` or ``"trigger"``, of which the models say all that there is: what only
    the migrations make of these is left over for :meth:`test_models_match_migrations`."""

    exclude_from_stairway: ClassVar[Collection[str]] = ()
    """Names, or identifiers of revisions, that the two tests of downgrades pass over."""

    if TYPE_CHECKING:
        assertSingleHead: Callable[[], None]
        assertModelsMatchMigrations: Callable[..., None]
        assertStairway: Callable[..., None]
        assertUpgradeEmptyAndBack: Callable[..., None]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, unittest.TestCase) and not issubclass(cls, Migrations):
            raise ConfigurationError(
                f"{cls.__module__}.{cls.__qualname__} has MigrationChecks among its bases, and no Migrated class.",
                cause="a class whose tables are made from `metadata`, or which has no database",
                remedy=f"class {cls.__name__}(MigrationChecks, MigratedDatabaseTest): …",
            )

    def test_single_head(self) -> None:
        """No two revisions follow the same one."""
        self.assertSingleHead()

    def test_models_match_migrations(self) -> None:
        """The models are what the migrations make."""
        self.assertModelsMatchMigrations(exclude=self.exclude_from_comparison, all_in_models=self.all_in_models)

    def test_stairway(self) -> None:
        """Each revision can be taken up, down and up again."""
        self.assertStairway(exclude=self.exclude_from_stairway)

    def test_upgrade_empty_and_back(self) -> None:
        """From an empty database to head and back to base."""
        self.assertUpgradeEmptyAndBack(exclude=self.exclude_from_stairway)
