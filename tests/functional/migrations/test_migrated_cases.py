"""Migrated classes as a user runs them: templates, steps in a test, and the checks with what they say."""

import itertools
import os
import tempfile
import unittest
from pathlib import Path
from typing import ClassVar

from tests.support.alembic_projects import SHOP, AlembicProject
from tests.support.disposable import scratch, seed
from tests.support.runners import ROOT, Outcome, run_suite, some_of, write_suite
from tests.support.samples import a_share

STEPS = """
    import asyncio
    from sqlalchemy import text
    from dbtestcase import MigratedDatabaseTest

    class StepsTest(MigratedDatabaseTest):
        migrations = {ini!r}

        def test_a_data_migration(self):
            self.assertEqual(self.current_revision(), "0037")
            self.downgrade("0008")
            self.session.execute(
                text("INSERT INTO customer (first_name, last_name, email) VALUES ('Ada', 'Lovelace', 'ada@a.org')")
            )
            self.session.commit()
            self.upgrade("0010")
            self.assertEqual(self.session.scalar(text("SELECT full_name FROM customer")), "Ada Lovelace")
            self.downgrade("-2")
            self.assertEqual(self.session.scalar(text("SELECT first_name FROM customer")), "Ada")

        def test_a_flushed_row_is_migrated_too(self):
            self.downgrade("0023")
            self.session.execute(text("INSERT INTO category (name) VALUES ('Red Wine')"))
            self.upgrade("0024")
            self.assertEqual(self.session.scalar(text("SELECT slug FROM category")), "red-wine")

        def test_the_others_leave_nothing(self):
            self.assertEqual(self.current_revision(), "0037")
            self.assertEqual(self.session.scalar(text("SELECT count(*) FROM customer")), 0)

        def test_autocommit_blocks_and_concurrent_indexes(self):
            self.downgrade("0007")
            self.upgrade("0008")
            index = text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_product_title'::regclass")
            self.assertTrue(self.session.scalar(index))

        def test_down_to_base_and_up_again(self):
            self.downgrade("base")
            self.assertIsNone(self.current_revision())
            self.upgrade()
            self.assertEqual(self.current_revision(), "0037")

        def test_inside_an_event_loop(self):
            async def step():
                self.downgrade("-1")
                return self.current_revision()

            self.assertEqual(asyncio.run(step()), "0036")
"""

ASYNC_STEPS = """
    from sqlalchemy import text
    from dbtestcase import AsyncMigratedDatabaseTest

    class StepsTest(AsyncMigratedDatabaseTest):
        migrations = {ini!r}

        async def test_a_data_migration(self):
            self.downgrade("0008")
            await self.session.execute(
                text("INSERT INTO customer (first_name, last_name, email) VALUES ('Ada', 'Lovelace', 'ada@a.org')")
            )
            await self.session.commit()
            self.upgrade("0010")
            self.assertEqual(await self.session.scalar(text("SELECT full_name FROM customer")), "Ada Lovelace")

        async def test_the_other_leaves_nothing(self):
            self.assertEqual(self.current_revision(), "0037")
            self.assertEqual(await self.session.scalar(text("SELECT count(*) FROM customer")), 0)
"""

CHECKS = """
    from dbtestcase import MigratedDatabaseTest, MigrationChecks

    class ChecksTest(MigrationChecks, MigratedDatabaseTest):
        migrations = {ini!r}
"""


# env.py asks the application's engines, which connect by functions of its own and are led by the classes.
CREATORS = """
    import psycopg
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    CALLS = []

    def create():
        CALLS.append("creator")
        return psycopg.connect("host=prod.invalid dbname=shop application_name=creator")

    async def create_async(*args, **keywords):
        CALLS.append("async_creator_fn")
        return await psycopg.AsyncConnection.connect("host=prod.invalid dbname=shop application_name=creator")

    engine = create_engine("postgresql+psycopg://prod.invalid/shop", creator=create)
    async_engine = create_async_engine("postgresql+psycopg://prod.invalid/shop", async_creator=create_async)
    asked_engine = create_async_engine(
        "postgresql+psycopg://prod.invalid/shop", connect_args={"async_creator_fn": create_async}
    )
"""
CREATORS_ENV = """
    import asyncio, os
    import creators
    from alembic import context

    def run(connection):
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "creator"
        connection.commit()  # or else Alembic leaves the transaction to us
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()

    async def run_async(engine):
        async with engine.connect() as connection:
            await connection.run_sync(run)
        await engine.dispose()

    engine = getattr(creators, os.environ["SHOP_ENGINE"])
    if hasattr(engine, "sync_engine"):
        asyncio.run(run_async(engine))
    else:
        with engine.connect() as connection:
            run(connection)
"""
CREATORS_TESTS = """
    import os
    import creators
    from dbtestcase import AsyncMigratedDatabaseTest, MigratedDatabaseTest

    engine = getattr(creators, os.environ["SHOP_ENGINE"])

    class CreatorsTest(AsyncMigratedDatabaseTest if hasattr(engine, "sync_engine") else MigratedDatabaseTest):
        engines = [engine] if "{how}" == "named" else []

        def test_steps(self):
            creators.CALLS.clear()
            self.downgrade("base")
            self.assertIsNone(self.current_revision())
            self.upgrade()
            self.assertGreaterEqual(len(creators.CALLS), 2)
"""


class SuiteTestCase(unittest.TestCase):
    env: ClassVar[dict[str, str]] = {}

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()

    def run_suite(self, source: str, *, runner: str = "unittest", **values: object) -> Outcome:
        write_suite(self.folder, {"test_migrated.py": source.format(**values)})
        return run_suite(self.folder, runner, env=self.env)


INIS = ("alembic.ini", "alembic_async.ini")


class ShopTest(SuiteTestCase):
    def test_steps_in_a_test_are_undone_with_it(self) -> None:
        others = some_of(("nose2", "pytest"), "migrations")
        for name, *runners in a_share((("alembic.ini", *others), ("alembic_async.ini", "unittest")), 2):
            for runner in runners:
                with self.subTest(name, runner=runner):
                    self.run_suite(STEPS, runner=runner, ini=str(SHOP / name)).expect(passed=6)

    def test_steps_in_an_async_test(self) -> None:
        for name in a_share(INIS, 2):
            with self.subTest(name):
                self.run_suite(ASYNC_STEPS, ini=str(SHOP / name)).expect(passed=2)

    def test_the_checks_pass(self) -> None:
        for name in a_share(INIS, 2):  # up, down and up again, revision by revision
            with self.subTest(name):
                self.run_suite(CHECKS, ini=str(SHOP / name)).expect(passed=4)


class ProjectTestCase(SuiteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.project = AlembicProject(self.folder)
        self.project.table("0001", None, "author")
        self.models("id")

    def models(self, *columns: str) -> None:
        """Models of one table, with these columns besides."""
        lines = ["import sqlalchemy as sa", "metadata = sa.MetaData()"]
        more = "".join(f", sa.Column({name!r}, sa.Text)" for name in columns if name != "id")
        lines.append(f"sa.Table('author', metadata, sa.Column('id', sa.Integer, primary_key=True){more})")
        (self.folder / "shopmodels.py").write_text("\n".join(lines))
        text = self.project.env_py.read_text()
        if "shopmodels" not in text:
            self.project.replace("target_metadata = None", "from shopmodels import metadata as target_metadata")


class ChecksTest(ProjectTestCase):
    """Each check fails with a message that says what to write."""

    def check(self, **counts: int) -> str:
        return self.run_suite(CHECKS, ini="alembic.ini").expect(**counts).output

    def test_a_sound_project_passes_with_a_path_relative_to_the_test_module(self) -> None:
        self.check(passed=4)

    def test_two_heads(self) -> None:
        self.project.table("0002", "0001", "post")
        self.project.table("0003", "0001", "posting")
        output = self.check(passed=0, errors=1)
        self.assertRegex(output, "alembic merge -m 'merge heads' 000[23] 000[23]")

    def test_a_drifted_model(self) -> None:
        self.models("id", "name")
        output = self.check(passed=3, failed=1)
        self.assertIn(
            "def upgrade() -> None:\n    op.add_column('author', sa.Column('name', sa.Text(), nullable=True))", output
        )

    def test_a_broken_downgrade(self) -> None:
        path = self.project.revision("0002", "0001", "op.execute('CREATE SEQUENCE numbers')")
        output = self.check(passed=1, failed=3)
        self.assertIn(f"Revision 0002 (Step 0002.) is not undone by its downgrade().\n  {path}\n", output)
        self.assertIn("op.execute('DROP SEQUENCE numbers')", output)
        self.assertIn("Upgraded to head and downgraded to base, the database is not as it was.", output)

    def test_names_may_be_excluded(self) -> None:
        self.project.revision("0002", "0001", "op.execute('CREATE SEQUENCE IF NOT EXISTS numbers')")
        more = """
        exclude_from_comparison = ["numbers"]
        exclude_from_stairway = ["num*"]
        """
        self.run_suite(CHECKS.rstrip() + more, ini="alembic.ini").expect(passed=4)

    def test_the_assertions_may_be_called(self) -> None:
        self.project.revision("0002", "0001", "op.execute('CREATE SEQUENCE IF NOT EXISTS numbers')")
        self.run_suite("""
            import shopmodels
            from sqlalchemy.orm import registry
            from dbtestcase import MigratedDatabaseTest

            class WhatHasMetadataTest(MigratedDatabaseTest):
                metadata = registry(metadata=shopmodels.metadata)

                def test_is_compared(self):
                    self.assertModelsMatchMigrations(exclude=["numbers"])

            class AssertionsTest(MigratedDatabaseTest):
                def test_all(self):
                    self.assertSingleHead()
                    self.assertModelsMatchMigrations(exclude=["numbers"])
                    self.assertStairway(exclude=["0002"])
                    self.assertUpgradeEmptyAndBack(exclude=["numbers"])
                    with self.assertRaises(AssertionError):
                        self.assertModelsMatchMigrations()
                    with self.assertRaises(AssertionError):
                        self.assertStairway()
        """).expect(passed=2)

    def test_commit_and_begin_as_text_in_a_revision(self) -> None:
        up = 'for each in ("CREATE TYPE mood AS ENUM ()", "COMMIT;", "ALTER TYPE mood ADD VALUE \'sad\'", "begin"):\n'
        self.project.revision("0002", "0001", f"{up}    op.execute(each)", 'op.execute("DROP TYPE mood")')
        more = """
        exclude_from_comparison = ["mood"]

        def test_up(self):
            self.downgrade("0001")
            self.upgrade()
            self.assertEqual(self.current_revision(), "0002")
            labels = self.connection.exec_driver_sql("SELECT enumlabel FROM pg_enum").scalars().all()
            self.assertEqual(labels, ["sad"])
        """
        source = CHECKS.rstrip() + more
        self.run_suite(source, ini="alembic.ini").expect(passed=5)

    def test_what_cannot_be_done_in_a_transaction_names_the_truncating_class(self) -> None:
        self.project.revision(
            "0002",
            "0001",
            """
            with op.get_context().autocommit_block():
                op.execute("CREATE TYPE mood AS ENUM ('sad')")
            with op.get_context().autocommit_block():
                op.execute("ALTER TYPE mood ADD VALUE 'happy'")
            op.execute("CREATE TABLE moods AS SELECT 'happy'::mood AS mood")
            """,
            "op.execute('DROP TABLE moods')\nop.execute('DROP TYPE mood')",
        )
        output = (
            self.run_suite("""
            from dbtestcase import MigratedDatabaseTest

            class StepsTest(MigratedDatabaseTest):
                def test_step(self):
                    self.downgrade("-1")
                    self.upgrade()

                def test_stairway_does_it_for_real(self):
                    self.assertStairway()
        """)
            .expect(passed=1, errors=1)
            .output
        )
        self.assertIn("Revision 0002 (Step 0002.) failed in upgrade(): UnsafeNewEnumValueUsage", output)
        self.assertIn("What to do: Test this revision in a TruncatingDatabaseTest", output)


class CreatorsTest(SuiteTestCase):
    def test_env_py_asks_engines_that_connect_by_functions_of_the_applications_own(self) -> None:
        project = AlembicProject(self.folder)
        project.table("0001", None, "author")
        write_suite(self.folder, {"creators.py": CREATORS, "migrations/env.py": CREATORS_ENV})
        engines = ("engine", "async_engine", "asked_engine")
        for engine, how in a_share(itertools.product(engines, ("named", "of env.py's alone")), 3):
            with self.subTest(engine, how=how):
                write_suite(self.folder, {"test_creators.py": CREATORS_TESTS.format(how=how)})
                env = {**self.env, "SHOP_ENGINE": engine}
                run_suite(self.folder, "unittest", env=env).expect(passed=1)


class TemplateTest(ProjectTestCase):
    """The second run migrates nothing; whatever changes what is migrated makes a new template."""

    SUITE = """
        from sqlalchemy import text
        from dbtestcase import MigratedDatabaseTest

        class RowsTest(MigratedDatabaseTest):
            def test_rows(self):
                self.assertEqual(self.session.scalar(text("SELECT count(*) FROM author")), 0)
    """

    def setUp(self) -> None:
        super().setUp()
        self.log = self.folder / "built.log"
        self.project.replace(
            "metadata as target_metadata",
            f"metadata as target_metadata\nwith open({str(self.log)!r}, 'a') as log: log.write('.')",
        )

    def builds(self, **environment: str) -> int:
        """How often env.py was run by a run of the suite."""
        self.log.unlink(missing_ok=True)
        write_suite(self.folder, {"test_rows.py": self.SUITE})
        run_suite(self.folder, "unittest", env=self.env | environment).expect(passed=1)
        return len(self.log.read_text()) if self.log.exists() else 0

    def test_the_second_run_migrates_nothing_unless_a_revision_or_env_py_has_changed(self) -> None:
        with scratch() as cache:
            seed(Path(cache))
            own = {"DBTESTCASE_CACHE": cache}
            self.assertEqual([self.builds(**own), self.builds(**own)], [1, 0])
        self.assertEqual([self.builds(), self.builds()], [1, 0])
        added = self.project.table("0002", "0001", "post")
        self.assertEqual(self.builds(), 1)
        self.project.table("0002", "0001", "posting")
        self.assertEqual(self.builds(), 1)
        added.unlink()
        self.assertLessEqual(self.builds(), 1)
        self.project.env_py.write_text(self.project.env_py.read_text() + "# changed\n")
        self.assertEqual(self.builds(), 1)

    def test_without_a_cache_each_run_migrates(self) -> None:
        self.assertEqual([self.builds(DBTESTCASE_CACHE="off"), self.builds(DBTESTCASE_CACHE="off")], [1, 1])

    def test_a_revision_that_raises_leaves_no_template(self) -> None:
        path = self.project.revision("0002", "0001", "1 / 0")
        outcome = self.run_suite(CHECKS, ini="alembic.ini").expect(passed=0, errors=1)
        self.assertIn("Revision 0002 (Step 0002.) failed in upgrade(): ZeroDivisionError", outcome.output)
        path.unlink()
        (self.folder / "test_migrated.py").unlink()
        self.assertEqual(self.builds(), 1)


class BadInputTest(SuiteTestCase):
    def test_no_ini(self) -> None:
        output = self.run_suite(CHECKS, ini="alembic.ini").expect(passed=0, errors=1).output
        self.assertIn("There is no 'alembic.ini' to migrate with (looked in", output)
        self.assertIn(str(self.folder), output)

    def test_without_alembic_the_extra_is_named(self) -> None:
        write_suite(self.folder, {"alembic.py": "", "test_migrated.py": CHECKS.format(ini="alembic.ini")})
        os.unlink(self.folder / "alembic.py")
        source = """
            import importlib.util
            find = importlib.util.find_spec
            importlib.util.find_spec = lambda name, package=None: None if name == "alembic" else find(name, package)
        """
        write_suite(self.folder, {"sitecustomize.py": source})
        outcome = run_suite(self.folder, "unittest", env={"PYTHONPATH": f"{self.folder}:{ROOT}"}, new=True)
        self.assertIn("pip install 'dbtestcase[migrations]'", outcome.output)
