"""Imports with a condition: what is loaded when it is asked for, what a library must have; and its version."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable

from ..errors import ConfigurationError


def lazily(door: str, **names: str) -> Callable[[str], object]:
    """The ``__getattr__`` of a folder's door, for what not every run needs: by module of the folder, what it has."""
    modules = {name: f"{door}.{module}" for module, several in names.items() for name in several.split()}

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {door!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return load


def version_of(distribution: str, otherwise: str = "(not installed as a package)") -> str:
    """The version of what is installed under a name; ``otherwise`` for what is run from a folder."""
    from importlib.metadata import PackageNotFoundError, version  # not every run asks

    try:
        return version(distribution)
    except PackageNotFoundError:
        return otherwise


def require_internals(library: str, needed: Iterable[tuple[object, Iterable[str]]], remedy: str) -> None:
    """Make sure that a library has what is used of it.

    :param library: its name and version, as the message says it.
    :param needed: classes (or instances, for what is set when they are made) with the names that they must have.
    :param remedy: how to get a version that is known.
    """
    for owner, names in needed:
        for name in names:
            if not hasattr(owner, name):
                kind = owner if isinstance(owner, type) else type(owner)
                raise ConfigurationError(
                    f"{library} has no {kind.__name__}.{name}, which dbtestcase needs.",
                    cause=f"a version of {library.split()[0]} that dbtestcase does not know",
                    remedy=remedy,
                )
