"""psycopg: what is a connection's own: its adapters, and when it prepares a statement."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

from psycopg._preparing import Prepare, PrepareManager
from psycopg.adapt import AdaptersMap


class CountingAdaptersMap(AdaptersMap):
    """Knows how often somebody has registered something."""

    changes = 0

    def register_dumper(self, *args: Any, **kwargs: Any) -> None:
        super().register_dumper(*args, **kwargs)
        self.changes += 1

    def register_loader(self, *args: Any, **kwargs: Any) -> None:
        super().register_loader(*args, **kwargs)
        self.changes += 1


_SHOULD = Prepare.SHOULD
_get = PrepareManager.get  # sooner than by super(), for every statement


class SessionPlans(PrepareManager):
    """The physical connection's: what is prepared on the server."""

    def __init__(self) -> None:
        super().__init__()
        self.sharers: weakref.WeakSet[SharedPrepareManager] = weakref.WeakSet()

    def clear(self) -> bool:
        for each in list(self.sharers):
            each._names.clear()
        return super().clear()

    def drop(self, key: Any) -> bytes:
        """Take a statement for one that is not prepared; it has to be deallocated."""
        for each in list(self.sharers):
            each._names.pop(key, None)
        return self._names.pop(key)


class _Names(OrderedDict[Any, bytes]):
    """What a virtual connection has prepared: the session has it then."""

    def __init__(self, shared: SessionPlans) -> None:
        super().__init__()
        self._shared = shared

    def __setitem__(self, key: Any, name: bytes) -> None:
        super().__setitem__(key, name)
        self._shared._names[key] = name


class SharedPrepareManager(PrepareManager):
    """A virtual connection's: it counts for itself when to prepare, and need not where another one has."""

    def __init__(self, shared: SessionPlans) -> None:
        self._shared = shared
        self._counts = OrderedDict()
        self._names = _Names(shared)
        self._to_flush = shared._to_flush
        shared.sharers.add(self)

    @property
    def _prepared_idx(self) -> int:
        return self._shared._prepared_idx

    @_prepared_idx.setter
    def _prepared_idx(self, value: int) -> None:
        self._shared._prepared_idx = value

    def get(self, query: Any, prepare: bool | None = None) -> tuple[Prepare, bytes]:
        prep, name = _get(self, query, prepare)
        if prep is _SHOULD:
            key = self.key(query)
            known = self._shared._names.get(key)
            if known is not None:
                self._counts.pop(key, None)
                self._names[key] = known
                return Prepare.YES, known
        return prep, name

    def validate(self, key: Any, prep: Prepare, name: bytes, results: Any) -> None:
        super().validate(key, prep, name, results)
        if prep is Prepare.SHOULD and key not in self._names:
            self._shared._names.pop(key, None)

    def _rotate(self) -> None:
        if len(self._counts) > self.prepared_max:
            self._counts.popitem(last=False)
        if len(self._names) > self.prepared_max:
            key, _ = self._names.popitem(last=False)
            if not any(key in each._names for each in self._shared.sharers) and key in self._shared._names:
                self._to_flush.append(self._shared.drop(key))

    def clear(self) -> bool:
        self._counts.clear()
        return self._shared.clear()

    def drop_others(self) -> list[bytes]:
        """What only other connections have prepared, which has to be deallocated."""
        return [self._shared.drop(key) for key in list(self._shared._names) if key not in self._names]
