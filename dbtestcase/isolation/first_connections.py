"""What SQLAlchemy asks of a database at an engine's first connection, and never again: asked anew of another database.

The numbers that an extension's types have (``hstore``), the name of the default schema, the server's version and modes:
a dialect keeps them for good, where one engine serves the application's own database and those of several classes.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, Engine

from ..drivers import Endpoint, initialize

_MISSING = object()
Place = frozenset[Endpoint]
OWN: Place = frozenset()
"""The database of the engine's URL."""


@dataclass
class _Known:
    """Of which database a dialect knows something, and what that was of its own one, where it is to be put back.

    ``mixed``: what it has told psycopg, by which later connections read types, is still of another database.
    """

    engine: weakref.ref[Engine]
    place: Place = OWN
    own: dict[str, Any] | None = None
    mixed: bool = False


_known: weakref.WeakKeyDictionary[Dialect, _Known] = weakref.WeakKeyDictionary()


def note(engine: Engine) -> None:
    """An engine is led elsewhere, maybe for the first time."""
    if engine.dialect not in _known and engine.dialect.name != "sqlite":  # whose dialect asks nothing of a file
        _known[engine.dialect] = _Known(weakref.ref(engine))


def is_of_another(dialect: Dialect, place: Place) -> bool:
    """Whether what a dialect knows is of another database."""
    known = _known.get(dialect)
    return known is not None and known.place != place and _has_asked(dialect)


def connected(dialect: Any, connection: Any, record: Any, place: Place) -> None:
    """A pool has connected: let the dialect ask again, unless what it knows is of this database."""
    known = _known.get(dialect) if isinstance(dialect, Dialect) else None
    if known is None or (known.place == place and not known.mixed):
        return
    engine = known.engine()
    if engine is not None and _has_asked(dialect):
        now, before = vars(dialect), vars(dialect).copy()
        now.pop("_hstore_oids", None)  # psycopg2's own memory of them
        initialize(engine, connection, record)
        if known.place == OWN != place:
            changed = (name for name in {*before, *now} if before.get(name, _MISSING) is not now.get(name, _MISSING))
            known.own = {name: before.get(name, _MISSING) for name in changed}
    known.place, known.mixed = place, False


def give_back(dialect: Dialect) -> None:
    """An engine has its own database again, and connections from before: its dialect knows what it knew."""
    known = _known.get(dialect)
    if known is not None and known.own is not None:
        for name, value in known.own.items():
            if value is _MISSING:
                vars(dialect).pop(name, None)
            else:
                vars(dialect)[name] = value
        known.own, known.place, known.mixed = None, OWN, True


def _has_asked(dialect: Dialect) -> bool:
    return getattr(dialect, "server_version_info", None) is not None
