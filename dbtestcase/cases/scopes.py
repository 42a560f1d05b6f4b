"""Things that live for a run or a module, closed exactly once under every runner.

No runner's hooks can be relied upon alone: pytest never runs module cleanups, the worker processes of nose2 and
unittest-parallel leave without ``atexit``, and a fork after the import carries the parent's things along.  So:

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
from typing import Any, TypeVar

from ..errors import ServerError
from ..reporting import end_at_once

T = TypeVar("T")


class _Scope:
    """Values by key, and the order in which they are to be closed."""

    def __init__(self) -> None:
        self.values: dict[Hashable, Any] = {}
        self.failures: dict[Hashable, Exception] = {}
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
                self.failures[key] = error
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
        import ctypes  # in forked processes alone

        # never freed: the generators of context managers would run to their ends, and close it
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.stack.pop_all()))
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
        self.ends = False

    def of_run(self, key: Hashable, factory: Callable[[], AbstractContextManager[T]]) -> T:
        """Return the thing of the run that ``key`` names; on first use it is made, and closed when the run ends.

        :param factory: makes a context manager; its ``__exit__`` is called once, in the process that made it.
        """
        with self._lock:
            self._own()
            return self._run.enter(key, factory)

    def of_module(self, module: str, key: Hashable, factory: Callable[[], AbstractContextManager[T]]) -> T:
        """The same for a module, which runs now."""
        with self._lock:
            self.module_started(module)
            if not self._module.values:
                unittest.addModuleCleanup(self.close_module, os.getpid())
            return self._module.enter(key, factory)

    def failures(self) -> dict[Hashable, Exception]:
        """What is tried once a run, and could not be made: every class would wait for it again."""
        with self._lock:
            self._own()
            return self._run.failures

    def module_started(self, name: str) -> None:
        """Say which module runs: where it is another one, the things of the module before are closed."""
        with self._lock:
            self._own()
            if name != self._module_name:
                self._module_name = name
                self._module.close()

    def close_module(self, pid: int) -> None:
        with self._lock:
            if pid == os.getpid() == self._pid:
                self._module_name = None
                self._module.close()

    def close_all(self) -> None:
        """Close everything that this process made: the module, then the run, each in reverse order."""
        with self._lock:
            if self._pid != os.getpid():
                return
            with contextlib.ExitStack() as everything:  # runs in reverse, whatever raises
                everything.callback(self._run.close)
                everything.callback(self._module.close)
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
        atexit.register(end_at_once)  # after what is registered later
        atexit.register(self.close_at_end)

    def _forget(self) -> None:
        self._run.forget()
        self._module.forget()
        self._module_name = None

    def forked(self) -> None:
        """In a child process, right after the fork: the lock may be held by a thread that does not exist here."""
        self._lock = threading.RLock()


_scopes = Scopes()
os.register_at_fork(after_in_child=_scopes.forked)


of_run, of_module, failures = _scopes.of_run, _scopes.of_module, _scopes.failures
module_started, close_all = _scopes.module_started, _scopes.close_all


def process_ends() -> bool:
    """Whether this process is about to end, so that nobody need wait for what others do without it."""
    return _scopes.ends


def worker_name() -> str:
    """A short name of this process among its run's: ``gw1`` (pytest-xdist's), ``w3`` (multiprocessing's), ``p4711``."""
    xdist = os.environ.get("PYTEST_XDIST_WORKER", "")
    if xdist:
        return xdist
    identity: tuple[int, ...] = getattr(multiprocessing.current_process(), "_identity", ())
    if identity:
        return "w" + "_".join(map(str, identity))
    return f"p{os.getpid()}"
