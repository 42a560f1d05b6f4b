"""What passes: connections of the harness, its engines, and those that a class lets reach their own databases."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from sqlalchemy import Dialect, Engine
from sqlalchemy.pool import Pool

from .sqlalchemy_internals import creator_of

_EngineOrPool = TypeVar("_EngineOrPool", bound=Engine | Pool)

_connecting: ContextVar[bool] = ContextVar("dbtestcase_harness_connections", default=False)
_passing: list[Sequence[Engine]] = []
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
    _creators.add(creator_of(pool))
    return engine_or_pool


def is_own(pool: Pool) -> bool:
    """Whether a pool is one that :func:`own` was called for, or what ``dispose()`` made of it."""
    return creator_of(pool) in _creators


@contextlib.contextmanager
def letting_pass(engines: Sequence[Engine]) -> Iterator[None]:
    """The engines that a class names in ``outside`` go where they go, for env.py too."""
    _passing.append(engines)
    try:
        yield
    finally:
        _passing.remove(engines)


def is_let_pass(dialect: Dialect) -> bool:
    """Whether the engine of a dialect, or one made of it by ``execution_options()``, is such an engine."""
    return any(engine.dialect is dialect for engines in _passing for engine in engines)
