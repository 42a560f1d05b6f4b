"""Bad input to migrations: clear errors, nothing left behind."""

import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import sqlalchemy as sa

from dbtestcase.errors import MigrationError
from dbtestcase.migrations import MigrationRecipe
from dbtestcase.migrations.failures import translated
from tests.support.alembic_projects import AlembicProject, empty_database


class BadInputTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        self.database = self.enterContext(empty_database())
        self.project = AlembicProject(self.folder)
        self.first = self.project.table("0001", None, "author")

    def failure(self, revision: str = "head") -> MigrationError:
        """The error of an upgrade, which leaves nothing behind."""
        with self.assertRaises(MigrationError) as caught:
            MigrationRecipe(self.project.ini).project.upgrade(self.database.url, revision)
        self.assertTrue(caught.exception.cause and caught.exception.remedy, str(caught.exception))
        self.assertEqual(self.database.tables(), [])
        self.assertTrue(self.database.is_alone(), "a connection was left open")
        return caught.exception

    def test_a_script_that_is_not_python_is_named_with_its_line(self) -> None:
        self.first.write_text("revision = '0001'\ndef upgrade(:\n")
        error = self.failure()
        self.assertRegex(error.what, r"^0001_step.py failed: SyntaxError: ")
        self.assertIn(f"{self.first}:2", error.what)

    def test_a_script_that_cannot_be_imported_is_named(self) -> None:
        self.project.revision("0002", "0001", top="import not_there")
        error = self.failure()
        self.assertIn("0002_step.py failed: ModuleNotFoundError: No module named 'not_there'", error.what)

    def test_a_revision_that_raises_is_named_with_file_and_line(self) -> None:
        path = self.project.revision("0002", "0001", "raise ValueError('no such tenant')")
        error = self.failure()
        self.assertIn("Revision 0002 (Step 0002.) failed in upgrade(): ValueError: no such tenant", error.what)
        self.assertRegex(error.what, rf"{path}:\d+")

    def test_a_statement_that_fails_is_shown(self) -> None:
        self.project.revision("0002", "0001", "op.execute('ALTER TABLE nowhere ADD x int')")
        error = self.failure()
        self.assertIn('UndefinedTable: relation "nowhere" does not exist', error.what)
        self.assertIn("statement: ALTER TABLE nowhere ADD x int", error.what)

    def test_a_downgrade_that_raises_is_named(self) -> None:
        self.project.revision("0002", "0001", "pass", "raise NotImplementedError('cannot')")
        project = MigrationRecipe(self.project.ini).project
        project.upgrade(self.database.url)
        with self.assertRaisesRegex(MigrationError, r"Revision 0002 .* failed in downgrade\(\): NotImplementedError"):
            project.downgrade(self.database.url, "base")

    def test_two_heads_are_named_with_the_command_that_merges_them(self) -> None:
        self.project.table("0002", "0001", "post")
        self.project.table("0003", "0001", "posting")
        error = self.failure()
        self.assertIn(
            "has 2 heads where one is expected: 0002 and 0003", error.what.replace("0003 and 0002", "0002 and 0003")
        )
        self.assertRegex(error.remedy, r"^alembic merge -m 'merge heads' 000\d 000\d$")

    def test_a_revision_that_follows_nothing_known_is_an_error(self) -> None:
        self.project.table("0002", "0000", "post")
        self.assertIn("0000", self.failure().what)

    def test_an_unknown_revision_is_an_error(self) -> None:
        error = self.failure("0815")
        self.assertIn("Can't locate revision identified by '0815'", error.what)
        self.assertIn("alembic history", error.remedy)

    def test_a_variable_that_env_py_misses_is_named_with_the_way_out(self) -> None:
        self.project.reads_url('sqlalchemy.create_engine(os.environ["SHOP_URL"])')
        error = self.failure()
        self.assertIn("env.py failed: KeyError: 'SHOP_URL'", error.what)
        self.assertIn("env.py is led to the test database", error.remedy)

    def test_an_env_py_that_asks_for_the_current_application_says_how_to_have_one(self) -> None:
        self.project.replace("target_metadata = None", "raise RuntimeError('Working outside of application context.')")
        error = self.failure()
        self.assertIn("env.py failed: RuntimeError: Working outside of application context", error.what)
        self.assertIn("app_context()", error.remedy)

    def test_an_env_py_that_raises_is_named_with_its_line(self) -> None:
        self.project.replace("target_metadata = None", "target_metadata = nothing")
        error = self.failure()
        self.assertIn("env.py failed: NameError", error.what)
        self.assertRegex(error.what, r"env\.py:\d+")

    def test_an_env_py_that_migrates_nothing_is_an_error(self) -> None:
        self.project.env_py.write_text("")
        self.assertIn("ended without migrating anything", self.failure().what)

    def test_an_env_py_that_catches_what_a_revision_raises_is_an_error(self) -> None:
        self.project.replace(
            "else:\n    run_migrations_online()", "else:\n    try: run_migrations_online()\n    except Exception: pass"
        )
        for raised in ("raise ValueError", "op.execute('nonsense')"):
            self.project.revision("0002", "0001", raised)
            error = self.failure()
            self.assertIn("ended as if all had gone well, though revision 0002 had not", error.what)
            self.assertIn("raise it again", error.remedy)

    def test_run_async_in_a_sandbox_of_another_driver_says_how_to_have_its_own(self) -> None:
        class Layouts:
            label, folders = "alembic.ini", ()

        class Step:
            is_upgrade = True
            revision = SimpleNamespace(revision="0002", doc="", path="0002.py")

        run = SimpleNamespace(step=Step, ours=False)
        with self.assertRaisesRegex(MigrationError, r"(?s)0002 failed[^$]*asyncpg://'[^$]*`engines`"):
            with translated(Layouts, run, contained=True):  # type: ignore[arg-type]
                raise ValueError("Cannot call run_async with a sync engine")

    def test_a_missing_env_py_is_an_error(self) -> None:
        self.project.env_py.unlink()
        self.assertIn("env.py", self.failure().what)

    def test_an_unreachable_server_is_an_error_without_the_password(self) -> None:
        url = sa.make_url("postgresql+psycopg://nobody:geheim@127.0.0.1:1/x")
        with self.assertRaises(MigrationError) as caught:
            MigrationRecipe(self.project.ini).build(url)
        self.assertNotIn("geheim", str(caught.exception))
        self.assertIn("127.0.0.1", caught.exception.what)

    def test_what_cannot_be_done_in_a_transaction_names_the_truncating_class_in_a_sandbox_only(self) -> None:
        self.project.revision(
            "0002",
            "0001",
            """
            op.execute("CREATE TYPE mood AS ENUM ('sad')")
            op.execute("COMMIT")
            op.execute("BEGIN")
            op.execute("ALTER TYPE mood ADD VALUE 'happy'")
            op.execute("SELECT 'happy'::mood")
            """,
        )
        with self.assertRaises(MigrationError) as caught:
            MigrationRecipe(self.project.ini).project.upgrade(self.database.url)
        self.assertIn("autocommit_block", caught.exception.remedy)
        self.assertNotIn("Truncating", str(caught.exception))
