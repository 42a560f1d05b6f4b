"""What is the harness's own: connections that it makes, and engines whose connections are no business of a test."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.pool import Pool

__all__ = ["harness_connections", "is_harness", "is_own", "own"]

_EngineOrPool = TypeVar("_EngineOrPool", bound=Engine | Pool)

_connecting: ContextVar[bool] = ContextVar("dbtestcase_harness_connections", default=False)
_creators: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


@contextlib.contextmanager
def harness_connections() -> Iterator[None]:
    """Connections that are made meanwhile are the harness's own."""
    token = _connecting.set(True)
    try:
        yield
    finally:
        _connecting.reset(token)


def is_harness() -> bool:
    """Whether a connection that is made now is the harness's own."""
    return _connecting.get()


def own(engine_or_pool: _EngineOrPool) -> _EngineOrPool:
    """Let an engine or a pool of the harness go where it goes; the creator is what ``dispose()`` leaves of a pool."""
    pool = engine_or_pool.pool if isinstance(engine_or_pool, Engine) else engine_or_pool
    _creators.add(pool._creator)
    return engine_or_pool


def is_own(pool: Pool) -> bool:
    """Whether a pool is one that :func:`own` was called for, or what ``dispose()`` made of it."""
    return pool._creator in _creators
