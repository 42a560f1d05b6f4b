"""Servers that stay when their run has ended: for the next run (``DBTESTCASE_STAY``), or for the rows of failing tests.

One with such rows has a named pipe beside its lock, which its watcher reads: whatever is written there ends it.

When its owner has ended, the watcher of such a server listens on a socket beside its folder, for so long.  The name of
the socket says who may use the server: runs of the same user, programs, cache and project.  Whoever connects first owns
the server from then on; the watcher watches over the new owner as it did over the one before.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from ..reporting import say
from . import cluster_files, watcher
from .cache import ClusterCache
from .cluster import altered_settings
from .folders import claimed, private_folders
from .programs import Programs
from .watcher import DOOR, FREE

PATIENCE = 10.0
"""Seconds for a watcher to answer."""


def staying_name(programs: Programs, cache: ClusterCache | None) -> str:
    """What a server is known by among those that stay: it is the same for the next run of the same project."""
    code = [os.stat(str(module.__file__)).st_mtime_ns for module in (cluster_files, watcher)]
    known = (programs.bin, programs.version, cache.project if cache else "", *code)
    return hashlib.sha256("\0".join(map(str, known)).encode()).hexdigest()[:8]


def waiting(places: list[Path], name: str = "*") -> list[Path]:
    """The folders of this user's servers that wait for a run."""
    bases = [base for place in places for base in private_folders(place)]
    return [path.with_suffix("").with_suffix("") for base in bases for path in sorted(base.glob(f"*.{name}{FREE}"))]


def take(places: list[Path], name: str) -> tuple[Path, socket.socket] | None:
    """The folder of a server that waits, and the connection by which this process owns it now."""
    for folder in waiting(places, name):
        with suppress(OSError), ExitStack() as failing:  # it has ended, or somebody else was faster
            connection = failing.enter_context(_connect(folder.with_name(f"{folder.name}.{name}{FREE}")))
            try:
                if altered_settings(folder / "data"):  # by a run that was killed before it could take it back
                    connection.sendall(b"end\n")
                    continue
                connection.sendall(b"take\n")
                taken = connection.recv(1 << 10).endswith(b"\n")  # one line
            except TimeoutError:
                say(
                    f"the server that stays in {folder} does not answer within {PATIENCE:.0f} s; another one is started"
                )
                raise
            if taken:
                connection.settimeout(None)
                failing.pop_all()
                return folder, connection
    return None


def end_waiting(places: list[Path]) -> Iterator[Path]:
    """End the servers that wait in ``places``, and wait until each is gone; their folders."""
    for folder in waiting(places):
        with suppress(OSError):
            for path in folder.parent.glob(f"{folder.name}.*{FREE}"):
                with _connect(path) as connection:
                    connection.sendall(b"end\n")
                    connection.recv(1)
                wait_for_end(folder.with_name(f"{folder.name}.lock"))
                yield folder


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


KEEP_HOURS = 4
MOST_KEPT = 10
"""How many of one user: each holds some 60 MB of memory."""


def end_oldest(places: list[Path], *, spared: int) -> None:
    """Let all but the ``spared`` newest servers that stay in ``places`` end; does not wait for them."""
    for door in _doors(places)[: -spared or None]:
        _knock(door)


def end_kept(places: list[Path], *, dry: bool = False) -> Iterator[Path]:
    """End the servers that stay in ``places``, and wait until each is gone; their folders."""
    for door in _doors(places):
        if dry:
            with claimed(door.with_suffix("")) as dead:  # nobody knocks: a door that is only opened ends a server too
                if not dead:
                    yield door.with_suffix("")
        elif _knock(door):
            wait_for_end(door.with_suffix(".lock"))
            yield door.with_suffix("")


def _doors(places: list[Path]) -> list[Path]:
    """The named pipes, the oldest first."""
    found: dict[Path, float] = {}
    for place in places:
        for base in private_folders(place):
            for door in base.glob(f"*{DOOR}"):
                with suppress(FileNotFoundError):
                    found[door] = door.lstat().st_mtime
    return sorted(found, key=lambda door: found[door])


def _knock(door: Path) -> bool:
    """Ask for a server's end; ``False`` where it has ended already."""
    try:
        writing = os.open(door, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):  # nobody reads it: its watcher was killed, it will be swept
            return False
        raise
    try:
        if stat.S_ISFIFO(os.fstat(writing).st_mode):
            os.write(writing, b"end\n")
        return True
    finally:
        os.close(writing)


def wait_for_end(lock: Path) -> None:
    """Wait until watcher and server have let go of the lock; the watcher kills a server that does not end."""
    with suppress(FileNotFoundError):
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)
