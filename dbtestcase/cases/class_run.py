"""What a class that is running owns, and what stands for it on one that is not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from ..backends import Recipe
from ..data import ClassData, FactoryManager
from ..errors import LeakError, NotRunning
from ..isolation import Isolation
from ..reporting import Query, SQLLog, recording, report
from ..sandbox import classify
from ..settings import Settings
from .late_settings import Said

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class RunningClass(Protocol):
    """A class; ``run`` is what it has while it runs."""

    cls: Any
    run: Any

    @property
    def sync_session_class(self) -> type[Session]: ...

    def recipe(self, settings: Settings) -> Recipe: ...

    def make_isolation(self, engines: list[Any]) -> Isolation: ...

    def end(self) -> None: ...


class RunningTest(Protocol):
    """A test."""

    test: Any
    is_running: bool

    @property
    def of_class(self) -> RunningClass: ...

    @property
    def isolation(self) -> Isolation: ...

    @property
    def source_files(self) -> frozenset[str]: ...

    def evidence(self, error: BaseException) -> Iterator[str]: ...

    def row_session(self) -> Session: ...

    def own_sessions(self) -> list[Session]: ...

    def run_on_session(self, function: Callable[[], Any]) -> Any: ...

    def given(self, name: str) -> Any: ...

    def end_left(self) -> None: ...


class ClassRun:
    """What a class that is running owns."""

    def __init__(self, label: str, isolation: Isolation, settings: Settings, source_files: frozenset[str]) -> None:
        self.settings = settings
        self.source_files = source_files  # of the class and of its bases outside of this library
        self.log = SQLLog(settings.sql, isolation.carries)
        self.isolation = isolation
        self.engines: list[Engine] = []  # the application's
        self.stack = contextlib.ExitStack()  # what ends with the class, besides the isolation
        self.recorder: report.Recorder | None = None  # where a report was asked for
        self.began = self.waited = 0.0  # in its time
        self.begun = False
        self.test: RunningTest | None = None
        self.session: Session | None = None
        self.captured = False
        self.data: ClassData | None = None
        self.factories: FactoryManager | None = None
        self.set_up_rows = SetUpRows(label, isolation.carries)
        self.said: Said = {}  # what was set on the class when it began


class NoSessionYet:
    """``session`` on a class that has not begun: a value, because nose2 gets every attribute of a class it loads."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> Any:
        raise NotRunning(
            f"{self._cls.__qualname__}.session was used before the class began.",
            cause="setUpClass() that uses it before super().setUpClass(), or code at import",
            remedy="make rows in setUpTestData(), or call super().setUpClass() first",
        )


class SetUpRows:
    """Notes whether anything is written to the test database between the making of class data and their end."""

    def __init__(self, label: str, carries: Callable[[Connection], bool]) -> None:
        self._label = label
        self._carries = carries
        self._wrote = False
        self._stack = contextlib.ExitStack()
        self._recording: Iterable[Query] = ()

    def watch(self) -> None:
        """Begin, when ``setUpTestData()`` has ended."""
        self._recording = self._stack.enter_context(recording(self._carries))

    def complete(self) -> None:
        """Class data are complete."""
        self._wrote |= any(query.ended and classify(query.statement).writes for query in self._recording)
        self._recording = ()
        self._stack.close()

    def refuse_if_lost(self) -> None:
        """The class begins again: what it wrote in ``setUpClass()`` is lost."""
        self.complete()
        if self._wrote:
            raise LeakError(
                f"What setUpClass() of {self._label} wrote after super().setUpClass() is lost: the test database had "
                "to be begun again, and setUpClass() is not called again.",
                cause="the connection was lost, or an earlier test changed more than rows: see the first error",
                remedy="write these rows in setUpTestData(), which is called again where the database is",
            )
