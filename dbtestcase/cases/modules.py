"""What runs in this process: the class, and the module whose rows its classes share.

Runners differ in which hooks they call, so whoever comes next ends what the one before has left.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from sqlalchemy.orm import Session

from ..data import ModuleData, capture_module
from ..errors import ConfigurationError
from ..isolation import Isolation, SandboxIsolation, resolve_engines
from ..settings import read_settings
from . import scopes
from .bases import is_ours
from .class_run import RunningClass, RunningTest

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class Current:
    """The class that runs in this process: the next one ends it where the runner has not."""

    def __init__(self) -> None:
        self.running: RunningClass | None = None
        self.turn = threading.RLock()  # of classes and tests that begin: a runner may have threads
        self._inherited: list[object] = []

    def forked(self) -> None:
        """In a child process: what the parent runs is not ours, to use or to end; so nothing of it is let go."""
        self.turn = threading.RLock()
        if self.running is not None:
            self._inherited.append(self.running.run)
            self.running.run = None

    def replace(self, running: RunningClass) -> None:
        if self.running is None or self.running is running:
            return
        run = self.running.run
        left = run.test if run is not None else None
        if left is not None and left.is_running:
            raise begun_inside(running.cls.__qualname__, left)
        self.end(self.running)
        if left is not None and left.is_driven:
            raise ConfigurationError(
                f"{running.cls.__qualname__} was to begin while {left.test.id()} had not ended: nobody has called "
                "end_test().",
                cause="begin_test() of a Life without an end_test(): what the test left behind was never looked for",
                remedy="life.end_test() in the tear-down that belongs to the set-up, or `with …isolated() as test:`",
            )

    def end(self, running: RunningClass) -> None:
        with self.turn:
            if self.running is running:
                self.running = None
            running.end()


def begun_inside(name: str, running: RunningTest) -> ConfigurationError:
    """The error for a class or a test that begins while a test runs, which goes on."""
    return ConfigurationError(
        f"{name} was to begin while {running.test.id()} is running in this process.",
        cause="a runner that runs tests in threads, or a test that runs others: all of them would use one connection",
        remedy="let the runner use processes (xdist, unittest-parallel without --thread, nose2's mp); run a suite that "
        "is inside of a test in a process of its own",
    )


class Modules:
    """The module whose rows are shared by its classes."""

    def __init__(self) -> None:
        self.isolation: Isolation | None = None
        """That of the module whose rows are shared, of this process or of the one that it was forked from."""
        self.entered: set[str] = set()
        """The modules whose ``setUpModule()`` has called ``enterModule()``."""
        self._session: Session | None = None
        self._data: ModuleData | None = None
        self._module = self._tables = ""
        self._pid = 0

    def enter(self, running: RunningClass) -> Session:
        module = _module_being_set_up(running.cls, sys._getframe(2))
        if current.running is not None and current.running.run is not None and current.running.cls.__module__ == module:
            raise _entered_late(running.cls, f"{current.running.cls.__qualname__} runs")
        current.replace(running)
        self.entered.add(module)
        isolation = self._entered(running, module) or self._open(running, module)
        self._session = self._session or running.sync_session_class(isolation.own_engine, expire_on_commit=False)
        return self._session

    def _entered(self, running: RunningClass, module: str) -> Isolation | None:
        """What a call before this one has opened for the module."""
        mine = self.isolation
        if mine is None or self._pid != os.getpid() or self._module != module:
            return None
        found = running.make_isolation(resolve_engines(running.cls.engines))
        if getattr(found, "run", None) is getattr(mine, "run", self):
            return mine
        raise ConfigurationError(
            f"{running.cls.__qualname__}.enterModule() was called in {module}, which a class with another database has "
            "entered.",
            cause="a module has one outer transaction, on one database",
            remedy="call it once, on the common base of the module's classes; or make the rows in setUpTestData()",
        )

    def isolation_for(self, running: RunningClass) -> Isolation | None:
        cls = running.cls
        if self.isolation is None or self._pid != os.getpid() or self._module != cls.__module__:
            if cls.transaction_scope != "module":
                return None
            self._open(running, cls.__module__)
        self._capture()
        found = running.make_isolation(resolve_engines(cls.engines))
        mine = self.isolation
        if not isinstance(found, SandboxIsolation) or not isinstance(mine, SandboxIsolation):
            return found  # a committing class of the same module, on a database of its own
        if found.run is mine.run:
            mine.reset_sequences = found.reset_sequences
            return mine
        if running.recipe(read_settings()).fingerprint() != self._tables:
            return found  # it has other tables: the rows of the module are none of its business
        raise ConfigurationError(
            f"{cls.__qualname__} uses another server or driver than the rest of its module {cls.__module__}.",
            cause="enterModule() was called on a class with another url or other engines",
            remedy="call it on this class's common base, or move the class to another module",
        )

    def hand_out(self, row_session: Callable[[], Session], isolation: Isolation) -> None:
        """Give a test its own copies of the model instances among the module's globals, attached to its session."""
        if self._data is None or self._pid != os.getpid() or isolation is not self.isolation:
            return
        self._data.hand_out(row_session())

    def _capture(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with session:
                session.commit()
                data = capture_module(sys.modules[self._module], session)
                session.commit()
            self._data = data if len(data) else None

    def _open(self, running: RunningClass, module: str) -> Isolation:
        isolation = running.make_isolation(resolve_engines(running.cls.engines))
        self._tables = running.recipe(read_settings()).fingerprint()

        @contextlib.contextmanager
        def opened() -> Iterator[None]:
            isolation.begin_module(f"module {module}")
            self.isolation, self._module, self._pid = isolation, module, os.getpid()
            try:
                yield
            finally:
                if current.running is not None:
                    current.end(current.running)
                session, self._session, self.isolation = self._session, None, None
                data, self._data = self._data, None
                if session is not None:
                    session.close()
                if data is not None:
                    data.release()
                isolation.end_module()

        scopes.of_module(module, "outer transaction", opened)
        return isolation


_LATE = ("setUpClass", "setUpTestData", "setUp", "asyncSetUp", "load_base_data")


def _module_being_set_up(cls: type, caller: FrameType) -> str:
    """The module that a runner is setting up, as the runner knows; else setUpModule's, the class's, the caller's."""
    named = own = ""
    frame: FrameType | None = caller
    if caller.f_code.co_name == "<module>":
        raise _entered_late(cls, f"{caller.f_globals.get('__name__')} is imported")
    while frame is not None:
        name, place = frame.f_code.co_name, str(frame.f_globals.get("__name__", ""))
        if name in _LATE and _is_a_case(frame.f_locals.get("self", frame.f_locals.get("cls"))):
            raise _entered_late(cls, f"{name}() runs")
        if place == "unittest.suite" and isinstance(frame.f_locals.get("currentModule"), str):
            return str(frame.f_locals["currentModule"])
        if place == "_pytest.fixtures" and (module := getattr(frame.f_locals.get("request"), "module", None)):
            return str(module.__name__)
        if name in ("setUpModule", "setup_module"):
            named = named or place
        if place == cls.__module__:
            own = place
        frame = frame.f_back
    return named or own or str(caller.f_globals.get("__name__", cls.__module__))


def _is_a_case(subject: object) -> bool:
    return any(map(is_ours, (subject if isinstance(subject, type) else type(subject)).__mro__))


def _entered_late(cls: type, when: str) -> ConfigurationError:
    return ConfigurationError(
        f"{cls.__qualname__}.enterModule() was called while {when}.",
        cause="it opens the outer transaction of a module, before the module's first class begins",
        remedy=f"call it in the module's setUpModule(): def setUpModule(): {cls.__name__}.enterModule()",
    )


current = Current()
os.register_at_fork(after_in_child=current.forked)
modules = Modules()
