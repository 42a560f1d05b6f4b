"""Folders of a run: private, locked while their server may live, swept when their owner is dead."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from dbtestcase.errors import ServerError
from dbtestcase.server.account import Account, reachable
from dbtestcase.server.watcher import DOOR

__all__ = ["RunFolder", "locked", "private_folder", "room_in", "run_places", "sweep", "temp_places"]

RAM = Path("/dev/shm")
LONGEST_PLACE = 60  # bytes: the path of a Unix socket below it must stay under 104


def temp_places() -> list[Path]:
    """The temp folders of this machine, the preferred one first."""
    return list(dict.fromkeys(map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp"))))


def run_places(account: Account) -> list[Path]:
    """Where a server's data may live, the preferred place first: RAM, then the temp folders."""
    return [place for place in (RAM, *temp_places()) if place.is_dir() and _usable(place, account)]


def _usable(place: Path, account: Account) -> bool:
    if len(os.fsencode(place)) > LONGEST_PLACE:
        return False
    return os.access(place, os.W_OK | os.X_OK) and reachable(place, account)


def room_in(place: Path) -> int:
    """Bytes that an ordinary user may still write there."""
    info = os.statvfs(place)
    return info.f_bavail * info.f_frsize


@overload
def private_folder(place: Path) -> Path: ...


@overload
def private_folder(place: Path, *, create: bool) -> Path | None: ...


def private_folder(place: Path, *, create: bool = True) -> Path | None:
    """The folder of this user's runs in a place that others write to as well; ``None`` if absent and not ``create``.

    Its name can be guessed, so one that somebody else has put there is refused.

    :raises ServerError: it is not ours alone, or it cannot be made.
    """
    folder = place / f"dbtestcase-{os.geteuid()}"
    try:
        if create:
            with suppress(FileExistsError):
                # others may pass, to folders whose names they know: the server's account is one of them
                os.mkdir(folder, 0o711)
        info = os.lstat(folder)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not create:
            return None
        raise ServerError(
            f"The folder {folder} cannot be made: {error.strerror}.",
            cause=f"this user (uid {os.geteuid()}) may not write to {place}, or it is full.",
            remedy="set TMPDIR to a folder that this user may write to.",
        ) from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
        raise ServerError(
            f"{folder} is not a folder of uid {os.geteuid()} alone: {stat.filemode(info.st_mode)}, uid {info.st_uid}.",
            cause="another user has made something under the name that our folders have.",
            remedy=f"look at it, and remove it: rm -r {folder}",
        )
    return folder


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file, made with its folder where it is missing; waits for those who hold it now."""
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if not _is_at(descriptor, path):  # pruned while we waited
                continue
            yield
            return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one that has this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


@dataclass
class RunFolder:
    """A new folder for one server, with a lock file beside it that is held as long as the server may live.

    :ivar lock: the descriptor of the lock; who inherits it holds the lock as well.
    """

    path: Path
    lock_path: Path
    lock: int

    @classmethod
    def create(cls, place: Path, account: Account) -> RunFolder:
        """:raises ServerError: the folder cannot be made there."""
        while True:
            path = private_folder(place) / f"{os.getpid()}-{secrets.token_hex(4)}"
            lock_path = path.with_suffix(".lock")
            try:
                descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # the last of the other runs has ended, and removed the empty folder
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, lock_path):
                break
            os.close(descriptor)  # swept in the moment before it was locked
        try:
            os.mkdir(path, 0o700)
            if account.switched:
                os.chown(path, account.uid, account.gid)
        except BaseException:
            folder = cls(path, lock_path, descriptor)
            folder.remove()
            folder.let_go()
            raise
        return cls(path, lock_path, descriptor)

    def remove(self) -> None:
        """Remove everything: the folder first, its lock then, and the folder above if nothing else is in it."""
        _remove(self.path, self.lock_path)

    def let_go(self) -> None:
        """Close this process's descriptor of the lock."""
        os.close(self.lock)


def sweep(places: list[Path]) -> list[Path]:
    """Remove the folders of dead owners from ``places``; what was removed.

    A server that outlived its watcher (nothing but a ``kill -9`` of both does that, where the kernel does not end it)
    has inherited the lock, so its folder is left alone.
    """
    removed = []
    bases = []
    for place in places:
        with suppress(ServerError):  # somebody else's folder under our name: refused when it is to be used
            bases.append(private_folder(place, create=False))
    for lock_path in (path for base in bases if base for path in sorted(base.glob("*.lock"))):
        try:
            descriptor = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = lock_path.with_suffix("")
            if path.exists():
                removed.append(path)
            _remove(path, lock_path)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
    return removed


def _remove(path: Path, lock_path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(path)
    for beside in (path.with_suffix(DOOR), lock_path):
        with suppress(FileNotFoundError):
            beside.unlink()
    with suppress(OSError):  # others are in it
        lock_path.parent.rmdir()


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
