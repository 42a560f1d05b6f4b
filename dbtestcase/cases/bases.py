"""The bases of a test class, told apart: those of this library, the user's, and those of others."""

from __future__ import annotations

import sys
import sysconfig
import unittest
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

HOOKS = ("load_initial_schema", "load_base_data", "setUpTestData")
"""Class methods that the user may write."""

_ROUTINES = (FunctionType, classmethod, staticmethod, property, type)


class Bases:
    """The bases of a class, itself among them, in their order.

    :param cls: the test class.
    """

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.all = cls.__mro__
        above = _sorted(self.all[1:])
        ours, users = ((cls,), ()) if is_ours(cls) else ((), (cls,))
        self.ours: tuple[type, ...] = ours + above.ours
        self.foreign = above.foreign
        """Python's, another framework's or another distribution's."""
        self.users: tuple[type, ...] = users + above.users
        self.others: tuple[type, ...] = users + above.others
        """All but ours and Python's."""
        self.case = next((base for base in self.ours if issubclass(base, unittest.TestCase)), cls)
        """The first of our test cases."""
        self.settings = _settings_among(self.ours)
        """The public attributes that may be set on the class."""

    @property
    def on_ours(self) -> set[str]:
        """The names of ours and of what is built on them."""
        return {base.__name__ for base in self.all if _is_on_ours(base)}

    def owner(self, name: str) -> type | None:
        """The class that defines an attribute."""
        for base in self.all:  # asked a few times for every class
            if name in base.__dict__:
                return base
        return None

    def written(self, name: str) -> Any:
        """What is written for an attribute: the descriptor itself; None for one that there is not."""
        owner = self.owner(name)
        return None if owner is None else owner.__dict__[name]

    def overrides(self, name: str) -> bool:
        """Whether the user has written an attribute of ours."""
        owner = self.owner(name)
        return owner is not None and owner not in self.ours

    def own(self, *names: str) -> list[Any]:
        """The attributes of these names, as the class has them; None for each that the user has not written."""
        return [getattr(self.cls, name) if self.overrides(name) else None for name in names]

    def described(self, names: Iterable[str]) -> set[str]:
        """Those of the names that stand for properties, methods or the like."""
        return {name for name in names if hasattr(self.written(name), "__get__")}


_OURS = __name__.partition(".")[0]


def is_ours(cls: type) -> bool:
    """Whether a class is one of this library's."""
    return cls.__module__.partition(".")[0] == _OURS


def _is_on_ours(base: type) -> bool:
    return any(map(is_ours, base.__mro__))


class _Sorted(NamedTuple):
    ours: tuple[type, ...]
    foreign: tuple[type, ...]
    users: tuple[type, ...]
    others: tuple[type, ...]


@lru_cache(maxsize=64)
def _sorted(bases: tuple[type, ...]) -> _Sorted:
    """The bases of a class, without itself: most classes of a suite have the same."""
    ours = tuple(filter(is_ours, bases))
    foreign = tuple(base for base in bases if not _is_on_ours(base) and _is_foreign(base))
    users = tuple(base for base in bases if base not in ours and base not in foreign)
    python = ("builtins", "unittest", "typing", "abc")
    others = tuple(each for each in bases if each not in ours and each.__module__.partition(".")[0] not in python)
    return _Sorted(ours, foreign, users, others)


@lru_cache(maxsize=64)
def _settings_among(ours: tuple[type, ...]) -> frozenset[str]:
    return frozenset(
        name
        for base in ours
        for name, value in vars(base).items()
        if not name.startswith("_") and not isinstance(value, _ROUTINES) and not hasattr(value, "__set_name__")
    )


def _is_foreign(base: type) -> bool:
    return issubclass(base, unittest.TestCase) or _is_installed(base.__module__)


@lru_cache(maxsize=512)
def _is_installed(module: str) -> bool:
    """Whether a module is Python's own or lies among the installed distributions."""
    if module == "builtins" or module.partition(".")[0] in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return False
    paths = sysconfig.get_paths()
    return any(Path(file).is_relative_to(paths[place]) for place in ("purelib", "platlib"))


@lru_cache(maxsize=512)  # pytest's plugin asks for every test
def source_files_of(cls: Any) -> frozenset[str]:
    """Where a class and its bases outside of this library are written."""
    modules = {base.__module__ for base in cls.__mro__}
    own = [name for name in modules if name.partition(".")[0] not in ("dbtestcase", "unittest", "builtins")]
    files = [getattr(sys.modules.get(name), "__file__", None) for name in own]
    return frozenset(filter(None, files))
