"""What SQLAlchemy asks of a database at an engine's first connection, and never again: asked anew of another database.

The numbers that an extension's types have (``hstore``), the name of the default schema, the server's version and modes:
a dialect keeps them for good, where one engine serves the application's own database and those of several classes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Dialect, Engine, Pool, event

from .endpoints import Endpoint
from .sqlalchemy_internals import adapters_of, creator_of, dialect_of, initialize, pool_of_record

_HSTORE = "_has_native_hstore"
Place = frozenset[Endpoint]
OWN: Place = frozenset()
"""The database of the engine's URL."""


@dataclass
class _Known:
    """What a dialect knows.

    ``place``: the database that this is of.  ``of_others``: what it knew of those before.  ``asked``: the names of what
    it asks for.  ``told``: the database whose ``hstore`` psycopg's later connections read and write.
    """

    engine: weakref.ref[Engine]
    place: Place = OWN
    of_others: dict[Place, dict[str, Any]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    told: Place | None = None


_known: weakref.WeakKeyDictionary[Dialect, _Known] = weakref.WeakKeyDictionary()
_places: weakref.WeakKeyDictionary[Callable[..., Any], Place] = weakref.WeakKeyDictionary()


def leads_to(engine: Engine, creator: Callable[..., Any], place: Place) -> None:
    """A pool that has this creator connects for an engine to another database than its own.

    :param place: that database, by all its names.
    """
    if engine.dialect.name == "sqlite":  # whose dialect asks nothing of a file
        return
    if not event.contains(Pool, "connect", _connected):
        event.listen(Pool, "connect", _connected)
    _places[creator] = place
    if engine.dialect not in _known:
        _known[engine.dialect] = _Known(weakref.ref(engine))


def switch(dialect: Dialect, place: Place) -> bool:
    """Let a dialect know again what it knew of a database; whether it need not ask."""
    known = _known.get(dialect)
    if known is None or getattr(dialect, "server_version_info", None) is None:
        return True  # it has never asked, and will by itself
    if known.place != place and place in known.of_others:
        now = vars(dialect)
        known.of_others[known.place] = now.copy()
        before = known.of_others.pop(place)
        for name in known.asked:
            if name in before:
                now[name] = before[name]
            else:
                now.pop(name, None)
        known.place = place
    return known.place == place and (known.told in (None, place) or not getattr(dialect, _HSTORE, False))


def give_back(dialect: Dialect) -> None:
    """An engine has its own pool again, with the connections that it has from before."""
    switch(dialect, OWN)


def _connected(connection: Any, record: Any) -> None:
    """A pool has connected: let the dialect ask what it does not know of this database."""
    pool = pool_of_record(record)
    dialect = dialect_of(pool)
    known = _known.get(dialect) if isinstance(dialect, Dialect) else None
    if known is None:
        return
    engine, place = known.engine(), _places.get(creator_of(pool), OWN)
    if engine is not None and not switch(dialect, place):
        now, before = vars(dialect), vars(dialect).copy()
        now.pop("_hstore_oids", None)  # psycopg2's own memory of them
        initialize(engine, connection, record)
        known.asked.update(name for name in {*before, *now} if before.get(name, known) is not now.get(name, known))
        if known.place != place:
            known.of_others[known.place] = before
    known.place = place
    if adapters_of(dialect) is not None and getattr(dialect, _HSTORE, False):
        known.told = place
