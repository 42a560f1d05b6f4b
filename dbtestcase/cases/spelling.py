"""Which known name a name is a slip of."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

__all__ = ["distance", "nearest"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that ``name`` is a slip of; ``None`` for a name of its own.

    Case and underscores do not count.  A slip begins with the right letter, and is one edit away, or two from a name of
    eight letters and more; with the same letters in another order, it may begin with any.
    """
    return _nearest(name, tuple(sorted(known)))


@cache
def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    flat = _flat(name)
    for meant in known:
        goal = _flat(meant)
        if sorted(flat) == sorted(goal):
            return meant
        if len(goal) > 3 and flat[:1] == goal[:1] and distance(flat, goal) <= (2 if len(goal) >= 8 else 1):
            return meant
    return None


def distance(one: str, other: str) -> int:
    """How many letters are to be put in, taken out, replaced, or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        two_before, before, row = before, row, [i]
        for j, goal in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != goal))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == goal:
                cost = min(cost, two_before[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _flat(name: str) -> str:
    return name.replace("_", "").casefold()
