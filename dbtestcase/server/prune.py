"""``python -m dbtestcase prune``: everything that this library keeps on the machine, removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

from ..errors import ServerError
from ..settings import Settings
from .cache import REMOVED, cache_folders, clusters_in_use, remove_clusters, size_of
from .cluster_files import remove_tree
from .folders import PASSABLE, RAM, locked, private_folders, sweep, temp_places
from .programs import LOCK
from .staying import end_kept, end_waiting, waiting


def prune_machine(settings: Settings, *, dry: bool = False) -> list[str]:
    """Remove what runs have left: servers with kept rows, the data of killed runs, cached clusters, unused programs.

    :returns: what was removed, a phrase for each.
    """
    places = _places()
    try:
        ended, swept = list(end_kept(places, dry=dry)), sweep(places, dry=dry)
        waited = list(waiting(places) if dry else end_waiting(places))
        removed = [f"server with the rows of failing tests: {path}" for path in ended]
        removed += [f"server that waited for a run: {path}" for path in waited]
        removed += [f"data that a killed run left: {path}" for path in swept]
        for folder in cache_folders(settings):
            removed += _prune_cache(folder, dry)
        bases = [base for place in places for base in private_folders(place)]
        if not any(_in_use(base, {*ended, *waited, *swept}) for base in bases):
            removed += [f"copied programs: {path}" for base in bases for path in _remove_programs(base, dry)]
        if not dry:
            for base in bases:
                _remove_if_empty(base)
    except OSError as error:
        raise ServerError(
            f"{error.filename} cannot be removed: {error.strerror}.",
            cause=f"it belongs to another user than uid {os.geteuid()}.",
            remedy="run this as the user who ran the tests.",
        ) from error
    return removed


def _places() -> list[Path]:
    """Every place where something of ours may be."""
    return [RAM, *temp_places()]


def _prune_cache(root: Path, dry: bool) -> Iterator[str]:
    for lock in sorted(root.glob("*-*/lock")):
        folder = lock.parent
        with nullcontext() if dry else locked(lock):  # waits for a run that copies from it now
            kept = clusters_in_use(folder)
            size = size_of(folder) - sum(map(size_of, kept))
            if not dry:
                remove_clusters(folder, kept)
        if size or not kept:
            yield f"cached clusters: {folder} ({size // 1_000_000} MB)"
    if not dry:
        # a run records anew what a template was made from
        for left in (*root.glob(f"{REMOVED}*"), *root.glob("inputs")):  # the first by a process that was killed
            remove_tree(str(left))
        _remove_if_empty(root)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # absent, or something is in it
        return


def _in_use(base: Path, gone: set[Path]) -> bool:
    """Whether a run's folder is there, besides those that are gone or would be."""
    return any(lock.with_suffix("") not in gone for lock in base.glob("*.lock"))


def _remove_programs(base: Path, dry: bool) -> Iterator[Path]:
    lock, kept = base / LOCK, False
    if not lock.exists() and not _copied(base):
        return
    with nullcontext() if dry else locked(lock, mode=PASSABLE):  # waits for a run that copies or starts them now
        for path in _copied(base):
            if _is_run(path):
                kept = True
            else:
                if not dry:
                    shutil.rmtree(path)
                yield path
        if not kept and not dry:
            lock.unlink(missing_ok=True)


def _copied(base: Path) -> list[Path]:
    return sorted([*base.glob("programs-[0-9]*"), *base.glob("making-*")])


def _is_run(programs: Path) -> bool:
    """Whether a process runs from there, perhaps a server whose data lie where nobody looked; Linux tells."""
    place = os.path.realpath(programs) + os.sep
    for link in Path("/proc").glob("[0-9]*/exe"):
        with suppress(OSError):  # it has ended, or is another user's
            if os.readlink(link).startswith(place):
                return True
    return False
