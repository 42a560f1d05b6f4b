"""Alembic's commands called in a test: what their env.py makes is led, in a thread and in a loop as well."""

import tempfile
import textwrap
import unittest
from pathlib import Path

from tests.support.alembic_projects import AlembicProject
from tests.support.environments import write
from tests.support.runners import run_suite, write_suite
from tests.support.samples import a_share

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
        for driver in a_share(("psycopg", "psycopg2", "asyncpg"), 3):
            with self.subTest(driver), tempfile.TemporaryDirectory() as folder:
                name = "logging by dictConfig"
                project = write(Path(folder, "project"), name, f"postgresql+{driver}").parent
                write_suite(project, {"test_commands.py": COMMANDS})
                run_suite(project, "unittest").expect(passed=8)

    def test_each_database_of_one_env_py_has_its_own_versions(self) -> None:
        """As in the multidb template, whose databases are one here; none reads what another has not committed."""
        with tempfile.TemporaryDirectory() as folder:
            project = AlembicProject(Path(folder), "multidb")
            project.revision("0001", None).write_text(
                textwrap.dedent("""
                from alembic import op
                revision, down_revision = "0001", None
                def upgrade(engine_name):
                    op.execute(f"CREATE TABLE of_{engine_name} ()")
                def downgrade(engine_name):
                    op.execute(f"DROP TABLE of_{engine_name}")
                """)
            )
            for name in ("engine1", "engine2"):
                project.replace(
                    f"[{name}]\nsqlalchemy.url = driver", f"[{name}]\nsqlalchemy.url = postgresql+psycopg", project.ini
                )
            write_suite(Path(folder), {"test_commands.py": SEVERAL})
            run_suite(Path(folder), "unittest").expect(passed=2)


SEVERAL = """
    from pathlib import Path
    from alembic import command
    from alembic.config import Config
    from dbtestcase import DatabaseTest, MigratedDatabaseTest
    from sqlalchemy import MetaData, inspect

    INI = str(Path(__file__).parent / "alembic.ini")

    class SeveralTest(DatabaseTest):
        metadata = MetaData()

        def tables(self):
            return {each for each in inspect(self.connection).get_table_names() if each.startswith("of_")}

        def test_up_and_down(self):
            config = Config(INI)
            command.upgrade(config, "head")
            self.assertEqual(self.tables(), {"of_engine1", "of_engine2"})
            self.assertEqual(config.get_main_option("databases"), "engine1, engine2")
            command.downgrade(config, "base")
            self.assertEqual(self.tables(), set())

    class MigratedTest(MigratedDatabaseTest):
        migrations = INI
        tables = SeveralTest.tables

        def test_down(self):
            command.downgrade(Config(INI), "base")
            self.assertEqual(self.tables(), set())
"""
