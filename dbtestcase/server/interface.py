"""What a disposable server is to everybody else, whatever its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from sqlalchemy import URL

from ..errors import ServerError


class Server(ABC):
    """A running server that belongs to this process.  A context manager: leaving it stops the server."""

    url: URL
    """Of the maintenance database, as a superuser, over a Unix socket."""
    version: str
    """Such as ``18.6``."""
    data: Path
    """The data folder.  It is gone when the server has stopped."""

    @abstractmethod
    def persist(self) -> None:
        """Keep the templates that the server holds now for the next runs; call it when one has been made.

        A template of PostgreSQL is a database that accepts no connections; everything else is left out.  Cheap where
        the cache knows them all already; otherwise the server's files are copied now (some 50 ms) and the rest goes on
        in the background.  MariaDB's files are copied when the server has been stopped.  Without a cache it does
        nothing.
        """

    def fetch(self, template: str) -> bool:
        """Have the files of a template there, before a database is made from it.

        PostgreSQL leaves most of those that it knows in the cache until they are asked for; its own come right after
        its start.

        :param template: empty for a database that is made from none.

        :returns: ``False`` where they cannot be had any more: its database is to be dropped, and made again.
        :raises ServerError: there is no room for them.
        """
        return True

    def fetch_all(self) -> None:  # noqa: B027  (a kind of server that is copied whole has nothing to fetch)
        """Have the files of every template there, before others use the server; one that cannot be had is dropped."""

    def keep(self) -> None:
        """Let the server go on when this process has ended, for some hours, because something on it was kept.

        ``python -m dbtestcase prune`` ends it sooner.

        :raises ServerError: this kind of server cannot.
        """
        raise ServerError(
            "Only a disposable PostgreSQL can outlive its run.", cause=f"{type(self).__name__} has no way to stay."
        )

    def wait(self) -> str:
        """Wait until the server ends of itself; what it said."""
        raise ServerError(
            "This kind of server cannot be waited for.", cause=f"{type(self).__name__} has no way to be watched."
        )

    @abstractmethod
    def close(self, *, wait: bool = True) -> None:
        """Stop the server and remove its folder; does nothing the second time, and in a forked process.

        :param wait: whether to wait until that is done; a process that ends need not.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
