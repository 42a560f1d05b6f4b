"""Where an engine was made, and by what name an application knows it; for the errors that ask for it to be named."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from sqlalchemy.engine import Dialect, Engine

from ..reporting import CallSite, find_call_site, is_application

_made: weakref.WeakKeyDictionary[Engine, CallSite] = weakref.WeakKeyDictionary()


_WITHOUT_PARTS = {type, ModuleType, str, int, float, bool, type(None)}
"""Most globals are of these kinds, which neither are an engine nor have one."""


def note_engines() -> None:
    """Note from now on the application's line that makes an engine; costs a few microseconds an engine."""
    original = Dialect.engine_created.__func__  # type: ignore[attr-defined]

    @functools.wraps(original)
    def engine_created(cls: type[Dialect], engine: Engine) -> None:
        where = find_call_site(2)
        if where is not None:
            _made[engine] = where
        original(cls, engine)

    setattr(Dialect, "engine_created", classmethod(engine_created))  # noqa: B010


def where_made(engine: Engine) -> CallSite | None:
    """The line that made an engine; None where that was before this library was imported."""
    return _made.get(_root(engine))


def place_of(engine: Engine) -> str | None:
    """What to write for an engine in a test class, such as ``shop.db.engine``: a global of some module's."""
    wanted = {id(_root(engine)), id(engine)}
    best: tuple[int, int, str] | None = None
    for module_name, module in list(sys.modules.items()):
        values = getattr(module, "__dict__", None)
        if not isinstance(values, dict) or not is_application(str(values.get("__file__") or f"<{module_name}>")):
            continue
        for name, value in list(values.items()):
            if name.startswith("__") or type(value) in _WITHOUT_PARTS:
                continue
            for depth, path in _paths(value, wanted):
                # a module that imports the name is no better than the one that defines it, which was loaded first
                found = (depth, len(module_name), f"{module_name}.{name}{path}")
                if best is None or found[0] < best[0]:
                    best = found
    if best is None:
        return None
    place = best[2]
    return f"lambda: {place[:-2]}" if place.endswith("()") else place


def _paths(value: Any, wanted: set[int]) -> Iterator[tuple[int, str]]:
    """Where in a value an engine is.  Nothing of the value's own is run: it may be a proxy or do who knows what."""
    if _is(value, wanted):
        yield 0, ""
        return
    kind = type(value)
    members: dict[Any, Any] = _attributes(value)
    written = ".{}"
    if str(kind.__module__).startswith("flask_sqlalchemy"):
        # it keeps the engines of each application; to ask for them needs an application context
        for engines in list((members.get("_app_engines") or {}).values()):
            for key, engine in engines.items():
                if _is(engine, wanted):
                    yield 1, ".engine()" if key is None else f".engines[{key!r}]()"
        return
    if issubclass(kind, dict):
        members, written = value, "[{!r}]"
    elif issubclass(kind, (list, tuple)):
        members, written = dict(enumerate(value[:100])), "[{!r}]"
    elif issubclass(kind, (ModuleType, Engine)):
        return
    for name, member in list(members.items())[:1000]:
        if _is(member, wanted):
            yield 1, written.format(name)
        elif name == "kw" and type(member) is dict and _is(member.get("bind"), wanted):  # a sessionmaker
            yield 1, '.kw["bind"]'


def _attributes(value: Any) -> dict[str, Any]:
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


def _is(value: Any, wanted: set[int]) -> bool:
    return id(value) in wanted or (
        type(value).__name__ == "AsyncEngine" and id(getattr(value, "sync_engine", None)) in wanted
    )


def _root(engine: Engine) -> Engine:
    """The engine that ``execution_options()`` was called on."""
    return getattr(engine, "_proxied", engine)
