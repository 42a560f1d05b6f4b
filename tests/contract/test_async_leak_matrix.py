"""Every async door with every end, and random sequences driven by tasks: what stays is what production would keep."""

from __future__ import annotations

import asyncio
import random
import warnings
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine

from dbtestcase import AsyncDatabaseTest, DirtyReadWarning, SandboxConflict
from tests.support.samples import LONG

SEQUENCES = 2_000 if LONG else 12

metadata = sa.MetaData()
items = sa.Table(
    "items",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.Integer, nullable=False),
)


class Stop(Exception):
    """Goes through a door from inside."""


async def through_session(engine: Any, end: Any) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(items.insert(), {"id": 1, "owner": 1})
        await end(session)


async def through_scoped_session(engine: Any, end: Any) -> None:
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    try:
        await scoped.execute(items.insert(), {"id": 1, "owner": 1})
        await end(scoped)
    finally:
        await scoped.remove()


async def through_connect(engine: Any, end: Any) -> None:
    async with engine.connect() as connection:
        await connection.execute(items.insert(), {"id": 1, "owner": 1})
        await end(connection)


async def through_session_connection(engine: Any, end: Any) -> None:
    async with AsyncSession(engine) as session:
        await (await session.connection()).execute(items.insert(), {"id": 1, "owner": 1})
        await end(session)


async def through_run_sync(engine: Any, end: Any) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync: sync.execute(items.insert(), [{"id": 1, "owner": 1}]))
        await end(connection)


async def through_stream(engine: Any, end: Any) -> None:
    async with engine.connect() as connection:
        await connection.execute(items.insert(), {"id": 1, "owner": 1})
        result = await connection.stream(sa.select(items))
        assert [row.id async for row in result] == [1]
        await end(connection)


async def through_nested(engine: Any, end: Any) -> None:
    async with AsyncSession(engine) as session:
        async with session.begin_nested():
            await session.execute(items.insert(), {"id": 1, "owner": 1})
        await end(session)


async def through_new_engine(engine: Any, end: Any) -> None:
    made = create_async_engine(AsyncMatrix.url_now)
    try:
        await through_connect(made, end)
    finally:
        await made.dispose()


DOORS = [
    through_session,
    through_scoped_session,
    through_connect,
    through_session_connection,
    through_run_sync,
    through_stream,
    through_nested,
    through_new_engine,
]


async def commit(door: Any) -> None:
    await door.commit()


async def rollback(door: Any) -> None:
    await door.rollback()


async def close(door: Any) -> None:
    del door


async def error(door: Any) -> None:
    await door.execute(items.insert(), {"id": 1, "owner": 2})


async def exception(door: Any) -> None:
    raise Stop


ENDS = {commit: 1, rollback: 0, close: 0, error: 0, exception: 0}


class AsyncMatrix:
    metadata = metadata
    url_now = ""

    async def asyncSetUp(self) -> None:
        AsyncMatrix.url_now = self.database_url
        self.assertRowCount(items, 0)  # nothing is left of the test before

    def judged(self) -> int:
        """What an independent connection sees."""
        url = self.engine.url
        with psycopg.connect(host=url.query["host"], dbname=url.database, user=url.username) as judge:
            row = judge.execute("SELECT count(*) FROM items").fetchone()
        assert row is not None
        return int(row[0])

    async def check(self, door: Any) -> None:
        for end, kept in ENDS.items():
            with self.subTest(door=door.__name__, end=end.__name__):
                try:
                    await door(self.application, end)
                except (Stop, sa.exc.IntegrityError):
                    self.assertIn(end, (error, exception))
                self.assertRowCount(items, kept)
                self.assertEqual(self.judged(), 0)
                async with self.application.begin() as connection:
                    await connection.execute(items.delete())

    async def test_autocommit_keeps_what_it_did_before_an_error(self) -> None:
        engine = self.application.execution_options(isolation_level="AUTOCOMMIT")
        for end in (close, error, exception):
            with self.subTest(end.__name__):
                try:
                    await through_connect(engine, end)
                except (Stop, sa.exc.IntegrityError):
                    self.assertIn(end, (error, exception))
                self.assertRowCount(items, 1)
                self.assertEqual(self.judged(), 0)
                async with self.application.begin() as connection:
                    await connection.execute(items.delete())

    async def play(self, seed: int, owner: int, committed: dict[int, int]) -> None:
        """One task's transactions: its own rows, and what of them it has committed."""
        chance = random.Random(seed * 10 + owner)
        number = owner * 1000
        for _ in range(chance.randint(1, 3)):
            pending: dict[int, int] = {}
            async with self.application.connect() as connection:
                for _ in range(chance.randint(1, 4)):
                    number += 1
                    await asyncio.sleep(chance.choice((0, 0, 0.001)))
                    step = chance.choice(("insert", "insert", "savepoint", "undone", "read"))
                    if step == "insert":
                        await connection.execute(items.insert(), {"id": number, "owner": owner})
                        pending[number] = owner
                    elif step in ("savepoint", "undone"):
                        nested = await connection.begin_nested()
                        await connection.execute(items.insert(), {"id": number, "owner": owner})
                        if step == "savepoint":
                            await nested.commit()
                            pending[number] = owner
                        else:
                            await nested.rollback()
                    mine = sa.select(items.c.id).where(items.c.owner == owner)
                    seen = set(await connection.scalars(mine))
                    expected = {key for key, value in committed.items() if value == owner} | set(pending)
                    assert seen == expected, (seed, owner, seen, expected)
                end = chance.choice(("commit", "commit", "rollback", "close", "error"))
                if end == "commit":
                    await connection.commit()
                    committed.update(pending)
                elif end == "rollback":
                    await connection.rollback()
                elif end == "error":
                    try:
                        await connection.execute(sa.text("SELECT 1 / 0"))
                    except sa.exc.DBAPIError:
                        await connection.rollback()

    async def test_random_sequences_driven_by_tasks(self) -> None:
        conflicts = 0
        for seed in range(SEQUENCES):
            committed: dict[int, int] = {}
            owners = range(1, random.Random(seed).randint(2, 4) + 1)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DirtyReadWarning)
                    await asyncio.gather(*(self.play(seed, owner, committed) for owner in owners))
            except SandboxConflict:
                conflicts += 1
            else:
                found = dict((await self.session.execute(sa.select(items.c.id, items.c.owner))).all())
                self.assertEqual(found, committed, f"seed {seed}")
                await self.session.rollback()
            self.assertEqual(self.judged(), 0)
            async with self.application.begin() as connection:
                await connection.execute(items.delete())
        if LONG:
            print(f"{self.id()}: {SEQUENCES} sequences, {conflicts} conflicts")
        self.assertLess(conflicts, SEQUENCES // 2)


for _door in DOORS:

    async def _test(self: Any, door: Any = _door) -> None:
        await self.check(door)

    setattr(AsyncMatrix, f"test_{_door.__name__}", _test)


class PsycopgMatrix(AsyncMatrix, AsyncDatabaseTest):
    application = create_async_engine("postgresql+psycopg://nobody@nowhere.invalid/none")
    engines = [application]


class AsyncpgMatrix(AsyncMatrix, AsyncDatabaseTest):
    application = create_async_engine("postgresql+asyncpg://nobody@nowhere.invalid/none")
    engines = [application]
