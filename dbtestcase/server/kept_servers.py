"""Servers that stay when their run has ended, because the rows of a failing test are on them; and their end.

Such a server has a named pipe beside its lock, which its watcher reads: whatever is written there ends it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dbtestcase.server.folders import claimed, private_folders
from dbtestcase.server.watcher import DOOR

__all__ = ["KEEP_HOURS", "MOST_KEPT", "end_kept", "end_oldest", "wait_for_end"]

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
