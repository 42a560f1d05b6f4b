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

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ServerError
from ..reporting import doing, limit_named_by, say
from ..settings import Settings
from .cluster_files import UNUSED_SECONDS, is_held, publish, remove_tree, sweep_cache, sweep_unless_busy
from .folders import locked, make_folder, private_folder, private_folders, temp_places

MARKERS = (".git", ".hg", "pyproject.toml", "setup.cfg", "setup.py", "tox.ini", "alembic.ini")
REMOVED = "removed."
"""How a folder's name begins that is being removed."""


class BrokenCluster(Exception):
    """A cached cluster is not what it was when it was written."""


@dataclass(frozen=True)
class TemplateFiles:
    """What of a cluster is one template's: a folder, as a path below the cluster's, such as ``base/16384``."""

    folder: str
    files: int
    size: int


@dataclass(frozen=True)
class CachedCluster:
    """A stopped cluster in the cache, as its pointer describes it.

    :ivar templates: by name, with what is known of their files.
    """

    pointer: Path
    folder: Path
    files: int
    size: int
    templates: dict[str, TemplateFiles | None]


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

    One that may only be read is used as it is (an image's, filled by ``python -m dbtestcase prepare``).  A default
    folder that cannot be written (a user without a home) gives way to one in the temp folder, and says so.

    :raises ServerError: the folder was chosen, and it can be neither written nor, prepared, read.
    """
    if settings.cache is None:
        return None
    try:
        with suppress(FileExistsError):
            if not settings.cache.is_dir():
                make_folder(settings.cache, 0o700)
        if any(os.access(pointer, os.R_OK) for pointer in settings.cache.glob("*-*/base.json")):  # clusters to be read
            return settings.cache
        if not os.access(settings.cache, os.W_OK | os.X_OK | os.R_OK):
            raise PermissionError(13, "Permission denied")
        return settings.cache
    except OSError as error:
        if settings.cache_is_chosen:
            raise _unusable(settings.cache, error) from error
        instead = _instead(private_folder(temp_places()[0]))
        with suppress(FileExistsError):
            make_folder(instead, 0o700)
        say(f"{settings.cache} cannot be written ({error.strerror}): clusters are cached in {instead}")
        return instead


def cache_folders(settings: Settings) -> list[Path]:
    """Every folder that :func:`cache_root` may have made under these settings, and that is there."""
    folders = [settings.cache] if settings.cache else []
    if not settings.cache_is_chosen:
        folders += [_instead(base) for base in private_folders(temp_places()[0])]
    return [folder for folder in folders if folder.is_dir()]


def _instead(base: Path) -> Path:
    return base / "cache"


def _unusable(folder: Path, error: OSError, use: str = "written") -> ServerError:
    return ServerError(
        f"The cache folder {folder} cannot be {use}: {error.strerror or error}.",
        cause=limit[0]
        if (limit := limit_named_by(error))
        else f"it belongs to another user than uid {os.geteuid()}, lies on a file system that is full or read-only, or "
        "something else than a folder has its name.",
        remedy="set DBTESTCASE_CACHE to a folder that this user may write to, or to off to go without a cache.",
    )


class ClusterCache:
    """The clusters of one version, initialised in one way, by which they are named in the folder ``root``."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.folder = root / name
        self.lock = self.folder / "lock"
        digest = hashlib.sha256(os.fsencode(project_root())).hexdigest()[:16]
        self.project = self.folder / f"project-{digest}.json"
        self.base = self.folder / "base.json"

    @property
    def writable(self) -> bool:
        """Whether anything may be put there; in an image it may not."""
        return os.access(self.folder if self.folder.is_dir() else self.root, os.W_OK | os.X_OK)

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
            return CachedCluster(pointer, folder, note["files"], note["bytes"], _templates(note["templates"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        except PermissionError as error:
            if pointer == self.project:  # another user's
                return None
            raise _unusable(self.folder, error) from error
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def reading(self) -> AbstractContextManager[None]:
        """Keep others from removing a cluster meanwhile."""
        if not self.writable and not self.folder.is_dir():
            return nullcontext()
        return self._locked(f"writes to {self.folder}", shared=True)

    def changing(self) -> AbstractContextManager[None]:
        """Be the only one who reads or writes."""
        return self._locked(f"initialises {self.folder.name}", shared=False)

    @contextmanager
    def _locked(self, what_others_do: str, *, shared: bool) -> Iterator[None]:
        with doing(f"waiting for another run that {what_others_do}"), self._writing():
            context = locked(self.lock, shared=shared)
            context.__enter__()
        try:
            yield
        finally:
            context.__exit__(None, None, None)

    def copied(self, cluster: CachedCluster, event: dict[str, Any]) -> None:
        """A watcher has copied a cluster, under :meth:`reading`; :exc:`BrokenCluster` where it is not complete."""
        if event["event"] == "uncopied":
            error = OSError(event["errno"], event["text"], event["where"])
            if not event["unreadable"]:
                raise error
            if error.errno == errno.ENOENT:
                raise BrokenCluster(f"{error.filename} is missing")
            raise _unusable(self.folder, error, "read")
        found = event["files"], event["bytes"]
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

    def tidy(self) -> None:
        """Remove clusters that no pointer names any more: their last reader may have been killed."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        pointers = sum(name.endswith(".json") for name in names)
        if len(names) > 2 * pointers + 1:  # each with its folder, and the lock
            sweep_unless_busy(str(self.folder))

    def publish_base(self, data: Path, *, public: bool = False) -> None:
        """Put a cluster that was just initialised into the cache, under :meth:`changing`; all may read a public one."""
        with self._writing():
            publish(str(data), str(self.base), self.note({}), public=public)
            if public:
                for folder in (self.folder, self.root):
                    folder.chmod(0o755)
                self.lock.chmod(0o644)
            for other in self.folder.parent.iterdir():  # versions that nobody has started for long
                if other != self.folder and _unused(other):
                    with locked(other / "lock"):
                        if _unused(other):
                            remove_clusters(other, clusters_in_use(other))

    def note(self, templates: Mapping[str, str] | Sequence[str]) -> dict[str, Any]:
        """What a pointer says beside the cluster's folder.

        :param templates: their names, with the folder of each where that can be copied by itself.
        """
        known = dict(templates) if isinstance(templates, Mapping) else list(templates)
        return {"templates": known, "project": str(project_root())}


def _templates(noted: Any) -> dict[str, TemplateFiles | None]:
    if not isinstance(noted, dict):
        return dict.fromkeys(noted)
    return {
        name: TemplateFiles(each["folder"], each["files"], each["bytes"])
        for name, each in noted.items()
        if re.fullmatch(r"base/\d+", each["folder"])
    }


def clusters_in_use(folder: Path) -> list[Path]:
    """The clusters of a version from which a run may still fetch something; when it ends, its watcher sweeps."""
    return [each for each in folder.iterdir() if each.is_dir() and is_held(str(each))]


def remove_clusters(folder: Path, but: Collection[Path]) -> None:
    """Remove a version's clusters; the caller holds the lock alone.

    Where all go the folder goes in one step: who waits for its lock makes another, and not in what is being removed.
    """
    if not but:
        doomed = folder.with_name(f"{REMOVED}{os.urandom(4).hex()}")
        folder.rename(doomed)
        remove_tree(str(doomed))
        return
    for each in {*folder.iterdir()} - {folder / "lock", *but}:
        remove_tree(str(each)) if each.is_dir() else each.unlink()


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder, also while others remove some."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size


def _unused(folder: Path) -> bool:
    try:
        return time.time() - (folder / "base.json").stat().st_mtime > UNUSED_SECONDS
    except (FileNotFoundError, NotADirectoryError):
        return False
