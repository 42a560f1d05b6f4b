"""What the border costs: python -m tests.benchmarks.bench_border

One class in one process, in blocks of tests that take turns: with what asks about engines, losses and threads, and
with these questions taken out.  Measured is this process's own time on the processor, where the border works: what the
server does is the same, and another load of the machine counts little.
"""

from __future__ import annotations

import statistics
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbtestcase import DatabaseTest
from dbtestcase.isolation import switchboard
from dbtestcase.isolation.left_threads import LeftThreads
from dbtestcase.isolation.sandbox_run import SandboxRun
from tests.benchmarks.measure import finish, verdict

BLOCK, ROUNDS = 40, 40


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


engine = sa.create_engine("postgresql+psycopg://nowhere/app")


class Measured(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]

    def test_empty(self) -> None:
        pass

    def test_rows(self) -> None:
        with Session(engine) as session:
            session.add_all(Row(name=str(number)) for number in range(3))
            session.commit()

    def test_connections(self) -> None:
        for _ in range(10):
            with engine.connect():
                pass

    def test_statements(self) -> None:
        with engine.connect() as connection:
            for _ in range(20):
                connection.exec_driver_sql("SELECT 1")


@contextmanager
def without() -> Iterator[None]:
    wrapped = Engine.raw_connection.__wrapped__  # type: ignore[attr-defined]
    with (
        mock.patch.object(switchboard.hooks, "border", None),
        mock.patch.object(Engine, "raw_connection", wrapped),
        mock.patch.object(SandboxRun, "look_for_loss", lambda self: False),
        mock.patch.object(LeftThreads, "end_test", lambda self, label: None),
        mock.patch.object(LeftThreads, "refuse", lambda self: None),
    ):
        yield


def block(name: str, around: Callable[[], object]) -> float:
    suite = [Measured(name) for _ in range(BLOCK)]
    result = unittest.TestResult()
    with around():  # type: ignore[attr-defined]
        started = time.process_time()
        for test in suite:
            test.run(result)
        seconds = time.process_time() - started
    assert result.wasSuccessful(), (result.errors + result.failures)[0][1]
    return seconds / BLOCK


def differences(found: dict[str, list[float]]) -> Iterator[float]:
    return (a - b for a, b in zip(*found.values(), strict=True))


def main() -> None:
    kept = []
    Measured("test_rows").run()  # the class begins and stays; what is paid once is paid
    for name in ("test_empty", "test_rows", "test_connections", "test_statements"):
        found: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(ROUNDS):
            found["with"].append(block(name, nullcontext))
            found["without"].append(block(name, without))
        here, there = (statistics.median(values) for values in found.values())
        middle = statistics.median(a / b for a, b in zip(*found.values(), strict=True))
        print(
            f"{name}: {here * 1e6:.1f} us with the border, {there * 1e6:.1f} us without; median of ratios {middle:.3f}"
        )
        if name == "test_empty":  # next to nothing is left of which to take a share
            kept.append(verdict("test_empty, us of the border", statistics.median(differences(found)) * 1e6, 2.5))
        else:
            kept.append(verdict(f"{name}, median of {ROUNDS} ratios", middle, 1.02))
    finish(kept)


if __name__ == "__main__":
    main()
