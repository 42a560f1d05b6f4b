"""The files of templates that a server knows and that were not copied when it started: fetched before they are needed.

A cluster of the cache holds the templates of every class of a project, and a run needs one or two of them.  The others
stay in the cache: their databases are in the server's catalog, and in the place of each folder lies one with a single
file that the server's account cannot read.  PostgreSQL would make an empty database of a folder that is not there, and
say nothing; of this one it makes none, on whatever road somebody asks for it.

The folder is copied beside the data and takes its place in one step when it is complete: whoever is killed meanwhile
leaves things as they were.  The watcher holds the cluster in the cache, so that no other run sweeps it away.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from ..errors import ServerError
from ..reporting import doing, limit_named_by
from .cache import CachedCluster, ClusterCache, TemplateFiles
from .cluster_files import Unreadable, copy_tree, put, remove_tree


def last_used(cluster: CachedCluster) -> str | None:
    """The template of a cluster that a run has asked for last, which the next one will want as well."""
    used: dict[str, int] = {}
    for name, files in cluster.templates.items():
        if files is not None:
            with suppress(OSError):
                used[name] = os.stat(cluster.folder / files.folder).st_mtime_ns
    return max(used, key=lambda name: used[name], default=None)


class TemplatesOnDemand:
    """The templates of the cluster that a server was copied from.

    :param data: the server's data.
    :param own: a folder on the same file system, this user's alone.
    :param owner: whom the data belong to, uid and gid; -1: this process's.
    """

    def __init__(
        self, cache: ClusterCache, cluster: CachedCluster, data: Path, own: Path, owner: tuple[int, int]
    ) -> None:
        self._cache, self._cluster, self._data, self._own, self._owner = cache, cluster, data, own, owner
        self._mutex = threading.Lock()
        self._unused = {name: files for name, files in cluster.templates.items() if files is not None}
        first = last_used(cluster)
        self._absent = {name: files for name, files in self._unused.items() if name != first}

    @property
    def absent(self) -> dict[str, TemplateFiles]:
        """Those whose files are not there, by name."""
        return dict(self._absent)

    def fetch(self, name: str) -> bool:
        """Have the files of a template there, before a database is made from it.

        :returns: ``False`` where they cannot be had any more (the cache was emptied): the template is to be dropped.
        :raises ServerError: there is no room for them.
        """
        with self._mutex:
            files = self._unused.pop(name, None)
            if files is not None:
                with suppress(OSError):  # a cache that may only be read, or is gone
                    os.utime(self._cluster.folder / files.folder)
            absent = self._absent.get(name)
            if absent is None:
                return True
            with doing("fetching a template database from the cache", "template"):
                there = self._copy(absent)
            del self._absent[name]
            return there

    def forget(self, name: str) -> None:
        """The database was dropped."""
        self._absent.pop(name, None)

    def _copy(self, files: TemplateFiles) -> bool:
        staged = self._own / f"fetched-{os.urandom(4).hex()}"
        source = self._cluster.folder / files.folder
        try:
            with self._cache.reading():
                found = copy_tree(str(source), str(staged), *self._owner)
            if found == (files.files, files.size):
                put(str(staged), str(self._data), files.folder)
                return True
        except Unreadable:  # somebody has removed the cache, or dropped the database
            return False
        except OSError as error:
            cause, remedy = limit_named_by(error) or ("the place of the server's data is full or read-only.", "")
            raise ServerError(
                f"The files of a template database cannot be copied to {self._data}: {error.strerror}.",
                cause=cause,
                remedy=remedy or "set TMPDIR to a folder that this user may write to.",
            ) from error
        finally:
            remove_tree(str(staged))
        reason = f"{source} has {found[0]} files of {files.files}, {found[1]} bytes of {files.size}"
        self._cache.discard(self._cluster, reason)
        return False
