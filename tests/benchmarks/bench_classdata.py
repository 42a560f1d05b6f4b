"""What class data cost: python -m tests.benchmarks.bench_classdata

500 instances on the class: tests that do not touch them beside the same tests without any, tests that touch one, and
the alternatives by hand: merging all of them into each test's session, or making the rows in each test's setUp.
Then what it costs to record the statements of tests (DBTESTCASE_SQL), for tests that send 20.

Measured is the processor time of the test's thread: what is compared happens there, and the server's share is the same.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.benchmarks.measure import finish, print_table, shared_server, verdict
from tests.support.runners import run_python, write_suite

INSTANCES, TESTS, SLOW_TESTS, SENDING_TESTS, ROUNDS = 500, 500, 20, 100, 7

MODEL = """
from dbtestcase import DatabaseTest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from time import thread_time
from statistics import median
import json, os, sys, unittest

class Base(DeclarativeBase): pass

class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

def median_seconds(case, count):
    "From one test to the next: what the class pays once is not in it."
    case.times = []
    for number in range(count):
        setattr(case, f"test_{number:05}", case.check)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.wasSuccessful(), (result.errors + result.failures)[0][1]
    return [later - earlier for earlier, later in zip(case.times, case.times[1:])]
"""
PROGRAMS = {
    "model.py": MODEL,
    "classdata.py": """
        from model import *

        instances, tests, slow_tests, sending_tests, rounds = map(int, sys.argv[1:])

        def rows():
            return [Row(name=str(number)) for number in range(instances)]

        class Without(DatabaseTest):
            metadata = Base.metadata
            def check(self): self.times.append(thread_time())

        class Untouched(Without):
            @classmethod
            def setUpTestData(cls):
                made = rows()
                cls.session.add_all(made)
                cls.session.flush()
                for row in made:
                    setattr(cls, f"row_{row.name}", row)

        class One(Untouched):
            def check(self):
                self.row_7.name
                self.times.append(thread_time())

        class Merge(Untouched):
            def setUp(self):
                for number in range(instances):
                    name = f"row_{number}"
                    setattr(self, name, self.session.merge(getattr(type(self), name), load=False))

        class Each(Without):
            def setUp(self):
                self.session.add_all(rows())
                self.session.flush()

        class Sending(Without):
            sql = "off"
            @classmethod
            def setUpClass(cls):
                os.environ["DBTESTCASE_SQL"] = cls.sql
                super().setUpClass()
            def check(self):
                for _ in range(20):
                    self.session.execute(select(Row))
                self.times.append(thread_time())

        class Recorded(Sending):
            sql = "fail"

        found = {}
        for _ in range(rounds):
            for case in (Without, Untouched, One, Merge, Each, Sending, Recorded):
                # A class of its own each time: it begins and ends in each round.
                count = slow_tests if case in (Merge, Each) else sending_tests if case in (Sending, Recorded) else tests
                found.setdefault(case.__name__, []).extend(median_seconds(type(case.__name__, (case,), {}), count))
        print(json.dumps({name: median(seconds) for name, seconds in found.items()}))
        """,
}
NAMES = {
    "Without": "no class data",
    "Untouched": f"{INSTANCES} instances, untouched",
    "One": f"{INSTANCES} instances, one touched",
    "Merge": f"{INSTANCES} instances, merged by hand in setUp",
    "Each": f"{INSTANCES} rows made in each setUp",
    "Sending": "20 statements, not recorded",
    "Recorded": "20 statements, recorded",
}


def main() -> None:
    with shared_server() as (server, environment), tempfile.TemporaryDirectory() as name:
        folder = write_suite(Path(name), PROGRAMS)
        arguments = ["classdata.py", *map(str, (INSTANCES, TESTS, SLOW_TESTS, SENDING_TESTS, ROUNDS))]
        done = run_python(arguments, cwd=folder, env=environment, timeout=300, new=True)
        assert done.returncode == 0, done.stderr
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        print_table(
            f"A test, with {INSTANCES} instances on its class; processor time; PostgreSQL {server.version}; median",
            [(NAMES[kind], seconds, "") for kind, seconds in found.items()],
            "us",
        )
        finish(
            [
                verdict("untouched class data, over none", found["Untouched"] / found["Without"], 1.1),
                verdict("recorded statements, over not recorded", found["Recorded"] / found["Sending"], 1.1),
            ]
        )


if __name__ == "__main__":
    main()
