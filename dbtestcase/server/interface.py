"""A disposable server: found, initialised once, copied, started, watched, thrown away.

:func:`disposable_server` is the door.  Each kind of server is a module with a function ``start``, found through
:func:`register`::

    with disposable_server(read_settings()) as server:
        engine = sqlalchemy.create_engine(server.url)

What happens in a warm start of PostgreSQL: the programs are found (:mod:`.programs`), a folder in RAM is made and
locked (:mod:`.folders`), the cached cluster is copied into it (:mod:`.cache`), and a small process of its own starts
the server and watches over it and over its owner (:mod:`.watcher`, :mod:`.process`): when the owner ends in
whatever way, the server is stopped and its folder removed.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from sqlalchemy import URL

from dbtestcase.errors import ConfigurationError, ServerError
from dbtestcase.settings import Settings

__all__ = ["Server", "disposable_server", "register"]


class Server(ABC):
    """A running server that belongs to this process.  A context manager: leaving it stops the server.

    .. attribute:: url

       Of the maintenance database, as a superuser, over a Unix socket.

    .. attribute:: version

       Such as ``18.6``.

    .. attribute:: data

       The data folder.  It is gone when the server has stopped.
    """

    url: URL
    version: str
    data: Path

    @abstractmethod
    def persist(self) -> None:
        """Keep the templates that the server holds now for the next runs; call it when one has been made.

        A template of PostgreSQL is a database that accepts no connections; everything else is left out.  Cheap where
        the cache knows them all already; otherwise the server's files are copied now (some 50 ms) and the rest goes on
        in the background.  MariaDB's files are copied when the server has been stopped.  Without a cache it does
        nothing.
        """

    def keep(self) -> None:
        """Let the server go on when this process has ended, for some hours, because something on it was kept.

        ``python -m dbtestcase prune`` ends it sooner.

        :raises ServerError: this kind of server cannot.
        """
        raise ServerError(
            "Only a disposable PostgreSQL can outlive its run.", cause=f"{type(self).__name__} has no way to stay."
        )

    def wait(self) -> str:
        """Wait until the server ends of itself; what it said.

        :raises ServerError: this kind of server cannot.
        """
        raise ServerError(
            "This kind of server cannot be waited for.", cause=f"{type(self).__name__} has no way to be watched."
        )

    @abstractmethod
    def close(self) -> None:
        """Stop the server and remove its folder.  Does nothing the second time, and in a forked process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_MODULES = {
    "postgresql": "dbtestcase.server.postgresql",
    "mariadb": "dbtestcase.server.mariadb",
    "mysql": "dbtestcase.server.mysql",
}


def register(kind: str, module: str) -> None:
    """Name the module that starts servers of a kind.

    :param kind: a dialect's name, such as ``mariadb``.
    :param module: the full name of a module with a function ``start(settings: Settings) -> Server``.
    """
    _MODULES[kind] = module


def disposable_server(settings: Settings, *, kind: str = "postgresql") -> Server:
    """Start a server of this process's own, as a context manager.

    :raises ConfigurationError: nothing can start a server of this kind.
    :raises ProgramsNotFound: there are no programs for it on this machine.
    :raises ServerStartFailed: the programs are there, but it does not start.
    :raises ServerError: its folder or its cache cannot be made or written.
    """
    if kind not in _MODULES:
        raise ConfigurationError(
            f"A disposable server of the kind {kind!r} cannot be started.",
            cause=f"the kinds known are {', '.join(sorted(_MODULES))}.",
            remedy="set DBTESTCASE_URL (or the class attribute url) to a server that is there.",
        )
    server: Server = importlib.import_module(_MODULES[kind]).start(settings)
    return server
