"""What the benchmarks share: variants measured in turns within one run, and a table with ratios."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from dbtestcase.server import Server, disposable_server
from dbtestcase.settings import read_settings
from tests.support.runners import run_python

# A module for the measured programs: one test runs first and pays for what is paid once, then the rest are timed: in
# time of this process on the processor, since the wall's depends on what else the machine does.
TIMING = """
import sys, time, unittest

def run(case, count):
    for number in range(count):
        setattr(case, f"test_{number:05}", case.check)
    once = unittest.TestSuite([case("test_00000")])
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    for tests in (once, suite):
        result = unittest.TestResult()
        started = time.process_time()
        tests.run(result)
        seconds = time.process_time() - started
        assert result.wasSuccessful(), (result.errors + result.failures)[0][1]
    print(seconds)
"""

# The models that most of them measure with.
MODELS = """
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

class Base(DeclarativeBase): pass

class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
"""
# The recipe of SQLAlchemy's documentation: one session joined into an outer transaction.  A subclass has the engine.
RECIPE = """
import unittest
from sqlalchemy.orm import Session

class Recipe(unittest.TestCase):
    options = {"join_transaction_mode": "create_savepoint"}
    def setUp(self):
        self.connection = self.engine.connect()
        self.transaction = self.connection.begin()
        self.session = Session(bind=self.connection, **self.options)
    def tearDown(self):
        self.session.close()
        self.transaction.rollback()
        self.connection.close()
"""
# What a test does that is measured empty, or with three rows that are committed.
CHECKS = """
import sys
from models import Row

if sys.argv[1] == "empty":
    def check(self): pass
else:
    def check(self):
        self.session.add_all(Row(name=str(number)) for number in range(3))
        self.session.commit()
"""


@contextmanager
def shared_server() -> Iterator[tuple[Server, dict[str, str]]]:
    """A disposable server that all variants use, and the variables that lead to it.

    ``DBTESTCASE_URL`` is for ours; ``SCRATCH`` names a database of its own for the alternatives.
    """
    with disposable_server(read_settings()) as server:
        engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("CREATE DATABASE scratch"))
        engine.dispose()
        scratch = server.url.set(database="scratch")
        yield (
            server,
            {
                "DBTESTCASE_URL": server.url.render_as_string(hide_password=False),
                "SCRATCH": scratch.render_as_string(hide_password=False),
            },
        )


def in_turns(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of ``rounds`` measurements of each variant, in seconds.

    One of each in every round, so that whatever else the machine does meets all of them alike; a first round that
    warms the caches is not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, measure in variants.items():
            seconds = measure()
            if number:
                found[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def process_seconds(arguments: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> float:
    """How long ``python *arguments`` takes from start to end.

    :raises AssertionError: it failed; the message holds its output.
    """
    # Bytecode is written and used, as in a user's second run.
    env = {"PYTHONDONTWRITEBYTECODE": "", **(env or {})}
    started = time.perf_counter()
    _succeed(run_python(arguments, cwd=folder, env=env, new=True))
    return time.perf_counter() - started


def tree_seconds(arguments: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> tuple[float, float]:
    """How long ``python *arguments`` takes: by the clock, and on the processor with the children that it waits for."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _succeed(run_python(arguments, cwd=folder, env={"PYTHONDONTWRITEBYTECODE": "", **(env or {})}, new=True))
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def printed_seconds(arguments: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> float:
    """The number that ``python *arguments`` prints on its last line."""
    return float(_succeed(run_python(arguments, cwd=folder, env=env, timeout=300, new=True)).stdout.split()[-1])


def _succeed(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode:
        raise AssertionError(f"{done.args}\n{done.stdout}\n{done.stderr}")
    return done


def print_table(title: str, rows: Sequence[tuple[str, float, str]], unit: str = "s") -> None:
    """Print ``rows`` of (name, seconds, remark), the seconds in ``unit`` ("s", "ms" or "us")."""
    factor, digits = {"s": (1, 3), "ms": (1e3, 3), "us": (1e6, 0)}[unit]
    width = max(len(name) for name, _, _ in rows)
    print(f"\n{title}")
    for name, seconds, remark in rows:
        print(f"  {name:<{width}}  {seconds * factor:>10.{digits}f} {unit}  {remark}".rstrip())


def verdict(what: str, value: float, limit: float) -> bool:
    """Print whether ``value`` keeps to ``limit``."""
    kept = value <= limit
    print(f"  {'kept  ' if kept else 'MISSED'}  {what}: {value:.3f} (at most {limit})")
    return kept


def finish(kept: Sequence[bool]) -> None:
    """Exit with 1 where a limit was missed."""
    sys.exit(0 if all(kept) else 1)
