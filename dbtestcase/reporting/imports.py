"""Imports with a condition: what is loaded when it is asked for, and what a library must have to be imported."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..errors import ConfigurationError

_MANY = 100_000  #: objects made and not freed between two looks: some tens of megabytes


@contextmanager
def collecting_less() -> Iterator[None]:
    """Look less often for garbage, and at what was made meanwhile not at all before the next look at everything.

    What an import or a build makes stays, and more than a tenth of the time would go into looking at it.
    """
    before = gc.get_threshold()
    if not gc.isenabled() or not 0 < before[0] < _MANY:  # switched off, or another thread is at it
        yield
        return
    gc.set_threshold(_MANY, *before[1:])
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else the application has its own idea of what stays
            gc.freeze()
            gc.unfreeze()  # both together make the youngest objects the oldest, without looking at any
        gc.set_threshold(*before)


def lazily(door: str, **names: str) -> Callable[[str], object]:
    """The ``__getattr__`` of a folder's door, for what not every run needs: by module of the folder, what it has."""
    modules = {name: f"{door}.{module}" for module, several in names.items() for name in several.split()}

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {door!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return load


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
