"""The life of a test: it begins before its ``setUp``, and ends after the last of its own cleanups."""

from __future__ import annotations

import contextlib
import functools
import inspect
import unittest
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ..errors import ConfigurationError, DBTestCaseError, LeakError, NotRunning
from ..isolation import Isolation
from ..reporting import call_site_of, report, together
from .blocks import Blocks
from .class_run import ClassRun
from .hints import why_not_expected
from .keep_rows import keep_rows
from .late_settings import find_set
from .modules import begun_inside, current, modules
from .nested import each_example_alone, is_last_example, rolled_back
from .never_ran import find_unawaited, refuse_lost, refuse_unfinished, unawaited
from .per_class import ClassLifecycle

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class TestLifecycle:
    """``self._dbtestcase``.

    :param test: the test case.
    :param of_class: the life of its class.
    """

    def __init__(self, test: Any, of_class: Any) -> None:
        self.test = test
        self.of_class: ClassLifecycle = of_class
        self.sessions: list[Session] = []
        self.failed = False
        self.not_expected: LeakError | None = None  # what a failure that was expected had to do with this library
        self.in_run = False  # by a runner, which collects what goes wrong
        self.is_driven = False  # by a Life, which ends it
        self.own_files: frozenset[str] = frozenset()  # where it is written, where that is not its class's file
        self.is_awaited = True  # unless the test of an async class is known to be a plain function
        self._is_held = False  # begun before the runner begins it
        self._given: dict[str, Any] = {}
        self._label = ""
        self.is_running = False
        self._blocks: Blocks | None = None

    @property
    def blocks(self) -> Blocks:
        """The blocks that the test asks for."""
        if self._blocks is None:
            self._blocks = Blocks()
        return self._blocks

    @property
    def isolation(self) -> Isolation:
        """How the test that runs is isolated.

        :raises NotRunning: it does not run.
        """
        run = self.of_class.run
        if run is None or run.test is not self:
            raise NotRunning(
                f"{self.test.id()} asked for the database outside of a test.",
                cause="__init__(), or code that runs after the test's cleanups",
                remedy="use the database in setUp(), in the test or in its cleanups",
            )
        return run.isolation

    @property
    def source_files(self) -> frozenset[str]:
        """Where the test is written: what it catches was expected, what it flushes is no lost commit."""
        run = self.of_class.run
        files: frozenset[str] = run.source_files if run is not None else frozenset()
        return files | self.own_files if self.own_files else files

    # -- what a test is given when it first asks

    def give(self, name: str) -> Any:
        """Make what the test is given under a name, and set it there; whatever the test sets itself is its own."""
        made = getattr(self, f"make_{name}")()
        self._given[name] = vars(self.test)[name] = made
        return made

    def take_back(self, name: str) -> Any:
        """Let the test ask anew for what it was given under a name."""
        value = self._given.pop(name, None)
        if value is not None and vars(self.test).get(name) is value:
            del vars(self.test)[name]
        return value

    def given(self, name: str) -> Any:
        """What was given under a name; ``None`` if nothing was."""
        return self._given.get(name)

    def make_session(self) -> Any:
        """A session of the test's own."""
        return self.new_session()

    def make_connection(self) -> Connection:
        """A connection of the test's own."""
        return self.isolation.own_engine.connect()

    def new_session(self) -> Session:
        """A sync session that is closed at the end."""
        session = self.of_class.sync_session_class(self.isolation.own_engine)
        self.sessions.append(session)
        return session

    def row_session(self) -> Session:
        """The sync session that class data are attached to."""
        session: Session = self.test.session
        return session

    @contextlib.contextmanager
    def counting(self) -> Iterator[Session]:
        """The sync session that rows are counted with."""
        yield self.row_session()

    def own_sessions(self) -> list[Session]:
        """The sessions that the test was given, as sync ones."""
        return list(self.sessions)

    def run_on_session(self, function: Callable[[], Any]) -> Any:
        """Call what uses a session of the test's own."""
        return function()

    def finish(self, given_back: Any) -> Any:
        """What became of an example of Hypothesis: nobody awaits it here."""
        return refuse_unfinished(given_back, self.test.id())

    def counts(self, connection: Connection) -> bool:
        """Whether the statements of a connection are those of the test."""
        return self.isolation.carries(connection)

    # -- its life

    def prepare(self) -> None:
        """Have the database made ready just before ``setUp``, whatever that calls."""
        test = self.test
        original = test.setUp

        def setUp() -> None:
            self.begin()
            if (made := original()) is not None:
                refuse_unfinished(made, f"{type(test).__qualname__}.setUp")

        setUp.__wrapped__ = original  # type: ignore[attr-defined]  # whatever else functools.wraps() copies takes longer
        test.setUp = setUp
        if type(test).tearDown is not unittest.TestCase.tearDown:
            last = test.tearDown
            test.tearDown = lambda: refuse_unfinished(last(), f"{type(test).__qualname__}.tearDown")
        self.is_running = True
        self.of_class.tests_begun += 1

    def dismiss(self) -> None:
        """The test has run: take back what :meth:`prepare` has set on it."""
        self.is_running = False
        self.in_run = False
        own = vars(self.test)
        del own["setUp"]
        own.pop("tearDown", None)
        if not self._is_held:
            own.pop("_dbtestcase", None)

    def checked(self, method: Callable[[], Any]) -> Callable[[], Any]:
        """The test method, such that it fails where it did not run.

        :raises ConfigurationError: the test has not begun: something stands before our ``run()``.
        """
        if not self.is_running:
            raise ConfigurationError(
                f"{self.test.id()} was run past DatabaseTest.run(): it would be outside of its transaction.",
                cause="a run() of another base, or of a runner, that calls unittest.TestCase.run() by its name",
                remedy="put the class of dbtestcase first among the bases, or call super().run(result)",
            )
        if self.of_class.asynchronous and inspect.iscoroutinefunction(method):
            return method  # those of other classes have been refused when the class began

        def running() -> Any:
            if not getattr(method, "is_hypothesis_test", False):
                made = method()
                return made if made is None else refuse_unfinished(made, self.test.id())
            block = functools.partial(rolled_back, self, shows=is_last_example)
            with each_example_alone(method, self.test, block, self.finish):
                return refuse_unfinished(method(), self.test.id())

        running.__qualname__ = getattr(method, "__qualname__", running.__qualname__)
        return running

    def checked_cleanup(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A cleanup, such that it fails where it did not run."""
        if self.of_class.asynchronous and inspect.iscoroutinefunction(function):
            return function
        return lambda *args, **kwargs: refuse_lost(
            function(*args, **kwargs), function, f"{self.test.id()}: the cleanup"
        )

    def begin(self) -> None:
        """Begin the test; its end is the last of its cleanups."""
        test = self.test
        if self._is_held and self.of_class.run is not None and self.of_class.run.test is self:
            return
        with current.turn:
            before = self.of_class.run.test if self.of_class.run is not None else None
            if before is not None and before.is_running:
                raise begun_inside(test.id(), before)
            if before is not None:
                before.end_left()
            run = self.of_class.begin_test(self)
            self._began = perf_counter()
            self._label = test.id()
            self.failed = False
            self.not_expected = None
            run.isolation.begin_test(self._label, test_files=self.source_files)
            run.log.begin_test()
            run.test = self
        unawaited.clear()
        if not self._is_held:
            test.addCleanup(self.end)
        if run.factories is not None:
            test.factories = run.factories
        modules.hand_out(self.row_session, run.isolation)

    def hold(self) -> None:
        """Begin the test before its runner runs it; it ends with :meth:`release`."""
        self._is_held = True
        self.begin()

    def release(self) -> None:
        """End a test that was held.

        :raises DBTestCaseError: what it left behind or did wrong.
        """
        try:
            self.end()
        finally:
            vars(self.test).pop("_dbtestcase", None)

    def end(self) -> None:
        """Undo what the test did.

        :raises DBTestCaseError: what it left behind or did wrong.
        """
        run = self.of_class.run
        if run is None:
            return
        ended = perf_counter()
        try:
            problems = run.isolation.end_test(failed=self.failed, test_files=run.source_files | self.own_files)
            if (self._blocks is not None or unawaited) and not self.failed:
                problems = [*problems, *self._never_run()]
            if not self.of_class.bases.settings.isdisjoint(vars(self.test)) and not self.failed:
                problems = [*problems, *find_set(self.of_class.bases, self.test)]
            if self.not_expected is not None:
                problems = [self.not_expected]
            for problem in problems:
                problem.add_note(run.log.text())
                _report_problem(problem)
        finally:
            self._report(run, ended)
            run.test = None
            run.log.end_test(self._label)
            self.close_own()
            if run.data is not None:
                run.data.forget(self.test)
        if problems:
            raise together(problems, f"{self.test.id()} left {len(problems)} problems behind")

    def end_left(self) -> None:
        """End a test whose ``debug()`` has raised: unittest leaves its cleanups to whoever looks at it."""
        if not (self.is_running or self.is_driven or self._is_held):
            with contextlib.suppress(Exception):  # it has failed already
                self.test.doCleanups()

    def _never_run(self) -> list[DBTestCaseError]:
        never_entered = self._blocks.take_problems(self._label) if self._blocks is not None else []
        return [*never_entered, *find_unawaited(self._label, self.source_files)]

    def _report(self, run: ClassRun, ended: float) -> None:
        recorder = run.recorder
        if recorder is not None:
            recorder.statements(
                "test",
                run.log.entries,
                label=self._label,
                at=recorder.since(self._began),
                seconds=ended - self._began,
                cleaning=perf_counter() - ended,
                failed=self.failed,
            )

    def close_own(self) -> None:
        """Close the sessions and the connection that the test was given."""
        if not self._given and not self.sessions:
            return
        with contextlib.ExitStack() as stack:  # one that fails keeps none of the others from closing
            for name in list(self._given):
                value = self.take_back(name)
                if isinstance(value, Connection):
                    stack.callback(value.close)
            for session in reversed(self.sessions):
                stack.callback(session.close)

    def look_at_expected(self, error: BaseException) -> None:
        """The test has failed as a decorator or mark says that it will: unless by this library, which fails it."""
        lost = self.of_class.run.isolation.lost if self.of_class.run is not None else ""
        self.not_expected = self.not_expected or why_not_expected(self.test.id(), error, lost)

    def evidence(self, error: BaseException) -> Iterator[str]:
        """Notes for an exception that is about to fail the test."""
        run = self.of_class.run
        self.failed = True  # unittest itself counts a test as successful again while its cleanups run
        if run is not None and run.test is self:
            _report_problem(error)
            error._dbtestcase_lost = run.isolation.lost  # type: ignore[attr-defined]  # pytest may expect the failure
            yield from self.of_class.hints(error, run)
            yield run.log.text()
            if run.settings.keep == "fail":
                yield keep_rows(self.of_class, run, self.test.id())


def _report_problem(error: BaseException) -> None:
    """Have the report tell of conflicts, leaks and the like, which are errors of the library's own."""
    recorder = report.recorder()
    if recorder is not None and isinstance(error, DBTestCaseError):
        recorder.write("warning", category=type(error).__name__, line=str(call_site_of(error) or ""), text=error.what)
