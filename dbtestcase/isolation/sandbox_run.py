"""One wire, its sandbox and the engines over it, for all classes of a process that use one database by one driver."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Engine

from ..drivers import arrivals_at, descriptor_of, endpoints_of_url, open_wire
from ..errors import ConfigurationError, LeakError
from ..sandbox import Sandbox
from .engines import Until
from .full_disks import FullDisks
from .interface import UNENFORCED_POLICIES, Run, warn_of_policies
from .open_sessions import OpenSessions
from .switchboard import Switchboard, blocking_engine, initialize_dialect

RENEWAL = 500
"""Tests after which a new outer transaction is begun, so that the dead rows of the old one can be removed."""


class SandboxRun(Run):
    """A wire, its sandbox, and the engines that are led to whatever wire there is."""

    def __init__(self, database: Any, url: URL) -> None:
        self.database = database
        self.url = url
        self.untouched = True
        """Whether nobody has used a sequence yet."""
        self._rewind: str | None = None
        self._looked_for_policies = False
        self._tests = 0
        self._stack = contextlib.ExitStack()
        self.awake = self._lost = False
        self._async_engines: tuple[Any, Any] | None = None
        self.board = Switchboard(endpoints_of_url(url))
        self._open()
        self.open_sessions = OpenSessions(self.board.application_client_of)
        self.open_sessions.__enter__()
        self.full_disks = FullDisks(url)
        self.full_disks.__enter__()
        if self.url.get_dialect().is_async:
            self._async_engines = application, own = _async_engines_for(self.url)
            for engine in self._async_engines:
                initialize_dialect(self.wire, engine)
            self._lead_own(application, own)
            self.engine = blocking_engine(self.board, application)
            self.own_engine = blocking_engine(self.board, own, own=True)
        else:
            self.engine, self.own_engine = _engine_for(self.url), _engine_for(self.url)
            self._lead_own(self.engine, self.own_engine)
        self.database_url = self.engine.url.render_as_string(hide_password=False)

    def _lead_own(self, application: Any, own: Any) -> None:
        self.board.lead(application, until=Until.RUN)
        self.board.lead(own, own=True, until=Until.RUN)

    # -- the wire

    def wake(self) -> None:
        if not self.awake and not self._lost:  # a database that may hold what was committed waits for make_ready()
            # nobody was connected meanwhile: with its lease lost as well, another run may have dropped the database
            self._lost = self.database.renew_lease()
            if not self._lost:
                self._open()

    def rest(self) -> None:
        if self.awake and self.database.crowded and not self.sandbox.begun:
            self.awake = False
            self._stack.close()

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            self.wire, self.rules = stack.enter_context(open_wire(self.url))
            self.sandbox = Sandbox(self.wire, self.rules)
            self.board.open(self.wire, self.sandbox)
            stack.callback(self.board.shut)
            stack.callback(self._end_sandbox, self.sandbox)
            descriptor = descriptor_of(self.wire.connection)
            self._arrived = arrivals_at(descriptor) if descriptor is not None and descriptor >= 0 else None
            self._stack = stack.pop_all()
        self.awake, self._lost = True, False

    @staticmethod
    def _end_sandbox(sandbox: Sandbox) -> None:
        with sandbox.held():
            sandbox.shut()  # with its connection the transaction ends as well

    @property
    def is_lost(self) -> bool:
        """Whether there is no wire, or one that cannot be used any more."""
        return self._lost or (self.awake and bool(self.wire.gone))

    def look_for_loss(self) -> bool:
        """Whether the wire is lost, as far as can be told without a round trip: something has arrived unasked."""
        if self._lost or self.wire.gone:
            return True
        if self._arrived is None:
            with contextlib.suppress(LeakError):  # nobody's fault that can be told now
                self.wire.settle()
            return bool(self.wire.gone)
        if not self._arrived():
            return False
        try:
            with self.sandbox.held():
                self.wire.settle()  # a signal's handler may have raised in the middle of a statement of ours
                self.wire.run("SELECT 1")  # a notice or the like, unless this fails
        except Exception:
            if not self.wire.gone:
                raise
        return bool(self.wire.gone)

    def lose(self) -> None:
        """The outer transaction is lost, and with it the wire: the next one that begins is made anew."""
        if not self._lost:
            self.awake, self._lost = False, True
            with contextlib.suppress(Exception):  # a driver may complain that its connection is closed already
                self._stack.close()

    def free_disk(self) -> None:
        """A disk was full: what was rolled back still takes its room, until the database is made again."""
        self.full_disks.found = False
        self.lose()
        self.database.reclone()

    def make_ready(self) -> None:
        """Where the wire was lost, make the database again, and a wire to it: what was committed for real is gone."""
        if self.database.renew_lease() or self._lost or (self.awake and self.look_for_loss()):
            self.lose()
            self._reopen()
        self.wake()
        self._tidy()

    def _reopen(self) -> None:
        self.database.reclone()
        self.untouched = True
        self._open()

    def close(self) -> None:
        """Give back all engines, close the physical connection, which rolls back."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._stack.close)
            stack.callback(self.board.release, Until.RUN)
            stack.callback(self.open_sessions.__exit__, None, None, None)
            stack.callback(self.full_disks.__exit__, None, None, None)
            self.awake, self._lost = False, True

    # -- sequences and dead rows

    def rewind_sequences(self) -> None:
        """Set the sequences to where they are in the template, whatever classes have run before; between classes only.

        Whoever does not ask for it has nothing to pay: where they stood is looked up when the first one asks, in a
        database that nobody has used yet.
        """
        if self._rewind is None:
            if not self.untouched:
                self.lose()
                self._reopen()
            self._rewind = self.note_sequences()
        elif self._rewind:
            with self.sandbox.held():
                self.wire.run(self._rewind)

    def count_test(self) -> None:
        """A test was rolled back."""
        self._tests += 1

    def look_for_policies(self) -> None:
        """After the first class whose application has connected: warn of policies, unless somebody has taken a role."""
        if self._looked_for_policies or self.rules.name != "postgresql":
            return
        if self.is_lost or not self.sandbox.application_connected:
            return
        self._looked_for_policies = True
        if not {"role", "session_authorization"} & self.sandbox.settings_seen:
            warn_of_policies(self.wire.run(UNENFORCED_POLICIES))

    def _tidy(self) -> None:
        """Between outer transactions: now and then, remove the dead rows of tests, which every scan has to step over.

        A server does so by itself where it has the time, once a minute; its pages are not pruned of rows whose insert
        was rolled back.
        """
        if self._tests >= RENEWAL and self.rules.bloated and self.database.built:
            self._tests = 0
            with self.sandbox.held():
                statement = self.wire.run(self.rules.bloated)[0][0]
                if statement is not None:
                    self.wire.run(str(statement))

    def note_sequences(self) -> str:
        """SQL that sets the sequences to where they are now; empty if there are none, or not in this database."""
        with self.sandbox.held():
            query = self.rules.sequences and str(self.wire.run(self.rules.sequences)[0][0])
            return self.rules.restore_sequences(self.wire.run(query)) if query else ""

    # -- engines

    def async_engines(self) -> tuple[Any, Any]:
        if self._async_engines is None:
            url = _async_url(self.url, self.wire.drivers)
            if url is None:
                raise ConfigurationError(
                    f"An async test class needs an async driver, but the sandbox speaks {self.wire.driver!r}.",
                    cause="the first of `engines`, or the URL, names a driver that has no async side",
                    remedy="use postgresql+psycopg (sync and async), or name the application's async engine first",
                )
            application, own = _async_engines_for(url)
            self._lead_own(application, own)
            self._async_engines = application, own
        return self._async_engines


@contextlib.contextmanager
def running_sandbox(database: Any, url: URL) -> Iterator[SandboxRun]:
    """A sandbox on a database, usable without a test case: ``run.sandbox.begin("…")`` … ``run.sandbox.end()``."""
    with contextlib.closing(SandboxRun(database, url)) as run:
        yield run


def _async_url(url: URL, drivers: Iterable[str]) -> URL | None:
    """The URL with a driver that async engines can use over a wire that serves these drivers."""
    if url.get_driver_name() == "psycopg":
        return url
    for driver in sorted(drivers):
        found = url.set(drivername=f"{url.get_backend_name()}+{driver}")
        with contextlib.suppress(ImportError):
            if found.get_dialect().is_async and found.get_dialect().import_dbapi():
                return found
    return None


def _async_engines_for(url: URL) -> tuple[Any, Any]:
    from sqlalchemy.ext.asyncio import create_async_engine

    return create_async_engine(url), create_async_engine(url)


def _engine_for(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return sa.create_engine(url, poolclass=sa.pool.QueuePool, max_overflow=-1)
    return sa.create_engine(url, max_overflow=-1)
