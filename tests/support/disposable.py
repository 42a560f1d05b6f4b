"""Programs that own a disposable server, run in processes of their own, and what is left of them."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import os
import select
import shutil
import signal
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from dbtestcase.server import disposable_server
from dbtestcase.server.account import Account, server_account
from dbtestcase.server.cluster_files import copy_tree
from dbtestcase.server.folders import RAM
from dbtestcase.server.programs import Programs, find_programs, programs_for
from dbtestcase.settings import read_settings
from tests.support.runners import start_python

#: Starts a server and says so: its pid, the watcher's, the server's and the folder of its data, in one line.
OWNER = """
    import os, pathlib, signal, sys
    from dbtestcase.server import disposable_server, folders
    from dbtestcase.settings import read_settings

    if "PLACE" in os.environ:  # instead of the RAM folder, where other runs sweep as well
        folders.RAM = pathlib.Path(os.environ["PLACE"])
    server = disposable_server(read_settings(), on_demand="ON_DEMAND" in os.environ)
    def say(*words):
        print(*words, flush=True)
    postmaster = (server.data / "postmaster.pid").read_text().split()[0]
    say(server._watcher._pid, postmaster, server.data.parent)
"""


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder, in RAM where there is one: clusters are a thousand files each."""
    place = RAM if RAM.is_dir() else Path(tempfile.gettempdir())
    _sweep(place)
    return tempfile.TemporaryDirectory(prefix=f"dbtestcase-scratch-{os.getpid()}-", dir=place)


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder in the temp folder, or in /tmp where that is too long for the sockets of a server in it."""
    place = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(dir=place if len(place) < 50 else "/tmp")


@functools.cache
def _sweep(place: Path) -> None:
    """Remove what runs of the tests have left that were killed."""
    for folder in place.glob("dbtestcase-scratch-*-*"):
        with contextlib.suppress(FileNotFoundError):
            old = time.time() - folder.stat().st_mtime > 3600  # a process of another namespace cannot be seen
            if old and not Path("/proc", folder.name.split("-")[2]).exists() and Path("/proc/self").exists():
                shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def initialised() -> Path:
    """A cache with a cluster as initialised, made once in this process."""
    temporary = scratch()
    atexit.register(temporary.cleanup)
    folder = Path(temporary.name)
    disposable_server(dataclasses.replace(read_settings(), cache=folder, cache_is_chosen=True)).close()
    return folder


def seed(cache: Path) -> None:
    """Put a cluster as initialised into ``cache``, faster than initialising it."""
    for folder in initialised().iterdir():
        there = cache / folder.name
        there.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.is_file():
                shutil.copy2(path, there)
            elif not (there / path.name).exists():
                copy_tree(str(path), str(there / path.name))


class Owner:
    """A process that runs ``OWNER`` and then more, and hangs or ends.

    :ivar watcher: the pid of the watcher.
    :ivar server: the pid of the server.
    :ivar folder: what holds its data.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        words = self.line().split(maxsplit=2)
        if len(words) != 3:
            raise AssertionError(f"no server was started: {words} {process.communicate()}")
        self.watcher, self.server, self.folder = int(words[0]), int(words[1]), Path(words[2])

    def line(self) -> str:
        """The next line of what it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(60)

    def traces(self) -> list[str]:
        """What is left of it now."""
        left = [f"process {pid}" for pid in (self.watcher, self.server) if _alive(pid)]
        return left + [str(path) for path in (self.folder, self.folder.with_suffix(".lock")) if path.exists()]


@contextlib.contextmanager
def owner(more: str = "signal.pause()", *, env: Mapping[str, str] | None = None) -> Iterator[Owner]:
    """An :class:`Owner`; it is killed at the end if it is still there."""
    process = start_python(["-W", "error", "-c", textwrap.dedent(OWNER) + textwrap.dedent(more)], env=env)
    with process:
        try:
            yield Owner(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for_end(*pids: int, seconds: float = 60.0) -> None:
    """Wait until none of the processes is alive.

    :raises AssertionError: one is, after that many seconds.
    """
    until = time.monotonic() + seconds
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([descriptor], [], [], max(until - time.monotonic(), 0))[0]:
                raise AssertionError(f"process {pid} is still alive after {seconds} s")
        finally:
            os.close(descriptor)


def left_in(place: Path, seconds: float = 60.0) -> list[Path]:
    """What is left there of runs that have ended: they do not wait for the watchers of their servers, this does."""
    until = time.monotonic() + seconds
    while (left := [*place.iterdir()]) and time.monotonic() < until:
        time.sleep(0.01)
    return left


def _alive(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def write_program(folder: Path, name: str, script: str) -> None:
    """Put a shell script under the name of a server's program into ``folder``, for every user to run."""
    folder.chmod(0o755)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def programs_that_run(account: Account) -> Programs:
    """The server's programs, where its account can run them."""
    with contextlib.ExitStack() as found:
        return programs_for(account, find_programs(read_settings()), found)


def wrap_programs(folder: Path, before: Mapping[str, str] | None = None) -> Path:
    """Put scripts that run the real programs into ``folder``, after what ``before`` says for each of them."""
    real = programs_that_run(server_account()).bin
    for name in ("postgres", "initdb"):
        write_program(folder, name, f'{(before or {}).get(name, ":")}\nexec {real}/{name} "$@"')
    return folder
