"""The cache of stopped clusters: initialised once per version, with the templates that each project has made.

One folder for each version and way of initialising holds::

    lock                     held shared by those who copy, alone by those who change anything
    base.json                names the cluster as initialised
    project-<digest>.json    names the cluster with the templates of one project
    base-1f2e3d4c/ ...       the clusters

A pointer (``.json``) is replaced in one step when the cluster that it names is complete; it says how many files and
bytes that has, so that one which has lost some is noticed while it is copied.  Whoever is killed while writing
leaves a folder that no pointer names; the next who writes removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbtestcase.errors import ServerError
from dbtestcase.reporting.progress import doing, say
from dbtestcase.server.folders import locked, private_folder, temp_places
from dbtestcase.server.watcher import UNUSED_SECONDS, copy_tree, publish, sweep_cache
from dbtestcase.settings import Settings

__all__ = ["BrokenCluster", "CachedCluster", "ClusterCache", "cache_folders", "cache_root", "project_root"]

MARKERS = (".git", ".hg", "pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "alembic.ini")


class BrokenCluster(Exception):
    """A cached cluster is not what it was when it was written."""


@dataclass(frozen=True)
class CachedCluster:
    """A stopped cluster in the cache, as its pointer describes it."""

    pointer: Path
    folder: Path
    files: int
    size: int
    templates: tuple[str, ...]


def project_root(start: Path | None = None) -> Path:
    """The folder of the project that is being tested: the nearest one with a project's marks, else the current one.

    The templates of one project are kept apart from those of others, so that a run copies no more than it may use.
    """
    start = start or Path.cwd()
    for folder in (start, *start.parents):
        if any((folder / marker).exists() for marker in MARKERS):
            return folder
    return start


def cache_root(settings: Settings) -> Path | None:
    """The cache's folder, made where it is missing; ``None`` where there is to be none.

    A default folder that cannot be written (a user without a home) gives way to one in the temp folder, and says so.

    :raises ServerError: the folder was chosen, and it cannot be written.
    """
    if settings.cache is None:
        return None
    try:
        settings.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(settings.cache, os.W_OK | os.X_OK | os.R_OK):
            raise PermissionError(13, "Permission denied")
        return settings.cache
    except OSError as error:
        if settings.cache_is_chosen:
            raise _unusable(settings.cache, error) from error
        instead = _instead(private_folder(temp_places()[0]))
        instead.mkdir(mode=0o700, exist_ok=True)
        say(f"{settings.cache} cannot be written ({error.strerror}): clusters are cached in {instead}")
        return instead


def cache_folders(settings: Settings) -> list[Path]:
    """Every folder that :func:`cache_root` may have made under these settings, and that is there."""
    folders = [settings.cache] if settings.cache else []
    with suppress(ServerError):  # somebody else's folder under our name
        base = private_folder(temp_places()[0], create=False)
        folders += [_instead(base)] if base and not settings.cache_is_chosen else []
    return [folder for folder in folders if folder.is_dir()]


def _instead(base: Path) -> Path:
    return base / "cache"


def _unusable(folder: Path, error: OSError, use: str = "written") -> ServerError:
    return ServerError(
        f"The cache folder {folder} cannot be {use}: {error.strerror or error}.",
        cause=f"it belongs to another user than uid {os.geteuid()}, lies on a file system that is full or read-only, "
        "or something else than a folder has its name.",
        remedy="set DBTESTCASE_CACHE to a folder that this user may write to, or to off to go without a cache.",
    )


class ClusterCache:
    """The clusters of one version, initialised in one way.

    :param root: the cache's folder.
    :param name: the version and the way, as a folder's name.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / name
        self.lock = self.folder / "lock"
        digest = hashlib.sha256(os.fsencode(project_root())).hexdigest()[:16]
        self.project = self.folder / f"project-{digest}.json"
        self.base = self.folder / "base.json"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def find(self) -> CachedCluster | None:
        """The project's cluster, else the one as initialised, else ``None``."""
        return self.read(self.project) or self.read(self.base)

    def read(self, pointer: Path) -> CachedCluster | None:
        """What a pointer names; ``None`` where there is no pointer, or it cannot be understood."""
        try:
            note: dict[str, Any] = json.loads(pointer.read_text(encoding="utf-8"))
            folder = self.folder / str(note["folder"])
            return CachedCluster(pointer, folder, note["files"], note["bytes"], tuple(note["templates"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        except OSError as error:
            raise _unusable(self.folder, error) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep others from removing a cluster meanwhile."""
        with doing(f"waiting for another run that writes to {self.folder}"), self._writing():
            context = locked(self.lock, shared=True)
            context.__enter__()
        try:
            yield
        finally:
            context.__exit__(None, None, None)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one who reads or writes."""
        with doing(f"waiting for another run that initialises {self.folder.name}"), self._writing():
            context = locked(self.lock)
            context.__enter__()
        try:
            yield
        finally:
            context.__exit__(None, None, None)

    def copy(self, cluster: CachedCluster, target: Path, uid: int, gid: int) -> None:
        """Copy a cluster, under :meth:`reading`.

        :raises BrokenCluster: it is not complete.
        :raises OSError: the target cannot be written.
        """
        try:
            found = copy_tree(str(cluster.folder), str(target), uid, gid)
        except OSError as error:
            if not str(error.filename or "").startswith(str(self.folder)):
                raise
            if isinstance(error, FileNotFoundError):
                raise BrokenCluster(f"{error.filename} is missing") from error
            raise _unusable(self.folder, error, "read") from error
        if found != (cluster.files, cluster.size):
            raise BrokenCluster(f"it has {found[0]} files of {cluster.files}, {found[1]} bytes of {cluster.size}")
        with suppress(OSError):
            os.utime(cluster.pointer)  # says that it was used

    def discard(self, cluster: CachedCluster, reason: str) -> None:
        """Remove a broken cluster, unless somebody has replaced it meanwhile."""
        with self.changing(), self._writing():
            if self.read(cluster.pointer) == cluster:
                say(f"the cached cluster {cluster.folder} is broken ({reason}): it is made again")
                cluster.pointer.unlink()
            sweep_cache(str(self.folder))

    def publish_base(self, data: Path, templates: tuple[str, ...] = ()) -> None:
        """Put a cluster that was just initialised into the cache, under :meth:`changing`."""
        with self._writing():
            publish(str(data), str(self.base), self.note(templates))
            for other in self.folder.parent.iterdir():  # versions that nobody has started for long
                if other != self.folder and other.is_dir() and _unused(other):
                    shutil.rmtree(other, ignore_errors=True)

    def note(self, templates: tuple[str, ...]) -> dict[str, Any]:
        """What a pointer says beside the cluster's folder."""
        return {"templates": list(templates), "project": str(project_root())}


def _unused(folder: Path) -> bool:
    try:
        return time.time() - (folder / "base.json").stat().st_mtime > UNUSED_SECONDS
    except FileNotFoundError:
        return False
