"""What cleaning after a committing test costs: python -m tests.benchmarks.bench_cleaning

Databases of 10, 100 and 500 tables (a third refer to another, a tenth hold reference rows); a test has inserted into
three of them.  Beside: TRUNCATE of all tables, DELETE from all, a clone of the template for each test, and what
pytest-postgresql does for each test; on one server, in turns.  And what the triggers cost a statement.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL

from dbtestcase.backends.cleaning import Standing, cleaner_for, install
from tests.benchmarks.measure import finish, print_table, shared_server, verdict

SIZES = (10, 100, 500)
ROUNDS, SLOW_ROUNDS = 300, 7
BATCH, BATCHES = 200, 40  # statements

Connection = psycopg.Connection[tuple[Any, ...]]


def connect(url: URL) -> Connection:
    return psycopg.connect(**url.get_dialect()().create_connect_args(url)[1], autocommit=True)


class Subject:
    """A database of so many tables, in which a test has written."""

    def __init__(self, server: URL, count: int) -> None:
        self.server = connect(server)
        self.count = count
        self.url = server.set(database=f"cleaning_{count}")
        self.server.execute(f"CREATE DATABASE cleaning_{count}".encode())
        self.connection = connect(self.url)
        self.tables = [f"t{number}" for number in range(count)]
        self.random = random.Random(count)
        with self.connection.transaction():
            for number, table in enumerate(self.tables):
                parent = f"REFERENCES t{number - 1}" if number % 3 == 2 else ""
                columns = f"id serial PRIMARY KEY, a text, b int, p int {parent}"
                self.connection.execute(f"CREATE TABLE {table} ({columns})".encode())
                self.connection.execute(f"CREATE INDEX ON {table} (b)".encode())

    def load_reference_rows(self) -> None:
        for table in self.tables[5::10]:
            self.connection.execute(
                f"INSERT INTO {table} (a, b) SELECT 'reference', n FROM generate_series(1, 50) n".encode()
            )

    def close(self) -> None:
        self.connection.close()
        self.server.execute(f"DROP DATABASE cleaning_{self.count} WITH (FORCE)".encode())
        self.server.close()

    def write(self) -> None:
        for table in self.random.sample(self.tables, 3):
            self.connection.execute(f"INSERT INTO {table} (a, b) VALUES ('x', 1), ('y', 2)".encode())

    def measure(self, clean: Callable[[], object]) -> float:
        self.write()
        started = time.perf_counter()
        clean()
        return time.perf_counter() - started

    # -- the alternatives

    def truncate_all(self) -> None:
        self.connection.execute(f"TRUNCATE {', '.join(self.tables)} RESTART IDENTITY CASCADE".encode())

    def delete_all(self) -> None:
        with self.connection.transaction():
            for table in reversed(self.tables):
                self.connection.execute(f"DELETE FROM {table}".encode(), prepare=True)
                self.connection.execute(f"SELECT setval('{table}_id_seq', 1, false)".encode(), prepare=True)

    def clone(self) -> None:
        self.server.execute(f"CREATE DATABASE clone TEMPLATE cleaning_{self.count}".encode())
        connect(self.url.set(database="clone")).close()
        self.server.execute(b"DROP DATABASE clone WITH (FORCE)")

    def pytest_postgresql(self) -> None:
        from pytest_postgresql.janitor import DatabaseJanitor

        info = self.server.info
        janitor = DatabaseJanitor(
            user=info.user,
            host=info.host,
            port=info.port,
            dbname="janitor",
            template_dbname=f"cleaning_{self.count}",
        )
        with janitor:
            connect(self.url.set(database="janitor")).close()


@contextmanager
def subjects(server: URL) -> Iterator[list[Subject]]:
    with ExitStack() as stack:
        made = [Subject(server, count) for count in SIZES]
        for subject in made:
            stack.callback(subject.close)
        yield made


def without_bookkeeping(made: list[Subject]) -> dict[tuple[str, int], float]:
    """The alternatives, measured before our triggers are there."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(SLOW_ROUNDS):
        for subject in made:
            found.setdefault(("TRUNCATE all", subject.count), []).append(subject.measure(subject.truncate_all))
            found.setdefault(("DELETE all", subject.count), []).append(subject.measure(subject.delete_all))
    for subject in made:
        subject.load_reference_rows()
        subject.connection.close()
        for _ in range(SLOW_ROUNDS):
            for name, way in (("a clone", subject.clone), ("pytest-postgresql", subject.pytest_postgresql)):
                started = time.perf_counter()
                way()
                found.setdefault((name, subject.count), []).append(time.perf_counter() - started)
        subject.connection = connect(subject.url)
    return {key: statistics.median(values) for key, values in found.items()}


def ours(made: list[Subject]) -> dict[tuple[str, int], float]:
    """Our cleaning, the three sizes in turns."""
    found: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        cleaners = {}
        for subject in made:
            install(subject.url)
            cleaners[subject.count] = stack.enter_context(cleaner_for(subject.url))
        for number in range(-5, ROUNDS):
            for subject in made:
                pids = [subject.connection.info.backend_pid]
                cleaner = cleaners[subject.count]
                if number == -5:  # what a session reads of the catalog once is read
                    for table in subject.tables:
                        subject.connection.execute(f"INSERT INTO {table} (a) VALUES ('x')".encode())
                    cleaner.clean(Standing(expected=pids))
                touched = subject.measure(lambda cleaner=cleaner, pids=pids: cleaner.clean(Standing(expected=pids)))
                started = time.perf_counter()
                cleaner.clean(Standing(expected=pids))
                untouched = time.perf_counter() - started
                if number >= 0:
                    found.setdefault(("dbtestcase", subject.count), []).append(touched)
                    found.setdefault(("dbtestcase, nothing touched", subject.count), []).append(untouched)
        return {key: statistics.median(values) for key, values in found.items()}


def trigger_seconds(subject: Subject) -> tuple[float, float]:
    """What one INSERT takes in the server without and with our trigger, in turns.

    The least of many batches: whatever else the machine does only adds to them.
    """
    found: dict[str, list[float]] = {"DISABLE": [], "ENABLE ALWAYS": []}
    insert = f"DO $$ BEGIN FOR n IN 1..{BATCH} LOOP INSERT INTO t0 (a) VALUES ('x'); END LOOP; END $$".encode()
    for number in range(BATCHES):
        for how, measured in found.items():
            subject.connection.execute(b"SET _dbtestcase.cleaning = 'on'")
            subject.connection.execute(b"TRUNCATE t0 CASCADE")
            subject.connection.execute(f"ALTER TABLE t0 {how} TRIGGER _dbtestcase_mark".encode())
            subject.connection.execute(b"RESET _dbtestcase.cleaning")
            started = time.perf_counter()
            subject.connection.execute(insert)
            if number:
                measured.append((time.perf_counter() - started) / BATCH)
    return min(found["DISABLE"]), min(found["ENABLE ALWAYS"])


def main() -> None:
    with shared_server() as (server, _), subjects(server.url) as made:
        times = without_bookkeeping(made) | ours(made)
        without, with_trigger = trigger_seconds(made[0])
        for count in SIZES:
            mine = times["dbtestcase", count]
            rows = [(name, seconds, f"{seconds / mine:8.1f} x") for (name, n), seconds in times.items() if n == count]
            print_table(f"cleaning after a test that wrote to 3 of {count} tables", rows, "ms")
        rows = [("INSERT", without, ""), ("INSERT with the trigger", with_trigger, "")]
        print_table("what the trigger costs a statement", rows, "us")
        finish(
            [
                verdict("500 tables over 10", times["dbtestcase", 500] / times["dbtestcase", 10], 1.5),
                verdict("TRUNCATE of 500, a 50th", times["dbtestcase", 500] / times["TRUNCATE all", 500], 1 / 50),
                verdict("the trigger, in µs", (with_trigger - without) * 1e6, 25),
            ]
        )


if __name__ == "__main__":
    main()
