"""What an async test costs: python -m tests.benchmarks.bench_async

1,000 empty AsyncDatabaseTests over IsolatedAsyncioTestCases, as DatabaseTests over TestCases, beside a hand-written
IsolatedAsyncioTestCase with NullPool and asyncpg, on the same server.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import TIMING, finish, in_turns, print_table, printed_seconds, shared_server, verdict
from tests.support.runners import write_suite

COUNT, ROUNDS = 1_000, 5

PROGRAMS = {
    "timing.py": TIMING,
    "models.py": """
        from sqlalchemy import Column, Integer, MetaData, Table
        metadata = MetaData()
        rows = Table("rows", metadata, Column("id", Integer, primary_key=True))
        """,
    "plain.py": """
        import sys, unittest
        from timing import run

        class Plain(unittest.TestCase):
            def check(self): pass

        run(Plain, int(sys.argv[1]))
        """,
    "plain_async.py": """
        import sys, unittest
        from timing import run

        class Plain(unittest.IsolatedAsyncioTestCase):
            async def check(self): pass

        run(Plain, int(sys.argv[1]))
        """,
    "ours.py": """
        import sys
        from dbtestcase import DatabaseTest
        from models import metadata
        from timing import run

        class Ours(DatabaseTest):
            metadata = metadata
            def check(self): pass

        run(Ours, int(sys.argv[1]))
        """,
    "ours_async.py": """
        import sys
        from dbtestcase import AsyncDatabaseTest
        from models import metadata
        from timing import run

        class Ours(AsyncDatabaseTest):
            metadata = metadata
            async def check(self): pass

        run(Ours, int(sys.argv[1]))
        """,
    "recipe_async.py": """
        import os, sys, unittest
        from models import metadata
        from sqlalchemy import NullPool, create_engine, make_url
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
        from timing import run

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

        run(Recipe, int(sys.argv[1]))
        """,
}


def main() -> None:
    with shared_server() as (server, environment), tempfile.TemporaryDirectory() as name:
        folder = write_suite(Path(name), PROGRAMS)
        programs = ["plain", "ours", "plain_async", "ours_async", "recipe_async"]
        found = in_turns(
            {
                program: partial(printed_seconds, [f"{program}.py", str(COUNT)], folder, environment)
                for program in programs
            },
            ROUNDS,
        )
    sync = (found["ours"] - found["plain"]) / COUNT
    asynchronous = (found["ours_async"] - found["plain_async"]) / COUNT
    recipe = (found["recipe_async"] - found["plain_async"]) / COUNT
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
