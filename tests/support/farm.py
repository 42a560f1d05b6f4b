"""A server that several hosts share, as on a farm: it can be restarted, is small, and others end its connections.

The hosts are namespaces of one machine (``unshare``): their names differ, and with them those of the databases.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

from dbtestcase.server.account import server_account
from dbtestcase.server.cluster import configuration, program_environment
from tests.support.disposable import programs_that_run, scratch, seed
from tests.support.requirements import require
from tests.support.runners import start_python

#: The connections of the library that do nothing but hold leases.
END_ADMINS = (
    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
    " WHERE application_name = 'dbtestcase' AND datname = 'postgres'"
)


class SharedServer:
    """A PostgreSQL over a Unix socket, whose URL is given to runs.

    :ivar folder: of the socket and the data.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self._account = server_account()
        self._programs = programs_that_run(self._account)
        cache = folder / "cache"
        seed(cache)
        (cluster,) = cache.glob("postgresql-*/base-*/")
        shutil.move(cluster, folder / "data")
        shutil.rmtree(cache)
        text = configuration(folder, 1 << 30, self._programs.major) + "".join(
            f"{name} = {value}\n" for name, value in settings.items()
        )
        (folder / "data" / "postgresql.conf").write_text(text, encoding="utf-8")
        if self._account.switched:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self._account.uid, self._account.gid)
        folder.chmod(0o700)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql+psycopg://postgres@/postgres?host={folder}&port=5432"

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self._process = subprocess.Popen(
            [self._programs.bin / "postgres", "-D", self.folder / "data"],
            env=program_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._account.popen,
        )
        until = time.monotonic() + 60
        while True:
            try:
                return self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it; a fast shutdown, which ends all connections."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the judge's own."""
        return psycopg.connect(
            host=str(self.folder), port=5432, user="postgres", dbname="postgres", application_name="judge"
        )

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(self.connect()) as connection:
            connection.autocommit = True
            return connection.execute(query.encode()).fetchall()

    def owns(self, pid: int) -> bool:
        """Whether a process is one of the server's."""
        server = self._process.pid if self._process is not None else 0
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            return pid == server or f"\nPPid:\t{server}\n" in status
        return False

    def databases(self) -> list[str]:
        """Those that runs have made, without templates."""
        rows = self.ask(
            "SELECT datname FROM pg_database WHERE datname !~ '^(postgres|template[01]|dbtestcase_template_.*)$'"
        )
        return sorted(name for (name,) in rows)


@contextlib.contextmanager
def shared_server(**settings: object) -> Iterator[SharedServer]:
    """A :class:`SharedServer`, started, ended at the end."""
    with scratch() as folder:
        server = SharedServer(Path(folder), **settings)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)


def host_command(name: str, *command: str) -> list[str]:
    """A command that runs ``command`` on another host: in a UTS namespace of this name."""
    return ["unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', name, *command]


# what the command above does, without a new interpreter
_ON_A_HOST = """
import ctypes, os, socket, sys, unittest
if ctypes.CDLL(None, use_errno=True).unshare(0x04000000):
    raise OSError(ctypes.get_errno(), "unshare --uts")
socket.sethostname(sys.argv.pop(1))
sys.path[0] = os.getcwd()
unittest.main(module=None)
"""


def require_namespaces(*flags: str) -> None:
    """Go on where this machine lets us make the namespaces."""
    command = ["unshare", *flags, "true"]
    able = shutil.which("unshare") and subprocess.run(command, capture_output=True, check=False).returncode == 0
    require(able, f"unshare {' '.join(flags)}", "run the tests as root, outside of a sandbox that forbids namespaces")


def start_run(
    folder: Path, *, host: str = "", env: Mapping[str, str] | None = None, arguments: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a run of the suite in ``folder``, on another host if it has a name."""
    how = ("-c", _ON_A_HOST, host) if host else ("-m", "unittest")
    return start_python(["-W", "error", *how, *(arguments or ("discover",))], cwd=folder, env=env, mixed=True)


def finish(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    """Wait for a run; its exit status and what it said."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        if process.poll() is not None:  # it was this process that stood still
            return process.returncode, process.communicate()[0]
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"a run did not end within {seconds} s:\n{output}") from None
    return process.returncode, output
