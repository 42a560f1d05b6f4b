"""The driver's own connection of an async engine: what asyncpg and aiosqlite let one do with theirs."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import unittest
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dbtestcase.errors import SandboxEscape
from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.requirements import require_module
from tests.support.sandboxes import SandboxTestCase


class _Own(SandboxTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.engine = cls.run_.engine  # which blocks

    def use(self, work: Callable[[Any, AsyncEngine], Awaitable[None]], **options: Any) -> None:
        """Run ``work`` with a driver's own connection."""

        async def used() -> None:
            engine = create_async_engine(self.run_.url, **options)
            async with engine.connect() as connection:
                raw = await connection.get_raw_connection()
                await work(raw.driver_connection, engine)
            await engine.dispose()

        asyncio.run(used())


class AsyncpgTest(_Own):
    driver = "asyncpg"

    def test_listeners_are_the_connections_own_and_end_with_it(self) -> None:
        heard: list[str] = []
        notice = "DO $$ BEGIN RAISE NOTICE 'said'; END $$"

        async def work(own: Any, engine: AsyncEngine) -> None:
            own.add_log_listener(lambda connection, message: heard.append(message.message))
            await own.execute(notice)
            async with engine.connect() as other:
                await other.exec_driver_sql(notice)

        async def later(own: Any, engine: AsyncEngine) -> None:
            await own.execute(notice)

        self.use(work)
        self.use(later)
        self.assertEqual(heard, ["said"])

    def test_two_statements_at_once_are_refused_as_in_production(self) -> None:
        import asyncpg

        async def work(own: Any, engine: AsyncEngine) -> None:
            with self.assertRaisesRegex(asyncpg.InterfaceError, "another operation is in progress"):
                await asyncio.gather(own.fetchval("SELECT 1"), own.fetchval("SELECT 2"))
            await asyncio.sleep(0)
            self.assertEqual(await own.fetchval("SELECT 3"), 3)

        self.use(work)

    def test_a_cached_statement_is_prepared_again_when_its_table_has_changed(self) -> None:
        async def work(own: Any, engine: AsyncEngine) -> None:
            await own.execute("CREATE TABLE changing (x int); INSERT INTO changing VALUES (1)")
            self.assertEqual(await own.fetchval("SELECT x FROM changing"), 1)
            await own.execute("ALTER TABLE changing ALTER x TYPE text")
            self.assertEqual(await own.fetchval("SELECT x FROM changing"), "1")

        self.use(work)

    def test_it_is_closed_by_itself(self) -> None:
        async def work(own: Any, engine: AsyncEngine) -> None:
            await own.close()
            self.assertTrue(own.is_closed())

        self.use(work)

    def test_a_wrong_timeout_is_refused_in_the_drivers_words(self) -> None:
        for wrong in ("a", -1, 0, True):
            with self.subTest(wrong), self.assertRaisesRegex(ValueError, "expected greater than 0 float"):
                self.use(self.fail, connect_args={"command_timeout": wrong})

    def test_what_cannot_be_contained_is_refused_by_name(self) -> None:
        async def work(own: Any, engine: AsyncEngine) -> None:
            with self.assertRaisesRegex(SandboxEscape, r"copy_to_table\(\) of the driver's own connection"):
                await own.copy_to_table("item", output=print)
            self.sandbox.raised.clear()

        self.use(work)


class AiosqliteTest(unittest.TestCase):
    def test_cursors_and_rows_are_as_on_a_connection_of_its_own(self) -> None:
        require_module("aiosqlite")
        folder = self.enterContext(tempfile.TemporaryDirectory())
        url = URL.create("sqlite+aiosqlite", database=str(Path(folder, "own.db")))
        run = self.enterContext(running_sandbox(SimpleNamespace(url=url, built=True), url))
        run.sandbox.begin("the class")
        run.sandbox.mark("the test")

        async def work() -> None:
            engine = create_async_engine(url)
            async with engine.connect() as connection:
                own = (await connection.get_raw_connection()).driver_connection
                await own.execute("CREATE TABLE item (id INTEGER)")
                async with own.execute("INSERT INTO item VALUES (1)") as cursor:
                    self.assertEqual(cursor.rowcount, 1)
                async with own.cursor() as cursor:
                    cursor.row_factory = sqlite3.Row
                    self.assertIs(await cursor.execute("SELECT id FROM item"), cursor)
                    self.assertEqual((await cursor.fetchone())["id"], 1)
                own.row_factory = sqlite3.Row
                cursor = await own.cursor()
                await cursor.executescript("SELECT 1; SELECT 2")
                await cursor.execute("SELECT id FROM item")
                self.assertEqual([row["id"] async for row in cursor], [1])
                with self.assertRaisesRegex(SandboxEscape, "isolation"):
                    own.isolation = "lost"
                run.sandbox.raised.clear()
                await own.close()
                with self.assertRaisesRegex(ValueError, "Connection closed"):
                    await cursor.fetchall()
                await own.close()

        asyncio.run(work())


del _Own


if __name__ == "__main__":
    unittest.main()
