"""What the sandbox needs of psycopg, for each version that it supports: its private hooks, and what they are for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import unittest
from types import SimpleNamespace
from typing import Any

import psycopg

from dbtestcase.drivers.psycopg.hooks import HOOKS, check_hooks
from dbtestcase.errors import ConfigurationError, SandboxEscape
from dbtestcase.sandbox import Arguments
from tests.contract import test_leak_matrix as matrix
from tests.support.doors import DOORS, ends_of
from tests.support.sandboxes import SandboxTestCase

INSERT = "INSERT INTO item VALUES (%s, %s)"


class DoorsContractTest(matrix.LeakMatrix, unittest.TestCase):
    """All doors of the driver's own, with the ends that take different ways through it."""

    driver = "psycopg"


for _name, (_, _drivers) in DOORS.items():
    if _name.startswith(("psycopg_", "raw_", "autocommit", "savepoints", "streamed", "session_nested")):
        for _end in ("commit", "rollback", "error"):
            if _end in ends_of(_name) and "psycopg" in _drivers:

                def _test(self: Any, name: str = _name, end: str = _end) -> None:
                    self.check(name, end)

                setattr(DoorsContractTest, f"test_{_name}__{_end}", _test)


class HooksTest(unittest.TestCase):
    def test_this_version_has_every_hook(self) -> None:
        check_hooks()

    def test_each_missing_hook_is_named_with_what_to_install(self) -> None:
        for owner, hooks in HOOKS.items():
            for hook in hooks:
                without = SimpleNamespace(__version__="9.9.9", **{name: getattr(psycopg, name) for name in HOOKS})
                others = (each for each in dir(getattr(psycopg, owner)) if each != hook and not each.startswith("__"))
                setattr(without, owner, type(owner, (), dict.fromkeys(others)))
                with self.subTest(f"{owner}.{hook}"), self.assertRaises(ConfigurationError) as caught:
                    check_hooks(without)
                self.assertIn(f"psycopg 9.9.9 has no {owner}.{hook}", caught.exception.what)
                self.assertIn("pip install 'psycopg[binary]>=", caught.exception.remedy)

    def test_it_is_said_at_import(self) -> None:
        program = (
            "import psycopg; del psycopg.BaseConnection._start_query\n"
            "try: import dbtestcase.drivers.psycopg.wire\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
        self.assertIn("ConfigurationError psycopg", done.stdout, done.stderr)
        self.assertIn("has no Connection._start_query", done.stdout)


class AsyncContractTest(SandboxTestCase):
    """The same generators serve the asynchronous classes."""

    driver = "psycopg"

    def connected(self, use: Any, **options: Any) -> None:
        """Run ``use(connection)`` on an asynchronous virtual connection in a loop of its own."""

        async def main() -> None:
            connection = self.wire.make(self.sandbox, Arguments(parameters=options), asynchronous=True)
            try:
                await use(connection)
            finally:
                await connection.close()

        asyncio.run(main())

    def test_it_commits_and_rolls_back(self) -> None:
        async def use(connection: Any) -> None:
            await connection.execute(INSERT, (1, "kept"))
            await connection.commit()
            await connection.execute(INSERT, (2, "undone"))
            await connection.rollback()
            with self.assertRaises(psycopg.errors.UniqueViolation):
                await connection.execute(INSERT, (1, "twice"))
            with self.assertRaises(psycopg.errors.InFailedSqlTransaction):
                await connection.execute("SELECT 1")

        self.connected(use)
        self.assertEqual(self.rows(), [*self.BASE, (1, "kept")])

    def test_transactions_and_savepoints(self) -> None:
        async def use(connection: Any) -> None:
            async with connection.transaction():
                await connection.execute(INSERT, (1, "outer"))
                async with connection.transaction(force_rollback=True):
                    await connection.execute(INSERT, (2, "inner"))
            with self.assertRaises(SandboxEscape):
                await connection.execute("COMMIT")

        self.connected(use)
        self.connected(use_autocommit := self._in_autocommit, autocommit=True)
        del use_autocommit
        self.assertEqual(self.rows(), [*self.BASE, (1, "outer"), (3, "auto")])

    async def _in_autocommit(self, connection: Any) -> None:
        await connection.execute(INSERT, (3, "auto"))
        async with connection.transaction(force_rollback=True):
            await connection.execute(INSERT, (4, "undone"))

    def test_executemany_pipeline_copy_and_stream(self) -> None:
        async def use(connection: Any) -> None:
            async with connection.cursor() as cursor:
                await cursor.executemany(INSERT, [(1, "many"), (2, "many")])
                async with cursor.copy("COPY item FROM STDIN") as copy:
                    await copy.write_row((3, "copy"))
                async with connection.pipeline():
                    await cursor.execute(INSERT, (4, "pipeline"))
                    await cursor.execute(INSERT, (5, "pipeline"))
                ids = [row[0] async for row in cursor.stream("SELECT id FROM item ORDER BY id")]
                self.assertEqual(ids, [0, 1, 2, 3, 4, 5])
            async with connection.cursor("named") as cursor:
                await cursor.execute("SELECT id FROM item ORDER BY id")
                self.assertEqual(await cursor.fetchmany(2), [(0,), (1,)])

        for autocommit in (False, True):
            with self.subTest(autocommit=autocommit):

                async def whole(connection: Any, autocommit: bool = autocommit) -> None:
                    if autocommit:
                        async with connection.transaction():
                            await use(connection)
                    else:
                        await use(connection)

                self.connected(whole, autocommit=autocommit)
            self.sandbox.rollback_to_mark("again")

    def test_sync_and_async_share_one_transaction(self) -> None:
        async def use(connection: Any) -> None:
            self.put(1)
            cursor = await connection.execute("SELECT count(*) FROM item")
            self.assertEqual(await cursor.fetchone(), (2,))

        self.connected(use)


if __name__ == "__main__":
    unittest.main()
