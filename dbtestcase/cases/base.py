"""The order of things in the life of a test case.  No SQL: what is done is done by the workers, here it is composed.

::

    setUpClass      server, database, sandbox (made once, lazily); the class begins; setUpTestData
      setUp         the test begins, before the first line of the test's own setUp
      test_…
      cleanups      the test ends, after the last cleanup of the test's own
    class cleanup   the class ends

The composition is :mod:`.per_class` and :mod:`.per_test`, reached by ``_dbtestcase``.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import unittest
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.orm import Session

from ..data import session_scope
from ..reporting import FailureEvidence, cleanups_of, forget_class_cleanups, together
from .assertions import QueryAssertions
from .attributes import Engines, Given, Tables
from .bases import is_ours
from .life import isolated
from .lifecycle import Lifecycle
from .modules import modules
from .nested import rolled_back
from .never_ran import outliving_exits, refuse_lost, watch_module
from .order_of_bases import watched, watched_run, watched_tear_down
from .per_class import ClassLifecycle
from .per_test import TestLifecycle

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

__unittest = True  # keeps these frames out of the tracebacks of failing tests

E = TypeVar("E", bound="Engine | AsyncEngine")


class DatabaseTest(FailureEvidence, QueryAssertions):
    """A test case whose every test starts from the same database, in one transaction that is never committed.

    .. code-block:: python

        class PublishTest(DatabaseTest):
            metadata = models.Base.metadata
            engines = [db.engine]

            def test_publish(self):
                publish("Hello")  # opens, commits and closes its own session
                self.assertRowCount(models.Post, 1)
    """

    url: ClassVar[str | URL | None] = None
    """Where the server is: a string or a ``URL``.  Default: ``$DBTESTCASE_URL``, else a disposable PostgreSQL.

    Without a host (``postgresql+psycopg://``, ``mariadb+pymysql://``) a disposable server of that kind; ``sqlite://``
    is in memory.  A URL that cannot be used is a :exc:`~dbtestcase.ConfigurationError` when the class begins; a server
    that does not answer is a :exc:`~dbtestcase.ServerUnreachable`."""

    database: ClassVar[Literal["create", "existing"]] = "create"
    """``"create"``: a database of our own beside the one that the URL names.  ``"existing"``: exactly that one, which
    has to be empty, marked as ours or named like a test database (else :exc:`~dbtestcase.UnsafeDatabase`)."""

    metadata: ClassVar[Tables] = None
    """The tables: a ``MetaData``, or what has one (a declarative base, a registry, Flask-SQLAlchemy's ``db``), or
    several of these."""

    engines: ClassVar[Engines] = ()
    """The application's engines, sync or async, or functions that return them: pointed at the test database while the
    class runs.

    .. code-block:: python

        engines = [db.engine, db.async_engine, lambda: app.state.engine]

    An engine whose URL names the test database already need not be listed."""

    outside: ClassVar[Engines] = ()
    """Engines, or functions that return them, that may go on to reach their own databases while the class runs.

    Every other engine of the process that is not led to the test database is refused when it asks for a connection."""

    if not TYPE_CHECKING:  # a type here would be that of `self.factories` in every class, which is the class's own
        factories = ()
        """FactoryBoy or polyfactory classes, or modules that hold them: on the test's session while the class runs.

        A list, or :class:`~dbtestcase.Factories`, which tells type checkers more.  On a test it is a
        :class:`~dbtestcase.FactoryManager`: ``self.factories.PostFactory.create()``."""

    transaction_scope: ClassVar[Literal["class", "module", "test"]] = "class"
    """How long the outer transaction lasts: ``"class"``, ``"module"`` (one for all classes of the module) or ``"test"``
    (no class data; a fresh ``now()`` in each test)."""

    session_class: ClassVar[type[Session] | type[AsyncSession]] = Session
    """What the test's own sessions are made of: a subclass of ``Session``, such as ``sqlmodel.Session``; in async
    classes of ``AsyncSession``, whose ``sync_session_class`` makes the sync ones."""

    reset_sequences: ClassVar[bool] = False
    """Whether ids start from the same number in every test, for suites with hard-coded ids."""

    session: Given[Session, Session] = Given(of_class=lambda cls: cls._dbtestcase.session())
    """The test's own session, in the same transaction as the application's; closed at its end, never committed.

    On the class, in :meth:`setUpTestData`, the session of the class data.  Outside of a test it raises
    :exc:`~dbtestcase.NotRunning`.  A test may set it to a session of its own."""

    connection: Given[object, Connection] = Given()
    """A connection of the test's own, closed at its end."""

    engine: Given[Engine, Engine]
    """An engine on the test database, on the class and on a test, while the class runs."""

    database_url: Given[str, str]
    """The test database's URL with driver and password, for ``create_app(…)`` and for other processes: a string."""

    _dbtestcase = Lifecycle[ClassLifecycle, TestLifecycle](ClassLifecycle, TestLifecycle)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if is_ours(cls):
            forget_class_cleanups(cls)
            return
        if (set_up := watched(cls)) is not None:
            cls.setUpClass = set_up  # type: ignore[method-assign]
        if (tear_down := watched_tear_down(cls)) is not None:
            cls.tearDownClass = tear_down  # type: ignore[method-assign]
        if (run := watched_run(cls)) is not None:
            cls.run = run  # type: ignore[method-assign]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # other bases may take more than a name
        super().__init__(*args, **kwargs)
        watch_module(type(self).__module__)

    # -- hooks

    @classmethod
    def load_initial_schema(cls, connection: Connection) -> None:
        """Make what must exist before the tables or the first revision, once: extensions, functions, SQL files.

        It is part of the template and of its fingerprint.  To be overridden.

        .. code-block:: python

            @classmethod
            def load_initial_schema(cls, connection):
                connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))

        :param connection: in a transaction that is committed afterwards.
        """

    @classmethod
    def load_base_data(cls, session: Session) -> None:
        """Load reference rows, once, when the schema is built; they are part of the template.  To be overridden.

        :param session: committed afterwards.
        """

    @classmethod
    def setUpTestData(cls) -> None:
        """Make rows for all tests of the class, with ``cls.session``.  To be overridden.

        What is stored on the class arrives fresh on ``self`` in each test, whatever the test before did to it.

        .. code-block:: python

            ada: Author  # for type checkers

            @classmethod
            def setUpTestData(cls):
                cls.ada = Author(name="Ada")
                cls.session.add(cls.ada)
        """

    @classmethod
    def setUpClass(cls) -> None:
        cls._dbtestcase.set_up(super().setUpClass)

    @classmethod
    def addClassCleanup(cls, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        life = cls._dbtestcase
        was_begun = life.run is not None

        def cleanup(*args: Any, **kwargs: Any) -> None:
            name = f"{cls.__qualname__}: the cleanup"
            with life.cleaning_up(was_begun=was_begun), outliving_exits(name):
                refuse_lost(function(*args, **kwargs), function, name)

        super().addClassCleanup(cleanup, *args, **kwargs)

    @classmethod
    def enterModule(cls) -> Session:
        """Open the connection and the outer transaction for the whole module; to be called in ``setUpModule``.

        :returns: a session for rows that all classes of the module see.
        """
        return modules.enter(cls._dbtestcase)

    @classmethod
    def isolated(cls, name: str = "isolated") -> contextlib.AbstractContextManager[Self]:
        """One test's life outside of any runner: in a script, a notebook, a doctest, a fixture.

        ``with BlogTest.isolated() as test:`` gives what ``self`` is in a test; what is left behind is raised at the
        block's end.  A class that had not begun begins and ends with the block.

        :param name: how messages call the test.
        """
        return isolated(cls, name, sys._getframe(1).f_code.co_filename)

    # -- what a test has

    def session_scope(self) -> contextlib.AbstractContextManager[Session]:
        """A new session of the test's own: commit at the end, rollback on an error, always closed."""
        life = self._dbtestcase
        make = functools.partial(life.of_class.sync_session_class, life.isolation.own_engine)
        return life.blocks.sync("session_scope()", functools.partial(session_scope, make))

    def rolled_back(self) -> contextlib.AbstractContextManager[None]:
        """A part of the test that is undone at its end, whatever it commits: ``with self.rolled_back():``.

        For a loop over cases, for :meth:`subTest`, for examples (those of Hypothesis are parts by themselves).  The
        test's own sessions are committed when it begins; at its end they hold what they held, with the same instances,
        and read it again.  A committing class puts back what was there when the test began, so it must not have
        written before.  ``with``, not ``async with``, in async classes too.

        :raises LeakError: at its end: what the part has left behind; at its beginning: what the test has.
        :raises ConfigurationError: what was written before it could not be kept.
        """
        return self._dbtestcase.blocks.sync("rolled_back()", functools.partial(rolled_back, self._dbtestcase))

    def enlist(self, engine: E) -> E:
        """Point one more engine at the test database until the test ends; for an engine made in ``setUp``.

        :returns: the engine.
        """
        self._dbtestcase.isolation.lead(engine)
        return engine

    # -- the life of a test

    def _callTestMethod(self, method: Callable[[], Any]) -> None:
        super()._callTestMethod(self._dbtestcase.checked(method))

    def _callCleanup(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        life = self._dbtestcase
        checked = function if function == life.end else life.checked_cleanup(function)
        super()._callCleanup(checked, *args, **kwargs)

    def doCleanups(self) -> Any:
        """Run the cleanups.  Outside of :meth:`run`, where no runner collects what goes wrong, it is raised.

        :raises Exception: what went wrong; an ``ExceptionGroup`` if it was more than one thing.
        """
        if self._dbtestcase.in_run:
            return super().doCleanups()
        problems: list[Exception] = []
        cleanups = cleanups_of(self)
        while cleanups:
            function, arguments, keywords = cleanups.pop()
            try:
                self._callCleanup(function, *arguments, **keywords)
            except Exception as problem:
                problems.append(problem)
        if problems:
            raise together(problems, f"{self.id()}: {len(problems)} cleanups went wrong")
        return True

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test; the database is made ready just before ``setUp``, whatever the test's ``setUp`` calls."""
        life = self._dbtestcase
        life.prepare()
        life.in_run = True
        try:
            return super().run(result)
        finally:
            life.dismiss()

    def debug(self) -> None:
        """Run the test without collecting errors; one that fails can be looked at until the next one begins."""
        life = self._dbtestcase
        life.prepare()
        try:
            super().debug()
        except unittest.SkipTest:
            self.doCleanups()  # unittest leaves them, and nobody looks at a test that was skipped
            raise
        finally:
            life.dismiss()


for _base in filter(is_ours, DatabaseTest.__mro__):
    forget_class_cleanups(_base)
