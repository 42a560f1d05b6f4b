"""The application's engines, and the one way to lead their pools elsewhere for a while."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set, ValuesView
from dataclasses import dataclass
from enum import IntEnum
from operator import attrgetter
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Connection, Dialect, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import Pool

from ..drivers import (
    Endpoint,
    creator_of,
    endpoints_of_pool,
    environment,
    first_connections,
    meet,
    set_creator,
    watch_files,
)
from ..errors import ConfigurationError
from ..reporting import shown


def sync_engine_of(engine: Any, attribute: str = "engines") -> Engine:
    """The synchronous engine inside an ``AsyncEngine``, or the engine itself, which ``attribute`` names."""
    if not is_engine(engine):
        raise not_an_engine(engine, attribute)
    inner: Engine = getattr(engine, "sync_engine", engine)
    return inner


def resolve_engines(engines: Any, attribute: str = "engines") -> list[Engine]:
    """The engines that a class attribute names: engines, or functions that return one or several; of async ones the
    synchronous ones inside.

    :raises ConfigurationError: something else is in it.
    """
    if engines is None:
        return []
    found: list[Engine] = []
    for each in _members(engines):
        value = call_for_engines(each, attribute) if callable(each) and not is_engine(each) else each
        members = [value] if is_engine(value) else _members(value)
        found += [sync_engine_of(engine, attribute) for engine in members]
    return found


def engines_of_class(cls: Any) -> tuple[list[Engine], list[Engine]]:
    """The engines that a class names: the application's, and those that may reach databases of their own."""
    engines, outside = resolve_engines(cls.engines), resolve_engines(cls.outside, "outside")
    if (both := next((each for each in outside if each in engines), None)) is not None:
        raise ConfigurationError(
            f"{cls.__qualname__} names {shown(both.url)} in `engines` and in `outside`.",
            cause="an engine is pointed at the test database, or reaches its own: one of the two",
            remedy="take it out of one of them",
        )
    return engines, outside


def engines_among(engines: Any) -> list[Engine]:
    """Those that a class attribute names by themselves; no function is called, and no iterator used up."""
    if type(engines) not in (list, tuple) and isinstance(engines, Iterator):
        return []
    return [sync_engine_of(each) for each in _members(engines) if is_engine(each)]


def _members(value: Any) -> list[Any]:
    """What is in a collection, or the one thing that is none."""
    if type(value) is list or type(value) is tuple:  # as mostly: every class asks for each of its attributes
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    is_collection = isinstance(value, Sequence | Set | ValuesView | Iterator) and not isinstance(value, str | bytes)
    return list(value) if is_collection else [value]


class Until(IntEnum):
    """When an engine gets its own pool back."""

    RUN = 0
    CLASS = 1
    TEST = 2


@dataclass(frozen=True)
class _Lead:
    engine: weakref.ref[Engine]
    pool: Pool
    original: Pool
    original_url: URL
    until: Until
    endpoints: frozenset[Endpoint]
    looks: tuple[object, ...]
    """What can be changed of the own pool, and what listens to it, as it was when it was led."""
    listeners: list[list[object]]
    """What listened to our pool when it was made."""


class Leads(ABC):
    """Engines whose pools connect elsewhere until they are released.

    A pool of ours takes the place of the engine's own: of the same class, with its size, timeouts, options and events.
    The own pool is not touched.  Where the next class leads the same engine, and nothing of it has changed, it gets the
    same pool of ours, with the connections in it, as from test to test.
    """

    captures: bool
    """Whether an engine that already points to the test database has to be led as well."""

    aliases: frozenset[Endpoint] = frozenset()
    """Databases whose engines are led as if they were named."""

    def __init__(self) -> None:
        self.place = frozenset[Endpoint]()
        """Where engines are led: the database by all its names."""
        self.of_test = False
        """Whether an engine is led until the end of the test that runs."""
        self._led: list[_Lead] = []
        self._kept: weakref.WeakKeyDictionary[Engine, _Lead] = weakref.WeakKeyDictionary()
        self._creators: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()

    def lead(self, engine: Any, *, own: bool = False, until: Until = Until.CLASS) -> None:
        """Lead one engine, the application's or the test's own, whatever its URL."""
        engine = sync_engine_of(engine)
        if self.holds(engine.pool):
            return
        original, url = engine.pool, engine.url
        kept = self._kept.pop(engine, None)
        if kept is not None:
            is_same = until is kept.until and not own and kept.original is original and kept.original_url is url
            if is_same and kept.looks == _looks(engine) and first_connections.switch(engine.dialect, self.place):
                engine.pool = kept.pool
                self._led.append(kept)
                return
            self._forget(engine, kept.pool, kept.pool)
        self._refuse(engine)
        self.of_test |= until is Until.TEST
        endpoints = endpoints_of_pool(original, engine.dialect, url)
        pool = original.recreate()
        creator = self._creator(engine, original, own=own)
        self.adopt(creator)
        first_connections.leads_to(engine, creator, self.place)
        set_creator(pool, creator, original)
        self._prepare(engine, pool)
        engine.pool = pool
        if any(target.dialect == "sqlite" for target in endpoints):
            watch_files()
        reference, looks = weakref.ref(engine, self._drop), _looks(engine, original)
        self._led.append(_Lead(reference, pool, original, url, until, endpoints, looks, _listeners(pool)))

    def holds(self, pool: Pool) -> bool:
        """Whether a pool connects to where engines are led; also after ``dispose()``, which leaves the creator only."""
        return creator_of(pool) in self._creators

    def adopt(self, creator: Callable[..., Any]) -> None:
        """Let a creator of another pool count as one of ours."""
        self._creators.add(creator)

    def release(self, until: Until) -> None:
        """Give back their own pools to the engines that were led until then, and to those led for shorter."""
        for lead in [lead for lead in reversed(self._led) if lead.until >= until]:
            self._led.remove(lead)
            engine = lead.engine()
            if engine is not None:
                # whatever became of the pool meanwhile (dispose() recreates it), the original comes back
                current, engine.pool, engine.url = engine.pool, lead.original, lead.original_url
                first_connections.give_back(engine.dialect)
                if until is lead.until is Until.CLASS and current is lead.pool and self._may_keep(lead):
                    self._kept[engine] = lead
                else:
                    self._forget(engine, current, lead.pool)
        self.of_test = False
        if until is Until.RUN:
            self.forget_kept()

    def forget_kept(self) -> None:
        """Let go of the pools that wait for the next class."""
        while self._kept:
            engine, lead = self._kept.popitem()
            self._forget(engine, lead.pool, lead.pool)

    def _drop(self, engine: weakref.ref[Engine]) -> None:
        self._led = [lead for lead in self._led if lead.engine is not engine]

    @property
    def engines(self) -> list[Engine]:
        """The engines that are led, in the order in which they were."""
        return [engine for lead in self._led if (engine := lead.engine()) is not None]

    @property
    def origins(self) -> frozenset[Endpoint]:
        """The databases that the led engines of the application would reach by themselves."""
        return frozenset[Endpoint]().union(*(lead.endpoints for lead in self._led if lead.until > Until.RUN))

    def leads_from(self, endpoints: frozenset[Endpoint]) -> bool:
        """Whether an engine that would reach one of these databases is led, though nobody has named it."""
        return meet(endpoints, self.origins | self.aliases)

    def url_that_speaks(self, dialect: Dialect) -> str:
        """The line that a class needs so that an engine of this driver can be led; empty where any can."""
        return ""

    @abstractmethod
    def _refuse(self, engine: Engine) -> None:
        """Raise where this engine cannot be led."""

    @abstractmethod
    def _creator(self, engine: Engine, original: Pool, *, own: bool) -> Callable[..., Any]:
        """What the pool calls for a new connection."""

    def _may_keep(self, lead: _Lead) -> bool:
        """Whether a pool of ours may serve the next class that leads its engine."""
        return _listeners(lead.pool) == lead.listeners

    def _prepare(self, engine: Engine, pool: Pool) -> None:  # noqa: B027
        """A new pool is about to be used."""

    @abstractmethod
    def _forget(self, engine: Engine, current: Pool, pool: Pool) -> None:
        """An engine has its own pool back: dispose of the other one."""


def is_engine(value: object) -> bool:
    """Whether it is an ``Engine`` or an ``AsyncEngine``."""
    return isinstance(value, Engine) or isinstance(getattr(value, "sync_engine", None), Engine)


def call_for_engines(function: Callable[[], Any], attribute: str = "engines") -> Any:
    """What a function among ``engines`` gives; refused where it raises, or is a coroutine function."""
    name = getattr(function, "__qualname__", repr(function))
    try:
        given = function()
    except BaseException as error:
        if type(error).__name__ in ("SkipTest", "Skipped"):  # pytest's is no Exception
            raise ConfigurationError(
                f"{attribute}: {name}() raised {type(error).__name__} ({error}): no test of the class would run, and "
                "nothing would fail.",
                cause="a function that gives up where a driver or a setting is missing",
                remedy="decide it where it can be seen: @unittest.skipUnless(…) on the class",
            ) from error
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


_POOL_EVENTS = (
    *("connect", "first_connect", "checkout", "checkin", "reset", "invalidate", "soft_invalidate"),
    *("close", "detach", "close_detached"),
)
_of_events = attrgetter(*_POOL_EVENTS)


def _looks(engine: Engine, pool: Pool | None = None) -> tuple[object, ...]:
    """What can be changed of an engine's pool: its attributes, and who listens to it and to the dialect."""
    pool = pool or engine.pool
    return _listeners(pool), vars(pool).copy(), list(engine.dialect.dispatch.do_connect), environment()


def _listeners(pool: Pool) -> list[list[object]]:
    return [list(found) if found else [] for found in _of_events(pool.dispatch)]
