"""Engines that were used before a class had begun: what was written so is in the application's own database.

Between classes an engine is as it always was.  That is right for what a module does when it is imported, and for tests
of other kinds; but a runner's set-up of a test that runs before the test's class has begun believes to write for it.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from types import FrameType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

from ..drivers import dialect_of, is_harness, is_own, pool_of
from ..reporting import CallSite, find_call_site, is_application
from .engine_places import place_of

# Where the code of a test itself is called, and modules are imported.
_OTHERS = {
    ("unittest.case", "run"),
    ("_pytest.python", "pytest_pyfunc_call"),
    ("importlib._bootstrap", "_load_unlocked"),
}

_RUNNERS = {"_pytest", "pluggy", "nose2", "unittest", "zope", "behave", "twisted"}


class EarlyUses:
    """The line at which each engine was used last, while no class ran."""

    def __init__(self) -> None:
        self.is_paused = False  # while a class runs
        self._seen: weakref.WeakKeyDictionary[sa.Dialect, str] = weakref.WeakKeyDictionary()

    def note(self, connection: Any, record: Any, fairy: Any) -> None:
        """A pool hands out a connection."""
        if self.is_paused or is_harness() or is_own(pool_of(fairy)):
            return
        where, outermost = find_call_site(2), _outermost()
        if where is not None and outermost is not None:
            self._seen[dialect_of(pool_of(fairy))] = str(where) + (
                f", called by {outermost}" if outermost != where else ""
            )

    def forget(self) -> None:
        """A class begins: what comes next is asked about its own."""
        self._seen.clear()

    def of(self, engines: Iterable[Engine]) -> tuple[str, str] | None:
        """The first of the engines that was used, as one writes it, and where."""
        for engine in engines:
            where = self._seen.get(engine.dialect)
            if where is not None:
                return place_of(engine) or "the engine", where
        return None


def _outermost() -> CallSite | None:
    """The application's line that everything began with; ``None`` in a test, and in the import of a module."""
    found = None
    in_runner = False  # somebody's script may lie beyond it
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        if (module, code.co_name) in _OTHERS:
            return None
        in_runner |= module.partition(".")[0] in _RUNNERS
        if not in_runner and is_application(code.co_filename) and code.co_name != "<module>":
            found = CallSite(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return found


early_uses = EarlyUses()
event.listen(Pool, "checkout", early_uses.note)
