"""Where a class is that is kept apart by rollback, and what the classes of a module share."""

from __future__ import annotations

from enum import Enum


class ClassState(Enum):
    """At which point of its life a class is."""

    IDLE = "idle"  # no class of ours runs
    MODULE = "module"  # the outer transaction of a module is open, between its classes
    CLASS = "class"  # a class has begun, between its tests
    TEST = "test"
    LOST = "lost"  # a class has begun, and the transaction that held its rows is gone


class SharedTransaction:
    """An outer transaction that several classes share."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.wrote = False
        """Whether rows were written in it that its classes are to see."""
        self.is_ruined = False
        """Whether such rows are lost."""
