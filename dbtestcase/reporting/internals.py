"""What is used of a library beyond its public interface is looked for where it is imported, not where it is missed."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ConfigurationError

__all__ = ["require_internals"]


def require_internals(library: str, needed: Iterable[tuple[object, Iterable[str]]], remedy: str) -> None:
    """Make sure that a library has what is used of it.

    :param library: its name and version, as the message says it.
    :param needed: classes (or instances, for what is set when they are made) with the names that they must have.
    :param remedy: how to get a version that is known.
    :raises ConfigurationError: naming what is missing.
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
