"""polyfactory's SQLAlchemy factories: their sessions are class attributes, replaced while a binding is active."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

_ABSENT = object()


def is_polyfactory(value: object) -> bool:
    """Whether it is a subclass of ``SQLAlchemyFactory``; polyfactory is not imported to find out."""
    module = sys.modules.get("polyfactory.factories.sqlalchemy_factory")
    return (
        module is not None
        and isinstance(value, type)
        and issubclass(value, module.SQLAlchemyFactory)
        and value is not module.SQLAlchemyFactory
    )


def lead(
    factories: Iterable[type],
    session_provider: Callable[[], Any],
    async_session_provider: Callable[[], Any] | None,
    undo: ExitStack,
) -> None:
    """Let the factories, and their subclasses, use the providers' sessions until ``undo`` is closed.

    A factory with a persistence handler of its own (``__sync_persistence__``) and no session keeps that handler.
    """
    pending, seen = list(factories), set()
    while pending:
        factory = pending.pop()
        if factory in seen:
            continue
        seen.add(factory)
        pending.extend(factory.__subclasses__())
        for attribute, handler, provider in (
            ("__session__", "__sync_persistence__", session_provider),
            ("__async_session__", "__async_persistence__", async_session_provider),
        ):
            own_handler = getattr(factory, handler, None) is not None and getattr(factory, attribute) is None
            if provider is None or own_handler:
                continue
            undo.callback(_put_back, factory, attribute, vars(factory).get(attribute, _ABSENT))
            # polyfactory closes or removes the sessionmakers and scoped sessions that it is given, not a function's.
            setattr(factory, attribute, staticmethod(provider))


def _put_back(factory: type, attribute: str, value: object) -> None:
    if value is _ABSENT:
        delattr(factory, attribute)
    else:
        setattr(factory, attribute, value)
