"""Whether the ten-thousandth test costs what the first did: python -m tests.benchmarks.bench_many_tests

10,000 tests in one process: classes of 250 tests, each of which commits three rows through the ORM and asks for them.
The time of the last 1,000 is compared with that of the first 1,000, on the processor, the process's and its server
process's; the memory of both and the connections are looked at on the way.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.benchmarks.measure import finish, print_table, shared_server, verdict
from tests.support.runners import run_python, write_suite

TESTS, IN_A_CLASS, EDGE = 10_000, 250, 1_000
LIMIT = 1.05

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
    ended.append(time.process_time())
    if len(ended) % EDGE in (0, IN_A_CLASS):  # the first class pays for what is paid once
        look(self.database_url)

def look(database):
    # which processes of the server are ours, another connection knows
    url = sa.make_url(os.environ["DBTESTCASE_URL"])
    with psycopg.connect(host=url.query["host"], user=url.username, dbname="postgres") as judge:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
        servers = [pid for pid, in judge.execute(query, (sa.make_url(database).database,))]
    gc.collect()
    looks.append((sum(map(seconds, servers)), len(servers), own("self"), sum(map(own, servers))))

def seconds(pid):
    # on the processor; the first number of this file is in nanoseconds
    with open(f"/proc/{pid}/schedstat") as times:
        return int(times.read().split()[0]) / 1e9

def own(pid):
    # in MB, without files and without the server's shared memory: a page of that which one process alone has touched so
    # far is "private" to the system
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:")) / 1024

ended, looks = [], []
suite = unittest.TestSuite()
for number in range(TESTS // IN_A_CLASS):
    names = {f"test_{i:03}": check for i in range(IN_A_CLASS)}
    case = type(f"Case{number:03}", (Case,), names)
    suite.addTest(unittest.defaultTestLoader.loadTestsFromTestCase(case))
result = unittest.TestResult()
suite.run(result)
assert result.wasSuccessful() and result.testsRun == TESTS, (result.errors + result.failures)[:1]
for number, edge in enumerate(range(EDGE, TESTS + 1, EDGE)):
    (at_first, *_), (at_last, *memory) = looks[2 * number : 2 * number + 2]
    first, tests = edge - EDGE + IN_A_CLASS, EDGE - IN_A_CLASS
    print("time", (ended[edge - 1] - ended[first - 1]) / tests, (at_last - at_first) / tests, *memory)
"""


def main() -> None:
    with shared_server() as (_, env), tempfile.TemporaryDirectory() as folder:
        write_suite(folder, {"many.py": PROGRAM})
        arguments = ["many.py", str(TESTS), str(IN_A_CLASS), str(EDGE)]
        done = run_python(arguments, cwd=Path(folder), env={**env, "PYTHONWARNINGS": "error"}, timeout=3600, new=True)
        assert done.returncode == 0, done.stdout + done.stderr
    found = [tuple(map(float, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("time")]
    print_table(
        f"{TESTS:,} tests in one process ({os.cpu_count()} cores), on the processor",
        [
            (
                f"tests {number * EDGE:,} to {(number + 1) * EDGE:,}",
                client,
                f"server {server * 1e6:.0f} us, {servers:.0f} connection, {memory:.1f} MB, server {of_server:.2f} MB",
            )
            for number, (client, server, servers, memory, of_server) in enumerate(found)
        ],
        "us",
    )
    first, last = found[0], found[-1]
    finish(
        [
            verdict("the process's time for the last 1,000 over the first 1,000", last[0] / first[0], LIMIT),
            verdict("the server process's time for the same", last[1] / first[1], LIMIT),
            verdict("the process's memory at the end over that after 1,000", last[3] / first[3], LIMIT),
            verdict("the server process's memory for the same", last[4] / first[4], LIMIT),
            verdict("connections to the database", max(each[2] for each in found), 1),
        ]
    )


if __name__ == "__main__":
    main()
