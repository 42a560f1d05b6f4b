"""What the connections beside the test databases share: one for a process and a server, and none for its forks."""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextlib import ExitStack
from typing import ClassVar, Self

from sqlalchemy import URL

from ..errors import DatabaseError


class AdminConnection(ABC):
    """A connection that makes and drops databases and holds their leases, renewed where the server has ended it."""

    _shared: ClassVar[weakref.WeakValueDictionary[Hashable, AdminConnection]] = weakref.WeakValueDictionary()
    _all: ClassVar[weakref.WeakSet[AdminConnection]] = weakref.WeakSet()

    def __init__(self, url: URL) -> None:
        self.url = url
        self.pid = os.getpid()
        self._users = 1
        self.renewals = 0
        """How often the connection was lost and made again."""

    @classmethod
    def shared(cls, url: URL) -> Self:
        """The connection of this process to the server of ``url``, for all databases that it makes there."""
        key = (cls, os.getpid(), cls._target(url))
        admin = cls._shared.get(key)
        if not isinstance(admin, cls) or not admin._users:
            admin = cls._shared[key] = cls(url)
        else:
            admin._users += 1
        return admin

    @classmethod
    def _target(cls, url: URL) -> Hashable:
        """What tells the server of one URL from that of another."""
        return url

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that connected: the connection is not to be used."""
        return self.pid != os.getpid()

    def refuse_inherited(self, name: str) -> None:
        """Refuse what a forked process does to a database of its parent's.

        :raises DatabaseError: it is one.
        """
        if self.inherited:
            raise DatabaseError(
                f"The database {name!r} belongs to process {self.pid}, not to {os.getpid()}.",
                cause="a process forked from a test used the test's database object.",
                remedy="let the forked process connect to Database.url, or make a database of its own.",
            )

    def close(self) -> None:
        """Close the connection with its last user; nothing happens in a forked process, whose parent needs it."""
        if not self.inherited and self._users:
            self._users -= 1
            if not self._users:
                self._close()

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _descriptor(self) -> int | None:
        """Of the socket; None where it is closed."""

    def _disarm(self) -> None:
        descriptor = self._descriptor()
        if descriptor is not None and descriptor >= 0:  # a socket that was closed has -1
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, descriptor, inheritable=False)
            os.close(nowhere)


def _disarm_inherited() -> None:
    # The forked process holds the same socket.  Pointing its descriptor elsewhere keeps it from writing to its parent's
    # server session, and lets that session (and its locks) end when the parent ends.
    with ExitStack() as every:  # one whose driver fails keeps none of the others connected
        every.callback(AdminConnection._all.clear)
        for admin in list(AdminConnection._all):
            every.callback(admin._disarm)


os.register_at_fork(after_in_child=_disarm_inherited)
