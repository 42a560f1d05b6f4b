"""What the folder of a dialect offers: a backend that makes databases, and what a database can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import URL, Connection

from ..errors import ConfigurationError, DatabaseError
from ..settings import Settings
from .recipes import Recipe

Mode = Literal["create", "existing"]


class Database(ABC):
    """One database, made (or checked) for one process.  A context manager: leaving it drops what was made."""

    url: URL
    """The URL of the real database, with the driver of the server's URL."""
    built: bool = True
    """Whether the tables are there.  ``False`` only with ``"existing"`` where the caller makes them in its
    transaction."""
    made_template: bool = False
    """Whether a template was made for it, which a later run can use: a disposable server is to keep it."""
    crowded: bool = False
    """Whether others use the server as well, so that no connection is to be held that is not needed now."""

    @property
    def name(self) -> str:
        """The database's name on its server (for SQLite the path of its file)."""
        return self.url.database or ""

    def create_in(self, connection: Connection) -> None:
        """Make the tables, where :attr:`built` is false, in the transaction of ``connection``, which is rolled back."""
        raise ConfigurationError(
            f"The tables of {self.name!r} are there already; they are not to be made in a transaction.",
            remedy="call Database.create_in() only where Database.built is False.",
        )

    @abstractmethod
    def reclone(self) -> None:
        """Put the database back as it was made: dropped and made again, with the same name."""

    def renew_lease(self) -> bool:
        """Take the lease again where it was lost; whether the database was, too, and needs :meth:`reclone`."""
        return False

    def spare(self) -> None:  # noqa: B027  (not every kind of database has one)
        """Close, for now, the connection that holds the lease, while others to the database stand for it."""

    def keep(self, test: str, fill: Callable[[URL], None]) -> URL:
        """Make a database of the same recipe for the rows of a failing test, which stays until old or pruned; its URL.

        :param fill: is given the new database's URL and writes the rows; where it fails, nothing is kept.
        :raises DatabaseError: it cannot be made.
        """
        raise DatabaseError(
            f"Rows of failing tests are not kept on {self.url.get_backend_name()}.",
            cause="only on PostgreSQL a copy can be made while the test's transaction is open.",
            remedy="look at the statements that the failure shows, or leave DBTESTCASE_KEEP unset.",
        )

    @abstractmethod
    def close(self) -> None:
        """Drop what was made.  Does nothing the second time, and in a process that was forked from the maker."""

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a backend; see :func:`dbtestcase.backends.test_database`."""

    server_url: URL
    recipe: Recipe
    base: str
    settings: Settings
    mode: Mode
    disposable: bool
    transactional: bool
    fetch: Callable[[str], bool]


class Backend(ABC):
    """Makes, leases and drops the databases of one kind of server."""

    @abstractmethod
    def create(self, request: Request) -> Database:
        """Make a database of its own for this process."""

    @abstractmethod
    def existing(self, request: Request) -> Database:
        """Check, lease and (unless the caller does it in a transaction) rebuild the named database."""

    def answer(self, server_url: URL) -> str:
        """What answers at the URL, such as ``PostgreSQL 17.2, as the role 'ada'``."""
        return f"{server_url.get_backend_name()}"

    @abstractmethod
    def prune(self, server_url: URL, *, templates: bool, dry: bool) -> list[str]:
        """Drop what dead processes left, and the templates if asked; the names of what was, or would be, dropped."""


def create_in(recipe: Recipe, connection: Connection) -> None:
    """``recipe.create_in(connection)``, which not every recipe has."""
    make = getattr(recipe, "create_in", None)
    if make is None:
        raise ConfigurationError(
            f'{recipe.label} cannot be made inside a transaction, as database = "existing" wants it.',
            cause=f"{type(recipe).__name__} has no create_in().",
            remedy='use a Truncating class, or a role that may create databases and database = "create".',
        )
    make(connection)
