"""Alembic's commands called in a test: what their env.py makes is led, in a thread and in a loop as well."""

import tempfile
import unittest
from pathlib import Path

from tests.support.environments import write
from tests.support.runners import run_suite, write_suite

COMMANDS = """
    import asyncio
    import logging
    import threading
    from pathlib import Path
    from dbtestcase import AsyncMigratedDatabaseTest, DatabaseTest, MigratedDatabaseTest, TruncatingDatabaseTest
    from sqlalchemy import MetaData, text

    INI = str(Path(__file__).parent / "alembic.ini")
    mine = logging.getLogger("mine")

    def run(name, revision):
        from alembic import command
        from alembic.config import Config
        getattr(command, name)(Config(INI), revision)

    class Commands:
        def test_down_and_up(self):
            run("downgrade", "0001")
            self.assertEqual(self.current_revision(), "0001")
            run("upgrade", "head")
            self.assertEqual(self.current_revision(), "0003")
            self.assertFalse(mine.disabled)

        def test_in_a_thread(self):
            thread = threading.Thread(target=run, args=("downgrade", "0001"))
            thread.start()
            thread.join()
            self.assertEqual(self.current_revision(), "0001")

        def test_the_others_leave_nothing(self):
            self.assertEqual(self.current_revision(), "0003")

    class SandboxedTest(Commands, MigratedDatabaseTest):
        migrations = INI

    class CommittingTest(Commands, TruncatingDatabaseTest):
        migrations = INI

    class AsyncTest(AsyncMigratedDatabaseTest):
        migrations = INI

        async def test_beside_a_loop(self):
            await asyncio.to_thread(run, "downgrade", "0001")
            self.assertEqual(self.current_revision(), "0001")

    class OfMetadataTest(DatabaseTest):
        metadata = MetaData()

        @classmethod
        def setUpTestData(cls):
            run("upgrade", "0002")

        def test(self):
            self.assertEqual(self.session.scalar(text("SELECT version_num FROM alembic_version")), "0002")
"""


class CommandsTest(unittest.TestCase):
    def test_commands_of_alembic_are_led(self) -> None:
        for driver in ("psycopg", "psycopg2", "asyncpg"):
            with self.subTest(driver), tempfile.TemporaryDirectory() as folder:
                name = "logging by dictConfig"
                project = write(Path(folder, "project"), name, f"postgresql+{driver}").parent
                write_suite(project, {"test_commands.py": COMMANDS})
                run_suite(project, "unittest").expect(passed=8)
