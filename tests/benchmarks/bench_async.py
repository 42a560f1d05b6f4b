"""What an async test costs: python -m tests.benchmarks.bench_async

1,000 empty AsyncDatabaseTests over IsolatedAsyncioTestCases, as DatabaseTests over TestCases, beside a hand-written
IsolatedAsyncioTestCase with NullPool and asyncpg, on the same server.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import finish, in_turns, print_table, printed_seconds, shared_server, verdict
from tests.support.runners import write_suite

COUNT, ROUNDS = 1_000, 5

# The loop of an empty IsolatedAsyncioTestCase takes ten times as long as what is measured, and varies by more than that
# from one process to the next: both classes run in one process, in turns of a hundred tests.
BLOCKS = """
import statistics, time, unittest

def seconds(case):
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    result = unittest.TestResult()
    started = time.perf_counter()
    suite.run(result)
    elapsed = time.perf_counter() - started
    assert result.wasSuccessful(), (result.errors + result.failures)[0][1]
    return elapsed

def print_difference(plain, other, count):
    for case in (plain, other):
        for number in range(100):
            setattr(case, f"test_{number:03}", case.check)
    seconds(plain), seconds(other)
    differences = [-seconds(plain) + seconds(other) for _ in range(count // 100)]
    print(statistics.median(differences) * count / 100)
"""

PROGRAMS = {
    "blocks.py": BLOCKS,
    "models.py": """
        from sqlalchemy import Column, Integer, MetaData, Table
        metadata = MetaData()
        rows = Table("rows", metadata, Column("id", Integer, primary_key=True))
        """,
    "sync_over_plain.py": """
        import sys, unittest
        from blocks import print_difference
        from dbtestcase import DatabaseTest
        from models import metadata

        class Plain(unittest.TestCase):
            def check(self): pass

        class Ours(DatabaseTest):
            metadata = metadata
            def check(self): pass

        print_difference(Plain, Ours, int(sys.argv[1]))
        """,
    "async_over_plain.py": """
        import sys, unittest
        from blocks import print_difference
        from dbtestcase import AsyncDatabaseTest
        from models import metadata

        class Plain(unittest.IsolatedAsyncioTestCase):
            async def check(self): pass

        class Ours(AsyncDatabaseTest):
            metadata = metadata
            async def check(self): pass

        print_difference(Plain, Ours, int(sys.argv[1]))
        """,
    "recipe_over_plain.py": """
        import os, sys, unittest
        from blocks import print_difference
        from models import metadata
        from sqlalchemy import NullPool, create_engine, make_url
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        metadata.create_all(create_engine(os.environ["SCRATCH"]))
        engine = create_async_engine(make_url(os.environ["SCRATCH"]).set(drivername="postgresql+asyncpg"),
                                     poolclass=NullPool)

        class Recipe(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.connection = await engine.connect()
                self.transaction = await self.connection.begin()
                self.session = AsyncSession(bind=self.connection, join_transaction_mode="create_savepoint")
            async def asyncTearDown(self):
                await self.session.close()
                await self.transaction.rollback()
                await self.connection.close()
            async def check(self): pass

        class Plain(unittest.IsolatedAsyncioTestCase):
            async def check(self): pass

        print_difference(Plain, Recipe, int(sys.argv[1]))
        """,
}


def main() -> None:
    with shared_server() as (server, environment), tempfile.TemporaryDirectory() as name:
        folder = write_suite(Path(name), PROGRAMS)
        programs = ["sync_over_plain", "async_over_plain", "recipe_over_plain"]
        found = in_turns(
            {
                program: partial(printed_seconds, [f"{program}.py", str(COUNT)], folder, environment)
                for program in programs
            },
            ROUNDS,
        )
    sync, asynchronous, recipe = (found[program] / COUNT for program in programs)
    print_table(
        f"{COUNT} empty tests, each over its plain class; PostgreSQL {server.version}; median of {ROUNDS}",
        [
            ("DatabaseTest over TestCase", sync, ""),
            (
                "AsyncDatabaseTest over IsolatedAsyncioTestCase",
                asynchronous,
                f"{asynchronous / sync:.2f} of DatabaseTest",
            ),
            ("hand-written, NullPool and asyncpg", recipe, f"{recipe / sync:.2f} of DatabaseTest"),
        ],
        "us",
    )
    finish([verdict("async over sync", asynchronous / sync, 1.5)])


if __name__ == "__main__":
    main()
