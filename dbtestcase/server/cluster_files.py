"""The files of a cluster: copied, published in the cache, removed; and room for it to end in where a place is full.

The watcher uses this by itself (see :mod:`.watcher`), so nothing of the package is imported here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNUSED_SECONDS = 30 * 24 * 3600.0  # after which a cached cluster goes
LARGEST_CACHE = 1 << 30  # bytes of the clusters of one version's projects
ABSENT = "dbtestcase-not-copied-yet"  # the one file, which nobody may read, in the folder of a database left out
RESERVE = 4 << 20  # bytes that are given up when the place is full, so that the server can end its work in order
WAS_FULL = "full"  # the file in the watcher's own folder that says that they are given up
RESERVE_SECONDS = 2.0  # after which they are taken again, if they and twice as many more can be had

NOTHING: frozenset[str] = frozenset()
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Unreadable(OSError):
    """What was to be copied cannot be read, or is not there any more."""


def copy_tree(
    source: str, target: str, uid: int = -1, gid: int = -1, *, public: bool = False, leave_out: frozenset[str] = NOTHING
) -> tuple[int, int]:
    """Copy a data folder, and give it to ``uid`` and ``gid`` (-1: this process's).

    Half the time of ``cp -r``, a third of :func:`shutil.copytree`.  Either folder may be another account's: nothing is
    reached by a path through it, no link is followed, and what is made is given away when it is complete.

    :param public: whether everybody may read the copy; otherwise it is 0700 and 0600 throughout, whatever the umask.
    :param leave_out: paths of folders, relative to ``source``, that are not copied.
    :returns: the number of files, and of bytes.
    :raises Unreadable: the source cannot be read.
    :raises OSError: the target cannot be written.
    """
    modes = (0o755, 0o644) if public else (0o700, 0o600)
    reading = _open_folder(source)
    try:
        os.mkdir(target, modes[0])
        writing = os.open(target, FOLDER)
        try:
            asked = os.fstat(writing).st_mode & 0o777 == modes[0]  # else a umask has taken something away
            foreign = os.fstat(reading).st_uid != os.geteuid()
            return _Copying(uid, gid, modes, asked, foreign, leave_out).folder(reading, writing, source, "")
        finally:
            os.close(writing)
    finally:
        os.close(reading)


class _Copying:
    def __init__(
        self, uid: int, gid: int, modes: tuple[int, int], asked: bool, foreign: bool, leave_out: frozenset[str]
    ) -> None:
        self.uid, self.gid, self.modes, self.asked, self.foreign = uid, gid, modes, asked, foreign
        self.leave_out = leave_out

    def folder(self, reading: int, writing: int, source: str, below: str) -> tuple[int, int]:
        files = size = 0
        with os.scandir(reading) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    path = f"{below}{name}"
                    if path in self.leave_out:
                        continue
                    inner = _open_folder(name, reading, source)
                    try:
                        os.mkdir(name, self.modes[0], dir_fd=writing)
                        made = os.open(name, FOLDER, dir_fd=writing)
                        try:
                            count, length = self.folder(inner, made, f"{source}/{name}", f"{path}/")
                        finally:
                            os.close(made)
                    finally:
                        os.close(inner)
                    files, size = files + count, size + length
                elif entry.is_file(follow_symlinks=False):
                    size += self.file(name, reading, writing, source)
                    files += 1
        if not self.asked:
            os.fchmod(writing, self.modes[0])
        if self.uid >= 0:
            os.fchown(writing, self.uid, self.gid)
        return files, size

    def file(self, name: str, source: int, target: int, where: str) -> int:
        size = 0
        try:
            reading = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
        except OSError as error:
            raise _unreadable(error, f"{where}/{name}") from error
        try:
            if self.foreign and not stat.S_ISREG(os.fstat(reading).st_mode):
                return 0  # a pipe that has taken the place of a file
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            writing = os.open(name, flags, self.modes[1], dir_fd=target)
            try:
                if sys.platform == "linux":
                    while count := os.sendfile(writing, reading, None, 1 << 30):
                        size += count
                else:
                    while block := os.read(reading, 1 << 20):
                        size += os.write(writing, block)
                if not self.asked:
                    os.fchmod(writing, self.modes[1])
                if self.uid >= 0:
                    os.fchown(writing, self.uid, self.gid)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        return size


def _open_folder(name: str, inside: int | None = None, source: str = "") -> int:
    try:
        return os.open(name, FOLDER, dir_fd=inside)
    except OSError as error:
        raise _unreadable(error, f"{source}/{name}" if source else name) from error


def _unreadable(error: OSError, path: str) -> Unreadable:
    return Unreadable(error.errno, error.strerror, path)


def remove_tree(path: str) -> bool:
    """Remove a folder with all that is in it, also while others remove it or write to it; whether it is gone."""
    import shutil

    for _ in range(3):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return True
    return False


def publish(source: str, pointer: str, note: dict[str, Any], *, public: bool = False) -> None:
    """Copy the stopped cluster ``source`` into the cache and, when it is complete, let ``pointer`` name it in one step.

    The caller holds the lock alone.

    :param note: with the folder of each template by its name; how many files and bytes each has is added.
    :raises Unreadable: the folder of a template is not complete.
    """
    cache = os.path.dirname(pointer)
    sweep_cache(cache)
    name = f"{os.path.basename(pointer).removesuffix('.json')}-{os.urandom(4).hex()}"
    making = os.path.join(cache, name)
    try:
        files, size = copy_tree(source, making, public=public)
        if isinstance(note["templates"], dict):
            note = note | {"templates": {name: measure(making, at) for name, at in note["templates"].items()}}
        with open(f"{making}.json.new", "w", encoding="utf-8") as stream:
            json.dump(note | {"folder": name, "files": files, "bytes": size, "public": public}, stream)
            os.fchmod(stream.fileno(), 0o644 if public else 0o600)
        os.replace(f"{making}.json.new", pointer)
    finally:
        sweep_cache(cache)


def measure(cluster: str, folder: str) -> dict[str, Any]:
    """Where the files of a database lie, how many they are, and how large."""
    with os.scandir(os.path.join(cluster, folder)) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries}
    if ABSENT in sizes or "PG_VERSION" not in sizes:
        raise Unreadable(errno.ENOENT, "the folder of a template is not complete", folder)
    return {"folder": folder, "files": len(sizes), "bytes": sum(sizes.values())}


def leave_out(data: str, folders: list[str], uid: int, gid: int) -> None:
    """Put something in the place of folders that were not copied, which the server cannot read.

    Where there is nothing PostgreSQL makes a database without an error, and without files; now it is refused.
    """
    for folder in folders:
        os.mkdir(os.path.join(data, folder), 0o700)
        os.close(os.open(os.path.join(data, folder, ABSENT), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0))
        for path in (os.path.join(data, folder, ABSENT), os.path.join(data, folder)):
            os.chown(path, uid, gid, follow_symlinks=False)


def look_for_room(place: str, count: int, size: int) -> None:
    """See whether so many files, and bytes in them, can be written.

    :raises OSError: they cannot.
    """
    info = os.statvfs(place)
    if info.f_bavail * info.f_frsize < size + count * min(info.f_frsize, 4096):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)


def put(staged: str, data: str, folder: str) -> None:
    """Move a complete folder to where :func:`leave_out` has put another; the folders there may be another account's.

    :raises Unreadable: there is none.
    """
    base, name = os.path.split(folder)
    run, within = os.path.split(data)
    with _Opened(run) as above, _Opened(within, above) as cluster, _Opened(base, cluster) as parent:
        with _Opened(name, parent) as empty:
            try:
                os.unlink(ABSENT, dir_fd=empty)
            except FileNotFoundError as error:
                raise _unreadable(error, folder) from error
        os.rename(staged, name, dst_dir_fd=parent)


class _Opened:
    """A folder's descriptor, while a block runs; no link is followed."""

    def __init__(self, path: str, inside: int | None = None) -> None:
        self._path, self._inside = path, inside

    def __enter__(self) -> int:
        self._descriptor = _open_folder(self._path, self._inside)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def hold(folder: str) -> int:
    """Keep a cluster of the cache from being swept as long as the descriptor is open."""
    descriptor = os.open(folder, FOLDER)
    with contextlib.suppress(OSError):  # no locks on that file system: what is gone is made again
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # nobody locks it alone for longer than a look
    return descriptor


def is_held(folder: str) -> bool:
    """Whether a run may still want something from a cluster of the cache."""
    try:
        descriptor = os.open(folder, FOLDER)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def sweep_cache(cache: str) -> None:
    """Remove, under the lock, what no pointer names: earlier clusters, and what a killed process left half-written.

    A cluster from which a run may still want something stays until the next time.

    A pointer goes when it was not used for long, when the folder of its project is gone, or when the clusters of all
    projects take more than :data:`LARGEST_CACHE`: those first that were used longest ago, and never the last one.
    """
    names = os.listdir(cache)
    named = set()
    projects: list[tuple[float, int, str, str]] = []
    for name in names:
        if name.endswith(".json"):
            path = os.path.join(cache, name)
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                with open(path, encoding="utf-8") as stream:
                    note = json.load(stream)
                unused = time.time() - os.stat(path).st_mtime > UNUSED_SECONDS
                if note.get("public"):  # those who only read it cannot say that they did
                    named.add(note["folder"])
                elif unused or (name.startswith("project-") and not os.path.isdir(note.get("project", cache))):
                    os.unlink(path)
                elif name.startswith("project-"):
                    projects.append((os.stat(path).st_mtime, note.get("bytes", 0), path, note["folder"]))
                else:
                    named.add(note["folder"])
    total = 0
    for number, (_, size, path, folder) in enumerate(sorted(projects, reverse=True)):
        total += size
        if number and total > LARGEST_CACHE:
            os.unlink(path)
        else:
            named.add(folder)
    for name in names:
        path = os.path.join(cache, name)
        if name.endswith(".json.new"):
            os.unlink(path)
        elif name not in named and os.path.isdir(path) and not is_held(path):
            remove_tree(path)


class Reserve:
    """Room in the place of the data, held in a folder of the watcher's until the server needs it to end in order."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = os.path.join(folder, "reserve")
        self.again_at = 0.0  # when it is to be tried again, in seconds of time.monotonic(); 0 where it is held

    def take(self, spare: int = 0) -> None:
        """Take the room if there is as much and ``spare`` bytes, or try again later."""
        self.again_at = time.monotonic() + RESERVE_SECONDS
        with contextlib.suppress(OSError, AttributeError):  # it is full; or a system that cannot take room
            info = os.statvfs(self.folder)
            if info.f_bavail * info.f_frsize < spare + RESERVE:
                return
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE)
                self.again_at = 0.0
            except OSError:
                os.unlink(self.path)
                raise
            finally:
                os.close(descriptor)
            os.unlink(os.path.join(self.folder, WAS_FULL))

    def release(self) -> None:
        """Give the room up: the server has none left, and needs some to roll back or to recover."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.close(os.open(os.path.join(self.folder, WAS_FULL), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.again_at = time.monotonic() + RESERVE_SECONDS


def sweep_unless_busy(cache: str) -> None:
    """:func:`sweep_cache`, where nobody reads or writes there now: whoever does is followed by another run."""
    with contextlib.suppress(OSError), LockedAlone(os.path.join(cache, "lock"), wait=False):
        sweep_cache(cache)


class LockedAlone:
    """A cache's lock, while a block runs: the one that has this path now, should the cache be pruned as it waits.

    :param wait: whether to wait for others.
    :raises BlockingIOError: it does not wait, and others hold it.
    :raises FileNotFoundError: the cache was removed.
    """

    def __init__(self, path: str, *, wait: bool = True) -> None:
        self._path, self._how = path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)

    def __enter__(self) -> None:
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(self._descriptor, self._how)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path)):
                        return
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
