"""Engines that were used before a class had begun: what was written so is in the application's own database.

Between classes an engine is as it always was.  That is right for what a module does when it is imported, and for tests
of other kinds; but a set-up that runs before its class has begun, the class's own, its module's or a runner's, believes
to write for it, as does a cleanup that runs after its end, the class's own, its module's or a fixture's.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from ..drivers import dialect_of, is_harness, is_own, pool_of
from ..errors import ConfigurationError
from ..reporting import CallSite, awaiting_frames, find_call_site, is_application
from .engine_places import place_of
from .left_threads import refuse_left

# Where the code of a test itself is called, and modules are imported.
_OTHERS = {
    ("unittest.case", "run"),
    ("_pytest.python", "pytest_pyfunc_call"),
    ("importlib._bootstrap", "_load_unlocked"),
}

_RUNNERS = {"_pytest", "pluggy", "nose2", "unittest", "zope", "behave", "twisted"}


_OF_RUNS = ("startTestRun", "pytest_configure", "pytest_sessionstart")
_OF_MODULES = ("setUpModule", "setup_module")
_ENDS_OF_MODULES = ("tearDownModule", "teardown_module")


@dataclass(frozen=True)
class _Use:
    where: str
    outermost: CallSite | None
    is_refused: bool
    """Whether it was in a block of :meth:`EarlyUses.refusing`."""
    fixture: Any
    """The fixture of pytest's that did it."""


class EarlyUses:
    """The line at which each engine was used last, while no class ran."""

    def __init__(self) -> None:
        self.is_paused = False  # while a class runs
        self._seen: weakref.WeakKeyDictionary[sa.Dialect, list[_Use]] = weakref.WeakKeyDictionary()
        self._refusing: tuple[list[Engine], Callable[[str, str], Exception]] | None = None
        self._around: weakref.WeakKeyDictionary[sa.Dialect, set[Any]] = weakref.WeakKeyDictionary()
        """Of an engine that a class has led: the class's module, and the fixtures that end after it."""

    def note(self, connection: Any, record: Any, fairy: Any) -> None:
        """A pool hands out a connection."""
        if self.is_paused or is_harness() or is_own(pool_of(fairy)):
            return
        dialect: Any = dialect_of(pool_of(fairy))
        if dialect in self._around:
            refuse_left()
        where, (outermost, fixture, ending) = find_call_site(2), _look_around()
        text = str(where) + (f", called by {outermost}" if outermost not in (None, where) else "")
        if ending is not None and ending in self._around.get(dialect, ()):
            raise _late_use(ending, text if where is not None else "its end")
        if where is None or (outermost is None and self._refusing is None):
            return
        use = _Use(text, outermost, self._refusing is not None, fixture)
        self._seen[dialect] = [*filter(_lasts, self._seen.get(dialect, ())), use]
        engines, error = self._refusing or ([], None)
        for engine in engines:
            if engine.dialect is dialect and error is not None:
                raise error(place_of(engine) or "the engine", text)

    @contextlib.contextmanager
    def refusing(self, engines: Iterable[Engine], error: Callable[[str, str], Exception]) -> Iterator[None]:
        """Refuse the engines, which no class leads yet, or any more.

        :param error: made from an engine, as one writes it, and where it was used.
        """
        before, self._refusing = self._refusing, (list(engines), error)
        for dialect, uses in self._seen.items():
            self._seen[dialect] = [use for use in uses if not use.is_refused]
        try:
            yield
        finally:
            self._refusing = before

    def take(self, engines: Iterable[Engine], *, set_up_in: str | None = None) -> tuple[str, str] | None:
        """The first of the engines that was used, as one writes it, and where; what comes next is asked about its own.

        :param set_up_in: only by a set-up: that of the class which is about to begin, of its module in this file, of
            a fixture around it, and of the run.
        """
        seen = self._seen
        if not any(seen.values()):
            return None
        self._seen = weakref.WeakKeyDictionary()
        if set_up_in is not None:
            self._seen.update({dialect: [*filter(_lasts, uses)] for dialect, uses in seen.items()})
        for engine, use in [(each, use) for each in engines for use in seen.get(each.dialect, ())]:
            if (
                set_up_in is None
                or use.is_refused
                or _is_of_module(use.outermost, set_up_in)
                or _is_of_run(use.outermost)
                or use.fixture in _fixtures_around()
            ):
                return place_of(engine) or "the engine", use.where
        return None

    def begins(self, module: str, engines: Sequence[Engine], *, set_up_in: str) -> tuple[str, str] | None:
        """A class of a module is about to lead engines: what tears down around it is refused from now on.

        :returns: what :meth:`take` finds.
        """
        found = self.take(engines, set_up_in=set_up_in)
        around = {module, *_fixtures_around()}
        for engine in engines:
            self._around.setdefault(engine.dialect, set()).update(around)
        return found


def _is_of_module(line: CallSite | None, file: str) -> bool:
    return line is not None and line.function in _OF_MODULES and line.filename == file


def _is_of_run(line: CallSite | None) -> bool:
    return line is not None and line.function in _OF_RUNS


def _lasts(use: _Use) -> bool:
    """Whether it was by a set-up that other classes are to see as well."""
    return _is_of_run(use.outermost) or _has_begun(use.fixture)


def _has_begun(fixture: Any) -> bool:
    return getattr(fixture, "cached_result", None) is not None


def _fixtures_around() -> list[Any]:
    """The fixtures of pytest's that have begun for the test case that it sets up."""
    frame: FrameType | None = sys._getframe(2) if "_pytest" in sys.modules else None
    while frame is not None:
        request = frame.f_locals.get("request") if frame.f_globals.get("__name__") == "_pytest.unittest" else None
        if request is not None:
            known = request._pyfuncitem._fixtureinfo.name2fixturedefs
            return [each for name in known for each in known[name] if _has_begun(each)]
        frame = frame.f_back
    return []


def _late_use(ending: Any, where: str) -> ConfigurationError:
    name = f"The end of the module {ending}" if isinstance(ending, str) else f"The end of the fixture {ending.argname}"
    return ConfigurationError(
        f"{name} was about to use an engine of a class that has ended, on its own database, at {where}.",
        cause="tearDownModule(), a cleanup of the module or what comes after a fixture's `yield`: it reaches the "
        "application's own database, and not the test's",
        remedy="take it away (nothing of the test database lasts), or write it into tearDownClass(); where the engine "
        "may reach its own database, name it in `outside` instead of `engines`",
    )


def _look_around() -> tuple[CallSite | None, Any, Any]:
    """The application's line that everything began with; the fixture that begins; the module or fixture that ends.

    None of them in a test, and in the import of a module.
    """
    found = fixture = ending = None
    in_runner = False  # somebody's script may lie beyond it
    for frame in _frames(sys._getframe(2)):
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        if (module, code.co_name) in _OTHERS:
            return None, None, ending
        if module == "_pytest.fixtures":
            fixture = fixture or (frame.f_locals["fixturedef"] if code.co_name == "pytest_fixture_setup" else None)
            ending = ending or (frame.f_locals["self"] if code.co_name == "finish" else None)
        elif code.co_name in _ENDS_OF_MODULES:
            ending = ending or module
        elif (module, code.co_name) == ("unittest.suite", "_handleModuleTearDown"):
            ending = ending or frame.f_locals["previousModule"]
        in_runner |= module.partition(".")[0] in _RUNNERS
        if not in_runner and is_application(code.co_filename) and code.co_name != "<module>":
            found = CallSite(code, frame.f_lasti)
    return found, fixture, ending


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
    yield from awaiting_frames()


early_uses = EarlyUses()
event.listen(Pool, "checkout", early_uses.note)
