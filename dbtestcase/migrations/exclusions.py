"""Names of what a check is to pass over."""

from __future__ import annotations

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase

from dbtestcase.migrations.schema_state import Item

__all__ = ["excluder"]


def excluder(patterns: Collection[str]) -> Callable[[Item], bool]:
    """A function that says whether an item is excluded.

    A pattern (``*`` and ``?`` as in file names) may be the name of a table or of anything else that stands by itself
    (``legacy_*``, ``order_status``), with everything that belongs to it; the name of a part (``ix_post_title``,
    ``post.rating``); each with or without its schema (``audit.event``, ``audit.*``).
    """
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)

    def excluded(item: Item) -> bool:
        names = {item.name, f"{item.schema}.{item.name}"}
        if item.name.endswith(")"):  # a routine, with its arguments
            name = item.name.partition("(")[0]
            names |= {name, f"{item.schema}.{name}"}
        if item.part:
            names |= {item.part, f"{item.name}.{item.part}", f"{item.schema}.{item.name}.{item.part}"}
        return any(fnmatchcase(name, pattern) for name in names for pattern in wanted)

    return excluded
