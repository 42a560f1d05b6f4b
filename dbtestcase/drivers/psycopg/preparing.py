"""psycopg: prepared statements are the server session's, when to prepare one is a connection's own affair."""

from __future__ import annotations

from psycopg._preparing import PrepareManager

__all__ = ["SharedPrepareManager"]


class SharedPrepareManager(PrepareManager):
    """A virtual connection's: what is prepared it knows from the physical one's.

    :param shared: the physical connection's.
    """

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
