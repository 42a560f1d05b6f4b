"""What a database is made from: the one small interface between schemas, migrations and databases."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sqlalchemy import URL

__all__ = ["DerivedRecipe", "Recipe"]


class Recipe(Protocol):
    """How the tables and the reference rows of a test database come to be.

    ``schema.MetadataRecipe`` and ``migrations.MigrationRecipe`` are the two of this library.
    """

    @property
    def label(self) -> str:
        """A short name for messages, such as ``blog.models`` or ``alembic.ini``."""

    def fingerprint(self) -> str:
        """A hex digest of everything that decides what :meth:`build` makes; equal digests share a template."""

    def build(self, url: URL) -> None:
        """Make the tables and load the reference rows in the empty database at ``url``, committed for real.

        :raises SchemaError: the tables cannot be created.
        :raises MigrationError: a migration raises.
        """


@runtime_checkable
class DerivedRecipe(Recipe, Protocol):
    """A recipe that only adds something to what another one makes.

    Where databases can be cloned (PostgreSQL, SQLite), its template begins as a clone of the other's template, so that
    the tables are made once for both.  Elsewhere, and without a cache, :meth:`build` does the whole.
    """

    @property
    def inner(self) -> Recipe:
        """The recipe of everything but the addition."""

    def complete(self, url: URL) -> None:
        """Make the addition in the database at ``url``, which is as :attr:`inner` makes it, committed for real."""
