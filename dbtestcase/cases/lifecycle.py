"""What runs in this process: the class, the module, and what each of them owns.

Runners differ in which hooks they call, so whoever comes next ends what the one before has left.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import unittest
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ..data.class_data import ClassData, ModuleData, capture_module
from ..data.factories import FactoryManager
from ..errors import ConfigurationError
from ..isolation.engines import resolve_engines
from ..isolation.rollback import Isolation, SandboxIsolation
from ..reporting.failures import SQLLog
from ..settings import Settings, read_settings
from . import scopes

if TYPE_CHECKING:
    from .base import DatabaseTest

__all__ = ["ClassRun", "current", "defining_class", "modules", "noting", "refuse_forgotten_super", "source_files"]

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class ClassRun:
    """What a class that is running owns."""

    def __init__(self, isolation: Isolation, settings: Settings) -> None:
        self.settings = settings
        self.log = SQLLog(settings.sql, isolation.carries)
        self.pid = os.getpid()
        self.isolation = isolation
        self.stack = contextlib.ExitStack()  # what ends with the class, besides the isolation
        self.begun = False
        self.test: DatabaseTest | None = None
        self.session: Session | None = None
        self.captured = False
        self.data: ClassData | None = None
        self.factories: FactoryManager | None = None


class Current:
    """The class that runs in this process: the next one ends it where the runner has not."""

    def __init__(self) -> None:
        self.cls: type[DatabaseTest] | None = None

    def replace(self, cls: type[DatabaseTest]) -> None:
        if self.cls is not None and self.cls is not cls:
            self.end(self.cls)

    def end(self, cls: type[DatabaseTest]) -> None:
        if self.cls is cls:
            self.cls = None
        cls._end_class()


class Modules:
    """The module whose rows are shared by its classes."""

    def __init__(self) -> None:
        self._isolation: Isolation | None = None
        self._session: Session | None = None
        self._data: ModuleData | None = None
        self._module = self._tables = ""
        self._pid = 0

    def enter(self, cls: type[DatabaseTest]) -> Session:
        module = sys._getframe(2).f_globals.get("__name__", cls.__module__)
        current.replace(cls)
        isolation = self._open(cls, module)
        self._session = Session(isolation.own_engine, expire_on_commit=False)
        return self._session

    def isolation_for(self, cls: type[DatabaseTest]) -> Isolation | None:
        if self._isolation is None or self._pid != os.getpid() or self._module != cls.__module__:
            if cls.transaction_scope != "module":
                return None
            self._open(cls, cls.__module__)
        self._capture()
        found = cls._make_isolation(read_settings(), resolve_engines(cls.engines))
        mine = self._isolation
        if not isinstance(found, SandboxIsolation) or not isinstance(mine, SandboxIsolation):
            return found  # a committing class of the same module, on a database of its own
        if found.run is mine.run:
            mine.reset_sequences = found.reset_sequences
            return mine
        if cls._recipe().fingerprint() != self._tables:
            return found  # it has other tables: the rows of the module are none of its business
        raise ConfigurationError(
            f"{cls.__qualname__} uses another server or driver than the rest of its module {cls.__module__}.",
            cause="enterModule() was called on a class with another url or other engines",
            remedy="call it on this class's common base, or move the class to another module",
        )

    def hand_out(self, test: DatabaseTest) -> None:
        """Give a test its own copies of the model instances among the module's globals."""
        if self._data is None or self._pid != os.getpid() or self._module != type(test).__module__:
            return
        state = type(test)._state()
        if state is not None and state.isolation is self._isolation:
            self._data.hand_out(test._own_session())

    def _capture(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with session:
                session.commit()
                data = capture_module(sys.modules[self._module], session)
                session.commit()
            self._data = data if len(data) else None

    def _open(self, cls: type[DatabaseTest], module: str) -> Isolation:
        isolation = cls._make_isolation(read_settings(), resolve_engines(cls.engines))
        self._tables = cls._recipe().fingerprint()

        @contextlib.contextmanager
        def opened() -> Iterator[None]:
            isolation.begin_module(f"module {module}")
            self._isolation, self._module, self._pid = isolation, module, os.getpid()
            try:
                yield
            finally:
                if current.cls is not None:
                    current.end(current.cls)
                session, self._session, self._isolation = self._session, None, None
                data, self._data = self._data, None
                if session is not None:
                    session.close()
                if data is not None:
                    data.release()
                isolation.end_module()

        marker = type("_Module", (unittest.TestCase,), {"__module__": module})
        scopes.enter("module", "outer transaction", opened, test_class=marker)
        return isolation


current = Current()
modules = Modules()


def defining_class(cls: type, name: str) -> type | None:
    """The class that defines an attribute."""
    return next((base for base in cls.__mro__ if name in base.__dict__), None)


def noting(set_up_class: Callable[[Any], None]) -> Callable[[Any], None]:
    """An overridden setUpClass() that leaves a note that a runner has called it: not every runner does."""

    @functools.wraps(set_up_class)
    def setUpClass(cls: Any) -> None:
        cls._set_up_by = os.getpid()
        set_up_class(cls)

    return setUpClass


def refuse_forgotten_super(cls: type[DatabaseTest], base: type) -> None:
    """A setUpClass that ran without reaching ours is named; one that no runner called is not its author's fault."""
    if cls._state() is not None or cls.setUpClass.__func__ is base.setUpClass.__func__:  # type: ignore[attr-defined]
        return
    if cls.__dict__.get("_set_up_by") != os.getpid():
        return
    owner = defining_class(cls, "setUpClass")
    where = f"{owner.__module__}.{owner.__qualname__}" if owner is not None else cls.__qualname__
    raise ConfigurationError(
        f"{where}.setUpClass() ran without calling super().setUpClass().",
        cause="an overridden setUpClass() that forgot it",
        remedy="make super().setUpClass() its first line, or move the rows to setUpTestData(), which needs no super()",
    )


@functools.lru_cache(maxsize=512)
def source_files(cls: Any) -> frozenset[str]:
    """The source files of a test class and of its bases outside of this library."""
    files = set()
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] not in ("dbtestcase", "unittest", "builtins"):
            with contextlib.suppress(TypeError, OSError):
                files.add(inspect.getfile(base))
    return frozenset(files)
