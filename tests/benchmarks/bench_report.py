"""What the report costs: python -m tests.benchmarks.bench_report

500 tests that insert three rows and read 30 times, with and without DBTESTCASE_REPORT, by turns, in one process each;
and the page of 10,000 tests: how long it takes to write, and how large it is.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dbtestcase.reporting.report import Recorder, write_report
from tests.benchmarks.measure import (
    MODELS,
    TIMING,
    finish,
    in_turns,
    print_table,
    printed_seconds,
    shared_server,
    verdict,
)
from tests.support.runners import write_suite

TESTS, ROUNDS = 500, 9

PROGRAMS = {
    "timing.py": TIMING,
    "models.py": MODELS,
    "ours.py": """
        import sys
        from sqlalchemy import select
        from dbtestcase import DatabaseTest
        from models import Base, Row, Session, create_engine
        from timing import run

        engine = create_engine("postgresql+psycopg://nowhere/app")

        class Ours(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]
            def check(self):
                with Session(engine) as session:
                    session.add_all(Row(name=str(number)) for number in range(3))
                    session.commit()
                    for _ in range(30):
                        session.scalars(select(Row)).all()

        run(Ours, int(sys.argv[1]))
        """,
}


def page_of(tests: int) -> tuple[float, int]:
    """Seconds to write the page of so many tests, and its bytes."""
    with tempfile.TemporaryDirectory() as name:
        output = Path(name, "report.html")
        recorder = Recorder(Path(name, "report.parts"), "main")
        for number in range(tests):
            queries: list[Any] = [
                SimpleNamespace(
                    statement=f"SELECT {number % 900} FROM a_table WHERE {'x = 1 AND ' * 10}",
                    origin="app.py:1 in f",
                    started=0.0,
                    ended=0.001,
                    kind="statement",
                    error=None,
                    connection=recorder,
                )
            ]
            label = f"package.module.Class.test_{number}"
            recorder.statements("test", queries, label=label, at=number / 1000, seconds=0.001)
        recorder.close()
        began = time.perf_counter()
        write_report(recorder.folder, [output])
        return time.perf_counter() - began, output.stat().st_size


def main() -> None:
    with tempfile.TemporaryDirectory() as name, shared_server() as (_, env):
        folder = write_suite(Path(name), PROGRAMS)
        command = ["ours.py", str(TESTS)]
        found = in_turns(
            {
                "off": partial(printed_seconds, command, folder, env),
                "on": partial(printed_seconds, command, folder, {**env, "DBTESTCASE_REPORT": str(folder / "r.json")}),
            },
            ROUNDS,
        )
    rows = [(name, seconds / TESTS, "") for name, seconds in found.items()]
    print_table("A test with 34 statements, CPU of the process", rows, "ms")
    seconds, size = page_of(10_000)
    print_table("The page of 10,000 tests", [("written in", seconds, f"{size / 1e6:.2f} MB")])
    finish([verdict("on / off", found["on"] / found["off"], 1.03), verdict("MB of the page", size / 1e6, 5.0)])


if __name__ == "__main__":
    main()
