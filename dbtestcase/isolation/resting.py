"""Connections of runs that nobody uses now: given up on a server that others use as well, made again when needed.

A process that goes through classes of several schemas would otherwise hold a connection for each of them until it ends.
"""

from __future__ import annotations

import weakref
from typing import Protocol

__all__ = ["Resting", "begin_use"]


class Resting(Protocol):
    """What holds connections to one database between the classes that use it."""

    def rest(self) -> None:
        """Close the connections, if no class uses them and the server is not ours alone."""

    def wake(self) -> None:
        """Have connections again; does nothing where it has."""


_awake: weakref.WeakSet[Resting] = weakref.WeakSet()


def begin_use(run: Resting) -> None:
    """A class begins on ``run``: the others rest, and it wakes up."""
    for other in list(_awake):
        if other is not run:
            other.rest()
    run.wake()
    _awake.add(run)
