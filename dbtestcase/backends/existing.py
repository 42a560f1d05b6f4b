"""A database that exists already is one database, whatever the classes of a run want to make in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from dbtestcase.backends.interface import Database

__all__ = ["ExistingUse"]


class ExistingUse:
    """The use that one run makes of one existing database.  A context manager: leaving it ends the last use."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._database: Database | None = None
        self._users: dict[Hashable, Any] = {}
        self._stack = ExitStack()

    def enter(self, key: Hashable, factory: Callable[[], AbstractContextManager[Any]]) -> Any:
        """Something that works on the database and ends with its use; made once for each key."""
        if key not in self._users:
            self._users[key] = self._stack.enter_context(factory())
        return self._users[key]

    def take(self, key: Hashable, make: Callable[[], Database]) -> Database:
        """The database as ``key`` describes it; the use before it is ended first, because it holds the lock."""
        if self._database is None or key != self._key:
            self.close()
            self._database, self._key = make(), key
        return self._database

    def close(self) -> None:
        """End the use: the database is left empty."""
        database, self._database = self._database, None
        stack, self._stack, self._users = self._stack, ExitStack(), {}
        try:
            stack.close()
        finally:
            if database is not None:
                database.close()

    def __enter__(self) -> ExistingUse:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
