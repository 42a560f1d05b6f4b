"""A disposable MariaDB: initialised once, copied into RAM, reached over a socket, without the promises of a disk."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL

from ..errors import ProgramsNotFound, ServerStartFailed
from ..reporting import doing, say
from ..settings import Settings
from .account import reachable, server_account
from .base import ClusterServer, start_in_room
from .cache import ClusterCache, cache_root
from .cluster_files import publish
from .folders import RunFolder
from .programs import Programs
from .room import MIB

OLDEST = (10, 5)
INITIALISED_SIZE = 24 * MIB
STOP_SECONDS = 30.0
_HELPERS = ("mariadb-install-db", "my_print_defaults")
"""What else is needed to initialise a server; distributions keep the second in a package of the client's."""

_FOLDERS = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/libexec",
    "/usr/local/opt/mariadb/bin",
    "/opt/homebrew/opt/mariadb/bin",
)
_SYSTEM = {"mysql", "performance_schema", "sys"}

# What decides the files' layout, and so the name in the cache.
_LAYOUT = (
    "--innodb-log-file-size=4M",
    "--innodb-data-file-path=ibdata1:8M:autoextend",
    "--innodb-autoextend-increment=1",
    "--innodb-undo-tablespaces=0",
    "--innodb-use-native-aio=0",
    "--innodb-buffer-pool-size=32M",
    "--skip-log-bin",
)
_OPTIONS = (
    "--skip-networking",
    "--skip-name-resolve",
    "--skip-slave-start",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_unicode_ci",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-flush-method=nosync",
    "--innodb-temp-data-file-path=ibtmp1:1M:autoextend",
    "--innodb-buffer-pool-dump-at-shutdown=0",
    "--innodb-buffer-pool-load-at-startup=0",
    "--innodb-stats-persistent=0",
    "--performance-schema=0",
    "--max-connections=200",
    "--table-definition-cache=2000",
    "--lock-wait-timeout=10",  # seconds; by default a day, for which a test would hang
    "--connect-timeout=60",  # a client on a busy machine may take more than ten to say who it is
    "--key-buffer-size=8M",
)


def start(settings: Settings, meanwhile: Callable[[], object] = lambda: None) -> MariaDBServer:
    """Start a MariaDB; see :func:`dbtestcase.server.disposable_server`."""
    with doing("starting a disposable MariaDB"):
        account = server_account(("mysql", "nobody", "postgres"))
        programs = find_mariadb()
        if not reachable(programs.bin / "mariadbd", account):
            raise ServerStartFailed(
                f"The account {account.name!r}, which is to run the server, cannot reach {programs.bin / 'mariadbd'}.",
                cause="a server refuses to run as root, and the programs lie in a folder that others may not read.",
                remedy="run the tests as an ordinary user, or install MariaDB with the system's packages.",
            )
        root = cache_root(settings)
        cache = ClusterCache(root, cache_name(programs)) if root else None

        def make(place: Path) -> MariaDBServer:
            return MariaDBServer(programs, account, place, cache, meanwhile)

        if settings.stay:
            say("DBTESTCASE_STAY is for PostgreSQL: MariaDB ends with the run")
        return start_in_room("MariaDB", account, cache, INITIALISED_SIZE, make)


def cache_name(programs: Programs) -> str:
    """The name of the cache folder for these programs' clusters."""
    digest = hashlib.sha256("\0".join(_LAYOUT).encode()).hexdigest()[:8]
    return f"mariadb-{programs.version}-{digest}"


def find_mariadb() -> Programs:
    """The server's programs, of MariaDB 10.5 or later: on ``PATH``, or where the system's packages put them."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_FOLDERS, *glob.glob("/usr/lib/mysql*/bin")))
    reasons = []
    for name in ("mariadbd", "mysqld"):
        found = shutil.which(name, path=path)
        if found is None:
            continue
        version, reason = _version(found)
        for helper in _HELPERS:
            if not reason and shutil.which(helper, path=path) is None:
                reason = f"its {helper} is missing"
        if not reason:
            return Programs(Path(found).resolve().parent, version, "PATH or the system's packages")
        reasons.append(f"{found}: {reason}")
    raise ProgramsNotFound(
        f"No MariaDB programs (mariadbd, {', '.join(_HELPERS)}) were found on this machine.",
        cause="PATH, /usr/sbin and the like were looked through"
        + (f"; rejected: {'; '.join(reasons)}." if reasons else "."),
        remedy="apt-get install mariadb-server (Debian, Ubuntu), dnf install mariadb-server (Fedora), brew install "
        "mariadb (macOS); or name a server's host in the URL (the class attribute url, or DBTESTCASE_URL).",
    )


def _version(program: str) -> tuple[str, str]:
    """The version, or the reason why it cannot be used."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"it does not run ({error})"
    match = re.search(r"Ver ((\d+)\.(\d+)\.\d+)-MariaDB", said)
    if match is None:
        return "", f"it is no MariaDB ({said.strip()[:100] or 'it says nothing'})"
    if (int(match[2]), int(match[3])) < OLDEST:
        return "", f"MariaDB {match[1]} is older than {OLDEST[0]}.{OLDEST[1]}"
    return match[1], ""


class MariaDBServer(ClusterServer):
    """See :class:`dbtestcase.server.Server`."""

    title = "MariaDB"
    ready = "ready for connections"
    remedy = (
        "name a server's host in the URL (the class attribute url, or DBTESTCASE_URL), or mend what the server says."
    )
    stop_signal = signal.SIGKILL  # it holds nothing that is to be kept

    def _use(self, folder: RunFolder) -> None:
        super()._use(folder)
        self.url = URL.create("mariadb+pymysql", username="root", query={"unix_socket": str(self._socket)})

    @property
    def _socket(self) -> Path:
        return self._folder / "socket"

    def _initialise(self) -> None:
        command = [
            str(shutil.which("mariadb-install-db", path=os.pathsep.join((os.environ.get("PATH", ""), *_FOLDERS)))),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--tmpdir={self._folder}",  # TMPDIR may be a folder that the server's account may not write to
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            *_LAYOUT,
        ]
        with doing(f"initialising MariaDB {self.version}, once"):
            done = self._run(command)
        if done.returncode:
            if "No space left" in done.stderr + done.stdout or "Disk is full" in done.stderr:
                raise OSError(28, "No space left on device", str(self.data))
            raise self._failed("cannot be initialised", done.stderr or done.stdout)
        for left in ("ib_buffer_pool", "mysql_upgrade_info"):
            (self.data / left).unlink(missing_ok=True)

    def _command(self) -> list[str]:
        program = self._programs.bin / ("mariadbd" if (self._programs.bin / "mariadbd").exists() else "mysqld")
        own = [f"--datadir={self.data}", f"--socket={self._socket}", f"--pid-file={self._folder / 'pid'}"]
        return [str(program), "--no-defaults", *own, f"--tmpdir={self._folder}", *_LAYOUT, *_OPTIONS]

    def _environment(self) -> dict[str, str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("MYSQL", "MARIADB", "LC_"))}
        return keep | {"LC_ALL": "C", "TZ": "UTC", "HOME": str(self._folder)}

    # -- keeping databases

    def persist(self) -> None:
        """At the end the server is stopped in order, and its files are kept: only then are they complete."""
        self._unsaved = self._cache is not None and self._cache.writable

    def close(self, *, wait: bool = True) -> None:
        if self._closed or not self._watcher.ours:
            return
        self._closed = True
        try:
            if self._unsaved and self._cache is not None:
                self._keep(self._cache)
        finally:
            self._watcher.close(wait=wait)

    def _keep(self, cache: ClusterCache) -> None:
        with doing("keeping the new databases for the next runs"):
            self._watcher.order("finish")
            until = time.monotonic() + STOP_SECONDS
            while (event := self._watcher.event(max(until - time.monotonic(), 0.0))) is not None:
                if event["event"] == "ended":
                    break
            if event is None or event["status"] != 0:
                say("the new databases are not kept for the next runs: the server did not end in order")
                return
            made = sorted(path.name for path in self.data.iterdir() if path.is_dir() and path.name not in _SYSTEM)
            for left in ("ibtmp1", "tc.log"):
                (self.data / left).unlink(missing_ok=True)
            with cache.changing():
                publish(str(self.data), str(cache.project), cache.note(made))
