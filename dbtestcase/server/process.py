"""The owner's end of a watcher: orders go out, what happened comes back."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
import weakref
from contextlib import ExitStack, suppress
from typing import Any

from ..errors import ServerError, ServerStartFailed
from ..reporting import limit_named_by, say
from . import watcher
from .account import Account
from .folders import RunFolder, above_standard

# A child process that is forked must not hold on to the pipes: the watcher knows its owner's end by them.
_open: weakref.WeakSet[WatcherProcess] = weakref.WeakSet()


class WatcherProcess:
    """A watcher for one folder, as a child process; see :mod:`dbtestcase.server.watcher`.

    Not a :class:`subprocess.Popen`: a forked child that ends would warn of a process that is still running, which is
    not its own.
    """

    def __init__(self, folder: RunFolder, account: Account) -> None:
        self._owner = os.getpid()
        self._folder = folder
        self._received = b""
        self._publishing = 0
        self._connection: socket.socket | None = None
        orders, self._orders = _pipe()
        self._events, events = _pipe()
        uid, gid = (account.uid, account.gid) if account.switched else (-1, -1)
        arguments = map(str, (self._owner, folder.path, folder.lock_path, uid, gid))
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", watcher.__file__, *arguments],
                os.environ,
                file_actions=[
                    *_standard_error(),
                    *((os.POSIX_SPAWN_DUP2, *pair) for pair in ((orders, 0), (events, 1), (folder.lock, 3))),
                ],
                setsigmask=[],
                # who ignores SIGCHLD never learns how a child has ended
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD],
            )
        except OSError as error:
            os.close(self._orders)
            os.close(self._events)
            cause, remedy = limit_named_by(error) or (
                "sys.executable is not a Python interpreter, or no more processes may be started.",
                "run the tests with a python program.",
            )
            raise ServerStartFailed(
                f"The process that watches over the server does not start: {sys.executable}: {error.strerror}.",
                cause=cause,
                remedy=remedy,
            ) from error
        finally:
            os.close(orders)
            os.close(events)
        _open.add(self)

    @classmethod
    def taken(cls, folder: RunFolder, connection: socket.socket) -> WatcherProcess:
        """One that waited for an owner, which this process is now."""
        made = cls.__new__(cls)
        made._owner, made._folder, made._received, made._publishing = os.getpid(), folder, b"", 0
        made._pid, made._connection = 0, connection  # it is no child of this process
        made._orders, made._events = os.dup(connection.fileno()), os.dup(connection.fileno())
        _open.add(made)
        return made

    @property
    def ours(self) -> bool:
        """Whether it watches over this process, rather than over the one that this was forked from."""
        return self._owner == os.getpid()

    def order(self, do: str, **details: Any) -> None:
        """:raises ServerError: the watcher is gone."""
        data = json.dumps({"do": do} | details).encode() + b"\n"
        self._publishing += do == "run"
        try:
            while data:
                data = data[os.write(self._orders, data) :]
        except BrokenPipeError as error:
            raise self.ended() from error

    def ended(self) -> ServerError:
        """The error for a watcher that is gone."""
        return ServerError(
            f"The process {self._pid} that watches over the disposable server has ended, and the server with it.",
            cause="something has killed it: a person, or the kernel for want of memory.",
            remedy="run the tests again.",
        )

    def event(self, timeout: float | None) -> dict[str, Any] | None:
        """The next thing that happened; ``None`` after ``timeout`` seconds, or where the watcher is gone."""
        until = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._received:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            if not select.select([self._events], [], [], left)[0]:
                return None
            block = os.read(self._events, 1 << 16)
            if not block:
                return None
            self._received += block
        line, _, self._received = self._received.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        self._publishing -= event["event"] == "published"
        return event

    def close(self, timeout: float = 30.0, *, wait: bool = True) -> list[dict[str, Any]]:
        """Let it stop the server and remove the folder, and wait until it has; the events that nobody has read.

        Where the server was told to stay, the last of them is ``kept``, and nothing is stopped or removed.  A watcher
        that still writes to the cache when the time is up is left to finish, and one that does nothing is given up; a
        line says so.  Does nothing the second time, and in a process that was forked from the owner.
        """
        if not self.ours or self._orders < 0:
            return []
        _open.discard(self)
        self._close_orders()
        if not wait and not self._publishing and not self._has_ended():
            os.close(self._events)
            return []
        until = time.monotonic() + timeout
        unread = []
        while (event := self.event(max(until - time.monotonic(), 0.0))) is not None:
            unread.append(event)
        os.close(self._events)
        if unread and unread[-1]["event"] in ("kept", "free"):
            return unread
        if time.monotonic() >= until and self._publishing:
            say(f"new templates are still being written to the cache; process {self._pid} does so, and ends then")
            return unread
        with suppress(ChildProcessError):  # the application waits for any child, and has waited for this one
            if time.monotonic() >= until and self._pid:
                say(f"the process {self._pid} did not end the server within {timeout:.0f} s: killed")
                os.kill(self._pid, signal.SIGKILL)  # the kernel ends the server with it
            if self._pid:
                os.waitpid(self._pid, 0)
        self._folder.remove()  # there is nothing left to remove, unless the watcher was killed
        return unread

    def _close_orders(self) -> None:
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
            self._connection.close()
        os.close(self._orders)
        self._orders = -1

    def _has_ended(self) -> bool:
        if not self._pid:
            return False
        try:
            return os.waitpid(self._pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # the application waits for any child, and has waited for this one
            return True

    def let_go(self) -> None:
        """In a forked child: close this end, and do nothing else."""
        if self._orders >= 0:
            if self._connection is not None:
                self._connection.close()
            os.close(self._orders)
            os.close(self._events)
            self._orders = -1


def _pipe() -> tuple[int, int]:
    """A pipe apart from the descriptors that are given to the watcher: this process may have closed its own 0 to 3."""
    reading, writing = os.pipe()
    return above_standard(reading), above_standard(writing)


def _standard_error() -> list[Any]:
    try:
        os.fstat(2)
    except OSError:  # closed: what the watcher opens would take its place
        return [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
    return []


def refuse_unwatched(folder: str) -> None:
    """For who has lost a server of this process: nobody starts it again.

    :param folder: where its socket is.
    :raises ServerError: the process that watched over it was killed.
    """
    for process in list(_open):
        its = process._folder.path  # which it removes where it is not killed
        if process.ours and str(its) == folder and its.exists() and process._has_ended():
            raise process.ended()


def _forked() -> None:
    with ExitStack() as every:  # one whose pipe somebody else has closed keeps none of the others
        every.callback(_open.clear)
        for process in list(_open):
            every.callback(process.let_go)


os.register_at_fork(after_in_child=_forked)
