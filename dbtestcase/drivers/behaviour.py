"""What the application can change of a driver's connection on the client's side: how it begins, reads and writes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

_ATTRIBUTES = (
    *("autocommit", "isolation_level", "read_only", "readonly", "deferrable", "prepare_threshold", "prepared_max"),
    *("row_factory", "cursor_factory", "server_cursor_factory", "cursorclass"),
    *("get_autocommit", "string_types", "binary_types", "encoders", "decoders", "converter"),
)
_METHODS = ("register_in_adapter", "register_out_adapter", "add_notice_handler", "add_notify_handler")
_LEVELS = {"psycopg": 2, "psycopg2": 1}
"""*Read committed*: SQLAlchemy puts back as this what was not set before, and as False what it has made true."""
_known: dict[type, tuple[list[str], int | None]] = {}


def behaviour_of(connection: Any) -> object:
    """What can be compared of it, as it is now."""
    cls = type(connection)
    try:
        if cls not in _known:
            packages = (base.__module__.partition(".")[0] for base in cls.__mro__)  # it may be a subclass of anybody's
            level = next((_LEVELS[package] for package in packages if package in _LEVELS), None)
            _known[cls] = [name for name in _ATTRIBUTES if hasattr(connection, name)], level
        names, level = _known[cls]
        found = {name: getattr(connection, name) for name in names}
    except Exception:  # psycopg2 of one that is closed
        return None
    for name, value in found.items():
        if isinstance(value, dict):
            found[name] = value.copy()
        elif value is False or (name == "isolation_level" and value == level):
            found[name] = None
    return found, connection.get_autocommit() if "get_autocommit" in found else None


def watch_behaviour(connection: Any, changed: Callable[[], object]) -> None:
    """Call ``changed`` when something is registered with it that cannot be compared."""
    for name in _METHODS:
        _watch(connection, name, changed)
    for name in ("register_loader", "register_dumper"):
        _watch(getattr(connection, "adapters", None), name, changed)


def _watch(owner: Any, name: str, changed: Callable[[], object]) -> None:
    method = getattr(type(owner), name, None)
    if method is None:
        return
    reference = weakref.ref(owner)  # a connection that nobody has is to end at once

    def watched(*args: Any, **kwargs: Any) -> Any:
        changed()
        return method(reference(), *args, **kwargs)

    setattr(owner, name, watched)
