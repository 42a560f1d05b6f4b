"""A Python that has imported what inner runs need, and forks one for each run.

A new interpreter needs half a second of a processor for SQLAlchemy, psycopg and this library before its first test; a
fork needs a hundredth.  What it runs finds itself as a new interpreter would: the command line, the folder, the
environment, the search path, the warnings, three streams and a session of its own; it ends as an interpreter ends.
:mod:`tests.support.forks` speaks to it.

It ends with the end of its input, which is its owner's.
"""

import _posixsubprocess
import array
import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import io
import itertools
import json
import os
import pkgutil
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import warnings
from typing import Any

PATH = list(sys.path[1:])  # without this file's own folder
FILTERS = list(warnings.filters)
PRELOADED = (
    *("asyncio", "unittest.mock", "sqlalchemy.orm", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql.psycopg"),
    *("alembic.command", "alembic.config", "alembic.autogenerate", "pytest", "_pytest.config", "_pytest.unittest"),
    *("tarfile", "nose2.main", "unittest_parallel.main", "dbtestcase.server.postgresql"),
)
#: Packages of which every module is imported, as the first class of a run would import them.
WHOLE = ("dbtestcase.backends.postgresql", "dbtestcase.drivers.psycopg")
#: What keeps nothing of a run: each of the library's functions that is looked at costs the copy of a page.
STATELESS = (type, types.FunctionType, types.ModuleType, str, int, tuple, frozenset, re.Pattern)
#: The others, in the library's modules.
STATES: list[tuple[dict[str, Any], list[str]]] = []
NAMES = ("DatabaseTest", "TruncatingDatabaseTest", "MigratedDatabaseTest", "AsyncDatabaseTest")


def preload(root: str) -> None:
    """Import what most runs need; nothing that pytest wants to rewrite."""
    sys.path.insert(0, root)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # an extra that is not there
            importlib.import_module(name)
    for name in WHOLE:
        for module in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(module.name)
    for name in importlib.import_module("_pytest.config").default_plugins:
        importlib.import_module(f"_pytest.{name}")
    library = importlib.import_module("dbtestcase")
    for name in NAMES:
        with contextlib.suppress(ImportError):
            getattr(library, name)
    for name, module in sys.modules.items():
        if name.partition(".")[0] == "dbtestcase":
            space = vars(module)
            STATES.append((space, [each for each in space if not isinstance(space[each], STATELESS)]))
    gc.collect()
    gc.freeze()


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """A request: its length in eight bytes, with the three streams, or others that it names; then JSON."""
    numbers = array.array("i")
    head, control, _, _ = connection.recvmsg(8, socket.CMSG_LEN(20 * numbers.itemsize))
    if not head:
        return None
    for _level, _kind, data in control:
        numbers.frombytes(data)
    text, length = b"", int.from_bytes(head, "big")
    while len(text) < length:
        text += connection.recv(length - len(text))
    return json.loads(text) | {"streams": list(numbers)}


def serve(name: str) -> dict[str, Any] | None:
    """Fork for each request until the input ends.

    :returns: in a forked process, what it is to run; ``None`` at the end.
    """
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"\0{name}")
    listening.listen(64)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    running: dict[int, socket.socket] = {}
    os.write(1, b"ready\n")
    while True:
        ready = select.select([0, listening, wake], [], [])[0]
        if 0 in ready:  # its owner has ended, perhaps by a signal that left it no time to clear up
            return None
        if wake in ready:
            os.read(wake, 4096)
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    with running.pop(ended[0]) as connection, contextlib.suppress(OSError):
                        connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
        if listening in ready:
            connection, _ = listening.accept()
            request = receive(connection)
            assert request is not None
            pid = os.fork()
            if pid == 0:
                os.setsid()
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGHUP):  # which nohup has told all below it to ignore
                    signal.signal(number, signal.SIG_DFL)
                for each in (listening, connection, *running.values()):
                    each.close()
                os.close(wake)
                os.close(waker)
                return request
            running[pid] = connection
            connection.sendall(f"{pid}\n".encode())
            for number in request["streams"]:
                os.close(number)


def become(request: dict[str, Any]) -> None:
    """Be as a new interpreter with this command line would be."""
    held = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in request["streams"]]  # out of the way of the targets
    for number in request["streams"]:
        os.close(number)
    for target, number in zip(request.get("targets", range(3)), held, strict=True):
        os.dup2(number, target)
        os.close(number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    raw = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc] # noqa: SIM115
    sys.stdout = sys.__stdout__ = _writer(1, "strict", write_through=raw)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _writer(2, "backslashreplace", write_through=raw)  # type: ignore[misc]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.orig_argv[:] = [sys.executable, *request["arguments"]]
    tempfile.tempdir = None
    gc.get_freeze_count = lambda: 1  # it counts them, for each import of the library's own
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    search = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:] = ["", *search, *PATH]
    warnings.filters[:] = FILTERS  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]
    sys.warnoptions[:] = [*filter(None, os.environ.get("PYTHONWARNINGS", "").split(",")), *request["warnings"]]
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]
    if any(os.path.exists(f"{folder}/sitecustomize.py") for folder in search):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")


#: Of a run that has them: where the pids of its spare children hear what they are to be.
_spares: list[tuple[int, socket.socket]] = []


def spares_of(order: dict[str, Any]) -> int:
    """How many processes of its own a run starts, about."""
    xdist = order["what"] == "pytest" and any(word.startswith("-n") for word in order["rest"])
    return 0 if order["kind"] != "-m" else 2 if xdist else 4 if order["what"] == "unittest_parallel" else 0


def make_spares(number: int) -> dict[str, Any] | None:
    """Have children that can each become a Python that the run will start; a new one would import everything again.

    :returns: in such a child, what it is to run.
    """
    for _ in range(number):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            while _spares:
                _spares.pop()[1].close()
            order = receive(theirs)
            theirs.close()
            if order is None:  # the run has ended without
                os._exit(0)
            return order
        theirs.close()
        _spares.append((pid, ours))
    real = _posixsubprocess.fork_exec
    _posixsubprocess.fork_exec = subprocess._fork_exec = functools.partial(start_spare, real)  # type: ignore[attr-defined]
    return None


def start_spare(real: Any, args: Any, *others: Any) -> int:
    """In the place of ``fork_exec``: the pid of a spare child that runs ``python -c``; all else is started for real."""
    _programs, close_fds, pass_fds, cwd, env, stdin, _, _, stdout, _, stderr, _, errors = others[:13]
    words = [os.fsdecode(word) for word in args]
    flags = [*itertools.takewhile(lambda word: word in ("-u", "-B") or word[:2] == "-W" != word, words[1:])]
    what = words[1 + len(flags) :]
    tracker = any("resource_tracker" in word for word in what)  # stays behind, and imports nothing
    if not _spares or words[0] != sys.executable or what[:1] != ["-c"] or cwd or env or tracker or not close_fds:
        return int(real(args, *others))
    streams = {target: number for target, number in enumerate((stdin, stdout, stderr)) if number != -1}
    streams |= {each: each for each in (*range(3), *pass_fds) if each not in streams and each != errors}
    order = {"arguments": words[1:], "warnings": [word[2:] for word in flags if word[:2] == "-W"]}
    order |= {"kind": "-c", "what": what[1], "rest": what[2:], "targets": [*streams]}
    text = json.dumps(order | {"cwd": os.getcwd(), "env": dict(os.environ)}).encode()
    pid, ours = _spares.pop(0)
    with ours:
        numbers = array.array("i", streams.values())
        ours.sendmsg([len(text).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        ours.sendall(text)
    return pid


def _writer(number: int, errors: str, *, write_through: bool) -> io.TextIOWrapper:
    raw = io.FileIO(number, "w", closefd=False)
    buffer = raw if write_through else io.BufferedWriter(raw)
    stream = io.TextIOWrapper(buffer, "utf-8", errors, line_buffering=number == 2, write_through=write_through)  # type: ignore[type-var]
    stream.mode = "w"  # type: ignore[misc]
    return stream


def run(request: dict[str, Any]) -> None:
    """Run the module, or the text, as ``__main__``."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.argv[:] = [request["kind"], *request["rest"]]
    if request["kind"] == "-m":
        sys.path[0] = os.getcwd()
        runpy._run_module_as_main(request["what"])  # type: ignore[attr-defined]
    else:
        exec(compile(request["what"], "<string>", "exec"), main.__dict__)


def end(status: int, last: str) -> None:
    """End as an interpreter does, but for what was imported before the fork, of which every page would be copied.

    What runs at its end is run, and what the run and the library hold is let go, with its finalizers and warnings.

    :param last: the last module that was imported before.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if (watching := sys.modules.get("dbtestcase.reporting.lock_waits")) is not None:
        watching._watcher._pause()  # as before a fork: it waits for a next class
    if threading.active_count() > 1:
        sys.exit(status)  # what its daemon threads would see, they see in the interpreter's own order
    gone = [*itertools.takewhile(lambda name: name != last, reversed(sys.modules))]
    spaces = [vars(sys.modules.pop(name)) for name in gone] + [vars(sys.modules["__main__"])]
    gc.collect()
    for space in spaces:
        space.clear()
    for space, names in STATES:
        for name in names:
            space.pop(name, None)
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed by the run
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    preload(sys.argv[3])
    order = serve(sys.argv[2])
    if order is not None:
        order = make_spares(spares_of(order)) or order
        become(order)
        status = 0
        last = next(reversed(sys.modules))
        try:
            run(order)
        except SystemExit as asked:
            if not isinstance(asked.code, int | None):
                raise
            status = asked.code or 0
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            shown = problem.__traceback__ and problem.__traceback__.tb_next and problem.__traceback__.tb_next.tb_next
            traceback.print_exception(problem.with_traceback(shown))
            status = 1
        end(status, last)
