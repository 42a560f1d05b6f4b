"""Connections that were checked out before a class began: they go to a real database, and no pool is asked for them."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.pool import Pool

from ..drivers import checked_out, pool_of, record_of

# What ends the use of a connection: a pool takes it back by these, and nothing is sent that could be kept.
_ENDING = {"rollback", "close", "terminate", "abort", "closed"}


class _Barred:
    """Stands in for a driver's connection that must not be used now; it may be rolled back and closed."""

    __slots__ = ("__weakref__", "_pool", "_real", "_refusal")

    def __init__(self, real: Any, pool: Pool, refusal: Callable[[Pool], Exception]) -> None:
        self._real, self._pool, self._refusal = real, pool, refusal

    def __getattr__(self, name: str) -> Any:
        if name == "cursor":  # SQLAlchemy wraps what is raised here, but not what its execute() raises
            return lambda *args, **kwargs: _BarredCursor(self)
        if name == "driver_connection":
            return self
        value = getattr(self._real, name)
        if name == "pgconn" or (callable(value) and name not in _ENDING and not name.startswith("_")):
            raise self._refusal(self._pool)
        return value  # pools, adapters and whoever watches may look


class _BarredCursor:
    def __init__(self, connection: _Barred) -> None:
        self._connection = connection

    def close(self) -> None:
        """There is nothing to close."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise self._connection._refusal(self._connection._pool)


@contextlib.contextmanager
def barred(may_be_held: Callable[[Pool], bool], refusal: Callable[[Pool], Exception]) -> Iterator[None]:
    """Bar the connections that somebody holds, until the block ends, but for those of the pools that may be held."""
    found: list[tuple[Any, Any, _Barred]] = []
    for fairy in checked_out():
        record, real, pool = record_of(fairy), fairy.dbapi_connection, pool_of(fairy)
        if record is None or real is None or pool is None or isinstance(real, _Barred):
            continue
        if not (_is_virtual(real) or may_be_held(pool)):
            fairy.dbapi_connection = record.dbapi_connection = _Barred(real, pool, refusal)
            found.append((weakref.ref(fairy), record, record.dbapi_connection))
    try:
        yield
    finally:
        for reference, record, bar in reversed(found):
            for holder in (reference(), record):
                if holder is not None and holder.dbapi_connection is bar:
                    holder.dbapi_connection = bar._real


def _is_virtual(connection: Any) -> bool:
    inner = getattr(connection, "_connection", connection)
    return "_client" in getattr(connection, "__dict__", ()) or "_client" in getattr(inner, "__dict__", ())
