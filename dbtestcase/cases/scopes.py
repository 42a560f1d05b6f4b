"""Things that live for a run, a module or a class, closed exactly once under every runner.

No runner's hooks can be relied upon alone: pytest never runs module cleanups, the worker processes of nose2 and
unittest-parallel leave without ``atexit``, and a fork after the import carries the parent's things along.  So:

- a class's things end by its class cleanups;
- a module's things end by its module cleanup, *or* with the first class of another module, *or* with the process;
- a run's things end with the process (``multiprocessing.util.Finalize`` and ``atexit``, whichever comes first);
- and everything belongs to the process that made it: what was inherited through a fork is neither used nor closed.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import multiprocessing
import multiprocessing.util
import os
import threading
import unittest
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Literal, TypeVar

from dbtestcase.errors import ConfigurationError, ServerError

__all__ = ["class_started", "close_all", "enter", "live", "process_ends", "worker_name"]

T = TypeVar("T")
ScopeName = Literal["run", "module", "class"]


class _Scope:
    """Values by key, and the order in which they are to be closed."""

    def __init__(self) -> None:
        self.values: dict[Hashable, Any] = {}
        self.failures: dict[Hashable, ServerError] = {}
        self.stack = ExitStack()

    def enter(self, key: Hashable, factory: Callable[[], AbstractContextManager[T]]) -> T:
        if key in self.failures:
            # copied, since a traceback grows with each time that an error is raised
            raise copy.copy(self.failures[key]) from self.failures[key].__cause__
        if key not in self.values:
            try:
                manager = factory()
                self.values[key] = manager.__enter__()
            except ServerError as error:
                self.failures[key] = error  # what does not start is tried once: every class would wait for it again
                raise
            # not enter_context: the failure of one is no exception inside the others
            self.stack.callback(manager.__exit__, None, None, None)
        value: T = self.values[key]
        return value

    def close(self) -> None:
        """Close everything in reverse order; one that fails keeps none of the others from closing."""
        stack, self.stack, self.values, self.failures = self.stack, ExitStack(), {}, {}
        stack.close()

    def forget(self) -> None:
        """Let everything go without closing it: it belongs to another process."""
        self.stack.pop_all()
        self.values, self.failures = {}, {}


class Scopes:
    """The scopes of one process; the module's functions work on the one of this process."""

    def __init__(self) -> None:
        # A thread that asks while another one is making the thing waits for it; one that is made may ask for others.
        self._lock = threading.RLock()
        self._pid: int | None = None
        self._run = _Scope()
        self._module = _Scope()
        self._module_name: str | None = None
        self._classes: dict[type[unittest.TestCase], _Scope] = {}
        self.ends = False

    def enter(
        self,
        scope: ScopeName,
        key: Hashable,
        factory: Callable[[], AbstractContextManager[T]],
        *,
        test_class: type[unittest.TestCase] | None = None,
    ) -> T:
        with self._lock:
            self._own()
            if scope == "run":
                return self._run.enter(key, factory)
            if scope == "module":
                if test_class is not None:
                    self.class_started(test_class)
                if not self._module.values:
                    unittest.addModuleCleanup(self.close_module, os.getpid())
                return self._module.enter(key, factory)
            if test_class is None:
                raise ConfigurationError(
                    f"A thing of scope 'class' was asked for without a class (key: {key!r}).",
                    cause="test_class= was left out.",
                    remedy="pass the test class.",
                )
            return self._class_scope(test_class).enter(key, factory)

    def _class_scope(self, test_class: type[unittest.TestCase]) -> _Scope:
        if test_class not in self._classes:
            scope = self._classes[test_class] = _Scope()
            pid = os.getpid()

            def close() -> None:
                # a runner that forks in the middle of a class runs the class's cleanups in both processes
                if pid == os.getpid() and self._classes.get(test_class) is scope:
                    del self._classes[test_class]
                    scope.close()

            test_class.addClassCleanup(close)
        return self._classes[test_class]

    def class_started(self, test_class: type[unittest.TestCase]) -> None:
        with self._lock:
            self._own()
            if test_class.__module__ != self._module_name:
                self._module_name = test_class.__module__
                self._module.close()

    def close_module(self, pid: int) -> None:
        with self._lock:
            if pid == os.getpid() == self._pid:
                self._module_name = None
                self._module.close()

    def live(self) -> list[Any]:
        with self._lock:
            return [*self._run.values.values()] if self._pid == os.getpid() else []

    def close_all(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                return
            with contextlib.ExitStack() as everything:  # runs in reverse, whatever raises
                everything.callback(self._run.close)
                everything.callback(self._module.close)
                classes, self._classes = self._classes, {}
                for scope in classes.values():
                    everything.callback(scope.close)
                self._module_name = None

    def close_at_end(self) -> None:
        """The process ends."""
        self.ends = True
        self.close_all()

    def _own(self) -> None:
        """Make the scopes this process's own: what a fork brought along is let go."""
        pid = os.getpid()
        if self._pid == pid:
            return
        if self._pid is not None:
            self._forget()
        self._pid = pid
        # A worker of multiprocessing leaves by os._exit: atexit does not run there, a Finalize does.  It also
        # runs in an ordinary process, from multiprocessing's own atexit hook.  Closing twice does nothing.
        multiprocessing.util.Finalize(None, self.close_at_end, exitpriority=10)
        atexit.register(self.close_at_end)

    def _forget(self) -> None:
        self._run.forget()
        self._module.forget()
        for scope in self._classes.values():
            scope.forget()
        self._classes = {}
        self._module_name = None

    def forked(self) -> None:
        """In a child process, right after the fork: the lock may be held by a thread that does not exist here."""
        self._lock = threading.RLock()


_scopes = Scopes()
os.register_at_fork(after_in_child=_scopes.forked)


def enter(
    scope: ScopeName,
    key: Hashable,
    factory: Callable[[], AbstractContextManager[T]],
    *,
    test_class: type[unittest.TestCase] | None = None,
) -> T:
    """Return the thing that ``key`` names in ``scope``; on first use it is made, and closed when the scope ends.

    :param scope: ``"run"``, ``"module"`` or ``"class"``.
    :param key: names the thing within its scope.
    :param factory: makes a context manager; its ``__exit__`` is called once, in the process that made it.
    :param test_class: the class that asks; needed for ``"class"``, and for ``"module"`` it says which module runs.
    :raises ConfigurationError: ``"class"`` without ``test_class``.
    """
    return _scopes.enter(scope, key, factory, test_class=test_class)


def class_started(test_class: type[unittest.TestCase]) -> None:
    """Say that a class begins: where it belongs to another module, the things of the module before are closed."""
    _scopes.class_started(test_class)


def live() -> list[Any]:
    """Return what this process holds for the run, in the order in which it was made; for reports."""
    return _scopes.live()


def close_all() -> None:
    """Close everything that this process made: classes, then the module, then the run, each in reverse order."""
    _scopes.close_all()


def process_ends() -> bool:
    """Whether this process is about to end, so that nobody need wait for what others do without it."""
    return _scopes.ends


def worker_name() -> str:
    """Return a short name of this process among its run's workers, such as ``gw1``, ``w3`` or ``p4711``.

    pytest-xdist says it in a variable, multiprocessing in the identity of its process; otherwise it is the pid.
    """
    xdist = os.environ.get("PYTEST_XDIST_WORKER", "")
    if xdist:
        return xdist
    identity: tuple[int, ...] = getattr(multiprocessing.current_process(), "_identity", ())
    if identity:
        return "w" + "_".join(map(str, identity))
    return f"p{os.getpid()}"
