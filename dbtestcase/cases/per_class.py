"""The life of a class: its server, database and sandbox (made once, lazily), its engines, its rows, its end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from ..data import FactoryManager, bound, capture, engine_of
from ..drivers import letting_pass
from ..errors import ConfigurationError
from ..isolation import Isolation, early_uses, engines_among, engines_of_class, resolve_engines
from ..migrations import commands_led
from ..reporting import add_class_cleanup, report
from ..settings import Settings, read_settings
from . import scopes
from .bases import source_files_of
from .class_run import ClassRun, NoSessionYet, RunningTest
from .configuration import check_written, metadata_in
from .hints import hints
from .late_settings import refuse_changed, settings_of
from .modules import current, modules
from .never_ran import outliving_exits, refuse_unfinished, watch_module_cleanups, watch_unawaited
from .order_of_bases import check_bases, forgotten_set_up, refuse_never_entered, watches
from .provisioning import Provisioning

if TYPE_CHECKING:
    from ..migrations import Target

__unittest = True  # keeps these frames out of the tracebacks of failing tests

_SCOPES = ("class", "module", "test")


class ClassLifecycle(Provisioning):
    """``cls._dbtestcase``.

    :param cls: the test class.
    """

    given: tuple[str, ...] = ("connection", "database_url", "engine", "session")
    """The names of what a class and its tests are given while they run."""

    asynchronous = False
    """Whether tests are awaited."""

    def __init__(self, cls: Any) -> None:
        super().__init__(cls)
        self.run: ClassRun | None = None
        """What the class owns while it runs in this process."""
        self._checked = self._has_own_set_up = False
        self.offered: set[str] = set()
        self.tests_begun = 0
        self._set_ups = 0  # how many setUpClass() of the class's bases are running, one within the other

    @property
    def label(self) -> str:
        """How messages of the server call the class."""
        return f"class {self.cls.__module__}.{self.cls.__qualname__}"

    # -- the parts that a case class may have otherwise

    def migration_target(self, isolation: Isolation) -> Target:
        """The test database, for an env.py: seen through the sandbox."""
        from ..migrations import Target

        return Target(isolation.engine.url, contained=True, engine=isolation.own_engine)

    def offers(self, isolation: Isolation) -> dict[str, Any]:
        """The attributes that are set on the class while it runs."""
        return {"engine": isolation.engine, "database_url": isolation.database_url}

    def factory_session(self) -> Session:
        """The session of factories: the running test's, before that the one of the class data."""
        run = self.run
        if run is not None and run.test is not None:
            return run.test.row_session()
        return self.session()  # type: ignore[return-value]

    def async_factory_session(self) -> Any:
        """The async session of factories that make instances asynchronously."""
        return None

    def run_factory(self, make: Callable[[], Any]) -> Any:
        """Call what makes instances with the session of factories."""
        return make()

    # -- the life of the class

    @contextlib.contextmanager
    def setting_up(self) -> Iterator[None]:
        """A ``setUpClass()`` of the class or of a base runs; with the outermost, class data end.

        :raises ConfigurationError: it did not reach ours, or would end the process.
        """
        with current.turn:
            self._set_ups += 1
            try:
                with (
                    outliving_exits(f"{self.cls.__qualname__}.setUpClass() or setUpTestData()"),
                    self._refusing_early_uses() if self._set_ups == 1 else contextlib.nullcontext(),
                ):
                    yield
            finally:
                self._set_ups -= 1
            if not self._set_ups:
                self._is_set_up()

    def _is_set_up(self) -> None:
        if self.run is None:
            raise forgotten_set_up(self.bases)
        if watches(self.bases.written("setUpClass")) or not self.bases.overrides("setUpClass"):
            isolation = self.run.isolation
            if isolation.needs_rebuild:
                self.run.set_up_rows.refuse_if_lost()
                return  # the first test begins the class again, as it does where the loss comes later
            try:
                self._complete(self.run)
            except Exception:
                if not isolation.needs_rebuild:
                    raise

    def set_up(self, of_base: Callable[[], None]) -> None:
        """Begin the class; what its next base does to set up comes first."""
        with self.setting_up() if not self._set_ups else contextlib.nullcontext():  # of another's in its turn
            of_base()
            self.begin()

    def begin(self) -> None:
        """Begin the class, unless it has begun: runners differ in whether and when they call setUpClass."""
        if self.run is None:
            with current.turn:
                self._begin()

    def _begin(self) -> None:
        scopes.module_started(self.cls.__module__)
        if current.running not in (None, self):
            current.replace(self)
        self.check()
        watch_unawaited()
        settings = read_settings()
        recorder = _recorder(settings)
        began, waited = (recorder.now(), recorder.in_phases) if recorder is not None else (0.0, 0.0)
        engines, outside = engines_of_class(self.cls)
        file = str(getattr(sys.modules.get(self.cls.__module__), "__file__", None))
        found = early_uses.begins(self.cls.__module__, engines, set_up_in=file)
        if found is not None:
            raise self._early_use(*found)
        with letting_pass(outside) if outside else contextlib.nullcontext():
            of_module = modules.isolation is not None or self.cls.transaction_scope == "module"
            isolation = (of_module and modules.isolation_for(self)) or self.make_isolation(engines)
        add_class_cleanup(self.cls, current.end, self)
        current.running = self
        run = self.run = ClassRun(self.label, isolation, settings, source_files_of(self.cls))
        run.recorder, run.began, run.waited = recorder, began, waited
        run.engines = engines
        fixtures = "pytest" in sys.modules  # those of a class come after setUpClass()
        if fixtures or self._has_own_set_up or self.bases.overrides("setUpTestData"):  # else nobody could change any
            run.said = settings_of(self.bases)
        try:
            isolation.begin_class(self.label, engines, outside)
            run.begun = True
            run.stack.callback(isolation.end_class, test_files=run.source_files)
            run.stack.enter_context(commands_led(lambda: self.migration_target(run.isolation)))
            self._offer(run)
            run.stack.enter_context(run.log.recording_class(isolation.engine.url))
            self._bind_factories(run)
            self._load_data(run)
            if self._has_own_set_up:
                run.stack.callback(run.set_up_rows.complete)
                run.set_up_rows.watch()
        except BaseException:
            current.end(self)
            raise

    def begin_test(self, test: RunningTest) -> ClassRun:
        """Make the class ready for a test."""
        run = self.run
        if run is None:
            self.refuse_early_use(
                "make the rows in setUp() or setUpTestData(); for a layer's testSetUp() turn on the plugin of nose2: "
                "`plugins = dbtestcase.nose2_plugin` in the section [unittest] of unittest.cfg, and `always-on = True` "
                "in [dbtestcase]",
                test,
            )
            if self.cls.__module__ not in modules.entered:
                refuse_never_entered(self.cls.__module__, test.test.id())
            self.begin()
            run = self.run
            assert run is not None
        run.isolation.abandon_test()
        if run.isolation.needs_rebuild:
            self._rebuild(run)
        if not run.captured:
            self._complete(run)
        if run.said:
            refuse_changed(self.bases, run.said)
            run.said = {}
        return run

    def refuse_early_use(self, remedy: str, test: RunningTest | None = None) -> None:
        """For a class that nobody has begun before its first test is set up.

        :param remedy: what to do where one would have done it.
        :raises ConfigurationError: one of its engines was used on its own database.
        """
        found = early_uses.take(resolve_engines(self.cls.engines))
        if found is not None:
            engine, where = found
            begins = f"{self.cls.__qualname__} was to begin" + (f" with {test.test.id()}" if test is not None else "")
            raise ConfigurationError(
                f"{begins} after {engine} had been used on its own database at {where}.",
                cause="a set-up that a runner calls before the class has begun (a layer's, or a fixture's): what it "
                "wrote is in the application's own database, and not in the test's",
                remedy=f"{remedy}; where the engine may reach its own database, name it in `outside` instead",
            )

    def _refusing_early_uses(self) -> contextlib.AbstractContextManager[None]:
        """Refuse engines before the class leads them; those that functions give are asked for when it begins."""
        return early_uses.refusing(engines_among(self.cls.engines), self._early_use)

    def _early_use(self, engine: str, where: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.cls.__qualname__} was to begin after {engine} had been used on its own database at {where}.",
            cause="setUpModule(), a fixture, or lines of setUpClass() before super().setUpClass(): the class has not "
            "begun there, so that they reach the application's own database, and not the test's",
            remedy="call super().setUpClass() first; make rows in setUpTestData() or, for a module, on the session of "
            "enterModule(); tables and rows of all classes in load_initial_schema() and load_base_data()",
        )

    @contextlib.contextmanager
    def cleaning_up(self, *, was_begun: bool) -> Iterator[None]:
        """A class cleanup runs: one that was added before the class had begun, after its end.

        :raises ConfigurationError: it uses an engine of the class, which has its own database again.
        """
        if was_begun or self.run is not None:
            yield
            return

        def error(engine: str, where: str) -> ConfigurationError:
            return ConfigurationError(
                f"A cleanup of {self.cls.__qualname__} used {engine} on its own database at {where}.",
                cause="addClassCleanup() before super().setUpClass(): what is added first runs last, after the class",
                remedy="call super().setUpClass() first",
            )

        with early_uses.refusing(engines_among(self.cls.engines), error):
            yield

    def _report_set_up(self, run: ClassRun) -> None:
        recorder = run.recorder
        if recorder is not None:
            label = f"{self.cls.__module__}.{self.cls.__qualname__}"
            recorder.statements(
                "class",
                run.log.entries,
                label=label,
                at=run.began,
                seconds=recorder.now() - run.began,
                waited=recorder.in_phases - run.waited,
            )

    def leave(self) -> None:
        """End the class, where a runner that calls no class cleanups goes on to other things."""
        current.end(self)

    def end(self) -> None:
        if self.run is not None and self.run.test is not None:
            self.run.test.end_left()
        run, self.run = self.run, None
        if run is None:
            return
        watch_module_cleanups(self.cls.__module__)  # those that its set-up and its tests have added
        with run.stack as stack:
            if run.data is not None:
                stack.callback(run.data.release)
            if run.session is not None:
                stack.callback(run.session.close)

    @property
    def sync_session_class(self) -> type[Session]:
        """What its sessions are made of."""
        made_of: type[Session] = self.cls.session_class
        return made_of

    def session(self) -> Session | NoSessionYet:
        """The session of the class data."""
        run = self.run
        if run is None or not run.begun:
            return NoSessionYet(self.cls)
        if run.session is None:
            run.session = self.sync_session_class(run.isolation.own_engine, expire_on_commit=False)
        return run.session

    def hints(self, error: BaseException, run: ClassRun) -> Iterator[str]:
        """What may be behind the failure of a test."""
        try:
            tables, made_by = self.tables()
            yield from hints(
                error,
                name=self.cls.__qualname__,
                metadata=tables,
                made_by=made_by,
                dialect=run.isolation.engine.dialect.name,
                resets=self.resets_ids,
                log=run.log.entries,
            )
        except Exception as broken:  # the test's own failure is what matters
            yield f"dbtestcase: no hint could be found: {type(broken).__name__}: {broken}"

    def tables(self) -> tuple[list[MetaData], str]:
        """What the tables are made of, and what makes them instead: a name for messages, empty where nothing does."""
        return metadata_in(self.cls), ""

    @property
    def resets_ids(self) -> bool:
        """Whether ids start from the same number in every test."""
        return bool(self.cls.reset_sequences)

    # -- inside

    def check(self) -> None:
        """Refuse what is misspelt, what would be ignored and what would never run."""
        if not self._checked:
            self._has_own_set_up = check_bases(self.bases, given=self.given)
            check_written(self.bases, given=self.given, asynchronous=self.asynchronous)
            self._check_values()
            self._checked = True

    def _check_values(self) -> None:
        cls = self.cls
        kind = "AsyncSession" if self.asynchronous else "Session"
        if not isinstance(cls.session_class, type) or kind not in {base.__name__ for base in cls.session_class.__mro__}:
            raise ConfigurationError(
                f"{cls.__qualname__}.session_class is {cls.session_class!r}.",
                cause="a sessionmaker, a session, or the class of sync sessions in an async class",
                remedy=f"{kind} (the default) or a subclass of it",
            )
        if cls.transaction_scope not in _SCOPES:
            raise ConfigurationError(
                f"{cls.__qualname__}.transaction_scope is {cls.transaction_scope!r}.",
                cause="a misspelling",
                remedy='"class" (the default), "module" or "test"',
            )
        for name in ("engines", "outside", "factories"):
            if isinstance(value := getattr(cls, name), Iterator):
                raise ConfigurationError(
                    f"{cls.__qualname__}.{name} is {value!r}, of which the first who reads it leaves nothing.",
                    cause="a generator, or what map() and filter() give back",
                    remedy=f"{name} = list(…)",
                )
        if not isinstance(cls.reset_sequences, bool):
            raise ConfigurationError(
                f"{cls.__qualname__}.reset_sequences is {cls.reset_sequences!r}.",
                cause="a word or a list where yes or no belongs: any word counts as yes",
                remedy="True or False (the default)",
            )
        if cls.transaction_scope == "test" and self.bases.overrides("setUpTestData"):
            raise ConfigurationError(
                f'{cls.__qualname__} has a setUpTestData, but its transaction_scope is "test".',
                cause="each test has an outer transaction of its own there, so rows cannot outlive a test",
                remedy='make the rows in setUp(), or use transaction_scope = "class"',
            )

    def _offer(self, run: ClassRun) -> None:
        """Set the attributes of the class that name the test database."""
        offers = self.offers(run.isolation)
        of_users = self.bases.described(offers)
        if not self.offered:
            run.stack.callback(self._take_back)
        for name in offers.keys() - of_users:
            self.offered.add(name)
            setattr(self.cls, name, offers[name])

    def _take_back(self) -> None:
        for name in self.offered.intersection(vars(self.cls)):
            delattr(self.cls, name)
        self.offered.clear()

    def _bind_factories(self, run: ClassRun) -> None:
        factories = self.cls.factories
        if factories:
            run.stack.enter_context(
                bound(
                    factories,
                    self.factory_session,
                    async_session_provider=self.async_factory_session,
                    run=self.run_factory,
                    keeps=lambda session: run.test is not None and engine_of(session) in run.engines,
                )
            )
            run.factories = FactoryManager(self.factory_session, factories, run=self.run_factory)

    def _load_data(self, run: ClassRun) -> None:
        if self.bases.overrides("setUpTestData"):
            refuse_unfinished(self.cls.setUpTestData(), f"{self.cls.__qualname__}.setUpTestData()")
            if run.session is not None:
                run.session.commit()

    def _complete(self, run: ClassRun) -> None:
        """Class data are complete: what is written from now on belongs to the next test."""
        if not run.captured:
            refuse_changed(self.bases, run.said)
            run.captured = True
            run.set_up_rows.complete()
            self._capture_data(run)
            run.isolation.end_class_data()
            self._report_set_up(run)

    def _capture_data(self, run: ClassRun) -> None:
        """Let each test get the instances that were made for the class fresh."""
        session = run.session
        if session is None and not self.bases.overrides("setUpTestData"):
            return
        with session or self.sync_session_class(run.isolation.own_engine, expire_on_commit=False) as session:
            session.commit()
            run.data = capture(self.cls, session, session_of=lambda test: test._dbtestcase.row_session())
            session.commit()
        run.session = None

    def _rebuild(self, run: ClassRun) -> None:
        run.set_up_rows.refuse_if_lost()
        run.session = None
        run.captured = False
        if run.data is not None:
            run.data.release()
        run.isolation.begin_class(self.label, resolve_engines(self.cls.engines))
        self._offer(run)
        try:
            self._load_data(run)
        except BaseException:
            run.isolation.spoil()  # without its rows no test of the class may run
            raise


def _recorder(settings: Settings) -> report.Recorder | None:
    """What records what this process does, from the first time on, if the settings ask for a report or a summary."""
    if not (settings.report or settings.summary):
        return None
    scopes.of_run(
        "report",  # the first thing of the run, and so the last that ends
        lambda: report.reporting(settings.report, scopes.worker_name(), summarize=settings.summary),
    )
    return report.recorder()
