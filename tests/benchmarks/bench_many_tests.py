"""Whether the ten-thousandth test costs what the first did: python -m tests.benchmarks.bench_many_tests

10,000 tests in one process: classes of 250 tests, each of which commits three rows through the ORM and asks for them.
The time of the last 1,000 is compared with that of the first 1,000; memory and connections are looked at on the way.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.benchmarks.measure import finish, print_table, shared_server, verdict
from tests.support.runners import run_python, write_suite

TESTS, IN_A_CLASS, EDGE = 10_000, 250, 1_000
TIME_LIMIT, MEMORY_LIMIT = 1.2, 1.1

PROGRAM = """
import gc, os, sys, time, unittest
import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from dbtestcase import DatabaseTest

TESTS, IN_A_CLASS, EDGE = map(int, sys.argv[1:])
engine = sa.create_engine("postgresql+psycopg://nowhere/app")

class Base(DeclarativeBase): pass

class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

class Case(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]

def check(self):
    with Session(engine) as session:
        session.add_all(Row(name=str(number)) for number in range(3))
        session.commit()
    with Session(engine) as session:
        assert len(session.scalars(sa.select(Row)).all()) == 3
    ended.append(time.perf_counter())
    if len(ended) % EDGE == 0:
        url = sa.make_url(os.environ["DBTESTCASE_URL"])
        with psycopg.connect(host=url.query["host"], user=url.username, dbname="postgres") as judge:
            name = sa.make_url(self.database_url).database
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
            connections = judge.execute(query, (name,)).fetchone()[0]
        gc.collect()
        pages = int(open("/proc/self/statm").read().split()[1])
        looks.append((connections, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))

ended, looks = [], []
suite = unittest.TestSuite()
for number in range(TESTS // IN_A_CLASS):
    names = {f"test_{i:03}": check for i in range(IN_A_CLASS)}
    case = type(f"Case{number:03}", (Case,), names)
    suite.addTest(unittest.defaultTestLoader.loadTestsFromTestCase(case))
result = unittest.TestResult()
suite.run(result)
assert result.wasSuccessful() and result.testsRun == TESTS, (result.errors + result.failures)[:1]
# the first class pays for what is paid once
for edge in range(EDGE, TESTS, EDGE):
    first = IN_A_CLASS if edge == EDGE else edge - EDGE
    print("time", (ended[edge - 1] - ended[first]) / (edge - first - 1), *looks[edge // EDGE - 1])
print("time", (ended[-1] - ended[-EDGE]) / (EDGE - 1), *looks[-1])
"""


def main() -> None:
    with shared_server() as (_, env), tempfile.TemporaryDirectory() as folder:
        write_suite(folder, {"many.py": PROGRAM})
        arguments = ["many.py", str(TESTS), str(IN_A_CLASS), str(EDGE)]
        done = run_python(arguments, cwd=Path(folder), env={**env, "PYTHONWARNINGS": "error"}, timeout=3600, new=True)
        assert done.returncode == 0, done.stdout + done.stderr
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("time")]
    seconds = [float(each[0]) for each in found]
    connections = [int(each[1]) for each in found]
    memory = [float(each[2]) for each in found]
    rows = [
        (
            f"tests {number * EDGE:,} to {(number + 1) * EDGE:,}",
            each,
            f"{connections[number]} connection, {memory[number]:.0f} MB",
        )
        for number, each in enumerate(seconds)
    ]
    print_table(f"{TESTS:,} tests in one process ({os.cpu_count()} cores)", rows, "us")
    finish(
        [
            verdict("time of the last 1,000 over the first 1,000", seconds[-1] / seconds[0], TIME_LIMIT),
            verdict("memory at the end over memory after 1,000", memory[-1] / memory[0], MEMORY_LIMIT),
            verdict("connections to the database", max(connections), 1),
        ]
    )


if __name__ == "__main__":
    main()
