"""What one process writes while it runs: a line of JSON for each class and each test, at once and whole.

A process that is killed leaves what it has written so far; that it never said goodbye is told by its lock, which the
system let go, and by the last line that is missing.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..queries import Query

LAST = "end"
"""The kind of the line with which a process says that its part is whole."""


class Recorder:
    """The part of one process, ``worker`` among those of the run, which put theirs into one folder."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.folder = folder
        self.pid = os.getpid()
        self.run = _run or _run_of_this_process()
        self._statements: dict[tuple[str, str], int] = {}
        self._began = time.perf_counter()
        self._depth = 0
        self.in_phases = 0.0  # seconds: what a class's set-up waited for is not its own
        self.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.folder):
            for part in self.folder.glob("*.jsonl"):
                if run_of(part) != self.run and not is_alive(part):  # its report was written, or given up
                    part.unlink(missing_ok=True)
            self.path = self.folder / f"{worker}-{self.pid}.jsonl"
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self.write(
            "process",
            worker=worker,
            pid=self.pid,
            began=time.time(),
            python=sys.version.partition(" ")[0],
            run=self.run,
            folder=os.getcwd(),
        )

    @property
    def may_clear(self) -> bool:
        """Whether no worker of the run can come after this process: those of pytest-xdist end together."""
        return self.run == str(self.pid) or "PYTEST_XDIST_WORKER" in os.environ

    def now(self) -> float:
        """Seconds since this process's part began."""
        return time.perf_counter() - self._began

    def since(self, moment: float) -> float:
        """The same for a moment of :func:`time.perf_counter`."""
        return moment - self._began

    def write(self, kind: str, **values: Any) -> None:
        """Append one line."""
        line = json.dumps({"kind": kind, **values}, separators=(",", ":"), default=str) + "\n"
        os.write(self._file, line.encode())

    @contextmanager
    def phase(self, name: str, label: str) -> Iterator[None]:
        """Note how long a part of the run takes that is no test: ``"start"``, ``"template"`` or ``"clean"``."""
        began, self._depth = self.now(), self._depth + 1
        try:
            yield
        finally:
            self._depth -= 1
            seconds = self.now() - began
            if not self._depth:
                self.in_phases += seconds
            self.write(
                "phase", name=name, label=label, at=round(began, 6), seconds=round(seconds, 6), inner=bool(self._depth)
            )

    def statements(
        self,
        kind: str,
        entries: Iterable[Query],
        *,
        label: str,
        at: float,
        seconds: float,
        waited: float = 0.0,
        cleaning: float = 0.0,
        failed: bool = False,
    ) -> None:
        """Note a test or the set-up of a class (``kind``), with what it sent.

        :param entries: what was recorded meanwhile, savepoints and ends of transactions among them.
        :param label: its name, as the runner says it.
        :param at: when it began, in seconds since this part began.
        :param waited: how many of its seconds were a phase of their own.
        :param cleaning: how long it took to put the database back, in seconds.
        """
        found: dict[int, list[float]] = {}
        number, database, commits, errors = 0, 0.0, 0, 0
        longest, longest_line = 0.0, ""
        open_since: dict[int, tuple[float, str]] = {}  # by connection: its transaction's first statement
        for query in entries:
            connection = id(query.connection)
            if query.kind == "transaction":
                commits += query.statement == "COMMIT"
                began, line = open_since.pop(connection, (query.started, ""))
                if query.started - began > longest:
                    longest, longest_line = query.started - began, line
                continue
            if query.kind != "statement":
                continue
            where = place_of(query)
            open_since.setdefault(connection, (query.started, where))
            took = 0.0 if query.ended is None else query.ended - query.started
            key = self._number(query.statement, where)
            number += 1
            database += took
            errors += query.error is not None
            row = found.get(key)
            if row is None:
                found[key] = [1, took, took]
            else:
                row[0] += 1
                row[1] += took
                row[2] = max(row[2], took)
        self.write(
            kind,
            id=label,
            at=round(at, 6),
            seconds=round(seconds, 6),
            waited=round(waited, 6),
            cleaning=round(cleaning, 6),
            failed=failed,
            statements=number,
            database=round(database, 6),
            commits=commits,
            errors=errors,
            longest=[round(longest, 6), longest_line],
            sent=[[key, int(n), round(total, 6), round(slowest, 6)] for key, (n, total, slowest) in found.items()],
        )

    def _number(self, sql: str, where: str) -> int:
        """The number of a statement of this part; the text is written when it is first seen.  Never a parameter."""
        key = (sql, where)
        number = self._statements.get(key)
        if number is None:
            number = self._statements[key] = len(self._statements)
            self.write("statement", number=number, sql=" ".join(sql.split())[:2000], line=where)
        return number

    def close(self) -> bool:
        """Say that this part is whole; whether no other process of the run is at work: the last one joins the parts."""
        self.write(LAST, seconds=round(self.now(), 6))
        with folder_lock(self.folder):
            os.close(self._file)
            return not any(is_alive(part) for part in self.folder.glob("*.jsonl"))

    def forget(self) -> None:
        """In a child after a fork: the part is the parent's, and must not look alive for as long as the child lives."""
        os.close(self._file)


def place_of(query: Query) -> str:
    """``app.py:14 in save``, or nothing where no line of the application's was on the stack."""
    return str(query.origin) if query.origin is not None else ""


def parts_folder(outputs: Sequence[Path]) -> Path:
    """Where the processes of a run put their parts: ``report.html`` has them in ``report.parts``."""
    return outputs[0].with_suffix(".parts")


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the parts' folder for a moment: who begins and who ends looks at the others there."""
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_alive(part: Path) -> bool:
    """Whether the process that writes a part is still there."""
    try:
        with open(part) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def run_of(part: Path) -> str:
    """Which run a part belongs to; empty where its first line was never finished."""
    with open(part, "rb") as file:
        try:
            return str(json.loads(file.readline())["run"])
        except (ValueError, KeyError):
            return ""


def _run_of_this_process() -> str:
    """What the processes of one run have in common: pytest-xdist says it, the others' workers know their parent."""
    parent = multiprocessing.parent_process()
    return os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(parent.pid if parent is not None else os.getpid())


_recorder: Recorder | None = None
_run = ""  # of the process that this one was forked from


def recorder() -> Recorder | None:
    """The recorder of this process; None where no report was asked for."""
    return _recorder if _recorder is not None and _recorder.pid == os.getpid() else None


def start(folder: Path, worker: str) -> Recorder:
    """Begin to record in this process, unless it does already."""
    global _recorder
    found = recorder()
    if found is None:
        found = _recorder = Recorder(folder, worker)
    return found


def stop() -> bool:
    """End this process's part; whether it was the last one of the run."""
    global _recorder
    found, _recorder = recorder(), None
    return found.close() if found is not None else False


def _forked() -> None:
    global _recorder, _run
    if _recorder is not None:
        _run = _recorder.run
        _recorder.forget()
        _recorder = None


os.register_at_fork(after_in_child=_forked)
