"""What a statement costs inside the sandbox: python -m tests.benchmarks.bench_statements

The same work on the same server, on plain connections that commit and in a sandbox: statements in an open transaction,
and whole transactions of one insert, by the driver itself, through SQLAlchemy Core and through the ORM; and what a
statement that is recorded, under a stack of some 150 frames, takes more on the processor than on a plain engine.

CPython keeps the frames of a stack in chunks of 16 kB, and gives a chunk back as soon as its first frame has ended.
Where the border of two chunks falls into a loop that calls something, each call maps and unmaps memory: up to 14
mappings a statement, and at some depths five more on one side than on the other, only because of how deep the caller
is.  An application has many depths, so many are measured, both sides at each.

To wake a server on another processor takes some 20 µs more than on one's own, and the system decides where each of the
two servers is, for all of a run.  So under a deep stack all share one processor.  And where in memory things lie
decides, for all of a process, how many of a statement's thousand look-ups of attributes miss CPython's cache, each as
dear as ten lines of code.  So several processes are measured.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, create_engine, insert, orm, select

from dbtestcase.isolation.sandbox_run import running_sandbox
from dbtestcase.reporting import recording
from tests.benchmarks.measure import finish, in_turns, print_table, printed_seconds, shared_server, verdict

COUNT, ROUNDS = 100, 31
STATEMENT_LIMIT, TRANSACTION_LIMIT = 1.3, 1.4
DEPTHS, DEEP_COUNT, DEEP_LIMIT = range(108, 204, 4), 20, 15
PROCESSES, DEEP_ROUNDS = 9, 3


class Base(orm.DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]


SELECT = "SELECT id, name FROM rows WHERE id = %s"
INSERT = "INSERT INTO rows (name) VALUES (%s)"


def driver_selects(engine: Engine) -> None:
    raw = engine.raw_connection()
    connection: Any = raw.driver_connection
    cursor = connection.cursor()
    for number in range(COUNT):
        cursor.execute(SELECT, (number,))
        cursor.fetchall()
    raw.close()


def driver_inserts(engine: Engine) -> None:
    raw = engine.raw_connection()
    cursor = raw.cursor()
    for _ in range(COUNT):
        cursor.execute(INSERT, ("name",))
    raw.commit()
    raw.close()


def core_selects(engine: Engine) -> None:
    with engine.connect() as connection:
        for number in range(COUNT):
            connection.execute(select(Row.id, Row.name).where(Row.id == number)).all()


def core_inserts(engine: Engine) -> None:
    with engine.begin() as connection:
        for _ in range(COUNT):
            connection.execute(insert(Row).values(name="name"))


def orm_selects(engine: Engine) -> None:
    with orm.Session(engine) as session:
        for number in range(COUNT):
            session.scalars(select(Row).where(Row.id == number)).all()


def orm_flushes(engine: Engine) -> None:
    with orm.Session(engine) as session:
        for _ in range(COUNT):
            session.add(Row(name="name"))
            session.flush()
        session.commit()


def driver_transactions(engine: Engine) -> None:
    raw = engine.raw_connection()
    cursor = raw.cursor()
    for _ in range(COUNT):
        cursor.execute(INSERT, ("name",))
        raw.commit()
    raw.close()


def core_transactions(engine: Engine) -> None:
    for _ in range(COUNT):
        with engine.begin() as connection:
            connection.execute(insert(Row).values(name="name"))


def orm_transactions(engine: Engine) -> None:
    for _ in range(COUNT):
        with orm.Session(engine) as session:
            session.add(Row(name="name"))
            session.commit()


STATEMENTS = (driver_selects, driver_inserts, core_selects, core_inserts, orm_selects, orm_flushes)
TRANSACTIONS = (driver_transactions, core_transactions, orm_transactions)


def nested(levels: int, function: Callable[[], object]) -> object:
    return nested(levels - 1, function) if levels else function()


@contextmanager
def one_processor(*engines: Engine) -> Iterator[None]:
    """Keep this process and the servers of the engines' connections on one processor, where the system can."""
    processes, everywhere = [0], os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    for engine in engines if everywhere else ():
        with engine.connect() as connection:
            processes.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
    for process in processes if everywhere else ():
        os.sched_setaffinity(process, {min(everywhere)})
    try:
        yield
    finally:
        for process in processes if everywhere else ():
            os.sched_setaffinity(process, everywhere)


def deep_seconds(engine: Engine, frames: int) -> float:
    """What a statement takes under a stack of so many frames, on the processor."""
    with engine.connect() as connection:
        connection.execute(select(Row.id)).all()  # BEGIN is not the statements'
        started = time.process_time()
        for number in range(DEEP_COUNT):
            query = select(Row.id, Row.name).where(Row.id == number)
            nested(frames, lambda query=query: connection.execute(query).all())  # type: ignore[misc]
        return (time.process_time() - started) / DEEP_COUNT


def deep_difference(plain: Engine, sandboxed: Engine, next_test: Callable[[], None]) -> float:
    """What a recorded statement takes more than one of a plain engine, in seconds: the mean of all depths."""
    found: dict[int, list[float]] = {frames: [] for frames in DEPTHS}
    for number in range(DEEP_ROUNDS + 1):
        for frames in random.sample(DEPTHS, len(DEPTHS)):
            seconds = {}
            for engine in random.sample((plain, sandboxed), 2):  # the first one at a depth may pay for both
                with recording() if engine is sandboxed else nullcontext():
                    seconds[engine] = deep_seconds(engine, frames)
            if number:
                found[frames].append(seconds[sandboxed] - seconds[plain])
        next_test()
    return statistics.mean(map(statistics.median, found.values()))


def timed(work: Callable[[Engine], None], engine: Engine, between: Callable[[], None]) -> Callable[[], float]:
    """Seconds for one pass of ``work``; ``between`` empties the table outside of the clock."""

    def measure() -> float:
        between()
        started = time.perf_counter()
        work(engine)
        return time.perf_counter() - started

    return measure


@contextmanager
def engines(driver: str, url: sa.URL) -> Iterator[tuple[Engine, Engine, Callable[[], None]]]:
    """A plain engine, one in a sandbox, and what ends a test there."""
    plain_url = url.set(drivername=f"postgresql+{driver}", database="scratch")
    sandbox_url = plain_url.set(database="scratch_sandboxed")
    plain = create_engine(plain_url)
    with running_sandbox(SimpleNamespace(url=sandbox_url), sandbox_url) as run:
        run.sandbox.begin("the class")
        run.sandbox.mark("the test")

        def next_test() -> None:
            if not run.sandbox.renew("the test"):
                run.sandbox.rollback_to_mark("the test")

        yield plain, run.engine, next_test
    plain.dispose()


def compare(driver: str, url: sa.URL) -> list[bool]:
    """Measure everything with one driver."""
    for database in ("scratch", "scratch_sandboxed"):
        engine = create_engine(url.set(drivername=f"postgresql+{driver}", database=database))
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        engine.dispose()
    with engines(driver, url) as (plain, sandboxed, next_test):

        def empty() -> None:
            with plain.begin() as connection:
                connection.exec_driver_sql("TRUNCATE rows")

        variants: dict[str, Callable[[], float]] = {}
        for work in (*STATEMENTS, *TRANSACTIONS):
            variants[f"{work.__name__}, plain"] = timed(work, plain, empty)
            variants[f"{work.__name__}, sandbox"] = timed(work, sandboxed, next_test)
        seconds = in_turns(variants, ROUNDS)
    deep = deep_processes(driver, url)
    rows, kept = [], [verdict("µs more under a deep stack, median of processes", statistics.median(deep), DEEP_LIMIT)]
    print(f"          from {min(deep):.1f} to {max(deep):.1f} µs, mean {statistics.mean(deep):.1f} µs")
    for work in (*STATEMENTS, *TRANSACTIONS):
        name = work.__name__
        ratio = seconds[f"{name}, sandbox"] / seconds[f"{name}, plain"]
        rows += [
            (f"{name}, plain", seconds[f"{name}, plain"] / COUNT, ""),
            (f"{name}, sandbox", seconds[f"{name}, sandbox"] / COUNT, f"{ratio:.2f} x"),
        ]
    print_table(f"{driver}: one statement, or one transaction of begin, insert and commit", rows, "us")
    for work in (*STATEMENTS, *TRANSACTIONS):
        name = work.__name__
        limit = TRANSACTION_LIMIT if work in TRANSACTIONS else STATEMENT_LIMIT
        kept.append(verdict(name, seconds[f"{name}, sandbox"] / seconds[f"{name}, plain"], limit))
    return kept


def deep_processes(driver: str, url: sa.URL) -> list[float]:
    """What each of several processes finds, in µs."""
    arguments = ["-m", "tests.benchmarks.bench_statements", driver, url.render_as_string(hide_password=False)]
    return [printed_seconds(arguments, Path(__file__).parents[2]) * 1e6 for _ in range(PROCESSES)]


def deep(driver: str, url: str) -> None:
    """One of these processes."""
    with engines(driver, sa.make_url(url)) as (plain, sandboxed, next_test), one_processor(plain, sandboxed):
        print(deep_difference(plain, sandboxed, next_test))


def main() -> None:
    with shared_server() as (server, _):
        engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE scratch_sandboxed")
        engine.dispose()
        kept = [verdict_ for driver in ("psycopg", "psycopg2") for verdict_ in compare(driver, server.url)]
    finish(kept)


if __name__ == "__main__":
    deep(*sys.argv[1:]) if sys.argv[1:] else main()
