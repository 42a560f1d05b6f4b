"""What a database is made from: the one small interface between schemas, migrations and databases."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, runtime_checkable

from sqlalchemy import URL


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

        :raises SchemaError: the tables cannot be created (:exc:`MigrationError`: a migration raises).
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


@runtime_checkable
class SlowlyPreparedRecipe(Recipe, Protocol):
    """A recipe with something to do before it needs a database, such as imports."""

    def prepare(self) -> None:
        """Do it; called in a thread of its own while the database is made."""


def kind_of(recipe: Recipe) -> str:
    """A digest of what stays when a recipe changes, beside its label: its project, its hooks, what it adds."""
    if isinstance(recipe, DerivedRecipe):
        return f"{kind_of(recipe.inner)} {type(recipe).__name__}"
    parts = [str(getattr(recipe, "home", ""))]
    for hook in (getattr(recipe, "initial_schema", None), getattr(recipe, "base_data", None)):
        for part in (getattr(hook, "__self__", None), hook):
            parts += [str(getattr(part, name, "")) for name in ("__module__", "__qualname__")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@contextmanager
def preparing(recipe: Recipe) -> Iterator[None]:
    """Let a recipe prepare itself while the body waits for the server."""
    if not isinstance(recipe, SlowlyPreparedRecipe):
        yield
        return

    def prepare() -> None:
        with suppress(Exception):  # raised again by build(), where somebody hears of it
            recipe.prepare()

    thread = threading.Thread(target=prepare, name="dbtestcase preparations", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()
