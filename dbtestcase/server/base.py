"""A disposable server whose data are a folder: copied from the cache, or initialised; what every kind has in common."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeVar

from ..errors import ServerError, ServerStartFailed
from ..reporting import limit_named_by, say
from .account import Account
from .cache import BrokenCluster, CachedCluster, ClusterCache, TemplateFiles
from .cluster_files import remove_tree
from .folders import RunFolder, is_full, run_places, sweep
from .interface import Server
from .process import WatcherProcess
from .programs import Programs
from .room import MIB, room_in

ROOM = 128 * MIB  # for what the tests write
START_SECONDS = 60.0

_Made = TypeVar("_Made", bound=Server)


def start_in_room(
    title: str, account: Account, cache: ClusterCache | None, initialised: int, make: Callable[[Path], _Made]
) -> _Made:
    """Start a server, whose empty data takes ``initialised`` bytes, in the first place that has room for it.

    :raises ServerError: there is no room, or nothing can be written.
    """
    cached = cache.find() if cache else None
    needed = (cached.size if cached else initialised) + ROOM
    places = run_places(account)
    sweep(places)
    full: dict[Path, str] = {}
    for place in places:
        free = room_in(place)
        if free < needed:
            full[place] = f"{free // MIB} MiB free"
            continue
        try:
            server = make(place)
        except OSError as error:
            if not is_full(error):
                cause, remedy = limit_named_by(error) or (
                    "a file system that is read-only, or a folder of another user.",
                    "set TMPDIR to a folder that this user may write to.",
                )
                raise ServerError(
                    f"The data of a disposable {title} cannot be written to {place}: {error}.",
                    cause=cause,
                    remedy=remedy,
                ) from error
            quota = f"disk quota of uid {os.geteuid()}" if error.errno == errno.EDQUOT else ""
            full[place] = quota or f"{room_in(place) // MIB} MiB free"
            continue
        if full:
            lacking = ", ".join(f"{each} ({why})" for each, why in full.items())
            say(f"the server's data is in {place}: there is no room for {needed // MIB} MiB in {lacking}")
        return server
    lacking = ", ".join(f"{place}: {why}" for place, why in full.items()) or "no folder can be written"
    raise ServerError(
        f"There is no room for the data of a disposable {title} ({needed // MIB} MiB are needed; {lacking}).",
        cause="RAM and temp folders are full, perhaps with what killed programs left, or a container's memory limit "
        "leaves no more.",
        remedy="make room, or set TMPDIR to a folder on a larger disk (docker run --shm-size=1g makes RAM, --memory "
        "limits it).",
    )


@contextmanager
def _children_are_waited_for() -> Iterator[None]:
    """Who has started this process may ignore SIGCHLD, and nobody would learn then how a program has ended."""
    ignored = (
        signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN and threading.current_thread() is threading.main_thread()
    )
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)


class ClusterServer(Server):
    """See :class:`dbtestcase.server.Server`."""

    title: ClassVar[str]
    """What it is called."""
    ready: ClassVar[str]
    """What it says when it accepts connections."""
    remedy: ClassVar[str]
    """What to do where it does not start."""
    stop_signal: ClassVar[int]
    """The signal that ends it at once."""

    def __init__(
        self,
        programs: Programs,
        account: Account,
        place: Path,
        cache: ClusterCache | None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._begin(programs, account, place, cache)
        self._meanwhile = meanwhile
        folder = RunFolder.create(place)
        try:
            self._watcher = WatcherProcess(folder, account)
        except BaseException:
            folder.remove()
            raise
        finally:
            folder.let_go()
        self._use(folder)
        try:
            self._start()
        except BaseException:
            self._watcher.close()
            raise

    def _begin(self, programs: Programs, account: Account, place: Path, cache: ClusterCache | None) -> None:
        self.version = programs.version
        self._programs, self._account, self._place, self._cache = programs, account, place, cache
        self._unsaved = self._closed = False

    def _use(self, folder: RunFolder) -> None:
        self._run_folder, self._folder = folder, folder.path
        self.data = folder.path / "data"

    def _start(self) -> None:
        cluster = self._fill()
        log = self._launched() if cluster is not None else self._launch()
        if log is not None and cluster is not None and self._cache is not None:
            # The copy may be bad in a way that the sizes do not show; it is if a new cluster does start.
            remove_tree(str(self.data))
            self._initialise()
            new_log = self._launch()
            if new_log is None:
                self._cache.discard(cluster, (log.strip().splitlines() or ["it does not start"])[-1])
            log = new_log
        if log is not None:
            raise self._failed(f"does not start on {self.data}", log)

    def _fill(self) -> CachedCluster | None:
        """Make the data folder; the cached cluster that it was copied from, if it was: then the server is starting."""
        cache = self._cache
        while cache is not None:
            with cache.reading():
                cluster = cache.find()
                reason = ""
                if cluster is not None:
                    try:
                        self._copy(cache, cluster)
                    except BrokenCluster as broken:
                        reason = str(broken)
            if cluster is not None and not reason:
                cache.tidy()
                return cluster
            if cluster is not None:
                remove_tree(str(self.data))
                cache.discard(cluster, reason)
                continue
            if not cache.writable:
                break
            with cache.changing():
                if cache.find() is None:
                    self._make()
                    cache.publish_base(self.data)
                    return None
        self._make()
        return None

    def _left_out(self, cache: ClusterCache, cluster: CachedCluster) -> list[TemplateFiles]:
        """What of a cluster is not copied before the server starts."""
        return []

    def _later(self, cluster: CachedCluster) -> list[str]:
        """The folders of a cluster that the server need not have at its start."""
        return []

    def _copy(self, cache: ClusterCache, cluster: CachedCluster) -> None:
        """Have a cached cluster copied, and the server started on it; meanwhile this process gets ready for it."""
        left_out = self._left_out(cache, cluster)
        files, size = (sum(each.files for each in left_out), sum(each.size for each in left_out))
        cluster = replace(cluster, files=cluster.files - files, size=cluster.size - size)
        self._watcher.order(
            "copy",
            source=str(cluster.folder),
            target=str(self.data),
            files=cluster.files,
            bytes=cluster.size,
            leave_out=[each.folder for each in left_out],
            later=self._later(cluster),
            start=self._order(),
        )
        self._meanwhile()
        event = self._watcher.event(None)
        if event is None:
            raise self._watcher.ended()
        cache.copied(cluster, event)

    def _make(self) -> None:
        self._run_folder.give(self._account)
        self._initialise()

    @property
    def _owner(self) -> tuple[int, int]:
        return (self._account.uid, self._account.gid) if self._account.switched else (-1, -1)

    @abstractmethod
    def _initialise(self) -> None:
        """Make the data folder."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The server's command, once its configuration is written."""

    @abstractmethod
    def _environment(self) -> dict[str, str]:
        """The variables that its programs see."""

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            with _children_are_waited_for():
                return subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    check=False,
                    env=self._environment(),
                    umask=0o077,
                    **self._account.popen,
                )
        except OSError as error:
            raise self._failed("cannot be initialised", f"{command[0]}: {error}") from error

    def _launch(self) -> str | None:
        """Start the server on its data; ``None`` when it accepts connections, else what it said."""
        self._watcher.order("start", **self._order())
        return self._launched()

    def _order(self) -> dict[str, object]:
        command, env = self._command(), self._environment()
        return {"command": command, "env": env, "ready": self.ready, "signal": self.stop_signal}

    def _launched(self) -> str | None:
        event = self._watcher.event(START_SECONDS)
        if event is None:
            raise self._failed(f"did not accept connections within {START_SECONDS:.0f} s", "")
        return None if event["event"] == "ready" else str(event["log"])

    def _failed(self, what: str, log: str) -> ServerStartFailed:
        said = "\n".join(log.strip().splitlines()[-5:])
        cause = f"the server said:\n{said}" if said else "it said nothing; the machine may be overloaded."
        limit = limit_named_by(log)
        return ServerStartFailed(
            f"{self.title} {self.version} ({self._programs.bin}, from {self._programs.source}) {what}.",
            cause=f"{limit[0]} {cause[0].upper()}{cause[1:]}" if limit else cause,
            remedy=limit[1] if limit else self.remedy,
        )

    # -- ending

    def wait(self) -> str:
        """Wait until the server ends of itself; what it said."""
        while (event := self._watcher.event(None)) is not None:
            if event["event"] == "ended":
                return str(event["log"])
        return ""
