"""The order of things in the life of a test case.  No SQL: what is done is done by the workers, here it is composed.

::

    setUpClass      server, database, sandbox (made once, lazily); the class begins; setUpTestData
      setUp         the test begins, before the first line of the test's own setUp
      test_…
      cleanups      the test ends, after the last cleanup of the test's own
    class cleanup   the class ends
"""

from __future__ import annotations

import contextlib
import functools
import os
import unittest
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from ..backends.recipes import Recipe
from ..backends.schema import MetadataRecipe
from ..data.class_data import capture
from ..data.factories import FactoryManager, bound
from ..data.sessions import session_scope
from ..drivers.endpoints import target_of_url
from ..errors import ConfigurationError, NotRunning
from ..isolation.engines import resolve_engines
from ..isolation.rollback import Isolation, SandboxIsolation, sandbox_run
from ..reporting.failures import FailureEvidence
from ..reporting.lock_waits import LockWatch
from ..settings import Settings, read_settings
from . import scopes
from .assertions import QueryAssertions
from .keep_rows import keep_rows
from .lifecycle import ClassRun, current, defining_class, modules, noting, refuse_forgotten_super, source_files
from .provisioning import Resources

__all__ = ["DatabaseTest"]

__unittest = True  # keeps these frames out of the tracebacks of failing tests

_SCOPES = ("class", "module", "test")
_T = TypeVar("_T")


class _OwnSession:
    """``session``: on the class the session of its data, on a test a new one that is made when it is asked for."""

    def __get__(self, test: DatabaseTest | None, cls: type[DatabaseTest]) -> Any:
        if test is not None:
            session = test.__dict__["session"] = test._make_session()
            test._sessions.append(session)
            return session
        return cls._class_session()


class _NoSessionYet:
    """``session`` on a class that has not begun: a value, because nose2 gets every attribute of a class it loads."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> Any:
        raise NotRunning(
            f"{self._cls.__qualname__}.session was used before the class began.",
            cause="setUpClass() that uses it before super().setUpClass(), or code at import",
            remedy="make rows in setUpTestData(), or call super().setUpClass() first",
        )


class DatabaseTest(Resources, FailureEvidence, QueryAssertions):
    """A test case whose every test starts from the same database, in one transaction that is never committed.

    .. code-block:: python

        class PublishTest(DatabaseTest):
            metadata = models.Base.metadata
            engines = [db.engine]

            def test_publish(self):
                publish("Hello")                       # opens, commits and closes its own session
                self.assertRowCount(models.Post, 1)
    """

    metadata: ClassVar[Any] = None
    """The tables: one ``MetaData`` or a sequence of them."""

    engines: ClassVar[Any] = ()
    """The application's engines, or functions that return them: pointed at the test database while the class runs."""

    factories: Any = ()
    """FactoryBoy or polyfactory classes, or modules that hold them: bound to the test's session while the class runs.

    On a test it is a :class:`~dbtestcase.data.factories.FactoryManager`: ``self.factories.PostFactory.create()``."""

    transaction_scope: ClassVar[str] = "class"
    """How long the outer transaction lasts: ``"class"``, ``"module"`` or ``"test"``."""

    reset_sequences: ClassVar[bool] = False
    """Whether ids start from the same number in every test, for suites with hard-coded ids."""

    if TYPE_CHECKING:
        session: Session
        engine: Engine
        database_url: str
    else:
        session = _OwnSession()

    _run_state: ClassVar[ClassRun | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("setUpClass")
        if isinstance(own, classmethod):
            cls.setUpClass = classmethod(noting(own.__func__))  # type: ignore[method-assign,assignment]

    # -- hooks

    @classmethod
    def load_base_data(cls, session: Session) -> None:
        """Load reference rows, once, when the schema is built; they are part of the template.  To be overridden."""

    @classmethod
    def setUpTestData(cls) -> None:
        """Make rows for all tests of the class, with ``cls.session``.  To be overridden."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls._begin_class()

    @classmethod
    def enterModule(cls) -> Session:
        """Open the connection and the outer transaction for the whole module; to be called in ``setUpModule``.

        :returns: a session for rows that all classes of the module see.
        """
        return modules.enter(cls)

    # -- what a test has

    @property
    def connection(self) -> Connection:
        """A connection of the test's own, closed at its end."""
        found: Connection | None = self.__dict__.get("_connection")
        if found is None:
            found = self.__dict__["_connection"] = self._isolation_now().own_engine.connect()
        return found

    @contextlib.contextmanager
    def session_scope(self) -> Iterator[Session]:
        """A new session of the test's own: commit at the end, rollback on an error, always closed."""
        with session_scope(self._isolation_now().own_engine) as session:
            yield session

    def enlist(self, engine: Any) -> Any:
        """Point one more engine at the test database until the test ends; for an engine made in ``setUp``.

        :returns: the engine.
        """
        self._isolation_now().lead(engine)
        return engine

    # -- to be overridden by the classes of this library

    @classmethod
    def _recipe(cls) -> Recipe:
        """What the database is made from."""
        configured = cls._configured_url(read_settings())
        dialect = configured.get_backend_name() if configured is not None else "postgresql"
        return MetadataRecipe(cls.metadata if cls.metadata is not None else [], cls._base_data(), dialect=dialect)

    @classmethod
    def _base_data(cls) -> Callable[[Session], None] | None:
        overridden = defining_class(cls, "load_base_data") is not DatabaseTest
        return cls.load_base_data if overridden else None

    @classmethod
    def _make_isolation(cls, settings: Settings, engines: list[Any]) -> Isolation:
        """Compose the isolation from the run's things, which are made once."""
        server_url, disposable = cls._server_url(settings, engines)
        database = cls._open_database(settings, server_url, disposable=disposable, transactional=True)
        url = database.url.set(drivername=server_url.drivername)
        configured = cls._configured_url(settings)
        targets = [target_of_url(configured)] if configured is not None and configured.database else []
        run = cls._enter_on(
            database, server_url, ("sandbox", url.drivername), lambda: sandbox_run(database, url, targets)
        )
        return SandboxIsolation(run, cls.transaction_scope, reset_sequences=cls.reset_sequences)

    # -- inside

    @classmethod
    def _check_attributes(cls) -> None:
        if cls.transaction_scope not in _SCOPES:
            raise ConfigurationError(
                f"{cls.__qualname__}.transaction_scope is {cls.transaction_scope!r}.",
                cause="a misspelling",
                remedy='"class" (the default), "module" or "test"',
            )
        if cls.transaction_scope == "test" and defining_class(cls, "setUpTestData") is not DatabaseTest:
            raise ConfigurationError(
                f'{cls.__qualname__} has a setUpTestData, but its transaction_scope is "test".',
                cause="each test has an outer transaction of its own there, so rows cannot outlive a test",
                remedy='make the rows in setUp(), or use transaction_scope = "class"',
            )

    @classmethod
    def _state(cls) -> ClassRun | None:
        state = cls.__dict__.get("_run_state")
        return state if state is not None and state.pid == os.getpid() else None

    @classmethod
    def _begin_class(cls) -> None:
        """Begin the class, unless it has begun: runners differ in whether and when they call setUpClass."""
        if cls._state() is not None:
            return
        scopes.class_started(cls)
        current.replace(cls)
        cls._check_attributes()
        settings = read_settings()
        engines = resolve_engines(cls.engines)
        isolation = modules.isolation_for(cls) or cls._make_isolation(settings, engines)
        cls.addClassCleanup(current.end, cls)
        state = cls._run_state = ClassRun(isolation, settings)
        current.cls = cls
        try:
            isolation.begin_class(f"class {cls.__module__}.{cls.__qualname__}", engines)
            state.begun = True
            cls._offer_engines(isolation)
            cls._watch(state)
            cls._bind_factories(state)
            cls._load_class_data(state)
        except BaseException:
            current.end(cls)
            raise

    @classmethod
    def _offer_engines(cls, isolation: Isolation) -> None:
        """Set the attributes of the class that name the test database."""
        cls.engine = isolation.engine
        cls.database_url = isolation.engine.url.render_as_string(hide_password=False)

    @classmethod
    def _offered(cls) -> tuple[str, ...]:
        """The attributes that are set on the class while it runs."""
        return ("engine", "database_url")

    @classmethod
    def _watch(cls, state: ClassRun) -> None:
        """Record the statements of the tests, and who waits for whom."""
        state.stack.enter_context(state.log.recording_class())
        url = state.isolation.engine.url
        if state.log.recording is not None and url.get_backend_name() == "postgresql":
            state.stack.enter_context(LockWatch(url, state.log.recording))

    @classmethod
    def _bind_factories(cls, state: ClassRun) -> None:
        if cls.factories:
            state.stack.enter_context(
                bound(
                    cls.factories,
                    cls._factory_session,
                    async_session_provider=cls._async_factory_session,
                    run=cls._run_factory,
                )
            )
            state.factories = FactoryManager(cls._factory_session, cls.factories, run=cls._run_factory)

    @classmethod
    def _factory_session(cls) -> Session:
        """The session of factories: the running test's, before that the one of the class data."""
        state = cls._state()
        if state is not None and state.test is not None:
            return state.test._own_session()
        return cls._class_session()  # type: ignore[return-value]

    @classmethod
    def _async_factory_session(cls) -> Any:
        """The async session of factories that make instances asynchronously."""
        return None

    @classmethod
    def _run_factory(cls, make: Callable[[], Any]) -> Any:
        """Call what makes instances with the session of factories."""
        return make()

    @classmethod
    def _load_class_data(cls, state: ClassRun) -> None:
        if defining_class(cls, "setUpTestData") is not DatabaseTest:
            cls.setUpTestData()
            if state.session is not None:
                state.session.commit()

    @classmethod
    def _capture_class_data(cls, state: ClassRun) -> None:
        """What was made until the first test is class data: each test gets its instances fresh."""
        session = state.session
        if session is None and defining_class(cls, "setUpTestData") is DatabaseTest:
            return
        with session or Session(state.isolation.own_engine, expire_on_commit=False) as session:
            session.commit()
            state.data = capture(cls, session, session_of=lambda test: test._own_session())
            session.commit()
        state.session = None

    @classmethod
    def _end_class(cls) -> None:
        state = cls._state()
        cls._run_state = None
        if state is None:
            return
        with contextlib.ExitStack() as stack:
            if state.begun:
                stack.callback(state.isolation.end_class)
            stack.enter_context(state.stack)
            if state.data is not None:
                stack.callback(state.data.release)
            for name in cls._offered():
                if name in cls.__dict__:
                    stack.callback(delattr, cls, name)
            if state.session is not None:
                stack.callback(state.session.close)

    @classmethod
    def _class_session(cls) -> Session | _NoSessionYet:
        state = cls._state()
        if state is None or not state.begun:
            return _NoSessionYet(cls)
        if state.session is None:
            state.session = Session(state.isolation.own_engine, expire_on_commit=False)
        return state.session

    def _isolation_now(self) -> Isolation:
        state = type(self)._state()
        if state is None or state.test is None:
            raise NotRunning(
                f"{self.id()} asked for the database outside of a test.",
                cause="__init__(), or code that runs after the test's cleanups",
                remedy="use the database in setUp(), in the test or in its cleanups",
            )
        return state.isolation

    def _make_session(self) -> Session:
        return Session(self._isolation_now().own_engine)

    # -- the life of a test

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test; the database is made ready just before ``setUp``, whatever the test's ``setUp`` calls."""
        with self._prepared():
            return super().run(result)

    def debug(self) -> None:
        """Run the test without collecting errors."""
        with self._prepared():
            super().debug()

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        original = self.setUp

        @functools.wraps(original)
        def setUp() -> None:
            self._begin_test()
            original()

        self.setUp = setUp  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.setUp

    def _begin_test(self) -> None:
        cls = type(self)
        refuse_forgotten_super(cls, DatabaseTest)
        cls._begin_class()
        state = cls._state()
        assert state is not None
        if state.isolation.needs_rebuild:
            self._rebuild_class(state)
        if not state.captured:
            state.captured = True
            cls._capture_class_data(state)
        self._sessions: list[Session] = []
        state.isolation.begin_test(self.id())
        state.log.begin_test()
        state.test = self
        self.addCleanup(self._end_test)
        if state.factories is not None:
            self.factories = state.factories
        modules.hand_out(self)

    def _rebuild_class(self, state: ClassRun) -> None:
        cls = type(self)
        state.session = None
        state.captured = False
        if state.data is not None:
            state.data.release()
        state.isolation.begin_class(f"class {cls.__module__}.{cls.__qualname__}", resolve_engines(cls.engines))
        cls._offer_engines(state.isolation)
        cls._load_class_data(state)

    def _end_test(self) -> None:
        state = type(self)._state()
        if state is None:
            return
        try:
            problems = state.isolation.end_test(
                failed=self._has_failed(), test_files=source_files(cast(Hashable, type(self)))
            )
            for problem in problems:
                problem.add_note(state.log.text())
        finally:
            state.test = None
            state.log.end_test(self.id())
            self._close_own()
            if state.data is not None:
                state.data.forget(self)
        if len(problems) == 1:
            raise problems[0]
        if problems:
            raise ExceptionGroup(f"{self.id()} left {len(problems)} problems behind", problems)

    def _close_own(self) -> None:
        for session in self._sessions:
            session.close()
        for name in ("session", "_connection"):
            found = self.__dict__.pop(name, None)
            if isinstance(found, Connection):
                found.close()

    def _evidence(self, error: BaseException) -> Iterator[str]:
        state = type(self)._state()
        if state is not None and state.test is self:
            yield state.log.text()
            if state.settings.keep == "fail":
                yield keep_rows(self, state)

    def _own_session(self) -> Session:
        """The session that class data are attached to."""
        return self.session

    def _row_session(self) -> Session:
        return self.session

    def _counts(self, connection: Connection) -> bool:
        return self._isolation_now().carries(connection)

    def _has_failed(self) -> bool:
        outcome = getattr(self, "_outcome", None)
        return outcome is not None and not outcome.success
