"""The real database of committing tests: its engines, its cleaner, what is looked for once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine

from ..backends import Recipe, cleaning
from ..drivers import creator_of, endpoints_of_connection, endpoints_of_url, family_of, meet, own, patient
from ..reporting import for_driver
from .engines import Until
from .full_disks import FullDisks
from .interface import UNENFORCED_POLICIES, Run, warn_of_policies
from .pool_checkouts import Checkouts
from .reroute import Rerouting

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ..backends import Database

# The drivers of our own engines where the application's speak only one of the two ways; each is a dependency anyhow.
_BLOCKING = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite+pysqlite",
}
_ASYNCHRONOUS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
    "sqlite": "sqlite+aiosqlite",
}


class CleanedRecipe:
    """A recipe whose databases carry the bookkeeping of the cleaning, so that it is made once, in the template."""

    def __init__(self, inner: Recipe) -> None:
        self.inner = inner

    @property
    def label(self) -> str:
        return f"{self.inner.label} (committing)"

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.inner.fingerprint()} committing".encode()).hexdigest()

    def build(self, url: URL) -> None:
        self.inner.build(url)
        self.complete(url)

    def complete(self, url: URL) -> None:
        """Add the bookkeeping to what ``inner`` makes (see :class:`~dbtestcase.backends.recipes.DerivedRecipe`)."""
        cleaning.install(url)


class TruncatingRun(Run):
    """What all committing classes of a process that use one database share: its cleaner and its own engines.

    :param existing: the database outlives us, so nothing may be left in it.
    """

    def __init__(self, database: Database, url: URL, *, existing: bool = False) -> None:
        self._existing = existing
        self.database = database
        self.url = url
        self.checkouts = Checkouts()
        self.cleaner = cleaning.cleaner_for(url, database)
        self._in_use = self._in_loop = self._looked_for_policies = False
        self.awake = True
        admit = self.checkouts.left_threads.refuse
        self.rerouting = Rerouting(url, self.checkouts.watch, self.checkouts.unwatch, database.spare, admit)
        blocking = url.set(drivername=_BLOCKING[url.get_backend_name()]) if url.get_dialect().is_async else url
        blocking = for_driver(blocking, blocking.drivername)
        self.engine = patient(_engine(blocking), database.spare)
        self.own_engine = patient(_engine(blocking, **_own_options(blocking)), database.spare)
        self.database_url = blocking.render_as_string(hide_password=False)
        self.checkouts.watch(self.engine, self.engine.pool)
        self.checkouts.watch(self.own_engine, self.own_engine.pool, own=True)
        self.rerouting.adopt(creator_of(self.engine.pool))
        own(self.own_engine)
        self.full_disks = FullDisks(url)
        self._async_engines: tuple[AsyncEngine, AsyncEngine] | None = None
        self._watches = contextlib.ExitStack()

    def async_engines(self) -> tuple[AsyncEngine, AsyncEngine]:
        self._in_loop = True
        if self._async_engines is None:
            from sqlalchemy.ext.asyncio import create_async_engine

            url = self.url
            if not url.get_dialect().get_async_dialect_cls(url).is_async:
                url = url.set(drivername=_ASYNCHRONOUS[url.get_backend_name()])
            self._async_engines = create_async_engine(url), create_async_engine(url, **_own_options(url))
            for engine in self._async_engines:
                patient(engine.sync_engine, self.database.spare)
            for engine, is_own in zip(self._async_engines, (False, True), strict=True):
                self.checkouts.watch(engine.sync_engine, engine.pool, own=is_own)
            self.rerouting.adopt(creator_of(self._async_engines[0].pool))
            own(self._async_engines[1].sync_engine)
        return self._async_engines

    def asynchronous(self) -> list[Engine]:
        """The engines of the class whose connections belong to an event loop."""
        own = [engine.sync_engine for engine in (self._async_engines or () if self._in_loop else ())]
        return own + [engine for engine in self.rerouting.engines if engine.dialect.is_async]

    def forget_loop(self) -> None:
        """Leave behind the connections of an event loop that has ended."""
        self.checkouts.abandon()
        for engine in self.asynchronous():
            engine.pool = engine.pool.recreate()

    def close(self) -> None:
        """Give back all engines and close every connection."""
        with contextlib.ExitStack() as stack:
            if self._existing:
                stack.callback(cleaning.uninstall, self.url)
            if self.awake:
                stack.callback(self.cleaner.close)
            stack.callback(self.engine.dispose)
            stack.callback(self.own_engine.dispose)
            stack.callback(self.checkouts.abandon)
            stack.callback(self.rerouting.release, Until.RUN)
            stack.callback(self._watches.close)

    def look_for_policies(self) -> None:
        """Once: warn of policies that do not bind the role of the tests."""
        if not self._looked_for_policies and self.url.get_backend_name() == "postgresql":
            self._looked_for_policies = True
            with self.own_engine.connect() as connection:
                warn_of_policies(connection.exec_driver_sql(UNENFORCED_POLICIES).all())

    def begin_use(self) -> None:
        super().begin_use()
        self._in_use = True
        self._watches.close()
        here = endpoints_of_url(self.url)
        if here:
            # engines that the application makes from database_url in the middle of a test, as in the sandbox
            self._watches.enter_context(self.checkouts.watching(lambda raw: meet(here, endpoints_of_connection(raw))))

    def end_use(self) -> None:
        """A class has ended; of the connections the cleaner's stays, until the class of another run begins."""
        self._in_use = self._in_loop = False
        self._watches.close()
        if self.database.crowded:
            self.engine.dispose()
            self.own_engine.dispose()

    @property
    def is_bloated(self) -> bool:
        """Whether a disk was full, and a cleaning would not make room again."""
        return self.full_disks.found and not self.cleaner.shrinks

    def make_anew(self) -> None:
        """Make the database again: its files stay as large as they have become."""
        self.cleaner.close()
        self.database.reclone()
        self.cleaner = cleaning.cleaner_for(self.url, self.database)
        self.checkouts.retire(None)
        self.full_disks.found = False  # only now: what failed is tried again

    def rest(self) -> None:
        if self.database.crowded and not self._in_use and self.awake:
            self.cleaner.close()
            self.awake = False

    def wake(self) -> None:
        if not self.awake:
            if self.database.renew_lease():  # dropped by another run, as nobody was connected and its lease was lost
                self.database.reclone()
            self.cleaner = cleaning.cleaner_for(self.url, self.database)
            self.awake = True


def _own_options(url: URL) -> dict[str, Any]:
    """What the sessions of the test itself are like: what the application has committed since they began, they see.

    MySQL's own level would show them the database as it was at their first statement, in every later assertion.
    """
    return {"isolation_level": "READ COMMITTED"} if family_of(url.get_backend_name()) == "mysql" else {}


def _engine(url: URL, **options: Any) -> Engine:
    by_socket = url.get_driver_name() == "pymysql" and "unix_socket" in url.query
    # PyMySQL would read the machine's certificates for each connection, which takes 20 to 60 ms
    return create_engine(url, connect_args={"ssl_disabled": True} if by_socket else {}, **options)


@contextlib.contextmanager
def open_truncating_run(database: Database, url: URL, *, existing: bool = False) -> Iterator[TruncatingRun]:
    """A :class:`TruncatingRun` that is closed at the end."""
    with contextlib.closing(TruncatingRun(database, url, existing=existing)) as run, run.full_disks:
        yield run
