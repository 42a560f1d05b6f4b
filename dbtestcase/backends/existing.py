"""A database that exists already: whether it may be used, and that it is one, whatever a run's classes make in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..errors import UnsafeDatabase
from .interface import Database


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


#: A table of this name in the default schema is our mark in a database that existed before.
MARK_TABLE = "dbtestcase_mark"


def named_like_a_test(name: str) -> bool:
    """Whether ``test`` is a word in ``name``: ``shop_test``, ``Test2``, ``a-test``; not ``latest`` or ``contest``."""
    return re.search(r"(?<![^\W\d_])test(?![^\W\d_])", name, re.IGNORECASE) is not None


def check_safe(shown: str, name: str, *, relations: list[str], marked: bool) -> None:
    """Refuse a database that is neither empty nor marked as ours nor named like a test database.

    :param shown: the URL as it may be shown, without its password.
    :raises UnsafeDatabase: it may hold somebody's data.
    """
    if not relations or marked or named_like_a_test(name):
        return
    first = ", ".join(sorted(relations)[:3]) + (", …" if len(relations) > 3 else "")
    raise UnsafeDatabase(
        f'database = "existing" would drop everything in the database {name!r} ({shown}), which holds {first}.',
        cause="the URL names a database with real data: it is not empty, not marked as made by dbtestcase, and `test`"
        " is not a word in its name.",
        remedy="name an empty database, or one such as 'shop_test', in the URL; or leave out database = \"existing\":"
        " then databases of our own are made beside it and it is not touched.",
    )
