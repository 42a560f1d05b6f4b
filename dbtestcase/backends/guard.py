"""The guard: which existing databases may be changed.  Decisions only, no I/O."""

from __future__ import annotations

import re

from dbtestcase.errors import UnsafeDatabase

__all__ = ["MARK_TABLE", "check_safe", "named_like_a_test"]

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
