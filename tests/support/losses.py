"""Runs that lose something at a random moment, and what the next run finds; for a namespace of its own.

``python -m tests.support.losses ROUNDS SEED [CLIENTS]``, where /dev/shm and the process numbers are nobody else's (see
``tests/functional/server/test_random_losses.py``).  Each round starts a run, on a disposable server or, on two hosts at
once (each with so many clients; by default one), on a shared one; sends it a signal or takes something from it; lets it
end; and then

- the next run passes;
- a run on another host that went on meanwhile has passed;
- nothing is left: processes, folders, sockets, databases, folders in the cache that no pointer names.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.support.farm import END_ADMINS, SharedServer, finish, start_run
from tests.support.runners import write_suite
from tests.support.samples import LONG

SHM = Path("/dev/shm")
TABLES = 300 if LONG else 60  # how long the build of a template is, in which a run may be hit
SUITE = f"""
    import time
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest

    metadata = sa.MetaData()
    for number in range({TABLES}):
        sa.Table(f"t{{number}}", metadata, sa.Column("id", sa.Integer, primary_key=True))
    item = metadata.tables["t0"]

    class Tests:
        def put(self):
            self.assertEqual(self.session.execute(sa.select(item.c.id)).all(), [])
            self.session.execute(sa.insert(item).values(id=1))
            self.session.commit()
            time.sleep(0.05)
        def test_a(self): self.put()
        def test_b(self): self.put()
        def test_c(self): self.put()
    class ATest(Tests, DatabaseTest):
        metadata = metadata
    class BTest(Tests, TruncatingDatabaseTest):
        metadata = metadata
    class CTest(Tests, DatabaseTest):
        metadata = metadata
"""
TESTS = 9
SIGNALS = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGSTOP"]
TO_ALL_SIGNALS = ["SIGINT to the group", "SIGKILL to the group"]


class Rounds:
    def __init__(self, seed: int, clients: int = 1, *, loads: bool = True) -> None:
        """Prepare the place.

        :param loads: every second round beside processes that take both processors.
        """
        self.clients, self.loads = clients, loads
        self.random = random.Random(seed)
        self.folder = SHM / "suite"
        self.cache = SHM / "cache"
        write_suite(self.folder, {"test_it.py": SUITE})
        (SHM / "tmp").mkdir(mode=0o1777)
        (SHM / "tmp").chmod(0o1777)
        (SHM / "shared").mkdir()
        self.env = {"DBTESTCASE_CACHE": str(self.cache), "TMPDIR": str(SHM / "tmp"), "DBTESTCASE_SQL": "off"}
        self.passes(self.env, "")  # builds the template
        began = time.monotonic()
        self.passes(self.env, "")
        self.length = time.monotonic() - began
        self.server = SharedServer(SHM / "shared", max_connections=max(30, 8 * clients))
        self.server.start()
        self.url_env = self.env | {"DBTESTCASE_URL": self.server.url}
        self.passes(self.url_env, "one")
        self.processes = self.alive()

    def passes(self, env: dict[str, str], host: str) -> None:
        with start_run(self.folder, host=host, env=env) as run:
            self.passed(run)

    def passed(self, run: subprocess.Popen[str]) -> None:
        status, output = finish(run, 180)
        if status or f"Ran {TESTS} tests" not in output or "Traceback" in output:
            raise AssertionError(f"a run that nothing was taken from has failed:\n{output}")

    def round(self) -> str:
        shared = self.clients > 1 or self.random.random() < 0.5
        loss = self.random.choice(
            SIGNALS + TO_ALL_SIGNALS + (["end of the admins", "restart", "crash"] if shared else ["full", "watcher"])
        )
        moment = self.random.random() * self.length * 1.2
        loaded = self.random.random() < 0.5 and self.loads
        rebuilt = self.random.random() < 0.3
        what = f"{'shared' if shared else 'disposable'}, {loss} after {moment:.2f} s{', under load' if loaded else ''}"
        what += ", without a template" if rebuilt else ""
        try:
            with load() if loaded else contextlib.nullcontext():
                if rebuilt:
                    self.forget_templates(shared=shared)
                if shared:
                    self.on_the_shared_server(loss, moment)
                else:
                    self.on_a_disposable_server(loss, moment)
            self.nothing_is_left()
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error
        return what

    def forget_templates(self, *, shared: bool) -> None:
        if shared:
            for (name,) in self.server.ask(
                "SELECT datname FROM pg_database WHERE datname LIKE 'dbtestcase_template_%'"
            ):
                with contextlib.closing(self.server.connect()) as connection:
                    connection.autocommit = True
                    connection.execute(f'DROP DATABASE "{name}"'.encode())
        else:
            for pointer in self.cache.glob("*/project-*.json"):
                pointer.unlink()

    def on_a_disposable_server(self, loss: str, moment: float) -> None:
        with start_run(self.folder, env=self.env) as run:
            time.sleep(moment)
            if loss == "full":
                fill(SHM / "filler")
                time.sleep(0.2)
                (SHM / "filler").unlink()
            elif loss == "watcher":
                for pid in self.alive() - self.processes - {run.pid}:
                    with contextlib.suppress(OSError):
                        if b"watcher.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                            os.kill(pid, signal.SIGKILL)
            else:
                send(run, loss)
            finish(run, 180)
        self.passes(self.env, "")

    def on_the_shared_server(self, loss: str, moment: float) -> None:
        hosts = ["one", "two"] * self.clients
        with contextlib.ExitStack() as stack:
            runs = [stack.enter_context(start_run(self.folder, host=host, env=self.url_env)) for host in hosts]
            run, others = runs[0], runs[1:]
            time.sleep(moment)
            if loss == "end of the admins":
                self.server.ask(END_ADMINS)
                self.passed(run)
            elif loss in ("restart", "crash"):
                self.server.stop(signal.SIGINT if loss == "restart" else signal.SIGQUIT)
                self.server.start()
                finish(run, 180)
            else:
                send(run, loss)
                finish(run, 180)
            for other in others:
                if loss in ("restart", "crash"):
                    finish(other, 180)
                else:
                    self.passed(other)
        self.passes(self.url_env, self.random.choice(["one", "two"]))

    def alive(self) -> set[int]:
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if not re.search(r"^State:\s+Z", (path / "status").read_text(), re.MULTILINE):
                    found.add(int(path.name))
        return found

    def nothing_is_left(self) -> None:
        until = time.monotonic() + 60
        while left := [*self.orphans()]:
            if time.monotonic() > until:
                raise AssertionError(f"left behind: {', '.join(left)}")
            time.sleep(0.05)

    def orphans(self) -> Iterator[str]:
        server = {pid for pid in self.alive() if self.server.owns(pid)}
        for pid in self.alive() - self.processes - server:
            with contextlib.suppress(OSError):
                yield f"process {pid} {Path(f'/proc/{pid}/cmdline').read_bytes().decode().rstrip(chr(0))!r}"
        for path in SHM.iterdir():
            if path.name not in ("suite", "cache", "tmp", "shared") and not path.name.startswith("dbtestcase-scratch-"):
                yield f"{path} {[each.name for each in path.iterdir()] if path.is_dir() else ''}"
        for path in (SHM / "tmp").iterdir():
            # programs are copied once, where the server's account could not read them; they stay for the next runs
            left = [each.name for each in path.iterdir()] if path.is_dir() else [""]
            if any(not each.startswith("programs-") for each in left):
                yield f"{path} {left}"
        for folder in self.cache.glob("postgresql-*"):
            notes = [json.loads(pointer.read_text()) for pointer in folder.glob("*.json")]
            named = {note["folder"] for note in notes}
            yield from (str(path) for path in folder.iterdir() if path.is_dir() and path.name not in named)
        yield from self.server.databases()


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Two processes that do nothing but calculate."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def fill(path: Path) -> None:
    """Take all the room that there is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 20))


def send(run: subprocess.Popen[str], name: str) -> None:
    number = signal.Signals[name.split()[0]]
    if run.poll() is not None:
        return
    if name.endswith("to the group"):
        os.killpg(run.pid, number)
        return
    run.send_signal(number)
    if number == signal.SIGSTOP:
        time.sleep(0.3)
        run.send_signal(signal.SIGCONT)


def main() -> None:
    rounds, seed, *clients = map(int, sys.argv[1:])
    setting = Rounds(seed, *clients, loads=rounds > 1)
    failed = 0
    for number in range(rounds):
        try:
            print(f"{number + 1}: {setting.round()}: ok", flush=True)
        except (AssertionError, psycopg.Error) as error:
            failed += 1
            print(f"{number + 1}: FAILED {error}", flush=True)
    print(f"{rounds} rounds, {failed} failed", flush=True)
    setting.server.stop(signal.SIGQUIT)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
