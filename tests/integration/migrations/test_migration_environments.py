"""Any env.py is led to the database that is to be migrated; the judge is a connection of its own."""

import asyncio
import importlib
import logging
import os
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa
from alembic.config import Config
from sqlalchemy.orm import Session

from dbtestcase.errors import MigrationError
from dbtestcase.migrations import MigrationRecipe, Project, compare_models
from tests.support.alembic_projects import SHOP, AlembicProject, EmptyDatabase, empty_database

# Nobody answers there: a connection that is not led fails.
NOWHERE = "postgresql+psycopg://nobody:secret@127.0.0.1:1/production"


class EnvironmentTestCase(unittest.TestCase):
    database: EmptyDatabase

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        self.database = self.enterContext(empty_database())
        self.addCleanup(self.forget, set(sys.modules))

    def forget(self, known: set[str]) -> None:
        """Take back what env.py imported of the application (not of the drivers, which cannot be loaded twice)."""
        for name in {name for name in sys.modules if "shop" in name} - known:
            del sys.modules[name]

    def project(self, template: str = "generic") -> AlembicProject:
        project = AlembicProject(self.folder, template)
        project.table("0001", None, "author")
        return project

    def module(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source))

    def build(self, project: AlembicProject, **options: Any) -> None:
        MigrationRecipe(project.ini, **options).build(self.database.url)

    def expect_tables(self, *names: str) -> None:
        self.assertEqual(self.database.tables(), list(names))


class TemplateTest(EnvironmentTestCase):
    def test_generic_with_the_placeholder_url_that_alembic_writes(self) -> None:
        self.build(self.project())
        self.expect_tables("author")

    def test_async_with_the_placeholder_url(self) -> None:
        self.build(self.project("async"))
        self.expect_tables("author")

    def test_async_keeps_the_driver_that_the_ini_names(self) -> None:
        project = self.project("async")
        project.replace("driver://user:pass@localhost", "postgresql+asyncpg://user:pass@localhost", project.ini)
        project.replace(
            "    context.configure(connection", "    print(connection.dialect.driver)\n    context.configure(connection"
        )
        with mock.patch("builtins.print") as printed:
            self.build(project)
        printed.assert_called_once_with("asyncpg")
        self.expect_tables("author")

    def test_sync_keeps_psycopg2_for_scripts_that_use_its_cursor(self) -> None:
        project = self.project()
        project.replace("driver://user:pass@localhost", "postgresql+psycopg2://user:pass@localhost", project.ini)
        project.revision(
            "0002",
            "0001",
            """
            import io
            op.get_bind().connection.cursor().copy_expert("COPY author FROM STDIN", io.StringIO("7"))
            """,
        )
        self.build(project)
        self.assertEqual(self.database.ask("SELECT id FROM author"), [(7,)])

    def test_multidb_migrates_every_database_into_one_with_a_version_table_each(self) -> None:
        project = AlembicProject(self.folder, "multidb")
        project.revision("0001", None, "globals()['upgrade_' + engine_name]()").write_text(
            textwrap.dedent("""
            import sqlalchemy as sa
            from alembic import op
            revision, down_revision = "0001", None
            def upgrade(engine_name):
                op.create_table(f"table_of_{engine_name}", sa.Column("id", sa.Integer))
            def downgrade(engine_name):
                op.drop_table(f"table_of_{engine_name}")
            """)
        )
        self.build(project)
        self.expect_tables("table_of_engine1", "table_of_engine2")
        recipe = MigrationRecipe(project.ini)
        self.assertEqual(recipe.project.current_revisions(self.database.url), ("0001",))
        recipe.project.downgrade(self.database.url, "base")
        self.expect_tables()

    def test_multidb_leaves_out_no_database_whose_url_stands_elsewhere_or_is_forgotten(self) -> None:
        project = AlembicProject(self.folder, "multidb")
        project.revision("0001", None).write_text(
            "from alembic import op\nrevision, down_revision = '0001', None\n"
            "def upgrade(engine_name):\n    op.execute(f'CREATE TABLE of_{engine_name} ()')\n"
        )
        project.replace("[engine2]\nsqlalchemy.url", "[engine2]\nsqlalchemy.link", project.ini)
        with self.assertRaisesRegex(Exception, "'url'"):  # what engine_from_config() says in production
            self.build(project)
        project.replace("context.config.get_section(name, {})", f"{{'sqlalchemy.url': {NOWHERE!r}}}")
        self.build(project)
        self.expect_tables("of_engine1", "of_engine2")

    def test_multidb_may_be_narrowed_to_one_database(self) -> None:
        project = AlembicProject(self.folder, "multidb")
        project.revision("0001", None).write_text(
            "from alembic import op\nrevision, down_revision = '0001', None\n"
            "def upgrade(engine_name):\n    op.execute(f'CREATE TABLE of_{engine_name} ()')\n"
        )
        config = Config(str(project.ini))
        config.set_main_option("databases", "engine2")
        MigrationRecipe(config).build(self.database.url)
        self.expect_tables("of_engine2")
        self.assertEqual(self.database.ask("SELECT version_num FROM alembic_version"), [("0001",)])

    def test_pyproject(self) -> None:
        project = self.project("pyproject_async")
        MigrationRecipe(self.folder / "pyproject.toml").build(self.database.url)
        self.expect_tables("author")
        del project

    def test_the_shop_with_its_36_revisions_sync_and_async(self) -> None:
        for name in ("alembic.ini", "alembic_async.ini"):
            with self.subTest(name), empty_database() as database:
                MigrationRecipe(SHOP / name).build(database.url)
                self.assertEqual(database.ask("SELECT version_num FROM alembic_version"), [("0037",)])
                self.assertIn("payment", database.tables())


class UrlTest(EnvironmentTestCase):
    """Wherever env.py takes its URL or its engine from, its connections are led."""

    def test_the_environment(self) -> None:
        project = self.project()
        project.reads_url('sqlalchemy.create_engine(os.environ["SHOP_DATABASE_URL"])')
        with mock.patch.dict(os.environ, SHOP_DATABASE_URL=NOWHERE):
            self.build(project)
        self.expect_tables("author")

    def test_an_option_that_env_py_sets(self) -> None:
        project = self.project()
        project.replace(
            "target_metadata = None", f'config.set_main_option("sqlalchemy.url", "{NOWHERE}")\ntarget_metadata = None'
        )
        self.build(project)
        self.expect_tables("author")

    def test_an_x_argument(self) -> None:
        project = self.project()
        project.reads_url('sqlalchemy.create_engine(context.get_x_argument(as_dictionary=True)["url"])')
        self.build(project, x_arguments={"url": NOWHERE})
        self.expect_tables("author")

    def test_settings_of_the_application(self) -> None:
        project = self.project()
        self.module("shopsettings", f"DATABASE_URL = {NOWHERE!r}")
        project.reads_url("sqlalchemy.create_engine(__import__('shopsettings').DATABASE_URL)")
        self.build(project)
        self.expect_tables("author")

    def test_the_engine_of_the_application_which_goes_on_pointing_where_it_did(self) -> None:
        project = self.project()
        self.module("shopdb", f"import sqlalchemy as sa\nengine = sa.create_engine({NOWHERE!r})")
        project.reads_url("__import__('shopdb').engine")
        self.build(project)
        self.expect_tables("author")
        with mock.patch.object(sys, "path", [str(self.folder), *sys.path]):
            engine = importlib.import_module("shopdb").engine
        with self.assertRaisesRegex(sa.exc.OperationalError, "127.0.0.1"):
            engine.connect()

    def test_an_engine_with_pooled_connections_to_another_database(self) -> None:
        other = self.enterContext(empty_database())
        project = self.project()
        engine = sa.create_engine(other.url)
        self.addCleanup(engine.dispose)
        with engine.connect() as connection:
            pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        sys.modules["pooled_shop"] = mock.Mock(engine=engine)
        project.reads_url("__import__('pooled_shop').engine")
        self.build(project)
        self.expect_tables("author")
        self.assertEqual(other.tables(), [])
        with engine.connect() as connection:
            self.assertEqual(connection.scalar(sa.text("SELECT pg_backend_pid()")), pid)  # its pool was left alone

    def test_an_engine_with_a_creator(self) -> None:
        project = self.project()
        project.reads_url(
            "sqlalchemy.create_engine('postgresql+psycopg://', creator=lambda: "
            "__import__('psycopg').connect('postgresql://nobody:secret@127.0.0.1:1/production'))"
        )
        self.build(project)
        self.expect_tables("author")

    def test_an_asynchronous_engine_of_the_application(self) -> None:
        project = self.project("async")
        self.module(
            "shopasync",
            f"""
            from sqlalchemy.ext.asyncio import create_async_engine
            engine = create_async_engine({NOWHERE.replace("psycopg", "asyncpg")!r})
        """,
        )
        project.reads_url("__import__('shopasync').engine")
        self.build(project)
        self.expect_tables("author")

    def test_a_connection_in_the_attributes_that_env_py_insists_on(self) -> None:
        project = self.project()
        text = project.env_py.read_text().split("def run_migrations_online")[0]
        project.env_py.write_text(
            text + 'connection = config.attributes["connection"]\n'
            "context.configure(connection=connection, target_metadata=None)\n"
            "with context.begin_transaction():\n    context.run_migrations()\n"
        )
        self.build(project)
        self.expect_tables("author")

    def test_a_connection_in_the_attributes_without_which_env_py_fails(self) -> None:
        project = self.project()
        text = project.env_py.read_text().split("def run_migrations_online")[0]
        project.env_py.write_text(
            text + 'connection = config.attributes.get("connection", None)\n'
            "if connection is None:\n    raise LookupError('a connection is expected')\n"
            "context.configure(connection=connection, target_metadata=None, on_version_apply=None, profile=1)\n"
            "with context.begin_transaction():\n    context.run_migrations()\n"
        )
        self.build(project)
        self.expect_tables("author")

    def test_the_engine_of_a_connection_in_the_attributes(self) -> None:
        project = self.project()
        project.reads_url('config.attributes.get("connection", None).engine')
        self.build(project)
        self.expect_tables("author")

    def test_what_the_application_has_put_on_its_config(self) -> None:
        class OwnConfig(Config):
            def greeting(self) -> str:
                return "hello"

        project = self.project()
        project.reads_url("sqlalchemy.create_engine(config.settings['url'])")
        project.replace("target_metadata = None", "target_metadata = None\nassert config.greeting() == 'hello'")
        config = OwnConfig(str(project.ini))
        config.settings = {"url": NOWHERE}  # type: ignore[attr-defined]
        MigrationRecipe(config).build(self.database.url)
        self.expect_tables("author")

    def test_target_metadata_that_is_none(self) -> None:
        """A class, as it is never seen until somebody compares."""
        project = self.project()
        project.replace("target_metadata = None", "import sqlalchemy\ntarget_metadata = [sqlalchemy.MetaData(), dict]")
        self.build(project)
        with self.assertRaisesRegex(MigrationError, "hold <class 'dict'>, which is no MetaData"):
            compare_models(Project(project.ini), self.database.url)

    def test_the_session_settings_of_connect_args_are_kept(self) -> None:
        project = self.project()
        project.reads_url(
            f"sqlalchemy.create_engine({NOWHERE!r}, "
            "connect_args={'options': '-c search_path=tenant', 'sslmode': 'require'})"
        )
        project.replace(
            "        context.configure(",
            "        connection.exec_driver_sql('CREATE SCHEMA tenant')\n"
            "        connection.commit()\n        context.configure(",
        )
        self.build(project)
        self.assertEqual(
            self.database.ask("SELECT schemaname FROM pg_tables WHERE tablename = 'author'"), [("tenant",)]
        )

    def test_events_of_the_engine_are_kept(self) -> None:
        project = self.project()
        self.module(
            "shopevents",
            f"""
            import sqlalchemy as sa
            engine = sa.create_engine({NOWHERE!r})
            @sa.event.listens_for(engine, "connect")
            def name(connection, record):
                connection.execute("SET application_name = 'shop'")
                connection.commit()
        """,
        )
        project.reads_url("__import__('shopevents').engine")
        project.revision(
            "0002", "0001", "op.execute(\"CREATE TABLE mark AS SELECT current_setting('application_name') AS name\")"
        )
        self.build(project)
        self.assertEqual(self.database.ask("SELECT name FROM mark"), [("shop",)])

    def test_an_engine_of_another_kind_of_database_is_left_alone(self) -> None:
        project = self.project()
        project.replace(
            "target_metadata = None",
            "target_metadata = None\nimport sqlalchemy\nfile = sqlalchemy.create_engine('sqlite://')\n"
            "with file.connect() as c:\n    c.execute(sqlalchemy.text('SELECT 1')).one()\nfile.dispose()",
        )
        self.build(project)
        self.expect_tables("author")

    def test_migrating_another_kind_of_database_is_refused(self) -> None:
        project = self.project()
        engine = sa.create_engine("sqlite://")
        self.addCleanup(engine.dispose)
        sys.modules["sqlite_shop"] = mock.Mock(engine=engine)
        project.reads_url("__import__('sqlite_shop').engine")
        with self.assertRaisesRegex(MigrationError, r"does not go to the test database \(sqlite://\)"):
            self.build(project)
        self.expect_tables()

    def test_a_connection_that_was_open_before_is_refused(self) -> None:
        other = self.enterContext(empty_database())
        engine = sa.create_engine(other.url)
        self.addCleanup(engine.dispose)
        connection = engine.connect()
        self.addCleanup(connection.close)
        project = self.project()
        sys.modules["open_shop"] = mock.Mock(connection=connection)
        text = project.env_py.read_text().split("def run_migrations_online")[0]
        project.env_py.write_text(
            text + "import open_shop\ncontext.configure(connection=open_shop.connection)\ncontext.run_migrations()\n"
        )
        with self.assertRaisesRegex(MigrationError, "does not go to the test database"):
            self.build(project)
        self.assertEqual(other.tables(), [])

    def test_engines_are_what_they_were_afterwards(self) -> None:
        connect, raw_connection = sa.Engine.connect, sa.Engine.raw_connection
        self.build(self.project())
        self.assertIs(sa.Engine.connect, connect)
        self.assertIs(sa.Engine.raw_connection, raw_connection)


class CommitTest(EnvironmentTestCase):
    """What a run leaves uncommitted is an error; COMMIT as text is what it is in production."""

    BEFORE = "        context.configure(\n            connection=connection"

    def test_what_env_py_does_not_commit(self) -> None:
        project = self.project()
        project.replace(self.BEFORE, "        connection.exec_driver_sql('SELECT 1')\n" + self.BEFORE)
        with self.assertRaisesRegex(
            MigrationError, r"migrated to 0001, and has not committed it: .* at base"
        ) as raised:
            self.build(project)
        self.assertIn("connection.commit()", str(raised.exception))
        project.replace(self.BEFORE, "        connection.commit()\n" + self.BEFORE)
        self.build(project)
        self.expect_tables("author")

    def test_what_is_committed_without_sqlalchemys_knowledge(self) -> None:
        for begins in ('execution_options(isolation_level="AUTOCOMMIT")', "execution_options()"):
            with self.subTest(begins):
                project = AlembicProject(Path(self.enterContext(tempfile.TemporaryDirectory())))
                project.table("0001", None, "author")
                project.replace(self.BEFORE, f"        connection = connection.{begins}\n" + self.BEFORE)
                ends = "        with context.begin_transaction():\n            context.run_migrations()"
                commits = "        context.run_migrations()\n        connection.connection.dbapi_connection.commit()"
                last = project.env_py.read_text().rindex(ends)
                text = project.env_py.read_text()
                project.env_py.write_text(text[:last] + commits + text[last + len(ends) :])
                self.build(project)
                self.expect_tables("author")
                Project(project.ini).downgrade(self.database.url, "base")
                self.expect_tables()
                self.database.ask("DROP TABLE alembic_version")

    def test_commit_as_text_keeps_the_versions_until_there(self) -> None:
        project = self.project()
        project.revision(
            "0002", "0001", 'op.execute("COMMIT")\nop.execute("CREATE TABLE post ()")\nraise KeyError("x")'
        )
        with self.assertRaises(MigrationError):
            Project(project.ini).upgrade(self.database.url)
        self.expect_tables("author")
        self.assertEqual(Project(project.ini).current_revisions(self.database.url), ("0001",))

    def test_lines_that_depend_on_each_other(self) -> None:
        project = self.project()
        project.revision("0002", "0001", label="left")
        path = project.revision("0003", "0001", label="right")
        project.replace("depends_on = None", 'depends_on = ("0002",)', path)
        self.build(project)
        self.assertEqual(Project(project.ini).current_revisions(self.database.url), ("0003",))

    def test_a_database_that_env_py_makes_is_the_test_database(self) -> None:
        project = self.project()
        project.reads_url(f"sqlalchemy.create_engine({NOWHERE!r})")
        lines = f"""
            admin = sqlalchemy.create_engine(sqlalchemy.make_url({NOWHERE!r}).set(database="postgres"))
            with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("CREATE DATABASE production")
        """
        project.replace("target_metadata = None", "target_metadata = None\n" + textwrap.dedent(lines))
        self.build(project)
        self.expect_tables("author")
        self.assertEqual(self.database.ask("SELECT datname FROM pg_database WHERE datname = 'production'"), [])


class ProcessTest(EnvironmentTestCase):
    """What env.py does to the process does not reach the tests."""

    def test_file_config_disables_no_logger_and_removes_no_handler(self) -> None:
        logger = logging.getLogger("shop.orders")
        with self.assertLogs(logger, "INFO") as caught:
            self.build(self.project())
            logger.info("still heard")
        self.assertEqual(caught.output, ["INFO:shop.orders:still heard"])
        self.assertEqual(logging.getLogger("alembic").level, logging.NOTSET)

    def test_file_config_closes_no_handler(self) -> None:
        handler = logging.FileHandler(self.folder / "shop.log")
        self.addCleanup(handler.close)
        self.enterContext(mock.patch.object(logging.getLogger(), "handlers", [handler]))
        self.build(self.project())
        self.assertFalse(handler.stream.closed)
        self.assertEqual(logging.getLogger().handlers, [handler])

    def test_levels_that_env_py_sets_by_hand_are_put_back(self) -> None:
        project = self.project()
        project.replace(
            "target_metadata = None",
            "target_metadata = None\nimport logging\nlogging.getLogger().setLevel(1)\n"
            "logging.getLogger('shop.orders').disabled = True",
        )
        logger, level = logging.getLogger("shop.orders"), logging.getLogger().level
        self.build(project)
        self.assertFalse(logger.disabled)
        self.assertEqual(logging.getLogger().level, level)

    def test_sys_path_is_prepended_from_the_inis_folder_and_restored(self) -> None:
        project = self.project()
        self.module("beside_the_ini", "")
        project.replace(
            "target_metadata = None", "import sys, beside_the_ini\nsys.path.append('/nowhere')\ntarget_metadata = None"
        )
        before = list(sys.path)
        self.build(project)
        self.assertEqual(sys.path, before)

    def test_it_runs_inside_a_running_event_loop(self) -> None:
        async def build() -> None:
            self.build(self.project("async"))

        asyncio.run(build())
        self.expect_tables("author")

    @unittest.skipIf(sys.version_info >= (3, 14), "there get_event_loop() makes none")
    def test_an_env_py_that_asks_for_the_current_loop_has_one(self) -> None:
        project = self.project("async")
        project.replace("asyncio.run(", "asyncio.get_event_loop().run_until_complete(")

        async def build() -> None:
            self.build(project)

        asyncio.run(build())  # in another thread, which has none; and from here on this one has none
        self.expect_tables("author")
        self.assertEqual(len(Project(project.ini).current_revisions(self.database.url)), 1)

    def test_an_error_inside_a_running_event_loop_is_the_same_error(self) -> None:
        project = self.project("async")
        project.revision("0002", "0001", "1 / 0")

        async def build() -> None:
            with self.assertRaisesRegex(MigrationError, "Revision 0002 .* failed"):
                self.build(project)

        asyncio.run(build())


class ScriptsTest(EnvironmentTestCase):
    def test_several_version_locations(self) -> None:
        project = AlembicProject(self.folder)
        project.replace("[alembic]\n", "[alembic]\nversion_locations = %(here)s/one:%(here)s/two\n", project.ini)
        project.table("0001", None, "author", folder="one")
        project.table("0002", None, "post", folder="two")
        self.build(project)
        self.expect_tables("author", "post")
        self.assertEqual(len(MigrationRecipe(project.ini).project.current_revisions(self.database.url)), 2)

    def test_version_locations_searched_recursively(self) -> None:
        project = AlembicProject(self.folder)
        project.replace("[alembic]\n", "[alembic]\nrecursive_version_locations = true\n", project.ini)
        project.table("0001", None, "author", folder="migrations/versions/2024/05")
        self.build(project)
        self.expect_tables("author")

    def test_labelled_branches_are_upgraded_to_all_of_their_heads(self) -> None:
        project = self.project()
        project.table("0002", "0001", "post")
        project.table("0003", "0001", "invoice", label="billing")
        self.build(project)
        self.expect_tables("author", "invoice", "post")

    def test_a_build_ends_with_the_versions_that_an_upgrade_ends_with(self) -> None:
        """The version table is written once, whatever the revisions' branches and env.py's transactions are."""
        project = self.project()
        project.table("0002", "0001", "post")
        project.table("0003", "0001", "invoice", label="billing")
        project.revision("0004", ("0002", "0003"))
        project.table("0005", "0004", "one", label="left")
        project.table("0006", "0004", "two", label="right")
        project.table("0007", None, "apart")
        text = project.env_py.read_text()
        for option in ("", ", transaction_per_migration=True"):
            with self.subTest(option), empty_database() as upgraded, empty_database() as built:
                project.env_py.write_text(text)
                project.replace("target_metadata=target_metadata\n", f"target_metadata=None{option}\n")
                migrations = MigrationRecipe(project.ini).project
                migrations.upgrade(upgraded.url)
                migrations.build(built.url)
                question = "SELECT version_num FROM alembic_version ORDER BY 1"
                self.assertEqual(built.ask(question), upgraded.ask(question))
                self.assertEqual(built.ask(question), [("0005",), ("0006",), ("0007",)])
                migrations.downgrade(built.url, "base")
                self.assertEqual(built.tables(), [])

    def test_steps_up_and_down(self) -> None:
        project = self.project()
        project.table("0002", "0001", "post")
        migrations = MigrationRecipe(project.ini).project
        migrations.upgrade(self.database.url, "+1")
        self.expect_tables("author")
        self.assertEqual(migrations.current_revisions(self.database.url), ("0001",))
        migrations.upgrade(self.database.url)
        migrations.downgrade(self.database.url, "-1")
        self.expect_tables("author")
        migrations.downgrade(self.database.url, "base")
        self.assertEqual(migrations.current_revisions(self.database.url), ())

    def test_asking_for_the_revision_of_an_empty_database_changes_nothing(self) -> None:
        MigrationRecipe(self.project().ini).project.current_revisions(self.database.url)
        self.assertEqual(self.database.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), [(0,)])

    def test_base_data_is_loaded_at_head_and_committed(self) -> None:
        def load(session: Session) -> None:
            session.execute(sa.text("INSERT INTO author VALUES (1)"))

        self.build(self.project(), base_data=load)
        self.assertEqual(self.database.ask("SELECT id FROM author"), [(1,)])
