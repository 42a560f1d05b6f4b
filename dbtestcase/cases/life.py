"""The life of a test without a runner: its beginnings and ends as calls, for whoever owns the life cycle.

A fixture of pytest, a layer, a doctest, a script, a notebook: all of them are doors to the same life.  What a runner
would collect is raised here, so nothing is swallowed.

>>> life = Life(BlogTest)                                           # doctest: +SKIP
>>> life.begin_class()                                              # doctest: +SKIP
>>> test = life.begin_test("publishing")                            # doctest: +SKIP
>>> test.session.add(Post(title="Hello"))                           # doctest: +SKIP
>>> life.end_test()                                                 # doctest: +SKIP
>>> life.end_class()                                                # doctest: +SKIP
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import unittest
import warnings
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from ..errors import ConfigurationError, DBTestCaseWarning
from ..reporting import add_evidence, cleanups_of, name_test, together
from .blocking import run_coroutine
from .lifecycle import lifecycle_of
from .modules import current

__unittest = True  # keeps these frames out of the tracebacks of failing tests

C = TypeVar("C", bound=unittest.TestCase)

_Steps = Generator[Callable[[], Any], Any, None]


class Life(Generic[C]):
    """The life of the tests of one class.

    :param case: a class of this library's, or a subclass: what its attributes and hooks say holds here too.
    :raises ConfigurationError: it is something else.
    """

    def __init__(self, case: type[C]) -> None:
        if not (isinstance(case, type) and hasattr(case, "_dbtestcase")):
            raise ConfigurationError(
                f"{case!r} is not a class of this library.",
                cause="an instance, a plain TestCase, or something else was given",
                remedy="give a subclass of DatabaseTest",
            )
        self.case = case
        self.test: C | None = None
        self._has_begun = False
        self._pid = 0  # of the process at whose end somebody asks whether the last test was ended

    def begin_class(self) -> bool:
        """``setUpClass`` and what belongs to it, unless the class has begun.

        :returns: whether it began now: whoever began it ends it.
        :raises ConfigurationError: a test is running in this process.
        """
        self.refuse_inside_a_test()
        if lifecycle_of(self.case).run is not None:
            return False
        if self._has_begun:  # another class came between, and has ended what belongs to the database
            self.end_class()
        try:
            self.case.setUpClass()
        except BaseException:
            with contextlib.suppress(Exception):  # the error above says what is wrong
                self._clean_class()
            raise
        self._has_begun = True
        return True

    def refuse_inside_a_test(self) -> None:
        """Raise :class:`ConfigurationError` if another test is running in this process."""
        running = current.running
        if running is not None and running.run is not None and running.run.test is not None:
            raise ConfigurationError(
                f"{self.case.__qualname__} was to begin while {running.run.test.test.id()} is running.",
                cause="isolated(), or a fixture of another class, inside of a test: both would use one process's wire",
                remedy="end the one before the other begins, or use the session_scope() of the test that runs",
            )

    def end_class(self) -> None:
        """``tearDownClass`` and the class's cleanups; nothing where it was not this life that began the class.

        :raises ConfigurationError: a test has not ended; it is ended with the class.
        :raises Exception: what went wrong there; an ``ExceptionGroup`` if it was more than one thing.
        """
        problems: list[Exception] = []
        if self.test is not None:
            problems.append(
                ConfigurationError(
                    f"{self.case.__qualname__} was to end while {self.test.id()} runs.",
                    cause="a begin_test() without its end_test()",
                    remedy="call end_test() in the tear-down that belongs to the set-up of the test",
                )
            )
            _collect(problems, lambda: self._drive(self._end_test(None)))
        if not self._has_begun:
            return _raise(problems, f"the end of {self.case.__qualname__}")
        self._has_begun = False
        _collect(problems, self.case.tearDownClass)
        _collect(problems, self._clean_class)
        _raise(problems, f"the end of {self.case.__qualname__}")

    def _clean_class(self) -> None:
        case: Any = self.case
        case.doClassCleanups()
        found = [error for _, error, _ in case.tearDown_exceptions]
        case.tearDown_exceptions.clear()
        _raise([error for error in found if isinstance(error, Exception)], f"the cleanups of {self.case.__qualname__}")

    def begin_test(self, name: str = "isolated", *, files: Iterable[str] = ()) -> C:
        """The database is made ready, then ``setUp``; a class that has not begun begins with it, for :meth:`end_class`.

        :param name: how messages call the test.
        :param files: paths of the source files that the test is written in, beside its class's: an error of this
            library that they catch was expected, and what they flush in the application's session is no lost commit.
        :returns: what ``self`` is in a test.
        :raises ConfigurationError: a test is running, or somebody has written since the last one has ended.
        """
        self._drive(self._begin_test(name, files))
        assert self.test is not None
        return self.test

    def end_test(self, error: BaseException | None = None) -> None:
        """``tearDown`` and the cleanups; then what the test did is undone.

        :param error: what the test failed with: it gets the evidence, and what else is found, as notes.
        :raises ConfigurationError: no test has begun.
        :raises DBTestCaseError: what the test left behind or did wrong, if it had not failed anyhow.
        """
        self._drive(self._end_test(error))

    def _begin_test(self, name: str, files: Iterable[str]) -> _Steps:
        self.begin_class()
        if self._pid != os.getpid():
            self._pid = os.getpid()
            atexit.register(self._tell_of_no_end, self._pid)
        test = self.test = self.case()
        name_test(test, name)
        lifecycle_of(test).is_driven = True
        lifecycle_of(test).own_files = frozenset(files)
        try:
            self._refuse_writes_between(test)
            lifecycle_of(test).begin()
            yield test.setUp
            yield from self._hook("asyncSetUp")
        except BaseException as error:
            yield from self._end_test(error, torn_down=True)
            raise

    def _end_test(self, error: BaseException | None, torn_down: bool = False) -> _Steps:
        test: Any = self.test
        if test is None:
            raise ConfigurationError(
                f"end_test() was called for {self.case.__qualname__}, and no test runs.",
                cause="a second call, or a begin_test() that has failed: such a test is over",
                remedy="call it once for each begin_test() that has returned",
            )
        life = lifecycle_of(test)
        problems: list[Exception] = []
        if error is not None:
            life.failed = True
            add_evidence(error, life.evidence)
        if not torn_down:
            for step in (*self._hook("asyncTearDown"), test.tearDown):
                try:
                    yield step
                except Exception as problem:
                    problems.append(problem)
        self.test = None
        life.is_running = False
        while cleanups := cleanups_of(test):
            function, arguments, keywords = cleanups.pop()
            life.failed = life.failed or bool(problems)
            try:
                yield lambda: function(*arguments, **keywords)  # noqa: B023  called before the next is taken
            except Exception as problem:
                problems.append(problem)
        vars(test).pop("_dbtestcase", None)
        if error is None:
            _raise(problems, test.id())
        else:
            for found in problems:
                error.add_note(f"After it: {type(found).__name__}: {found}")

    def _refuse_writes_between(self, test: C) -> None:
        """What a set-up of wider scope writes while the class runs would be there for one test alone."""
        run = lifecycle_of(test).of_class.run
        if run is None or not run.isolation.undo_writes_between_tests():
            return
        where = next((f" at {query.origin}" for query in reversed(run.log.entries) if query.origin is not None), "")
        raise ConfigurationError(
            f"Something was written to the test database{where} before {test.id()} began; it was undone.",
            cause="a fixture or a set-up that runs before the test's own, or is shared by several: the first test "
            "would have seen its rows, and no other",
            remedy="let it run in the test (a fixture takes the database's fixture as an argument); rows for all tests "
            f"belong to setUpTestData() of {self.case.__qualname__}",
        )

    def _tell_of_no_end(self, pid: int) -> None:
        if self.test is not None and pid == os.getpid():
            warnings.warn(
                f"{self.test.id()} was never ended: what it left behind was not looked for.  Call end_test() and "
                "end_class(), or write `with ….isolated() as test:`.",
                DBTestCaseWarning,
                stacklevel=1,
            )

    def _hook(self, name: str) -> Iterator[Callable[[], Any]]:
        """One of the hooks of async cases."""
        if hasattr(self.test, name):
            yield getattr(self.test, name)

    def _drive(self, steps: _Steps) -> None:
        step = next(steps, None)
        while step is not None:
            try:
                done = step()
                if inspect.iscoroutine(done):
                    run_coroutine(done)
            except BaseException as error:
                step = _next(steps.throw, error)
            else:
                step = _next(steps.send, None)


class AsyncLife(Life[C]):
    """The same where a loop runs: hooks and cleanups are awaited in it."""

    async def begin_test(self, name: str = "isolated", *, files: Iterable[str] = ()) -> C:  # type: ignore[override]
        """As :meth:`Life.begin_test`; ``asyncSetUp`` runs in the loop of who calls."""
        await self._await(self._begin_test(name, files))
        assert self.test is not None
        return self.test

    async def end_test(self, error: BaseException | None = None) -> None:  # type: ignore[override]
        """As :meth:`Life.end_test`; ``asyncTearDown`` and cleanups run in the loop of who calls."""
        await self._await(self._end_test(error))

    async def _await(self, steps: _Steps) -> None:
        step = next(steps, None)
        while step is not None:
            try:
                done = step()
                if inspect.isawaitable(done):
                    await done
            except BaseException as error:
                step = _next(steps.throw, error)
            else:
                step = _next(steps.send, None)


def _next(go_on: Callable[[Any], Callable[[], Any]], value: Any) -> Callable[[], Any] | None:
    try:
        return go_on(value)
    except StopIteration:
        return None


def _collect(problems: list[Exception], function: Callable[[], Any]) -> None:
    try:
        function()
    except Exception as problem:
        problems.append(problem)


def _raise(problems: list[Exception], where: str) -> None:
    if problems:
        raise together(problems, f"{where}: {len(problems)} problems")


@contextlib.contextmanager
def isolated(case: type[C], name: str, file: str) -> Iterator[C]:
    """One test's life, in a block of a file; a class that had not begun begins and ends with it."""
    life = Life(case)
    life._pid = os.getpid()  # the block's end is no one's to forget
    life.begin_class()
    try:
        test = life.begin_test(name, files=[file])
        lifecycle_of(test).is_running = True
        try:
            yield test
        except BaseException as error:
            life.end_test(error)
            raise
        life.end_test()
    finally:
        life.end_class()


@contextlib.asynccontextmanager
async def isolated_async(case: type[C], name: str, file: str) -> AsyncIterator[C]:
    """The same for async classes."""
    life = AsyncLife(case)
    life._pid = os.getpid()
    life.begin_class()
    try:
        test = await life.begin_test(name, files=[file])
        lifecycle_of(test).is_running = True
        try:
            yield test
        except BaseException as error:
            await life.end_test(error)
            raise
        await life.end_test()
    finally:
        life.end_class()
