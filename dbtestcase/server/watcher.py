"""The small process that starts a server, watches over it and over its owner, and clears up after both.

It runs by itself (``python -I -S watcher.py``) and therefore imports nothing but ``cluster_files``, beside it, and
parts of the standard library that load quickly.  It speaks with its owner in lines of JSON:

- it reads orders: ``copy`` (a cluster of the cache into the server's folder, and then ``start``), ``start`` (a server's
  command), ``run`` (a command to be run while the server runs, followed by ``publish``), ``finish`` (the server is to
  end in order), ``keep`` (the server is to go on when the owner has ended), ``stay`` (it is to wait for another owner
  then, for so long) and ``stop``; the end of its input is ``stop`` as well, so an owner that dies needs to say nothing;
- it writes what happened: ``copied``, ``uncopied``, ``ready``, ``complete``, ``incomplete``, ``failed``, ``published``,
  ``ended``, ``kept``, ``free``, ``taken``.

It has a session of its own, so that the Ctrl-C that ends a run does not reach the server before the run has ended.  It
notices its owner's end by the end of its input, and by the process itself: forked children of the owner keep the
input open.  A server that was told to stay is ended by whoever writes to a named pipe beside its lock
(``python -m dbtestcase prune``), and by the time.  Should it be killed itself, the kernel ends the server (Linux), and
the next run sweeps the folder: server and watcher hold the folder's lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections import deque

TYPE_CHECKING = False  # what is only asked for at times is imported then: the server waits for this process's start
if TYPE_CHECKING:
    from typing import Any
if TYPE_CHECKING or __name__ != "__main__":
    from . import cluster_files as files
else:  # alone: after the standard library's, since other modules here have names of its modules
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    import cluster_files as files

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 4.0  # for an immediate stop; then the server is killed
POLL_SECONDS = 1.0  # where the owner's process cannot be waited for
DOOR = ".kept"  # the suffix of the named pipe of a server that has outlived its owner
FREE = ".free"  # the suffix of the socket of a server that waits for its next owner
OWN = ".own"  # the suffix of the folder beside the server's, which the server's account can read, and only read
FULL = "No space left on device"


class Ending(BaseException):
    """A signal asks this process to end."""


class Watcher:
    """One server, its owner, and what both have to say; at the end ``folder`` is removed, and its lock after it."""

    def __init__(self, owner: int, folder: str, lock: str, uid: int, gid: int) -> None:
        self.owner, self.folder, self.lock, self.uid, self.gid = owner, folder, lock, uid, gid
        self.server = 0
        self.output = -1
        self.log: deque[str] = deque(maxlen=100)
        self.pending = b""
        self.received = b""
        self.ready_text = ""
        self.stop_signal = int(signal.SIGQUIT)
        self.keep_seconds = 0.0
        self.stay_seconds, self.stay_name = 0.0, ""
        self.is_taken = False
        self.own, self.door = folder + OWN, folder + DOOR
        self.reserve = files.Reserve(self.own)
        self.held, self.cache = -1, ""
        self.later: dict[str, str] = {}

    def say(self, event: str, **details: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the owner is gone, or listens no more
            os.write(1, json.dumps({"event": event} | details).encode() + b"\n")

    # -- programs

    def spawn(self, command: list[str], env: dict[str, str], stdin: int, output: int) -> int:
        """Start a program as the server's account; the kernel ends it with this process, where it can."""
        import ctypes  # here: the server's account may not be able to read it

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
        self.ready_text, self.stop_signal, self.later = order["ready"], order["signal"], {}
        self.server = self.spawn(order["command"], order["env"], null, writing)
        os.close(writing)
        os.close(null)
        self.output = reading

    def copy(self, order: dict[str, Any]) -> None:
        """Copy a cluster; if it is complete, give the folder to the server's account and start the server.

        The folders named in ``later`` are copied when the server runs.
        """
        try:
            left_out = [*order["leave_out"], *order["later"]]
            found = files.copy_tree(order["source"], order["target"], self.uid, self.gid, leave_out=frozenset(left_out))
            now = found
            for each in (files.measure(order["source"], folder) for folder in order["later"]):
                found = found[0] + each["files"], found[1] + each["bytes"]
            files.look_for_room(order["target"], found[0] - now[0], found[1] - now[1])
            if found == (order["files"], order["bytes"]):
                if left_out:
                    files.leave_out(order["target"], left_out, self.uid, self.gid)
                    self.held, self.cache = files.hold(order["source"]), os.path.dirname(order["source"])
                if self.uid >= 0:
                    os.chown(self.folder, self.uid, self.gid, follow_symlinks=False)
                self.start(order["start"])
                self.later = {folder: os.path.join(order["source"], folder) for folder in order["later"]}
        except OSError as error:
            where, unreadable = error.filename, isinstance(error, files.Unreadable)
            self.say("uncopied", errno=error.errno, text=error.strerror, where=where, unreadable=unreadable)
        else:
            self.say("copied", files=found[0], bytes=found[1])

    def complete(self) -> None:
        """Copy what the server need not have at its start; ``complete`` says that it is there."""
        staged = os.path.join(self.own, "later")
        try:
            for folder, source in self.later.items():
                files.copy_tree(source, staged, self.uid, self.gid)
                files.put(staged, os.path.join(self.folder, "data"), folder)
        except OSError as error:
            files.remove_tree(staged)
            self.say("incomplete", text=f"{error.filename or self.folder}: {error.strerror}")
        else:
            self.say("complete")
        self.later = {}

    def finish(self, order: dict[str, Any]) -> None:
        """Let the server end in order; ``ended`` says when it has."""
        if self.server:
            os.kill(self.server, signal.SIGTERM)

    def keep(self, order: dict[str, Any]) -> None:
        """When the owner has ended, the server goes on for so many seconds."""
        self.keep_seconds = order["seconds"]

    def stay(self, order: dict[str, Any]) -> None:
        """When the owner has ended, the server waits for another one, for so many seconds."""
        import socket  # noqa: F401  # what is there now may be gone by then

        self.stay_seconds, self.stay_name = order["seconds"], order["name"]

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
            if FULL in text:
                self.reserve.release()
            if self.ready_text and self.ready_text in text:
                self.ready_text = ""
                self.say("ready")
                import shutil  # noqa: F401  # for the end: what is there now may be gone by then

                self.reserve.take()
                if self.later:
                    self.complete()

    def reap(self) -> int:
        status = 0
        if self.server:
            with contextlib.suppress(ChildProcessError):
                status = os.waitstatus_to_exitcode(os.waitpid(self.server, 0)[1])
        self.server = 0
        return status

    def run(self, order: dict[str, Any]) -> None:
        """Run a command with ``input`` to its end, then publish the folder that it has worked on."""
        said = os.path.join(self.own, "said")
        given = os.open(os.path.join(self.own, "given"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
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
                with files.LockedAlone(order["lock"]):
                    files.publish(order["source"], order["pointer"], order["note"])
            except OSError as error:
                problem = str(error)
        else:
            with open(said, encoding="utf-8", errors="replace") as stream:
                problem = stream.read()[-2000:] or f"exit status {status}"
        files.remove_tree(order["source"])
        self.say("published", problem=problem)

    # -- the loop

    def watch(self) -> None:
        """Follow orders until the owner says ``stop``, or is gone."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        patience: float | None = None
        owner = -1
        if self.is_taken and not self.owner:  # a process that cannot be seen from here: its connection tells
            pass
        elif sys.platform == "linux":
            try:
                owner = os.pidfd_open(self.owner)
                poll.register(owner, select.POLLIN)
            except ProcessLookupError:
                return
            except OSError:  # a kernel or a sandbox without it
                patience = POLL_SECONDS
        else:
            patience = POLL_SECONDS
        watched = -1
        while self.is_taken or os.getppid() == self.owner:
            if self.output != watched:
                if self.output >= 0:
                    poll.register(self.output, select.POLLIN)
                else:
                    poll.unregister(watched)
                watched = self.output
            seconds = patience
            if self.reserve.again_at:
                if time.monotonic() >= self.reserve.again_at:
                    self.reserve.take(2 * files.RESERVE)  # what the server was given to end in is not taken away again
                seconds = min(files.RESERVE_SECONDS, patience or files.RESERVE_SECONDS)
            for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000):
                if descriptor == self.output:
                    self.read_output()
                elif descriptor == 0:
                    if not self.follow_orders():
                        return
                else:
                    os.close(owner)
                    return self.follow_last_orders()  # the owner's process has ended
        self.follow_last_orders()

    def follow_orders(self) -> bool:
        """Do what the input says; whether there may be more to come."""
        orders = self.read_orders()
        does = {"copy": self.copy, "start": self.start, "run": self.run, "finish": self.finish}
        does |= {"keep": self.keep, "stay": self.stay}
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
                    if order["do"] in ("keep", "stay"):
                        getattr(self, order["do"])(order)

    def read_orders(self) -> list[dict[str, Any]]:
        """The orders that have come; none at the end of the input, or where one is not complete."""
        try:
            block = os.read(0, 1 << 16)
        except ConnectionResetError:  # an owner that has ended before it has read all that was said
            block = b""
        *lines, self.received = (self.received + block).split(b"\n") if block else (b"",)
        return [json.loads(line) for line in lines]

    def wait_for_owner(self) -> bool:
        """Wait, where the server is to stay, until somebody takes it or ends it, or time is up; whether it is taken.

        Only who may write to the socket can connect: this user.
        """
        if not self.stay_seconds or self.keep_seconds or self.output < 0:
            return False
        import socket

        path = f"{self.folder}.{self.stay_name}{FREE}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(path)
            listening.listen(1)
            self.say("free")
            self.leave_owner()
            until = time.monotonic() + self.stay_seconds
            self.is_taken = False
            poll = select.poll()
            poll.register(self.output, select.POLLIN)
            poll.register(listening, select.POLLIN)
            try:
                while self.output >= 0 and (left := until - time.monotonic()) > 0:
                    for descriptor, _ in poll.poll(left * 1000):
                        if descriptor == self.output:
                            self.read_output()
                        elif (asked := self.meet(listening.accept()[0])) != "":
                            self.stay_seconds = until - time.monotonic()  # should it end before it says for how long
                            return asked == "take"
            finally:
                os.unlink(path)
        return False

    def meet(self, connection: Any) -> str:
        """Somebody has connected: ``take``, ``end``, or nothing that is understood."""
        import struct

        with connection:
            connection.settimeout(10.0)  # on a busy machine it takes a while to say what it wants
            try:
                asked = connection.recv(64).decode().strip()
            except OSError:
                return ""
            if asked == "take" and not os.path.exists(f"{self.folder}/.s.PGSQL.5432"):
                return "end"  # somebody has removed its folder: nobody can reach it any more
            if asked == "take":
                connection.setblocking(True)
                self.owner = 0
                if sys.platform == "linux":
                    so_peercred = 17
                    self.owner = struct.unpack("3i", connection.getsockopt(1, so_peercred, 12))[0]
                os.dup2(connection.fileno(), 0)
                os.dup2(connection.fileno(), 1)
                self.is_taken, self.received = True, b""
                self.say("taken")
            return asked if asked in ("take", "end") else ""

    def leave_owner(self) -> None:
        """Whoever reads what the run has printed is to see its end."""
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.close(null)

    def linger(self) -> None:
        """Where the server is to stay: wait until somebody asks for its end, the time is up, or it ends of itself."""
        if not self.keep_seconds or self.output < 0:
            return
        os.mkfifo(self.door, 0o600)
        door = os.open(self.door, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # both ends: it never reads as closed
        self.say("kept")
        self.leave_owner()
        until = time.monotonic() + self.keep_seconds
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        poll.register(door, select.POLLIN)
        while self.output >= 0 and (left := until - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                if descriptor == door:
                    return
                self.read_output()

    def end(self) -> None:
        """Stop the server at once, and remove its folders and its lock."""
        for number in (self.stop_signal, signal.SIGKILL):
            if self.server:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.server, number)
                self.drain(STOP_SECONDS)
        self.reap()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.door)
        if files.remove_tree(self.own) and files.remove_tree(self.folder):
            with contextlib.suppress(FileNotFoundError):  # last: without the lock nobody would look again
                os.unlink(self.lock)
        with contextlib.suppress(OSError):  # others are in it
            os.rmdir(os.path.dirname(self.lock))
        if self.held >= 0:  # another run may have put a newer cluster in the place of this one
            os.close(self.held)
            files.sweep_unless_busy(self.cache)

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
    os.umask(0o077)
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
            while watcher.wait_for_owner():
                watcher.watch()
            watcher.linger()
            os.dup2(os.open(os.devnull, os.O_RDWR), 2)  # whoever reads what the run has printed is to see its end
        except Ending:
            pass
    finally:
        watcher.end()


if __name__ == "__main__":
    main()
