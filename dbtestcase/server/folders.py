"""Folders of a run: private, locked while their server may live, swept when their owner is dead.

They lie in places that others write to as well, under names that can be guessed.  A folder that somebody else has put
there is passed over; and what root does for a server of another account it does through descriptors and in folders of
its own, never by a path through a folder of that account.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ServerError
from ..reporting import say
from .account import Account, reachable
from .cluster_files import remove_tree
from .watcher import DOOR, FREE, OWN

RAM = Path("/dev/shm")
LONGEST_PLACE = 60  # bytes: the path of a Unix socket below it must stay under 104
_RUN = re.compile(rf"(\d+-[0-9a-f]{{8}})({re.escape(DOOR)}|{re.escape(OWN)}|\.[0-9a-f]{{8}}{re.escape(FREE)})?")


def temp_places() -> list[Path]:
    """The temp folders of this machine, the preferred one first."""
    try:
        preferred: tuple[str, ...] = (tempfile.gettempdir(),)
    except FileNotFoundError:  # none can be written; there may be room in RAM
        preferred = ()
    return list(dict.fromkeys(map(Path, (*preferred, "/tmp", "/var/tmp"))))


def run_places(account: Account) -> list[Path]:
    """Where a server's data may live, the preferred place first: RAM, then the temp folders."""
    return [place for place in (RAM, *temp_places()) if place.is_dir() and _usable(place, account)]


def _usable(place: Path, account: Account) -> bool:
    if len(os.fsencode(place)) > LONGEST_PLACE:
        return False
    return os.access(place, os.W_OK | os.X_OK) and reachable(place, account) and not _anybody_may_rename(place)


def _anybody_may_rename(place: Path) -> bool:
    """Whether others may take our folders there away and put theirs in their place."""
    mode = place.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def make_folder(path: Path, mode: int) -> None:
    """Make a folder with these modes, whatever the umask; those above it, where they are missing, are private."""
    if not path.parent.exists():
        with suppress(FileExistsError):
            make_folder(path.parent, 0o700)
    os.mkdir(path, mode)
    if stat.S_IMODE(os.lstat(path).st_mode) != mode:
        os.chmod(path, mode)


PASSABLE = 0o711
"""Others may pass, to folders whose names they know: the server's account is one of them."""


def private_folder(place: Path, *, name: str = "dbtestcase", mode: int = PASSABLE) -> Path:
    """The folder of this user in a place that others write to as well, made where it is missing.

    Its name can be guessed: where somebody else has put something there, one with a random name is used.

    :raises ServerError: it cannot be made.
    """
    found = private_folders(place, name=name)
    if found:
        return found[0]
    usual = place / f"{name}-{os.geteuid()}"
    for folder in (usual, place / f"{usual.name}-{secrets.token_hex(2)}"):
        try:
            make_folder(folder, mode)
        except FileExistsError:
            if _is_ours(folder):  # another run was faster
                return folder
            info = os.lstat(folder)
            say(
                f"{folder} is not a folder of uid {os.geteuid()} alone ({stat.filemode(info.st_mode)}, uid "
                f"{info.st_uid}): passed over for one with another name"
            )
        except OSError as error:
            raise ServerError(
                f"The folder {folder} cannot be made: {error.strerror}.",
                cause=f"this user (uid {os.geteuid()}) may not write to {place}, or it is full.",
                remedy="set TMPDIR to a folder that this user may write to.",
            ) from error
        else:
            return folder
    raise ServerError(f"No folder can be made in {place}.", remedy="set TMPDIR to a folder of your own.")


def private_folders(place: Path, *, name: str = "dbtestcase") -> list[Path]:
    """What :func:`private_folder` has made in a place, the usual one first; nothing of anybody else's."""
    usual = place / f"{name}-{os.geteuid()}"
    others = sorted(place.glob(f"{usual.name}-{'[0-9a-f]' * 4}")) if os.path.lexists(usual) else []
    return [folder for folder in (usual, *others) if _is_ours(folder)]


def _is_ours(folder: Path) -> bool:
    try:
        info = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


@contextmanager
def locked(path: Path, *, shared: bool = False, mode: int = 0o700) -> Iterator[None]:
    """Hold a lock file, made with its folder where it is missing; waits for those who hold it now.

    One that may only be read is locked all the same; where nobody may write, nobody changes anything.

    :param mode: of the folder, where it is missing, as it is when ``prune`` removes it in this moment.
    """
    while True:
        descriptor = _open_lock(path, shared=shared, mode=mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if not _is_at(descriptor, path):  # pruned while we waited
                continue
            yield
            return
        finally:
            os.close(descriptor)


def above_standard(descriptor: int) -> int:
    """The same file under a number that no child process uses for something else (0 to 3)."""
    if descriptor > 3:
        return descriptor
    above = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 4)
    os.close(descriptor)
    return above


def _open_lock(path: Path, *, shared: bool, mode: int) -> int:
    tries = 10
    while True:
        try:
            with suppress(FileExistsError):
                if not path.parent.is_dir():
                    make_folder(path.parent, mode)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the folder was pruned in this moment
            if not (tries := tries - 1):
                raise
        except OSError as error:
            if not shared or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one that has this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


@dataclass
class RunFolder:
    """A new folder for one server, with a lock file beside it that is held as long as the server may live.

    :ivar own: a folder beside it for what its account may read and not change.
    :ivar lock: the descriptor of the lock; who inherits it holds the lock as well.
    """

    path: Path
    lock_path: Path
    lock: int

    @property
    def own(self) -> Path:
        return self.path.with_name(self.path.name + OWN)

    @classmethod
    def create(cls, place: Path) -> RunFolder:
        """:raises ServerError: the folder cannot be made there."""
        while True:
            path = private_folder(place) / f"{os.getpid()}-{secrets.token_hex(4)}"
            lock_path = path.with_suffix(".lock")
            try:
                descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # the last of the other runs has ended, and removed the empty folder
                continue
            descriptor = above_standard(descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                os.close(descriptor)
                lock_path.unlink()
                raise
            if _is_at(descriptor, lock_path):
                break
            os.close(descriptor)  # swept in the moment before it was locked
        folder = cls(path, lock_path, descriptor)
        try:
            make_folder(folder.own, 0o711)
            make_folder(path, 0o700)
        except BaseException:
            folder.remove()
            folder.let_go()
            raise
        return folder

    def give(self, account: Account) -> None:
        """Give the folder to the server's account; what this user has to put into it is in it by now."""
        if account.switched:
            os.chown(self.path, account.uid, account.gid, follow_symlinks=False)

    def remove(self) -> None:
        """Remove everything: the folders first, their lock then, and the folder above if nothing else is in it."""
        _remove(self.path)

    def let_go(self) -> None:
        """Close this process's descriptor of the lock."""
        os.close(self.lock)


def sweep(places: list[Path], *, dry: bool = False) -> list[Path]:
    """Remove the folders of dead owners from ``places``; what was removed, or would be if it is ``dry``.

    A server that outlived its watcher (nothing but a ``kill -9`` of both does that, where the kernel does not end it)
    has inherited the lock, so its folder is left alone.  A folder without a lock is nobody's: the lock is there first.
    """
    removed = []
    for base in (base for place in places for base in private_folders(place)):
        runs = sorted({base / match[1] for name in _names(base) if (match := _RUN.fullmatch(name))})
        for path in dict.fromkeys((*runs, *(lock.with_suffix("") for lock in sorted(base.glob("*.lock"))))):
            with claimed(path) as dead:
                there = dead and path.exists()
                if dead and (dry or _remove(path)) and there:
                    removed.append(path)
    return removed


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether nobody holds the lock of a run's folder, or it has none; it is held meanwhile."""
    try:
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held; or a file system without locks, where nobody can know
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _remove(path: Path) -> bool:
    """Whether all is gone; the lock goes last, since without it nobody would look again."""
    door, lock = path.with_suffix(DOOR), path.with_suffix(".lock")
    door.unlink(missing_ok=True)
    for free in path.parent.glob(f"{path.name}.*{FREE}"):
        free.unlink(missing_ok=True)
    gone = remove_tree(str(path.with_name(path.name + OWN))) and remove_tree(str(path))
    if gone:
        lock.unlink(missing_ok=True)
    with suppress(OSError):  # others are in it
        path.parent.rmdir()
    return gone


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
