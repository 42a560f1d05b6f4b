"""Engines that were used before a class had begun: what was written so is in the application's own database.

Between classes an engine is as it always was.  That is right for what a module does when it is imported, and for tests
of other kinds; but a set-up that runs before its class has begun, the class's own, its module's or a runner's, believes
to write for it, as does a cleanup that runs after its end.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from ..drivers import dialect_of, is_harness, is_own, pool_of
from ..reporting import CallSite, awaiting_frames, find_call_site, is_application
from .engine_places import place_of

# Where the code of a test itself is called, and modules are imported.
_OTHERS = {
    ("unittest.case", "run"),
    ("_pytest.python", "pytest_pyfunc_call"),
    ("importlib._bootstrap", "_load_unlocked"),
}

_RUNNERS = {"_pytest", "pluggy", "nose2", "unittest", "zope", "behave", "twisted"}


_OF_MODULES = ("setUpModule", "setup_module")


@dataclass(frozen=True)
class _Use:
    where: str
    outermost: CallSite | None
    is_refused: bool
    """Whether it was in a block of :meth:`EarlyUses.refusing`."""


class EarlyUses:
    """The line at which each engine was used last, while no class ran."""

    def __init__(self) -> None:
        self.is_paused = False  # while a class runs
        self._seen: weakref.WeakKeyDictionary[sa.Dialect, _Use] = weakref.WeakKeyDictionary()
        self._refusing: tuple[list[Engine], Callable[[str, str], Exception]] | None = None

    def note(self, connection: Any, record: Any, fairy: Any) -> None:
        """A pool hands out a connection."""
        if self.is_paused or is_harness() or is_own(pool_of(fairy)):
            return
        where, outermost = find_call_site(2), _outermost()
        if where is None or (outermost is None and self._refusing is None):
            return
        text = str(where) + (f", called by {outermost}" if outermost not in (None, where) else "")
        dialect = dialect_of(pool_of(fairy))
        self._seen[dialect] = _Use(text, outermost, self._refusing is not None)
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
        self._seen = weakref.WeakKeyDictionary({key: use for key, use in self._seen.items() if not use.is_refused})
        try:
            yield
        finally:
            self._refusing = before

    def take(self, engines: Iterable[Engine], *, set_up_in: str | None = None) -> tuple[str, str] | None:
        """The first of the engines that was used, as one writes it, and where; what comes next is asked about its own.

        :param set_up_in: only by a set-up: that of the class which is about to begin, and of its module in this file.
        """
        seen, self._seen = self._seen, weakref.WeakKeyDictionary()
        for engine in engines:
            use = seen.get(engine.dialect)
            if use is not None and (set_up_in is None or use.is_refused or _is_of_module(use.outermost, set_up_in)):
                return place_of(engine) or "the engine", use.where
        return None


def _is_of_module(line: CallSite | None, file: str) -> bool:
    return line is not None and line.function in _OF_MODULES and line.filename == file


def _outermost() -> CallSite | None:
    """The application's line that everything began with; ``None`` in a test, and in the import of a module."""
    found = None
    in_runner = False  # somebody's script may lie beyond it
    for frame in _frames(sys._getframe(2)):
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        if (module, code.co_name) in _OTHERS:
            return None
        in_runner |= module.partition(".")[0] in _RUNNERS
        if not in_runner and is_application(code.co_filename) and code.co_name != "<module>":
            found = CallSite(code.co_filename, frame.f_lineno, code.co_name)
    return found


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
    yield from awaiting_frames()


early_uses = EarlyUses()
event.listen(Pool, "checkout", early_uses.note)
