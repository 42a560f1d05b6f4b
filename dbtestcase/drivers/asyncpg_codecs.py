"""asyncpg: what ``set_type_codec()`` registers on a connection holds there and nowhere else.

The codecs lie in the physical connection.  Each virtual one keeps a list of its own; where the list of who uses the
wire next is another one, the difference is registered first.  SQLAlchemy registers codecs for JSON on every connection:
where they do the same they are the same, so that nothing need be done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["METHODS", "Codecs", "Registration", "Registrations"]

METHODS = frozenset(("set_type_codec", "set_builtin_type_codec", "reset_type_codec"))

Key = tuple[str, str]
"""A type's schema and name."""


@dataclass(frozen=True, eq=False)
class Registration:
    """A call of one of asyncpg's methods."""

    method: str
    arguments: Mapping[str, Any] = field(hash=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registration) and self._essence == other._essence

    def __hash__(self) -> int:
        return hash(self.method)

    @property
    def _essence(self) -> tuple[object, ...]:
        return self.method, tuple(sorted((name, _essence(value)) for name, value in self.arguments.items()))


Registrations = Mapping[Key, Registration]


class Codecs:
    """The codecs of a physical connection of asyncpg's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._known: list[Registrations] = []
        self.current: Registrations = self.interned({})
        """What the physical connection has."""

    def interned(self, registrations: Registrations) -> Registrations:
        """The one object that stands for equal registrations."""
        for each in self._known:
            if each == registrations:
                return each
        self._known.append(registrations)
        return registrations

    async def apply(self, wanted: Registrations) -> None:
        """Register what is wanted, and take back what is not."""
        had = dict(self.current)
        for schema, typename in list(had):
            if (schema, typename) not in wanted:
                del had[schema, typename]
                with contextlib.suppress(ValueError):  # the type was rolled back
                    await self._connection.reset_type_codec(typename, schema=schema)
        for (schema, typename), registration in wanted.items():
            if had.get((schema, typename)) != registration:
                self.current = self.interned(had)  # should it fail
                call = getattr(self._connection, registration.method)
                await call(typename, schema=schema, **registration.arguments)
                had = {**had, (schema, typename): registration}
        self.current = wanted


def _essence(value: object) -> object:
    """What makes two functions the same: SQLAlchemy defines its own anew for each connection."""
    code = getattr(value, "__code__", None)
    if code is None or getattr(value, "__defaults__", None) or getattr(value, "__kwdefaults__", None):
        return repr(value) if isinstance(value, str) else (id(value), value)
    cells = tuple(id(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ())
    return id(code), cells
