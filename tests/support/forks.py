"""Start Python for an inner run: forked from one that has done its imports, or new where that would differ."""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["forked", "started"]

# What a forked run obeys as a new one does.  Others are for the interpreter's start, as is the locale.
_OBEYED = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONWARNINGS"}
_LOCALE = ("LC_ALL", "LC_CTYPE", "LANG", "LANGUAGE", "TZ", "LD_PRELOAD", "LD_LIBRARY_PATH")
_IMPORTED = ("usercustomize", "sqlalchemy", "psycopg", "alembic", "pytest", "greenlet", "dbtestcase")
# Its frames are on the stack of every run, as Python's own.
_SERVE = "import sys; exec(compile(open(sys.argv[1]).read(), '<frozen fork server>', 'exec'))"
_START = threading.Lock()


def forked(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], root: Path, timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """Run ``python ARGUMENTS`` in a fork; ``None`` where only a new interpreter will do.

    :raises subprocess.TimeoutExpired: it did not end in time, and was killed with its session; with its output.
    """
    with _memory("stdout") as stdout, _memory("stderr") as stderr:
        fork = _fork(arguments, cwd, env, root, stdout.fileno(), stderr.fileno())
        if fork is None:
            return None
        with fork:
            try:
                status = fork.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(fork.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired([*arguments], timeout, *_read(stdout, stderr)) from None
        return subprocess.CompletedProcess([sys.executable, *arguments], status, *_read(stdout, stderr))


def started(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], root: Path, mixed: bool = False
) -> Fork | subprocess.Popen[str]:
    """Start ``python ARGUMENTS`` in a session of its own, with pipes for what it says, and go on beside it.

    :param mixed: one pipe for both streams.
    """
    (reader, stdout), (other, stderr) = os.pipe(), os.pipe()
    try:
        fork = _fork(arguments, cwd, env, root, stdout, stdout if mixed else stderr)
    finally:
        os.close(stdout)
        os.close(stderr)
    if fork is not None:
        fork.stdout, fork.stderr = os.fdopen(reader, encoding="utf-8"), os.fdopen(other, encoding="utf-8")
        return fork
    os.close(reader)
    os.close(other)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if mixed else subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Fork(subprocess.Popen[str]):
    """A forked process, for which its parent waits, the fork server; the rest is as with any."""

    def __init__(self, server: socket.socket) -> None:
        self._server, self._replies = server, b""
        self._waitpid_lock, self._sigint_wait_secs = threading.Lock(), 0.25
        self._input, self._communication_started, self._child_created = None, False, True
        self.args, self.stdin, self.stdout, self.stderr = "a fork", None, None, None
        self.text_mode = self.universal_newlines = True
        self.returncode = None
        self.pid = int(self._reply(None))

    def _reply(self, timeout: float | None) -> bytes:
        self._server.settimeout(timeout)
        while b"\n" not in self._replies:
            more = self._server.recv(100)
            if not more:
                raise ChildProcessError("the fork server has ended")
            self._replies += more
        line, _, self._replies = self._replies.partition(b"\n")
        return line

    def _wait(self, timeout: float | None) -> int:
        with self._waitpid_lock:
            if self.returncode is None:
                try:
                    self.returncode = int(self._reply(timeout))
                except (TimeoutError, BlockingIOError):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
                self._server.close()
        return self.returncode

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode


def _fork(arguments: Sequence[str], cwd: Path, env: Mapping[str, str], root: Path, *outputs: int) -> Fork | None:
    """A fork that runs ``python ARGUMENTS``; ``None`` where only a new interpreter will do."""
    request = _parsed(arguments)
    if request is None or not _is_alike(env) or _imports_its_own(cwd, env):
        return None
    with _START:
        path = _server(str(root), os.getpid())
    server = socket.socket(socket.AF_UNIX)
    with open(os.devnull, "rb") as stdin:
        server.connect(path)
        text = json.dumps(request | {"cwd": str(cwd), "env": dict(env)}).encode()
        streams = array.array("i", [stdin.fileno(), *outputs])
        server.sendmsg([len(text).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        server.sendall(text)
    return Fork(server)


def _memory(name: str) -> IO[bytes]:
    """A file of a child's output, which is in no folder."""
    return open(os.memfd_create(name), "w+b", buffering=0)


def _read(*files: object) -> list[str]:
    found = []
    for file in files:
        file.seek(0)  # type: ignore[attr-defined]
        found.append(file.read().decode().replace("\r\n", "\n"))  # type: ignore[attr-defined]
    return found


def _parsed(arguments: Sequence[str]) -> dict[str, object] | None:
    """A command line of ``-W``, and ``-m`` or ``-c``; others have a new interpreter."""
    left, warnings = list(arguments), []
    while left and left[0] == "-W":
        warnings.append(left[1])
        del left[:2]
    if len(left) < 2 or left[0] not in ("-m", "-c"):
        return None
    kind, what, *rest = left
    return {"arguments": [*arguments], "warnings": warnings, "kind": kind, "what": what, "rest": rest}


def _is_alike(env: Mapping[str, str]) -> bool:
    special = {name for name in env if name.startswith("PYTHON")} - _OBEYED
    return (
        os.environ.get("TESTS_FORK") != "off"
        and not special
        and "COVERAGE_PROCESS_START" not in env
        and all(env.get(name) == os.environ.get(name) for name in _LOCALE)
    )


def _imports_its_own(cwd: Path, env: Mapping[str, str]) -> bool:
    """Whether the run would find another module than the one that is imported already, or code for the start."""
    names = [f"{name}{end}" for name in _IMPORTED for end in (".py", "/__init__.py")]
    folders = {cwd, *map(Path, filter(None, env.get("PYTHONPATH", "").split(os.pathsep)))}
    return any(
        (folder / name).exists() for folder in folders if not (folder / "tests/support").exists() for name in names
    )


@functools.cache
def _server(root: str, _pid: int) -> str:
    """The socket of this process's server: a name without a file, which nobody has to take away."""
    name = f"tests-fork-{uuid.uuid4().hex}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DBTESTCASE_"))}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(Path(__file__).with_name("fork_server.py")), name, root],
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    atexit.register(process.communicate)  # the end of its input is its own
    return f"\0{name}"
