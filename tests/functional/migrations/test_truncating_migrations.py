"""Committing classes on a migrated database: steps for real, put back after the test; what no transaction can do."""

from __future__ import annotations

import tempfile
import unittest
import uuid
from pathlib import Path

from tests.support.alembic_projects import AlembicProject
from tests.support.runners import Outcome, run_suite, write_suite
from tests.support.servers import postgresql_url

# A value that an enum gains can be used once it is committed, and not before.
ADD_VALUE = """
with op.get_context().autocommit_block():
    op.execute("ALTER TYPE mood ADD VALUE 'happy'")
op.execute("UPDATE people SET mood = 'happy'")
"""
DROP_VALUE = """
op.execute("ALTER TYPE mood RENAME TO old_mood")
op.execute("CREATE TYPE mood AS ENUM ('sad')")
op.execute("ALTER TABLE people ALTER mood TYPE mood USING 'sad'")
op.execute("DROP TYPE old_mood")
"""

APP = """
    from sqlalchemy import create_engine, text

    engine = create_engine("postgresql+psycopg://nowhere.invalid/production")
    MOODS = text("SELECT mood::text FROM people ORDER BY id")
    ADD = text("INSERT INTO people (mood) VALUES ('sad')")

    def moods():
        with engine.connect() as connection:
            return list(connection.scalars(MOODS))
"""

SUITE = """
    import app
    from dbtestcase import MigrationChecks, MigrationError, TruncatingDatabaseTest
    from sqlalchemy import text

    class StepsTest(TruncatingDatabaseTest):
        migrations = "alembic.ini"
        engines = [app.engine]

        def step(self):
            self.assertEqual((self.current_revision(), app.moods()), ("0002", []))
            self.downgrade("0001")
            self.session.execute(app.ADD)  # not committed: upgrade() does it
            self.upgrade()
            self.assertEqual(self.session.scalar(app.MOODS), "happy")
            self.assertEqual(app.moods(), ["happy"])

        def test_1(self):
            self.step()

        def test_2(self):
            self.step()

        def test_3_nothing_was_left(self):
            self.assertEqual((self.current_revision(), app.moods()), ("0002", []))
            self.session.execute(text("INSERT INTO people (mood) VALUES ('happy')"))
            self.session.commit()
            self.assertEqual(self.session.scalar(text("SELECT id FROM people")), 1)

        def test_4_a_refused_step(self):
            with self.assertRaises(MigrationError):
                self.upgrade("nowhere")

    class ChecksTest(MigrationChecks, TruncatingDatabaseTest):
        migrations = "alembic.ini"
        exclude_from_comparison = ["people", "mood"]
"""

ASYNC_SUITE = """
    import app
    from dbtestcase import AsyncTruncatingDatabaseTest, MigrationError

    class StepsTest(AsyncTruncatingDatabaseTest):
        migrations = "alembic.ini"
        engines = [app.engine]

        async def test_1(self):
            self.downgrade("0001")
            await self.session.execute(app.ADD)
            with self.assertRaisesRegex(MigrationError, r"await self.session.commit\\(\\)"):
                self.upgrade()
            await self.session.commit()
            self.sync_session.execute(app.ADD)
            self.upgrade()
            self.assertEqual(list(await self.session.scalars(app.MOODS)), ["happy", "happy"])
            self.assertEqual(app.moods(), ["happy", "happy"])

        test_2 = test_1

        async def test_3_nothing_was_left(self):
            self.assertEqual(self.current_revision(), "0002")
            self.assertEqual(list(await self.session.scalars(app.MOODS)), [])
"""

SANDBOXED = """
    import app
    from dbtestcase import MigratedDatabaseTest, MigrationError

    class StepsTest(MigratedDatabaseTest):
        def test_the_sandbox_refuses_it(self):
            self.downgrade("0001")
            self.session.execute(app.ADD)
            with self.assertRaisesRegex(MigrationError, "TruncatingDatabaseTest"):
                self.upgrade()
"""


class TruncatingMigrationsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        project = AlembicProject(self.folder)
        make = "op.execute(\"CREATE TYPE mood AS ENUM ('sad')\")\n"
        make += 'op.execute("CREATE TABLE people (id serial PRIMARY KEY, mood mood)")'
        drop = "op.execute('DROP TABLE people')\nop.execute('DROP TYPE mood')"
        project.revision("0001", None, make, drop, top=f"# {uuid.uuid4()}")
        project.revision("0002", "0001", ADD_VALUE, DROP_VALUE)
        project.replace("target_metadata = None", "import sqlalchemy\ntarget_metadata = sqlalchemy.MetaData()")
        self.env = {"DBTESTCASE_URL": postgresql_url().render_as_string(hide_password=False)}

    def run_inner(self, suite: str) -> Outcome:
        write_suite(self.folder, {"app.py": APP, "test_it.py": suite})
        return run_suite(self.folder, "unittest", env=self.env)

    def test_steps_are_done_for_real_and_put_back(self) -> None:
        self.run_inner(SUITE).expect(passed=8)

    def test_steps_in_an_async_test(self) -> None:
        self.run_inner(ASYNC_SUITE).expect(passed=3)

    def test_the_sandbox_refuses_what_is_done_for_real_here(self) -> None:
        self.run_inner(SANDBOXED).expect(passed=1)
