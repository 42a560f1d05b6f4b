"""How a test is kept apart from the next one: what a case asks for, and the sandbox's answer to it."""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Engine

from ..drivers import open_wire
from ..drivers.endpoints import Target, target_of_url
from ..errors import ConfigurationError, DBTestCaseError, DirtyReadWarning, LeakError
from ..sandbox.transaction import Sandbox
from .engines import Switchboard, blocking_engine, initialize_dialect
from .open_sessions import OpenSessions
from .resting import begin_use
from .row_security import UNENFORCED_POLICIES, warn_of_policies

__all__ = ["Isolation", "SandboxIsolation", "SandboxRun", "sandbox_run"]

RENEWAL = 500
"""Tests after which a new outer transaction is begun, so that the dead rows of the old one can be removed."""


class Isolation(ABC):
    """The life of the classes and tests that share a database.

    .. attribute:: engine

       An engine for the application, on the test database.

    .. attribute:: own_engine

       The engine of the test's own sessions and connections.
    """

    engine: Engine
    own_engine: Engine

    @abstractmethod
    def begin_class(self, label: str, engines: Iterable[Any]) -> None:
        """A class begins; what is written from now on is its class data.  ``engines`` are led until it ends."""

    @abstractmethod
    def begin_test(self, label: str) -> None:
        """A test begins; what is written from now on is undone at its end."""

    @abstractmethod
    def end_test(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        """Undo what the test did.

        :param failed: whether the test has failed anyhow.
        :param test_files: the test's own source files.
        :returns: what it left behind or did wrong, each as an error that fails it.
        """

    @abstractmethod
    def end_class(self) -> None:
        """Undo the class data and give back the engines."""

    @abstractmethod
    def lead(self, engine: Any) -> None:
        """Point one more engine at the test database, until the test (or, between tests, the class) ends."""

    @abstractmethod
    def async_engines(self) -> tuple[Any, Any]:
        """An ``AsyncEngine`` for the application and one for the test's own sessions."""

    @property
    @abstractmethod
    def database(self) -> Any:
        """The test database, a :class:`dbtestcase.backends.Database`."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        """A DBAPI connection of the test's own, in a transaction that is rolled back, that sees the test's rows."""
        connection = self.own_engine.raw_connection()
        try:
            yield connection
        finally:
            connection.close()

    def carries(self, connection: sa.Connection) -> bool:
        """Whether the statements of a connection are sent to the test database."""
        return True

    def end_loop(self) -> None:  # noqa: B027  (nothing to do where pools are made for each class)
        """The event loop of a test has ended; the next test has one of its own."""

    @property
    def needs_rebuild(self) -> bool:
        """Whether a test destroyed the class data, so that the class must be begun again."""
        return False

    @abstractmethod
    def begin_module(self, label: str) -> None:
        """A module begins; what is written from now on is seen by all of its classes."""

    @abstractmethod
    def end_module(self) -> None:
        """Undo the module's rows."""


class SandboxRun:
    """One wire and its sandbox, for all classes of a process that use the same database with the same driver.

    :param database: the database (with ``url`` and ``reclone()``).
    :param url: its URL, with the driver that the wire is to speak.
    :param targets: further databases whose engines are led here.
    """

    def __init__(self, database: Any, url: URL, targets: Iterable[Target | None]) -> None:
        self.database = database
        self.url = url
        self._targets = [target_of_url(url), *targets]
        self._stack = contextlib.ExitStack()
        self.untouched = True
        """Whether nobody has used a sequence yet."""
        self._rewind: str | None = None
        self._looked_for_policies = False
        self._tests = 0
        self._awake = False
        self.wake()

    def wake(self) -> None:
        if not self._awake:
            self._open()
            self._awake = True

    def rest(self) -> None:
        if self._awake and self.database.crowded and not self.sandbox.begun:
            self._stack.close()
            self._awake = False

    def _open(self) -> None:
        self.wire, self.rules = self._stack.enter_context(open_wire(self.url))
        self._async_engines: tuple[Any, Any] | None = None
        if self.url.get_dialect().is_async:
            self._async_engines = _async_engines_for(self.url)
            for engine in self._async_engines:
                initialize_dialect(self.wire, engine)
        self.sandbox = Sandbox(self.wire, self.rules)
        self.board = self._stack.enter_context(Switchboard(self.wire, self.sandbox, self._targets))
        self.open_sessions = self._stack.enter_context(OpenSessions(self.board.application_client_of))
        self._stack.callback(self.sandbox.end)
        if self._async_engines is not None:
            application, own = self._async_engines
            self.board.lead(application)
            self.board.lead(own, own=True)
            self.engine = blocking_engine(self.board, application)
            self.own_engine = blocking_engine(self.board, own, own=True)
        else:
            self.engine = _engine_for(self.url)
            self.own_engine = _engine_for(self.url)
            self.board.lead(self.engine)
            self.board.lead(self.own_engine, own=True)
        self.board_floor = self.board.count

    def rewind_sequences(self) -> None:
        """Set the sequences to where they are in the template, whatever classes have run before; between classes only.

        Whoever does not ask for it has nothing to pay: where they stood is looked up when the first one asks, in a
        database that nobody has used yet.
        """
        if self._rewind is None:
            if not self.untouched:
                self.reopen()
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
        if self.wire.gone or not self.sandbox.application_connected:
            return
        self._looked_for_policies = True
        if not {"role", "session_authorization"} & self.sandbox.settings_seen:
            warn_of_policies(self.wire.run(UNENFORCED_POLICIES))

    def tidy(self) -> None:
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

    def async_engines(self) -> tuple[Any, Any]:
        """An ``AsyncEngine`` for the application and one for the test's own sessions, over the same wire.

        :raises ConfigurationError: the wire speaks a driver that has no async side.
        """
        if self._async_engines is None:
            url = _async_url(self.url, getattr(self.wire, "drivers", ()))
            if url is None:
                raise ConfigurationError(
                    f"An async test class needs an async driver, but the sandbox speaks {self.wire.driver!r}.",
                    cause="the first of `engines`, or the URL, names a driver that has no async side",
                    remedy="use postgresql+psycopg (sync and async), or name the application's async engine first",
                )
            application, own = _async_engines_for(url)
            self.board.lead(application)
            self.board.lead(own, own=True)
            self.board_floor = self.board.count
            self._async_engines = application, own
        return self._async_engines

    def reopen(self) -> None:
        """Make the database again: what a test committed for real is gone."""
        self._stack.close()
        self.database.reclone()
        self.untouched = True
        self._open()
        self._awake = True

    def close(self) -> None:
        """Roll back, give back all engines, close the physical connection."""
        self._stack.close()


@contextlib.contextmanager
def sandbox_run(database: Any, url: URL, targets: Iterable[Target | None] = ()) -> Iterator[SandboxRun]:
    """A sandbox on a database, usable without a test case: ``run.sandbox.begin("…")`` … ``run.sandbox.end()``."""
    run = SandboxRun(database, url, targets)
    with contextlib.closing(run):
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


class SandboxIsolation(Isolation):
    """One outer transaction for a class or a module, a mark before each test, one rollback after it.

    :param run: the wire and sandbox of the process.
    :param scope: ``"class"``, ``"module"`` or ``"test"``.
    :param reset_sequences: whether ids start from the same number in every test.
    """

    def __init__(self, run: SandboxRun, scope: str, *, reset_sequences: bool = False) -> None:
        self.run = run
        self.scope = scope
        if reset_sequences and not (run.rules.sequences or run.rules.counters_roll_back):
            raise ConfigurationError(
                f"reset_sequences cannot be had on {run.rules.name}: ids go on where they were.",
                cause="a rollback does not set the server's counters back, and what would set them commits",
                remedy="leave it out and do not rely on numbers, or use TruncatingDatabaseTest, where it is always so",
            )
        self.reset_sequences = reset_sequences
        self._restore = ""
        self._restore_class = ""
        self._label = ""
        self._engines: list[Any] = []
        self._marked = False
        self._tests = 0
        self._floor = 0
        self._lost = False
        self._in_module = False
        self._module_floor = 0

    @property
    def engine(self) -> Engine:  # type: ignore[override]
        return self.run.engine

    @property
    def own_engine(self) -> Engine:  # type: ignore[override]
        return self.run.own_engine

    @property
    def database(self) -> Any:
        return self.run.database

    @property
    def needs_rebuild(self) -> bool:
        return self._lost

    def async_engines(self) -> tuple[Any, Any]:
        return self.run.async_engines()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        with warnings.catch_warnings(), super().reading() as connection:
            warnings.simplefilter("ignore", DirtyReadWarning)  # unfinished writes are to be seen
            yield connection

    def carries(self, connection: sa.Connection) -> bool:
        return self.run.board.client_of(connection) is not None

    def end_loop(self) -> None:
        self.run.board.end_loop()

    def begin_module(self, label: str) -> None:
        begin_use(self.run)
        self._rewind_sequences()
        self._begin(label)
        self._in_module = True

    def _rewind_sequences(self) -> None:
        if not self.run.database.built:
            return  # they are made anew in each outer transaction
        if self.reset_sequences and self.run.rules.sequences:
            self.run.rewind_sequences()
        else:
            self.run.untouched = False

    def _begin(self, label: str) -> None:
        """Begin the outer transaction, with the tables in it where the database is only lent."""
        if self.run.database.renew_lease():
            self.run.reopen()
        try:
            self.run.tidy()
            self.run.sandbox.begin(label)
        except Exception:
            if not self.run.wire.gone:
                raise
            self.run.reopen()  # the connection was lost between two classes
            self.run.sandbox.begin(label)
        if not self.run.database.built:
            with self.run.own_engine.begin() as connection:
                self.run.database.create_in(connection)
            self.run.sandbox.pin()

    def end_module(self) -> None:
        self._in_module = False
        self.run.board.release(self.run.board_floor)
        self.run.sandbox.end()

    def begin_class(self, label: str, engines: Iterable[Any]) -> None:
        self._label = label
        self._engines = list(engines)
        begin_use(self.run)
        if not self._in_module:
            self._rewind_sequences()
        self._module_floor = self.run.board.count
        for engine in self._engines:
            self.run.board.lead(engine)
        self._marked = False
        self._tests = 0
        self._lost = False
        if self._in_module:
            self._check_before_mark()
            self._restore_class = self._note_sequences()
            self.run.sandbox.mark(label)
        elif self.scope != "test":
            self._begin(label)
        if self._in_module or self.scope != "test":
            self.run.board.greet(self._engines)
        self._floor = self.run.board.count

    def begin_test(self, label: str) -> None:
        sandbox = self.run.sandbox
        if self.scope == "test" and not self._in_module:
            self._rewind_sequences()
            self._begin(label)
            if not self._tests:
                self.run.board.greet(self._engines)
        elif not self._marked:
            self._check_before_mark()
            self._restore = self._note_sequences()
            sandbox.mark(label)
            self._marked = True
        else:
            sandbox.relabel(label)
        self._floor = self.run.board.count

    def _take_back(self) -> list[Exception]:
        """After a rollback: let nothing that was left open reach into what comes next."""
        problems = self.run.open_sessions.roll_back(self.run.sandbox.is_open)
        self.run.board.take_back()
        return problems

    def _note_sequences(self) -> str:
        return self.run.note_sequences() if self.reset_sequences else ""

    def _check_before_mark(self) -> None:
        problems = [p for p in self.run.sandbox.problems() if isinstance(p, LeakError)]
        if problems:
            raise problems[0]

    def end_test(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        sandbox = self.run.sandbox
        with sandbox.held():
            try:
                problems = self._roll_back(failed=failed, test_files=test_files)
            except Exception:
                if not self.run.wire.gone:
                    raise
                problems = list(sandbox.problems(test_files))
                self._reopen()
        if not self._lost:
            problems += self._take_back()
        return problems

    def _roll_back(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        sandbox, wire = self.run.sandbox, self.run.wire
        wire.settle()  # type: ignore[attr-defined]
        problems: list[Exception] = list(sandbox.problems(test_files))
        if failed:
            problems = [p for p in problems if not _is_swallowed(p)]
        if not failed and not problems and (late := sandbox.deferred_failure()) is not None:
            problems.append(late)
        if not wire.in_transaction():
            self._reopen()
            return problems
        self.run.board.release(self._floor)
        self._tests += 1
        self.run.count_test()
        if self.scope == "test" and not self._in_module:
            sandbox.end()
        elif self._tests % RENEWAL or not sandbox.renew(self._label):
            sandbox.rollback_to_mark(self._label)
        if self._restore:
            wire.run(self._restore)
        return problems

    def _reopen(self) -> None:
        """The outer transaction is lost: the database is made again, and with it the class data."""
        self._lost = True
        self.run.board.release(self.run.board_floor)
        self.run.reopen()

    def end_class(self) -> None:
        if self._lost:
            return
        try:
            self._end_class()
        except Exception:
            if not self.run.wire.gone:
                raise
            self._reopen()  # everything was rolled back with the connection

    def _end_class(self) -> None:
        sandbox = self.run.sandbox
        self.run.board.release(self._module_floor)
        if self._in_module:
            if self._marked:
                sandbox.drop_mark()
            sandbox.drop_mark()
            if self._restore_class:
                with sandbox.held():
                    self.run.wire.run(self._restore_class)
        else:
            sandbox.end()
        self._take_back()
        self._marked = False
        self.run.look_for_policies()

    def lead(self, engine: Any) -> None:
        self.run.board.lead(engine)


def _is_swallowed(problem: Exception) -> bool:
    return isinstance(problem, DBTestCaseError) and "swallowed" in problem.what
