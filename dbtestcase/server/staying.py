"""Servers that stay for the next run, for who asks for it (``DBTESTCASE_STAY``): found again, taken over, ended.

When its owner has ended, the watcher of such a server listens on a socket beside its folder, for so long.  The name of
the socket says who may use the server: runs of the same user, programs, cache and project.  Whoever connects first owns
the server from then on; the watcher watches over the new owner as it did over the one before.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dbtestcase.server import cluster_files, watcher
from dbtestcase.server.cache import ClusterCache
from dbtestcase.server.folders import private_folders
from dbtestcase.server.kept_servers import wait_for_end
from dbtestcase.server.programs import Programs
from dbtestcase.server.watcher import FREE

__all__ = ["end_waiting", "staying_name", "take", "waiting"]

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
        with suppress(OSError):  # it has ended, or somebody else was faster
            connection = _connect(folder.with_name(f"{folder.name}.{name}{FREE}"))
            connection.sendall(b"take\n")
            if connection.recv(1 << 10).endswith(b"\n"):  # one line: it is taken
                connection.settimeout(None)
                return folder, connection
            connection.close()
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
