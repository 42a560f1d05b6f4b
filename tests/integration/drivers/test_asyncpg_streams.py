"""Streams of asyncpg: every row, beside other connections, and no longer than their transaction."""

from __future__ import annotations

import asyncio
import unittest
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import text

from dbtestcase.errors import DirtyReadWarning
from tests.support.sandboxes import SandboxTestCase

ROWS = "SELECT generate_series(1, 200)"


class AsyncpgStreamTest(SandboxTestCase):
    driver = "asyncpg"

    def rows(self) -> list[Any]:
        async def read(engine: Any) -> list[Any]:
            async with engine.connect() as connection:
                return [tuple(row) for row in await connection.exec_driver_sql(self.ROWS)]

        return self.with_engine(read)  # type: ignore[no-any-return]

    def with_engine(self, use: Callable[[Any], Awaitable[Any]]) -> Any:
        from sqlalchemy.ext.asyncio import create_async_engine

        async def main() -> Any:
            engine = create_async_engine(self.url)
            try:
                return await use(engine)
            finally:
                await engine.dispose()

        return asyncio.run(main())

    def portals(self) -> int:
        return int(str(self.wire.run("SELECT count(*) FROM pg_cursors WHERE name <> ''")[0][0]))

    def test_every_row_comes_beside_others_that_write_fail_and_roll_back(self) -> None:
        warnings.simplefilter("ignore", DirtyReadWarning)  # they do

        async def use(engine: Any) -> None:
            async with engine.connect() as reader, engine.connect() as other:
                for first in ("SELECT 1", "INSERT INTO item VALUES (5, 'mine')"):
                    await reader.execute(text(first))
                    stream = await reader.stream(text(ROWS))
                    found = [row[0] for row in await stream.fetchmany(3)]
                    await other.execute(text("INSERT INTO item VALUES (1, 'rolled back')"))
                    found += [row[0] for row in await stream.fetchmany(60)]
                    await other.rollback()
                    found.append((await stream.fetchone())[0])
                    with self.assertRaises(sa.exc.DBAPIError):
                        await other.execute(text("SELECT * FROM nowhere"))
                    found += [row[0] for row in await stream.fetchmany(50)]
                    await other.rollback()
                    found += [row[0] for row in await stream.fetchall()]
                    self.assertEqual(found, list(range(1, 201)))
                    await reader.rollback()

        self.with_engine(use)

    def test_a_stream_ends_with_its_transaction(self) -> None:
        from asyncpg import NoActiveSQLTransactionError

        async def use(engine: Any) -> None:
            for end in ("commit", "rollback"):
                for begun_again in (False, True):
                    async with engine.connect() as connection:
                        await connection.execute(text("SELECT 1"))
                        stream = await connection.stream(text(ROWS), execution_options={"yield_per": 5})
                        await stream.fetchmany(2)
                        await (connection.commit() if end == "commit" else connection.rollback())
                        self.assertEqual(self.portals(), 0)
                        if begun_again:
                            await connection.execute(text("SELECT 1"))
                        # in another transaction it is the server that does not know the portal, and aborts it
                        error = sa.exc.DBAPIError if begun_again else NoActiveSQLTransactionError
                        with self.subTest(end, begun_again=begun_again), self.assertRaises(error):
                            await stream.fetchall()
                        if begun_again:
                            await connection.rollback()
                        self.assertEqual((await connection.execute(text("SELECT 1"))).scalar(), 1)

        self.with_engine(use)

    def test_a_stream_ends_with_its_savepoint_and_outlives_its_release(self) -> None:
        from asyncpg import PostgresError

        async def use(engine: Any) -> None:
            async with engine.connect() as connection:
                await connection.execute(text("INSERT INTO item VALUES (1, 'one')"))
                async with connection.begin_nested():
                    kept = await connection.stream(text(ROWS))
                    await kept.fetchmany(10)
                self.assertEqual(len(await kept.fetchall()), 190)
                nested = await connection.begin_nested()
                gone = await connection.stream(text(ROWS), execution_options={"yield_per": 5})
                await gone.fetchmany(2)
                await nested.rollback()
                with self.assertRaises((PostgresError, sa.exc.DBAPIError)):
                    await gone.fetchall()
                await connection.rollback()

        self.with_engine(use)

    def test_what_is_left_of_a_stream_holds_nothing(self) -> None:
        async def use(engine: Any) -> None:
            for read in (0, 2, None):
                for closed in (True, False):
                    async with engine.begin() as connection:
                        await connection.execute(text("CREATE TABLE work AS SELECT generate_series(1, 99) AS n"))
                    async with engine.connect() as connection:
                        stream = await connection.stream(text("SELECT n FROM work"))
                        await (stream.fetchall() if read is None else stream.fetchmany(read or 1))
                        if closed:
                            await stream.close()
                        await connection.commit()
                        async with engine.begin() as other:
                            await other.execute(text("TRUNCATE work"))
                            await other.execute(text("DROP TABLE work"))

        self.with_engine(use)

    def test_a_stream_that_a_test_leaves_open_ends_with_it(self) -> None:
        async def use(engine: Any) -> None:
            connection = await engine.connect()
            stream = await connection.stream(text("SELECT * FROM item"), execution_options={"yield_per": 1})
            await stream.fetchone()
            self.sandbox.rollback_to_mark("the next test")
            self.assertEqual(self.portals(), 0)
            await connection.invalidate()

        self.with_engine(use)

    def test_in_autocommit_there_is_none_as_with_the_driver_alone(self) -> None:
        from asyncpg import NoActiveSQLTransactionError

        async def use(engine: Any) -> None:
            async with engine.connect() as plain:
                connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
                with self.assertRaises((NoActiveSQLTransactionError, sa.exc.DBAPIError)):
                    await connection.stream(text(ROWS))
                self.assertEqual((await connection.execute(text("SELECT 1"))).scalar(), 1)

        self.with_engine(use)


if __name__ == "__main__":
    unittest.main()
