"""How a test is kept apart from the next one: what a case asks for."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import Engine

from ..drivers import Endpoint
from ..errors import RowSecurityWarning
from ..reporting import together
from .border import Border
from .full_disks import FullDisks


class Run(ABC):
    """What the classes of a process that use one database share; its connections rest while others are used.

    A process that goes through classes of several schemas would hold a connection for each of them until it ends: on a
    server that others use as well, they are given up, and made again when they are needed.
    """

    database: Any
    engine: Engine
    own_engine: Engine
    database_url: str
    full_disks: FullDisks
    awake: bool
    """Whether it has connections."""
    _in_turn: ClassVar[weakref.WeakSet[Run]] = weakref.WeakSet()

    def begin_use(self) -> None:
        """A class begins: the runs of others rest, and this one wakes up."""
        if len(self._in_turn) != 1 or self not in self._in_turn:  # mostly there is no other
            for other in list(self._in_turn):
                if other is not self:
                    other.rest()
            self._in_turn.add(self)
        if not self.awake:
            self.wake()

    @abstractmethod
    def rest(self) -> None:
        """Close the connections, if no class uses them and the server is not ours alone."""

    @abstractmethod
    def wake(self) -> None:
        """Have connections again."""

    @abstractmethod
    def async_engines(self) -> tuple[Any, Any]:
        """An ``AsyncEngine`` for the application and one for the test's own sessions, over the same database."""


UNENFORCED_POLICIES = (
    "SELECT r.rolname, string_agg(DISTINCT p.polrelid::regclass::text, ', ') FROM pg_catalog.pg_policy p "
    "JOIN pg_catalog.pg_class c ON c.oid = p.polrelid AND c.relrowsecurity "
    "JOIN pg_catalog.pg_roles r ON r.rolname = current_user AND (r.rolsuper OR r.rolbypassrls) GROUP BY 1"
)
"""PostgreSQL's query for a role that passes over policies, and the policies' tables; perhaps no row."""


def warn_of_policies(rows: Sequence[Sequence[object]]) -> None:
    """Warn if there are policies that the tests will not notice."""
    for role, tables in rows:
        warnings.warn(
            f"Row-level security is not in force: the tests run as {role!r}, whom the policies of {tables} do not bind "
            "(a superuser passes over them, also with FORCE ROW LEVEL SECURITY). Let the application's connections "
            "take the role that they have in production: connect_args={'options': '-c role=shop_app'}, or SET ROLE "
            "in a connect listener of the engine (docs/howto: Row-level security).",
            RowSecurityWarning,
            stacklevel=2,
        )


class Isolation(ABC):
    """The life of the classes and tests that share a database."""

    def __init__(self, run: Run, aliases: Iterable[Endpoint] = ()) -> None:
        self.run = run
        self.engine: Engine = run.engine
        """An engine for the application, on the test database."""
        self.own_engine: Engine = run.own_engine
        """The engine of the test's own sessions and connections."""
        self.database_url: str = run.database_url
        """The test database's URL with driver and password."""
        self._aliases = frozenset(aliases)
        self._border: Border | None = None
        self._label = ""

    @abstractmethod
    def begin_class(self, label: str, engines: Iterable[Any], outside: Iterable[Any] = ()) -> None:
        """A class begins; what is written from now on is its class data.

        :param engines: are led until it ends.
        :param outside: engines that may reach databases of their own; all others are refused until it ends.
        """

    @abstractmethod
    def end_class_data(self) -> None:
        """The class data are complete; what is written from now on belongs to the next test."""

    @abstractmethod
    def begin_test(self, label: str, *, test_files: frozenset[str] = frozenset()) -> None:
        """A test begins, of these source files: what they flush in the application's session is no lost commit."""

    def undo_writes_between_tests(self) -> bool:
        """Undo what was written since the last test has ended; whether there was anything that is known of."""
        return False

    @abstractmethod
    def end_test(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        """Undo what the test did, which may have failed; what it left behind or did wrong, as errors that fail it."""

    @abstractmethod
    def begin_nested(self) -> None:
        """A part of the test begins; what is written from now on is undone at the part's end."""

    @abstractmethod
    def end_nested(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        """Undo what the part did; as :meth:`end_test`."""

    @abstractmethod
    def end_class(self, *, test_files: frozenset[str] = frozenset()) -> None:
        """Undo the class data and give back the engines; raise what was refused and swallowed since the last test."""

    def _close_border(self, test_files: frozenset[str]) -> None:
        border, self._border = self._border, None
        if border is not None:
            border.close()
            problems = border.swallowed(f"the end of {border.cls}", test_files) if border.raised else []
            if problems:
                raise together(problems, f"The end of {border.cls}: {len(problems)} errors were swallowed")

    @abstractmethod
    def lead(self, engine: Any) -> None:
        """Point one more engine at the test database, until the test (or, between tests, the class) ends."""

    def async_engines(self) -> tuple[Any, Any]:
        """An ``AsyncEngine`` for the application and one for the test's own sessions."""
        return self.run.async_engines()

    @property
    def database(self) -> Any:
        """The test database, a :class:`dbtestcase.backends.Database`."""
        return self.run.database

    @property
    def lost(self) -> str:
        """How the connection that all of the test's share was lost; empty where it was not, or each has its own."""
        return ""

    @property
    def disk_was_full(self) -> bool:
        """Whether a statement of the test has been told that the disk is full."""
        return self.run.full_disks.found

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        """A DBAPI connection of the test's own, in a transaction that is rolled back, that sees the test's rows."""
        with contextlib.closing(self.own_engine.raw_connection()) as connection:
            yield connection

    def carries(self, connection: sa.Connection) -> bool:
        """Whether the statements of a connection are sent to the test database."""
        return True

    def end_loop(self) -> None:  # noqa: B027  (nothing to do where pools are made for each class)
        """The event loop of a test has ended; the next test has one of its own."""

    @property
    def needs_rebuild(self) -> bool:
        """Whether a test destroyed the class data, so that the class must be begun again."""
        return False

    def spoil(self) -> None:
        """The class could not be begun again: it still has to be."""
        raise NotImplementedError

    def abandon_test(self) -> None:  # noqa: B027  (where tests commit, what one has left is put back before the next)
        """A test is over, and its end was cut short or never came: let the next one see nothing of it."""

    @abstractmethod
    def begin_module(self, label: str) -> None:
        """A module begins; what is written from now on is seen by all of its classes."""

    def end_module(self) -> None:  # noqa: B027  (nothing to do where none can begin)
        """Undo the module's rows."""
