"""What puts a database back after a committing test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from sqlalchemy import URL

from .cleaning_report import NOBODY, Look, Opened, Report, Session, Standing


class Reclonable(Protocol):
    """The part of a test database that a cleaner needs."""

    def reclone(self) -> None:
        """Put the whole database back as it was made, under the same name."""


class Cleaner(ABC):
    """Puts one database back, as often as asked.  A context manager: leaving it closes its connection."""

    changes_sessions: bool = False
    """Whether code in the database itself, such as a trigger, may change the session that runs it."""

    shrinks: bool = False
    """Whether a cleaning gives back the room that rows took which were rolled back or deleted."""

    @abstractmethod
    def clean(self, standing: Standing = NOBODY, look: Look = Look.TOUCHED) -> Report:
        """Put back what was changed since the last cleaning; first end the connections that stand in its way.

        :raises CleaningError: not everything could be put back.
        """

    @abstractmethod
    def keep(self) -> None:
        """From now on what there is at this moment is put back: the rows of a class, on top of the reference rows.

        :raises CleaningError: the schema itself was changed.
        """

    @abstractmethod
    def forget(self) -> None:
        """Undo :meth:`keep`: the next cleaning puts back what :func:`install` found."""

    @abstractmethod
    def others(self) -> list[Session]:
        """The other connections to the database."""

    def left(self, opened: Mapping[int, Opened]) -> list[Session]:
        """Those of these connections of ours that can be rolled back on this side; :meth:`clean` ends the others."""
        return []

    def server_changes(self, named_in: str | None) -> tuple[str, ...]:
        """What has changed on the server outside of the database since :meth:`accept_server`, in words.

        :param named_in: the statements that were seen, where others use the server as well: only what these name is
            told.  ``None``: nobody else does; what can be is made as it was, and only what cannot be is told.
        """
        return ()

    def accept_server(self) -> None:  # noqa: B027 - a file has no server
        """What is on the server at this moment is nobody's fault."""

    @abstractmethod
    def close(self) -> None:
        """Close the cleaner's own connection.  Does nothing the second time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Cleaning(Protocol):
    """What the module ``cleaning`` of a dialect's folder offers as ``BACKEND``."""

    def install(self, url: URL) -> None: ...

    def uninstall(self, url: URL) -> None: ...

    def connect(self, url: URL, database: Reclonable | None) -> Cleaner: ...
