"""The small process that starts a server, watches over it and over its owner, and clears up after both.

It runs by itself (``python -I -S watcher.py``) and therefore imports nothing but parts of the standard library that
load quickly.  It speaks with its owner in lines of JSON:

- it reads orders: ``start`` (a server's command), ``run`` (a command to be run while the server runs, followed by
  ``publish``), ``finish`` (the server is to end in order), ``stay`` (the server is to go on when the owner has ended)
  and ``stop``; the end of its input is ``stop`` as well, so an owner that dies needs to say nothing;
- it writes what happened: ``ready``, ``failed``, ``published``, ``ended``, ``stays``.

It has a session of its own, so that the Ctrl-C that ends a run does not reach the server before the run has ended.  It
notices its owner's end by the end of its input, and by the process itself: forked children of the owner keep the
input open.  A server that was told to stay is ended by whoever writes to a named pipe beside its lock
(``python -m dbtestcase prune``), and by the time.  Should it be killed itself, the kernel ends the server (Linux), and
the next run sweeps the folder: server and watcher hold the folder's lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections import deque
from typing import Any

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 4.0  # for an immediate stop; then the server is killed
UNUSED_SECONDS = 30 * 24 * 3600.0  # after which a cached cluster goes
POLL_SECONDS = 1.0  # where the owner's process cannot be waited for
DOOR = ".stays"  # the suffix of the named pipe of a server that has outlived its owner


def copy_tree(source: str, target: str, uid: int = -1, gid: int = -1) -> tuple[int, int]:
    """Copy a data folder, 0700 and 0600 throughout, for ``uid`` and ``gid`` (-1: this process's).

    Half the time of ``cp -r``, a third of :func:`shutil.copytree`.

    :returns: the number of files, and of bytes.
    """
    files = size = 0
    os.mkdir(target, 0o700)
    if uid >= 0:
        os.chown(target, uid, gid)
    with os.scandir(source) as entries:
        for entry in entries:
            path = os.path.join(target, entry.name)
            if entry.is_dir(follow_symlinks=False):
                below = copy_tree(entry.path, path, uid, gid)
                files, size = files + below[0], size + below[1]
            elif entry.is_file(follow_symlinks=False):
                size += copy_file(entry.path, path, uid, gid)
                files += 1
    return files, size


def copy_file(source: str, target: str, uid: int = -1, gid: int = -1) -> int:
    """Copy one file; its size in bytes."""
    size = 0
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if sys.platform == "linux":
                while count := os.sendfile(writing, reading, None, 1 << 30):
                    size += count
            else:
                while block := os.read(reading, 1 << 20):
                    size += os.write(writing, block)
            if uid >= 0:
                os.fchown(writing, uid, gid)
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return size


def publish(source: str, pointer: str, note: dict[str, Any]) -> None:
    """Copy the stopped cluster ``source`` into the cache and let ``pointer`` name it; the caller holds the lock alone.

    The pointer is replaced in one step, and never before what it names is complete.
    """
    cache = os.path.dirname(pointer)
    sweep_cache(cache)
    name = f"{os.path.basename(pointer).removesuffix('.json')}-{os.urandom(4).hex()}"
    making = os.path.join(cache, name)
    try:
        files, size = copy_tree(source, making)
        with open(f"{making}.json.new", "w", encoding="utf-8") as stream:
            json.dump(note | {"folder": name, "files": files, "bytes": size}, stream)
        os.replace(f"{making}.json.new", pointer)
    finally:
        sweep_cache(cache)


def sweep_cache(cache: str) -> None:
    """Remove, under the lock, what no pointer names: earlier clusters, and what a killed process left half-written.

    A pointer goes when it was not used for long, or when the folder of its project is gone.
    """
    names = os.listdir(cache)
    named = set()
    for name in names:
        if name.endswith(".json"):
            path = os.path.join(cache, name)
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                with open(path, encoding="utf-8") as stream:
                    note = json.load(stream)
                unused = time.time() - os.stat(path).st_mtime > UNUSED_SECONDS
                if unused or (name.startswith("project-") and not os.path.isdir(note.get("project", cache))):
                    os.unlink(path)
                else:
                    named.add(note["folder"])
    for name in names:
        path = os.path.join(cache, name)
        if name.endswith(".json.new"):
            os.unlink(path)
        elif name not in named and os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)


class Ending(BaseException):
    """A signal asks this process to end."""


class Watcher:
    """One server, its owner, and what both have to say.

    :param owner: the owner's pid.
    :param folder: what is removed at the end, and ``lock`` after it.
    :param uid: whom the server is given to (-1: nobody, it runs as this user).
    """

    def __init__(self, owner: int, folder: str, lock: str, uid: int, gid: int) -> None:
        self.owner, self.folder, self.lock, self.uid, self.gid = owner, folder, lock, uid, gid
        self.server = 0
        self.output = -1
        self.log: deque[str] = deque(maxlen=100)
        self.pending = b""
        self.received = b""
        self.ready_text = ""
        self.stop_signal = int(signal.SIGQUIT)
        self.stay_seconds = 0.0
        self.door = os.path.splitext(lock)[0] + DOOR

    def say(self, event: str, **details: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the owner is gone, or does not listen any more
            os.write(1, json.dumps({"event": event} | details).encode() + b"\n")

    # -- programs

    def spawn(self, command: list[str], env: dict[str, str], stdin: int, output: int) -> int:
        """Start a program as the server's account; the kernel ends it with this process, where it can."""
        me = os.getpid()
        pid = os.fork()  # this process has one thread, and is small
        if pid:
            return pid
        try:
            os.dup2(stdin, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if self.uid >= 0:
                os.setgroups([])
                os.setgid(self.gid)
                os.setuid(self.uid)
            if sys.platform == "linux":  # after the change of user, which clears it
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
                if os.getppid() != me:
                    os._exit(1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.execve(command[0], command, env)
        except BaseException as error:
            os.write(2, f"{command[0]} cannot be run: {error}\n".encode())
        finally:
            os._exit(127)

    def start(self, order: dict[str, Any]) -> None:
        reading, writing = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        self.ready_text, self.stop_signal = order["ready"], order["signal"]
        self.server = self.spawn(order["command"], order["env"], null, writing)
        os.close(writing)
        os.close(null)
        self.output = reading

    def finish(self, order: dict[str, Any]) -> None:
        """Let the server end in order; ``ended`` says when it has."""
        if self.server:
            os.kill(self.server, signal.SIGTERM)

    def stay(self, order: dict[str, Any]) -> None:
        """When the owner has ended, the server goes on for so many seconds."""
        self.stay_seconds = order["seconds"]

    def read_output(self) -> None:
        block = os.read(self.output, 1 << 16)
        if not block:
            os.close(self.output)
            self.output = -1
            status = self.reap()
            self.say("failed" if self.ready_text else "ended", log="\n".join(self.log), status=status)
            self.log.clear()
            return
        *lines, self.pending = (self.pending + block).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            self.log.append(text)
            if self.ready_text and self.ready_text in text:
                self.ready_text = ""
                self.say("ready")

    def reap(self) -> int:
        status = 0
        if self.server:
            with contextlib.suppress(ChildProcessError):
                status = os.waitstatus_to_exitcode(os.waitpid(self.server, 0)[1])
        self.server = 0
        return status

    def run(self, order: dict[str, Any]) -> None:
        """Run a command with ``input`` to its end, then publish the folder that it has worked on."""
        said = os.path.join(self.folder, "said")
        given = os.open(os.path.join(self.folder, "given"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(given, order["input"].encode())
        os.lseek(given, 0, os.SEEK_SET)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            pid = self.spawn(order["command"], order["env"], given, output)
        finally:
            os.close(given)
            os.close(output)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except Ending:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        problem = ""
        if status == 0:
            try:
                lock = os.open(order["lock"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    publish(order["source"], order["pointer"], order["note"])
                finally:
                    os.close(lock)
            except OSError as error:
                problem = str(error)
        else:
            with open(said, encoding="utf-8", errors="replace") as stream:
                problem = stream.read()[-2000:] or f"exit status {status}"
        shutil.rmtree(order["source"], ignore_errors=True)
        self.say("published", problem=problem)

    # -- the loop

    def watch(self) -> None:
        """Follow orders until the owner says ``stop``, or is gone."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        patience: float | None = None
        if sys.platform == "linux":
            try:
                poll.register(os.pidfd_open(self.owner), select.POLLIN)
            except ProcessLookupError:
                return
            except OSError:  # a kernel or a sandbox without it
                patience = POLL_SECONDS
        else:
            patience = POLL_SECONDS
        watched = -1
        while os.getppid() == self.owner:
            if self.output != watched:
                if self.output >= 0:
                    poll.register(self.output, select.POLLIN)
                else:
                    poll.unregister(watched)
                watched = self.output
            for descriptor, _ in poll.poll(None if patience is None else patience * 1000):
                if descriptor == self.output:
                    self.read_output()
                elif descriptor == 0:
                    if not self.follow_orders():
                        return
                else:
                    return self.follow_last_orders()  # the owner's process has ended
        self.follow_last_orders()

    def follow_orders(self) -> bool:
        """Do what the input says; whether there may be more to come."""
        orders = self.read_orders()
        does = {"start": self.start, "run": self.run, "finish": self.finish, "stay": self.stay}
        for order in orders:
            if order["do"] == "stop":
                return False
            does[order["do"]](order)
        return bool(orders) or bool(self.received)

    def follow_last_orders(self) -> None:
        """An owner that was killed may have asked for its server to stay, just before."""
        os.set_blocking(0, False)
        with contextlib.suppress(BlockingIOError):
            while orders := self.read_orders():
                for order in orders:
                    if order["do"] == "stay":
                        self.stay(order)

    def read_orders(self) -> list[dict[str, Any]]:
        """The orders that have come; none at the end of the input, or where one is not complete."""
        block = os.read(0, 1 << 16)
        *lines, self.received = (self.received + block).split(b"\n") if block else (b"",)
        return [json.loads(line) for line in lines]

    def linger(self) -> None:
        """Where the server is to stay: wait until somebody asks for its end, the time is up, or it ends of itself."""
        if not self.stay_seconds or self.output < 0:
            return
        os.mkfifo(self.door, 0o600)
        door = os.open(self.door, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # both ends: it never reads as closed
        self.say("stays")
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):  # whoever reads what the run has printed is to see its end
            os.dup2(null, number)
        until = time.monotonic() + self.stay_seconds
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        poll.register(door, select.POLLIN)
        while self.output >= 0 and (left := until - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                if descriptor == door:
                    return
                self.read_output()

    def end(self) -> None:
        """Stop the server at once, and remove its folder and its lock."""
        for number in (self.stop_signal, signal.SIGKILL):
            if self.server:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.server, number)
                self.drain(STOP_SECONDS)
        self.reap()
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in (self.door, self.lock):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with contextlib.suppress(OSError):  # others are in it
            os.rmdir(os.path.dirname(self.lock))

    def drain(self, seconds: float) -> None:
        """Wait until every process of the server has closed its output, which it does by ending."""
        until = time.monotonic() + seconds
        while self.output >= 0:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.output], [], [], left)[0]:
                return
            self.read_output()


def main() -> None:
    """Watch, as the owner's arguments say; whatever happens, clear up."""
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    os.chdir("/")
    # What the owner has inherited, such as a pipe whose reader waits for the end of the run; 3 is the lock.
    os.closerange(4, 4096)

    def ending(number: int, frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise Ending

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    owner, folder, lock, uid, gid = sys.argv[1:]
    watcher = Watcher(int(owner), folder, lock, int(uid), int(gid))
    try:
        try:
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, ending)
            watcher.watch()
            watcher.linger()
        except Ending:
            pass
    finally:
        watcher.end()


if __name__ == "__main__":
    main()
