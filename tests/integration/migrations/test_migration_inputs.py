"""What decides what migrations make, wherever it is said: where revisions lie, what was there before, files read."""

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa

from dbtestcase.backends import test_database
from dbtestcase.backends.recipes import Recipe
from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.errors import ConfigurationError, MigrationError
from dbtestcase.migrations import MigrationRecipe
from dbtestcase.migrations.project import Project
from dbtestcase.migrations.walk import stairway
from dbtestcase.settings import Settings
from tests.integration.migrations.test_migration_environments import EnvironmentTestCase
from tests.support.alembic_projects import AlembicProject

LATE = "config = context.config\nimport pathlib\ncontext.script.version_locations = [{}]\n"
ELSEWHERE = LATE.format("str(pathlib.Path(__file__).parents[1] / 'elsewhere')")


class LateLocationsTest(EnvironmentTestCase):
    """env.py says while it runs where the revisions lie."""

    def setUp(self) -> None:
        super().setUp()
        self.alembic = AlembicProject(self.folder)
        self.alembic.replace("config = context.config\n", ELSEWHERE)
        self.alembic.table("0001", None, "author", folder="elsewhere")
        self.alembic.table("0002", "0001", "post", folder="elsewhere")
        self.migrations = Project(self.alembic.ini)

    def test_they_are_run_and_stepped_through(self) -> None:
        self.migrations.build(self.database.url)
        self.expect_tables("author", "post")
        self.assertEqual(self.migrations.current_revisions(self.database.url), ("0002",))
        self.migrations.downgrade(self.database.url, "0001")
        self.expect_tables("author")
        self.migrations.upgrade(self.database.url, "+1")
        self.assertEqual(self.migrations.current_revisions(self.database.url), ("0002",))

    def test_they_are_walked_through(self) -> None:
        view = "op.execute('CREATE VIEW names AS SELECT id FROM author')"
        self.alembic.revision("0003", "0002", view, folder="elsewhere")
        problems = stairway(self.migrations, self.database.url)
        self.assertEqual([problem.revision for problem in problems], ["0003"])

    def test_two_heads_there_are_refused(self) -> None:
        self.alembic.table("0003", "0001", "other", folder="elsewhere")
        with self.assertRaisesRegex(MigrationError, "2 heads"):
            self.migrations.upgrade(self.database.url)
        self.expect_tables()

    def test_set_when_the_connection_tells_the_kind_of_database(self) -> None:
        self.alembic.replace(ELSEWHERE, "config = context.config\n")
        self.alembic.replace(
            "        context.configure(",
            "        context.script.version_locations = [connection.dialect.name]\n        context.configure(",
        )
        folder = self.folder / "postgresql"
        (self.folder / "elsewhere").rename(folder)
        self.alembic.replace("[connection.dialect.name]", f"[{str(self.folder)!r} + '/' + connection.dialect.name]")
        self.migrations.upgrade(self.database.url)
        self.expect_tables("author", "post")

    def test_appended_to_those_that_the_ini_names_which_are_none(self) -> None:
        self.alembic.revision("9999", None, "1 / 0")  # in migrations/versions, where Alembic does not look any more
        self.alembic.replace("locations = [", "locations.append(")
        self.alembic.replace("'elsewhere')]", "'elsewhere'))")
        self.migrations.upgrade(self.database.url)
        self.expect_tables("author", "post")

    def test_revisions_are_imported_once(self) -> None:
        self.alembic.replace(
            "import sqlalchemy as sa", "import sqlalchemy as sa, builtins; builtins.print('imported')",
            self.folder / "elsewhere" / "0001_step.py",
        )  # fmt: skip
        with mock.patch("builtins.print") as printed:
            self.migrations.upgrade(self.database.url)
            self.migrations.downgrade(self.database.url, "base")
        printed.assert_called_once_with("imported")


class NoRevisionsTest(EnvironmentTestCase):
    """A project in which none is found is an error, whatever is asked."""

    def test_whatever_is_asked(self) -> None:
        migrations = Project(AlembicProject(self.folder).ini)
        url = self.database.url
        for name, ask in (
            ("build", lambda: migrations.build(url)),
            ("upgrade", lambda: migrations.upgrade(url)),
            ("downgrade", lambda: migrations.downgrade(url, "base")),
            ("current", lambda: migrations.current_revisions(url)),
            ("script", lambda: migrations.script(url)),
            ("stairway", lambda: stairway(migrations, url)),
        ):
            with self.subTest(name), self.assertRaisesRegex(MigrationError, "has no revisions") as caught:
                ask()
            self.assertIn(str(self.folder / "migrations" / "versions"), str(caught.exception))

    def test_it_says_that_the_folder_is_missing_or_that_one_below_has_some(self) -> None:
        project = AlembicProject(self.folder)
        project.table("0001", None, "author", folder="migrations/versions/postgresql")
        with self.assertRaisesRegex(MigrationError, "its folder .*versions/postgresql has .py files"):
            Project(project.ini).build(self.database.url)
        project.replace("config = context.config\n", LATE.format("'/nowhere/at/all'"))
        with self.assertRaisesRegex(MigrationError, "/nowhere/at/all .there is no such folder"):
            Project(project.ini).build(self.database.url)


class InitialSchemaTest(EnvironmentTestCase):
    """What exists before the first revision."""

    def setUp(self) -> None:
        super().setUp()
        self.alembic = AlembicProject(self.folder)
        self.alembic.revision(
            "0001",
            None,
            "op.add_column('account', sa.Column('email', sa.String))",
            "op.drop_column('account', 'email')",
        )

    def test_it_is_made_before(self) -> None:
        def initial(connection: sa.Connection) -> None:
            connection.execute(sa.text("CREATE TABLE account (id int)"))

        MigrationRecipe(self.alembic.ini, initial_schema=initial).build(self.database.url)
        self.assertEqual(self.database.ask("SELECT email FROM account"), [])

    def test_a_hook_that_commits_by_itself(self) -> None:
        def initial(connection: sa.Connection) -> None:
            connection.exec_driver_sql("CREATE TABLE account (id int)")
            connection.commit()
            connection.exec_driver_sql("CREATE TABLE more (id int)")

        MigrationRecipe(self.alembic.ini, initial_schema=initial).build(self.database.url)
        self.expect_tables("account", "more")

    def test_without_it_the_error_names_it(self) -> None:
        with self.assertRaisesRegex(MigrationError, "account was there before the first revision") as caught:
            MigrationRecipe(self.alembic.ini).build(self.database.url)
        for word in ("0001", "load_initial_schema(cls, connection)"):
            self.assertIn(word, str(caught.exception))

    def test_a_table_that_a_revision_makes_too_late_is_a_broken_revision(self) -> None:
        self.alembic.table("0000", None, "acount")
        self.alembic.replace("down_revision = None", "down_revision = '0000'", next(self.folder.rglob("0001*.py")))
        self.alembic.replace("def downgrade", "# account\ndef downgrade", next(self.folder.rglob("0000*.py")))
        with self.assertRaisesRegex(MigrationError, "Correct upgrade"):
            MigrationRecipe(self.alembic.ini).build(self.database.url)

    def test_an_asynchronous_hook_is_refused(self) -> None:
        async def initial(connection: sa.Connection) -> None: ...

        with self.assertRaisesRegex(ConfigurationError, "nobody awaits it"):
            MigrationRecipe(self.alembic.ini, initial_schema=initial).build(self.database.url)

    def test_what_it_raises_is_raised_with_a_note(self) -> None:
        def initial(connection: sa.Connection) -> None:
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError) as caught:
            MetadataRecipe([], initial_schema=initial, label="shop").build(self.database.url)
        self.assertIn("load_initial_schema", caught.exception.__notes__[0])

    def test_tables_of_metadata_come_after_it(self) -> None:
        metadata = sa.MetaData()
        sa.Table("place", metadata, sa.Column("id", sa.Integer, server_default=sa.text("make_id()")))

        def initial(connection: sa.Connection) -> None:
            connection.exec_driver_sql("CREATE FUNCTION make_id() RETURNS int LANGUAGE sql AS 'SELECT 1'")

        recipe = MetadataRecipe(metadata, initial_schema=initial)
        recipe.build(self.database.url)
        self.assertEqual(self.database.ask("INSERT INTO place DEFAULT VALUES RETURNING id"), [(1,)])
        self.assertNotEqual(recipe.fingerprint(), MetadataRecipe(metadata).fingerprint())


class ReadFilesTest(EnvironmentTestCase):
    """Files that only show when the migrations run decide, too, whether they run again."""

    def setUp(self) -> None:
        super().setUp()
        self.settings = Settings(cache=Path(self.enterContext(tempfile.TemporaryDirectory())))
        (self.folder / "setup.py").touch()
        self.alembic = AlembicProject(self.folder)

    def made(self, recipe: Recipe) -> bool:
        """Whether a template was made for it."""
        with test_database(
            self.database.url.set(database="postgres"), recipe, base="inputs", settings=self.settings
        ) as database:
            return database.made_template

    def expect_made_again_when(self, change: Any, make: Any) -> None:
        self.assertTrue(self.made(make()))
        self.assertFalse(self.made(make()), "made again for nothing")
        change()
        self.assertTrue(self.made(make()), "a change was not noticed")
        self.assertFalse(self.made(make()))

    def recipe(self) -> MigrationRecipe:
        return MigrationRecipe(self.alembic.ini)

    def test_a_folder_that_env_py_names(self) -> None:
        self.alembic.replace("config = context.config\n", ELSEWHERE)
        self.alembic.table("0001", None, "author", folder="elsewhere")
        self.expect_made_again_when(lambda: self.alembic.table("0002", "0001", "post", folder="elsewhere"), self.recipe)

    def test_a_file_that_a_revision_reads(self) -> None:
        sql = self.folder / "sql" / "author.sql"
        sql.parent.mkdir()
        sql.write_text("CREATE TABLE author (id int)")
        self.alembic.revision("0001", None, f"import pathlib\nop.execute(pathlib.Path({str(sql)!r}).read_text())")
        self.expect_made_again_when(lambda: sql.write_text("CREATE TABLE author (name text)"), self.recipe)
        sql.write_text("CREATE TABLE author (id int)")
        self.assertFalse(self.made(self.recipe()), "what was made of it before is still there")

    def test_a_file_that_the_initial_schema_is_read_from(self) -> None:
        sql = self.folder / "initial.sql"
        sql.write_text("CREATE TABLE author (id int)")

        def initial(connection: sa.Connection) -> None:
            with open(sql) as file:
                connection.exec_driver_sql(file.read())

        with mock.patch("pathlib.Path.cwd", lambda: self.folder):
            self.expect_made_again_when(
                lambda: sql.write_text("CREATE TABLE author (name text)"),
                lambda: MetadataRecipe([], initial_schema=initial),
            )

    def test_modules_and_files_that_are_written_do_not_count(self) -> None:
        log = self.folder / "build.log"
        (self.folder / "shopmodels.py").write_text("x = 1")
        self.alembic.replace("config = context.config\n", "config = context.config\nimport shopmodels\n")
        self.alembic.revision("0001", None, f"open({str(log)!r}, 'a').close()")
        self.assertTrue(self.made(self.recipe()))
        log.write_text("more")
        (self.folder / "shopmodels.py").write_text("x = 2")
        self.assertFalse(self.made(self.recipe()))
        self.assertEqual(list((self.settings.cache or Path()).rglob("*.json")), [])


class LoggingTest(EnvironmentTestCase):
    """The application's logging stays, env.py's does not."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(lambda: [logging.getLogger(name).handlers.clear() for name in ("shop", "shop.sales", "mine")])

    def test_what_an_application_configures_when_it_is_imported(self) -> None:
        self.module(
            "shoplog",
            """
            import logging, logging.config
            logging.config.dictConfig({
                "version": 1, "disable_existing_loggers": False,
                "handlers": {"memory": {"class": "logging.handlers.BufferingHandler", "capacity": 100}},
                "loggers": {"shop": {"handlers": ["memory"], "level": "INFO"}},
            })
            by_hand = logging.getLogger("shop.sales")
            by_hand.setLevel("ERROR")
            by_hand.propagate = False
            by_hand.addHandler(logging.NullHandler())
            """,
        )
        project = self.project()
        project.replace("from logging.config", "import shoplog\nfrom logging.config")
        self.build(project)
        shop, sales = logging.getLogger("shop"), logging.getLogger("shop.sales")
        self.assertEqual((len(shop.handlers), shop.level), (1, logging.INFO))
        self.assertEqual((len(sales.handlers), sales.level, sales.propagate), (1, logging.ERROR, False))

    def test_a_function_of_the_application_that_env_py_calls_is_env_pys_doing(self) -> None:
        self.module(
            "shopsetup",
            """
            import logging
            def set_up():
                logging.getLogger("mine").setLevel("ERROR")
                logging.getLogger("mine").addHandler(logging.NullHandler())
                logging.basicConfig(force=True)
            """,
        )
        project = self.project()
        project.replace("from logging.config", "import shopsetup; shopsetup.set_up()\nfrom logging.config")
        before = list(logging.getLogger().handlers)
        self.build(project)
        mine = logging.getLogger("mine")
        self.assertEqual((mine.handlers, mine.level), ([], logging.NOTSET))
        self.assertEqual(logging.getLogger().handlers, before)

    def test_nothing_of_it_is_left(self) -> None:
        before = (logging.config.fileConfig, logging.Logger.addHandler, "__setattr__" in vars(logging.Logger))
        project = self.project()
        project.replace("config = context.config\n", "config = context.config\nimport logging; logging.disable(50)\n")
        self.build(project)
        after = (logging.config.fileConfig, logging.Logger.addHandler, "__setattr__" in vars(logging.Logger))
        self.assertEqual(after, before)
        self.assertEqual(logging.root.manager.disable, 0)


class VersionTableTest(EnvironmentTestCase):
    """The version table is written once, and read as Alembic writes it."""

    def setUp(self) -> None:
        super().setUp()
        self.alembic = self.project()
        self.alembic.table("0002", "0001", "post")
        self.alembic.table("0003", "0002", "tag")
        self.written: list[str] = []
        self.enterContext(mock.patch.dict(sys.modules, judge_shop=mock.Mock(seen=self.see)))
        self.alembic.replace(
            "with connectable.connect() as connection:",
            "with connectable.connect() as connection:\n        import judge_shop, sqlalchemy\n"
            "        sqlalchemy.event.listen(connection, 'before_cursor_execute', judge_shop.seen)",
        )
        self.migrations = Project(self.alembic.ini)

    def see(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith(("INSERT INTO alembic", "UPDATE alembic", "DELETE FROM alembic")):
            self.written.append(statement)

    def versions(self) -> list[Any]:
        return self.database.ask("SELECT version_num FROM alembic_version")

    def test_once_up_and_down(self) -> None:
        for step, wanted in (
            (lambda: self.migrations.upgrade(self.database.url), [("0003",)]),
            (lambda: self.migrations.downgrade(self.database.url, "0001"), [("0001",)]),
            (lambda: self.migrations.upgrade(self.database.url, "+1"), [("0002",)]),
            (lambda: self.migrations.downgrade(self.database.url, "base"), []),
        ):
            self.written.clear()
            step()
            self.assertEqual(len(self.written), 1, self.written)
            self.assertEqual(self.versions(), wanted)

    def test_a_revision_that_reads_it_sees_what_alembic_shows_it(self) -> None:
        self.alembic.revision("0004", "0003", 'op.execute("CREATE TABLE seen AS SELECT * FROM alembic_version")')
        self.alembic.revision("0005", "0004", "assert op.get_context().get_current_revision() == '0004'")
        for name in ("upgrade", "build"):
            with self.subTest(name):
                getattr(self.migrations, name)(self.database.url)
                self.assertEqual(self.database.ask("SELECT version_num FROM seen"), [("0003",)])
                self.database.ask("DROP TABLE seen")
                self.migrations.downgrade(self.database.url, "base")

    def test_a_run_that_fails_leaves_what_it_leaves_in_production(self) -> None:
        self.alembic.revision("0004", "0003", "1 / 0")
        with self.assertRaises(MigrationError):
            self.migrations.upgrade(self.database.url)
        self.expect_tables()
        self.alembic.replace("target_metadata=target_metadata\n", "transaction_per_migration=True\n")
        with self.assertRaises(MigrationError):
            self.migrations.upgrade(self.database.url)
        self.expect_tables("author", "post", "tag")
        self.assertEqual(self.versions(), [("0003",)])

    def test_an_autocommit_block_commits_what_was_done_before_it(self) -> None:
        self.alembic.revision("0004", "0003", "with op.get_context().autocommit_block():\n    pass\n1 / 0")
        with self.assertRaises(MigrationError):
            self.migrations.upgrade(self.database.url)
        self.expect_tables("author", "post", "tag")
        self.assertEqual(self.versions(), [("0003",)])
