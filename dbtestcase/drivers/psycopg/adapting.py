"""psycopg: what is a connection's own: its adapters, and when it prepares a statement."""

from __future__ import annotations

from typing import Any

from psycopg._preparing import PrepareManager
from psycopg.adapt import AdaptersMap

__all__ = ["CountingAdaptersMap", "SharedPrepareManager"]


class CountingAdaptersMap(AdaptersMap):
    """Knows how often somebody has registered something."""

    changes = 0

    def register_dumper(self, *args: Any, **kwargs: Any) -> None:
        super().register_dumper(*args, **kwargs)
        self.changes += 1

    def register_loader(self, *args: Any, **kwargs: Any) -> None:
        super().register_loader(*args, **kwargs)
        self.changes += 1


class SharedPrepareManager(PrepareManager):
    """A virtual connection's: what is prepared, on the server, it knows from the physical one's."""

    def __init__(self, shared: PrepareManager) -> None:
        self._shared = shared
        self._counts = shared._counts
        self._names = shared._names
        self._to_flush = shared._to_flush

    @property
    def _prepared_idx(self) -> int:
        return self._shared._prepared_idx

    @_prepared_idx.setter
    def _prepared_idx(self, value: int) -> None:
        self._shared._prepared_idx = value
