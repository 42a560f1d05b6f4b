"""What stands where an engine belongs, and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ..errors import ConfigurationError
from ..reporting import shown

__all__ = ["call_for_engines", "is_engine", "not_an_engine"]


def is_engine(value: object) -> bool:
    """Whether it is an ``Engine`` or an ``AsyncEngine``."""
    return isinstance(value, Engine) or isinstance(getattr(value, "sync_engine", None), Engine)


def call_for_engines(function: Callable[[], Any], attribute: str = "engines") -> Any:
    """What a function among ``engines`` gives; refused where it raises, or is a coroutine function."""
    name = getattr(function, "__qualname__", repr(function))
    try:
        given = function()
    except Exception as error:
        if "application context" in str(error):
            raise ConfigurationError(
                f"{attribute}: {name}() raised {type(error).__name__}: it needs the application's context.",
                cause="Flask-SQLAlchemy's db.engine works in an app context only, and no test has begun yet",
                remedy="name a function that enters it: def shop_engines(): with app.app_context(): return "
                f"list(db.engines.values()); {attribute} = [shop_engines]",
            ) from error
        error.add_note(f"dbtestcase: raised by {name}(), which `{attribute}` names, when the class began")
        raise
    if hasattr(given, "__await__"):
        given.close()
        raise ConfigurationError(
            f"{attribute}: {name}() is a coroutine function; nobody awaits it when the class begins.",
            cause="an async function that makes the engine",
            remedy="name the engine itself, or a plain function that returns it",
        )
    return given


def not_an_engine(value: object, attribute: str = "engines") -> ConfigurationError:
    """The error for what cannot be an engine; it says what to write."""
    name, remedy = repr(value), "name the Engine or AsyncEngine of the application, or `lambda: app.engine`"
    or_enlist = " (or enlist())" if attribute == "engines" else ""
    cause = f"the class attribute {attribute}{or_enlist} takes engines, or functions that return them"
    if isinstance(value, str | URL):
        url = _url(value)
        if url is not None:
            name, cause = shown(url), "a URL where an engine belongs"
            remedy = (
                "name the engine that the application makes of it (shop.db.engine, what create_engine() returned); "
                f"to say where the test server is, there is url = {_kind(url)!r}"
            )
        elif isinstance(value, str):
            cause, remedy = "the name of an engine where the engine itself belongs", f"write it without quotes: {value}"
    elif isinstance(value, sessionmaker | scoped_session | Session) or _is_async_session(value):
        name, cause = f"{type(value).__name__}(…)", "sessions where their engine belongs"
        remedy = f"name the engine that they are bound to: {attribute} = [engine]; its sessions are led with it"
    elif isinstance(value, Connection) or type(value).__name__ == "AsyncConnection":
        name, cause, remedy = f"a {type(value).__name__}", "a connection where its engine belongs", "name its engine"
    elif hasattr(type(value), "engine") or hasattr(type(value), "engines"):
        name, cause = f"{type(value).__name__}(…)", "an extension object where its engine belongs"
        remedy = f"name its engine: {attribute} = [lambda: db.engine] (in Flask within `with app.app_context():`)"
    elif isinstance(value, ModuleType):
        found = [each for each, what in vars(value).items() if is_engine(what)]
        name, cause = f"the module {value.__name__}", "a module where an engine belongs"
        remedy = f"{attribute} = [{value.__name__.rpartition('.')[2]}.{found[0] if found else 'engine'}]"
    elif value is None:
        cause = "an engine that is made later, such as a global that create_app() sets"
        remedy = f"name a function that returns it: {attribute} = [lambda: shop.db.engine]"
        remedy += "; or self.enlist(engine) in setUp()" if attribute == "engines" else ""
    return ConfigurationError(f"{name} is not an engine.", cause=cause, remedy=remedy)


def _url(value: str | URL) -> URL | None:
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        return None
    return url if "://" in str(value) else None


def _kind(url: URL) -> str:
    return "sqlite://" if url.get_backend_name() == "sqlite" else f"{url.drivername}://"


def _is_async_session(value: object) -> bool:
    return any(
        base.__module__.startswith("sqlalchemy.ext.asyncio") and "session" in base.__name__
        for base in type(value).__mro__
    )
