"""psycopg2: its functions that take a connection or a cursor, and are written in C, take virtual ones."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from .arguments import refused


def cursor_factory_of(connection_factory: Any) -> Any:
    """The class of cursors that a class of connections stands for; an application's own is refused."""
    from psycopg2 import extensions, extras

    factories = {
        extensions.connection: None,
        extras.DictConnection: extras.DictCursor,
        extras.RealDictConnection: extras.RealDictCursor,
        extras.NamedTupleConnection: extras.NamedTupleCursor,
    }
    if connection_factory not in factories:
        raise refused("psycopg2", "connection_factory", f"{connection_factory!r} is a class of its own")
    return factories[connection_factory]


@functools.cache
def register_type() -> Any:
    """psycopg2's own function of that name, which takes what is the physical connection's."""
    from psycopg2 import _psycopg

    return _original(_psycopg.register_type)


@contextlib.contextmanager
def unwrapping(connections: type[Any], cursors: type[Any]) -> Iterator[None]:
    """Let the functions of psycopg2 take virtual connections and cursors, under whatever name they were imported."""
    from psycopg2 import _psycopg, sql

    def real(value: Any) -> Any:
        if issubclass(type(value), cursors):
            value = value.connection
        return value.physical if type(value) is connections else value

    def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*map(real, args), **{name: real(value) for name, value in kwargs.items()})

        return wrapper

    def register_type(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(obj: Any, conn_or_curs: Any = None) -> Any:
            if type(conn_or_curs) is connections:
                conn_or_curs.register(obj)
            else:
                function(obj, conn_or_curs._real if issubclass(type(conn_or_curs), cursors) else conn_or_curs)

        return wrapper

    wrappers = {"register_type": register_type, "quote_ident": unwrapped, "encrypt_password": unwrapped}
    with contextlib.ExitStack() as stack:
        for name, wrap in wrappers.items():
            original = _original(getattr(_psycopg, name))
            replacement = wrap(original)
            for module in list(sys.modules.values()):
                if _original(getattr(module, "__dict__", {}).get(name)) is original:
                    stack.enter_context(mock.patch.object(module, name, replacement))
        stack.enter_context(mock.patch.object(sql.Literal, "as_string", unwrapped(_original(sql.Literal.as_string))))
        yield


def _original(function: Any) -> Any:
    return getattr(function, "__wrapped__", function)
