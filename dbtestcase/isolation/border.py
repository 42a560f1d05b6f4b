"""The border: while a class runs, no engine of the process reaches a database that is not the test's.

Each engine is led to the test database, named in ``outside``, one of the library's own, or refused when it asks for a
connection, whether its pool would have to make one or has one from before.  ``Engine.raw_connection`` is where all of
them ask (``connect()``, ``begin()``, sessions, async engines).  Behind it stand the class-level events of SQLAlchemy
(:class:`.switchboard.Hooks`), for pools that are used by themselves and for connections that were made by the driver.

Between classes nothing is asked: the hooks are there, and let everything pass.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from ..drivers import (
    ATTACHED,
    NAMED,
    OPEN,
    Endpoint,
    checked_out,
    creator_of,
    dialect_of,
    endpoints_of_arguments,
    endpoints_of_connection,
    endpoints_of_pool,
    guard,
    is_harness,
    is_own,
    letting_pass,
    meet,
    pool_of,
    record_of,
)
from ..errors import DBTestCaseError, OutsideDatabase
from ..reporting import CallSite, find_call_site, shown
from ..sandbox import find_swallowed
from .engine_places import note_engines, place_of, where_made
from .engines import Leads, Until
from .switchboard import hooks

_STAMP = "_dbtestcase_admitted"


class Border:
    """What one class that runs lets pass.

    :param leads: where its engines are led.
    :param endpoints: the test database, by all the names that an engine may have for it.
    :param outside: engines that may reach databases of their own.

    It is closed (:meth:`close`) with the class.
    """

    def __init__(self, cls: str, leads: Leads, endpoints: Iterable[Endpoint], outside: Iterable[Engine] = ()) -> None:
        self.cls = cls
        self.leads = leads
        self.endpoints = frozenset(endpoints)
        self.raised: list[DBTestCaseError] = []
        self.in_test = False
        self._outside = list(outside)
        self.passing: weakref.WeakSet[sa.Dialect] = weakref.WeakSet(engine.dialect for engine in self._outside)
        self._elsewhere = frozenset[Endpoint]().union(
            *(endpoints_of_pool(engine.pool, engine.dialect, engine.url) for engine in self._outside)
        )
        self._token = object()
        self._lock = threading.RLock()
        with contextlib.ExitStack() as stack:
            stack.callback(hooks.ask, hooks.ask(self))
            if self._outside:
                stack.enter_context(letting_pass(self._outside))
            stack.callback(guard(self._guards, self.refuse_driver, self._names_on_servers))
            stack.callback(_unbar, _bar(self._may_be_held, self._refuse_held))
            self.close = stack.pop_all().close

    def swallowed(self, label: str, test_files: frozenset[str]) -> list[DBTestCaseError]:
        """The refusals that the test which ends, and not its own files, has caught: errors that fail it."""
        raised, self.raised = self.raised, []
        return find_swallowed(label, raised, test_files)

    # -- decisions

    def is_admitted(self, pool: Pool) -> bool:
        """Whether a pool is known to be let pass: the common case, in little time."""
        return getattr(pool, _STAMP, None) is self._token

    def admit(self, engine: Engine) -> None:
        """An engine asks for a connection: let it pass, lead it, or refuse it before it has connected."""
        if is_harness():
            return
        with self._lock:
            pool = engine.pool
            if self.leads.holds(pool):
                pass
            elif self._lets_pass(pool, engine.dialect):
                self.passing.add(engine.dialect)
            else:
                found = endpoints_of_pool(pool, engine.dialect, engine.url)
                if not (self.leads.leads_from(found) or (self.leads.captures and self._is_test_database(found))):
                    if not self._is_test_database(found):
                        raise self._refusal(engine)
                else:
                    self.leads.lead(engine, until=Until.TEST if self.in_test else Until.CLASS)
                    pool = engine.pool
            setattr(pool, _STAMP, self._token)

    def admit_pool(self, pool: Pool, connection: Any) -> None:
        """A pool used by itself hands out a real connection; ``DisconnectionError`` has it connect again, led."""
        if is_harness():
            return
        if not self.leads.holds(pool) and not self._lets_pass(pool, dialect_of(pool)):
            found = endpoints_of_connection(connection) or _targets_of(pool)
            if self.leads.captures and (self._is_test_database(found) or self.leads.leads_from(found)):
                raise exc.DisconnectionError("a class has begun")  # the pool connects again, through do_connect
            if not self._is_test_database(found):
                raise self._refusal(_engine_of(pool), pool)
        setattr(pool, _STAMP, self._token)

    def admits_arguments(self, dialect: sa.Dialect, args: Sequence[Any], parameters: Mapping[str, Any]) -> None:
        """A pool that is used by itself is about to connect."""
        if not self._is_test_database(endpoints_of_arguments(dialect, args, parameters)):
            raise self._refusal(_engine_of(dialect), dialect=dialect)

    def _lets_pass(self, pool: Pool, dialect: object) -> bool:
        return is_own(pool) or any(
            engine.pool is pool or (engine.dialect is dialect and creator_of(engine.pool) is creator_of(pool))
            for engine in self._outside
        )

    def is_of(self, board: object) -> bool:
        """Whether a board is the one that the engines of the class are led to."""
        return board is self.leads

    def _is_test_database(self, endpoints: frozenset[Endpoint]) -> bool:
        return meet(endpoints, self.endpoints)

    def _guards(self, endpoints: frozenset[Endpoint]) -> bool:
        """Whether a driver must not connect there by itself."""
        if not endpoints.isdisjoint(self.endpoints):  # first, and fast: a committing class asks at each statement
            return False
        return meet(endpoints, self.leads.origins) and not meet(endpoints, self._elsewhere | self.endpoints)

    def _names_on_servers(self) -> set[str]:
        """The names of the databases that a statement may reach beside its own."""
        return {each.database for each in self.leads.origins if each.dialect == "mysql" and each.database}

    def _may_be_held(self, pool: Pool) -> bool:
        return self.leads.holds(pool) or self._lets_pass(pool, dialect_of(pool))

    # -- errors

    def note(self, error: DBTestCaseError) -> DBTestCaseError:
        """Remember an error that is about to be raised: swallowed, it fails the test at its end."""
        self.raised.append(error)
        return error

    def _refusal(
        self, engine: Engine | None, pool: Pool | None = None, dialect: sa.Dialect | None = None
    ) -> DBTestCaseError:
        name, place, made = _described(engine, pool, dialect)
        where = find_call_site(2)
        return self.note(
            OutsideDatabase(
                f"{name} was about to connect to a database of its own while {self.cls} runs"
                f"{_at(', at ', where)}; it was not let through.{made}",
                cause="nobody has named it, so nobody knows whether this is the application's real database: what it "
                "wrote there would be there for good, and the test would be none the wiser",
                remedy=f"write `engines = [{place}]` on {self.cls}{self._made_late(engine, place)} to point it at the "
                f"test database, or `outside = [{place}]` where it may reach its own",
            )
        )

    def _made_late(self, engine: Engine | None, place: str) -> str:
        """What to write for an engine that a class cannot name."""
        if engine is None or place != _NAMELESS:
            return ""
        url = self.leads.url_that_speaks(engine.dialect)
        return " (where a test or setUp() makes it: `self.enlist(engine)`" + (
            f", and `{url}` on the class)" if url else ")"
        )

    def refuse_driver(self, what: str, target: Endpoint, how: str) -> DBTestCaseError:
        """The error for a connection that a driver was about to make by itself, or has made before; or a statement."""
        where = find_call_site(2)
        cause = "a connection that the driver makes by itself, past SQLAlchemy, reaches the real database"
        remedy = (
            "connect through the engine (engine.raw_connection() gives the driver's connection), or with "
            "self.database_url"
        )
        done = "was about to connect to"
        if how == OPEN:
            done = f"that was open before {self.cls} began was about to be used for"
        elif how == NAMED:
            done = "was about to send a statement that names"
            cause = "USE, or a table's name behind that of its database, reaches the real one on the same server"
            remedy = "leave the database's name out"
        elif how == ATTACHED:
            done = "was about to open"
            cause = "what is attached is the real file, beside the test database"
            remedy = "attach a file of the test's own"
        return self.note(
            OutsideDatabase(
                f"{what} {done} the database {target.database!r} of one of the engines that "
                f"{self.cls} leads to the test database{_at(', at ', where)}; it was not let through.",
                cause=cause,
                remedy=remedy + "; where it may reach the real one, name an engine of that URL in `outside = [...]`",
            )
        )

    def _refuse_held(self, pool: Pool) -> DBTestCaseError:
        name, place, made = _described(_engine_of(pool), pool, None)
        where = find_call_site(2)
        return self.note(
            OutsideDatabase(
                f"A connection of {name[0].lower()}{name[1:]} that was open before {self.cls} began was about to be "
                f"used{_at(', at ', where)}; nothing was sent.{made}",
                cause="a session or connection opened at import, or by an earlier class, and not closed: it goes to "
                "the engine's own database",
                remedy=f"close it before the class begins, or open it when it is needed; name the engine in "
                f"`engines = [{place}]`, or in `outside = [{place}]` where it may reach its own database",
            )
        )


_NAMELESS = "the engine"


def _described(engine: Engine | None, pool: Pool | None, dialect: sa.Dialect | None) -> tuple[str, str, str]:
    """The name of an engine, what to write for it in a class, and a sentence that says where it was made."""
    if engine is None:
        driver: Any = dialect or (dialect_of(pool) if pool is not None else None)
        kind = f"{driver.name}+{driver.driver}" if hasattr(driver, "driver") else "some driver"
        return f"A pool without an engine ({kind})", _NAMELESS, ""
    place = place_of(engine)
    made = where_made(engine)
    sentence = f" It was made at {made}." if made is not None else ""
    if place is not None:
        sentence += f" It is {place}."
    return f"The engine {shown(engine.url)}", place or _NAMELESS, sentence


def _at(before: str, where: CallSite | None) -> str:
    return f"{before}{where}" if where is not None else ""


def _targets_of(pool: Pool) -> frozenset[Endpoint]:
    engine = _engine_of(pool)
    return endpoints_of_pool(pool, engine.dialect, engine.url) if engine is not None else frozenset()


def _engine_of(part: Pool | sa.Dialect) -> Engine | None:
    """The engine that a pool or a dialect belongs to; looked for when something is wrong only."""
    import gc

    for found in gc.get_referrers(part):
        owner = found if isinstance(found, Engine) else None
        if owner is None and isinstance(found, dict):
            owner = next((each for each in gc.get_referrers(found) if isinstance(each, Engine)), None)
        if owner is not None:
            return owner
    return None


note_engines()


# What ends the use of a connection: a pool takes it back by these, and nothing is sent that could be kept.
_ENDING = {"rollback", "close", "terminate", "abort", "closed"}


class _Barred:
    """Stands in for a driver's connection that must not be used now; it may be rolled back and closed."""

    __slots__ = ("__weakref__", "_pool", "_real", "_refusal")

    def __init__(self, real: Any, pool: Pool, refusal: Callable[[Pool], Exception]) -> None:
        self._real, self._pool, self._refusal = real, pool, refusal

    def __getattr__(self, name: str) -> Any:
        if name == "cursor":  # SQLAlchemy wraps what is raised here, but not what its execute() raises
            return lambda *args, **kwargs: _BarredCursor(self)
        if name == "driver_connection":
            return self
        value = getattr(self._real, name)
        if name == "pgconn" or (callable(value) and name not in _ENDING and not name.startswith("_")):
            raise self._refusal(self._pool)
        return value  # pools, adapters and whoever watches may look


class _BarredCursor:
    def __init__(self, connection: _Barred) -> None:
        self._connection = connection

    def close(self) -> None:
        """There is nothing to close."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise self._connection._refusal(self._connection._pool)


_Held = list[tuple[Any, Any, _Barred]]


def _bar(may_be_held: Callable[[Pool], bool], refusal: Callable[[Pool], Exception]) -> _Held:
    """Bar the connections that somebody holds, but for those of the pools that may be held."""
    found: _Held = []
    for fairy in checked_out():
        record, real, pool = record_of(fairy), fairy.dbapi_connection, pool_of(fairy)
        if record is None or real is None or pool is None or isinstance(real, _Barred):
            continue
        if not (_is_virtual(real) or may_be_held(pool)):
            fairy.dbapi_connection = record.dbapi_connection = _Barred(real, pool, refusal)
            found.append((weakref.ref(fairy), record, record.dbapi_connection))
    return found


def _unbar(barred: _Held) -> None:
    for reference, record, bar in reversed(barred):
        for holder in (reference(), record):
            if holder is not None and holder.dbapi_connection is bar:
                holder.dbapi_connection = bar._real


def _is_virtual(connection: Any) -> bool:
    inner = getattr(connection, "_connection", connection)
    return "_client" in getattr(connection, "__dict__", ()) or "_client" in getattr(inner, "__dict__", ())
