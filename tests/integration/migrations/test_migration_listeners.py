"""What models make beside their tables, by listeners: found where the migrations lack it or make it otherwise."""

import tempfile
import unittest
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import DDLElement

from dbtestcase.errors import ConfigurationError
from dbtestcase.migrations.compare import compare_models
from dbtestcase.migrations.project import Project
from tests.support.alembic_projects import AlembicProject, EmptyDatabase, empty_database
from tests.support.mariadb import connect, mariadb_url, require_mariadb

# Options of tables came with SQLAlchemy 2.1.
_FILLFACTOR: Any = {"postgresql_with": {"fillfactor": 70}} if sa.__version__ >= "2.1" else {}


class CreateNames(DDLElement):
    """A statement of its own, as libraries for views have them."""


@compiles(CreateNames)  # type: ignore[no-untyped-call, untyped-decorator]
def _create_names(element: CreateNames, compiler: Any, **_: Any) -> str:
    return "CREATE VIEW names AS " + compiler.sql_compiler.process(sa.text("SELECT name FROM author"))


class ListenersCase(unittest.TestCase):
    folder: ClassVar[Path]
    project: ClassVar[Project]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory())).resolve()
        project = AlembicProject(cls.folder)
        project.table("0001", None, "author")
        cls.project = Project(project.ini)

    def setUp(self) -> None:
        self.models = sa.MetaData()
        columns = sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text)
        self.author = sa.Table("author", self.models, *columns)

    def make(
        self, *statements: str, target: "sa.MetaData | sa.Table | None" = None, moment: str = "after_create"
    ) -> None:
        """Let the models make something."""
        for statement in statements:
            sa.event.listen(self.models if target is None else target, moment, sa.DDL(statement.replace("%", "%%")))

    def call(self, function: Callable[[sa.Connection], object], moment: str = "after_create") -> None:
        """Let the models call a function."""

        def listener(target: sa.MetaData, connection: sa.Connection, **_: Any) -> None:
            function(connection)

        sa.event.listen(self.models, moment, listener)


class PostgreSQLListenersTest(ListenersCase):
    database: ClassVar[EmptyDatabase]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.database = cls.enterClassContext(empty_database())

    def migrated(self, *statements: str) -> None:
        """What the migrations have made."""
        for schema in ("public", "shop", "attic"):
            self.database.ask(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        self.database.ask("CREATE SCHEMA public")
        for statement in ("CREATE TABLE author (name text, id serial PRIMARY KEY)", *statements):
            self.database.ask(statement)

    def found(self, **options: Any) -> list[str]:
        return compare_models(self.project, self.database.url, metadata=self.models, **options)

    def assertClean(self, **options: Any) -> None:
        self.assertEqual(self.found(**options), [])

    def assertMended(self, *words: str) -> list[str]:
        """What is found has these words, and mends the database for real."""
        found = self.found()
        for word in words:
            self.assertIn(word, "\n".join(found))
        engine = sa.create_engine(self.database.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            names = {"op": Operations(MigrationContext.configure(connection)), "sa": sa, "postgresql": postgresql}
            for line in found:
                exec(line, names)
        self.assertClean()
        return found

    def test_what_only_the_migrations_make_is_theirs(self) -> None:
        """Also where the models make something of that kind."""
        self.make("CREATE VIEW names AS SELECT name FROM author")
        self.migrated(
            "CREATE VIEW names AS SELECT name FROM author",
            "CREATE VIEW more AS SELECT id FROM author",
            "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE DOMAIN word AS text",
            "ALTER TABLE author SET (fillfactor = 70)",
            "ALTER TABLE author ENABLE ROW LEVEL SECURITY",
            "CREATE EXTENSION IF NOT EXISTS hstore",
        )
        self.assertClean()

    def test_kinds_of_which_the_models_say_all(self) -> None:
        self.migrated("CREATE VIEW more AS SELECT id FROM author", "CREATE DOMAIN word AS text")
        self.assertEqual(self.found(all_in_models=["view"]), ["op.execute('DROP VIEW more')"])
        self.make("CREATE VIEW names AS SELECT name FROM author")
        found = "\n".join(self.found(all_in_models=["view", "domain"]))
        for word in ("DROP VIEW more", "CREATE VIEW names", "DROP DOMAIN word"):
            self.assertIn(word, found)
        with self.assertRaisesRegex(ConfigurationError, "(?s)names 'veiw'.*materialized view"):
            self.found(all_in_models=["veiw"])

    def test_missing_and_mended(self) -> None:
        self.migrated("DROP TABLE author", "CREATE TABLE author (name text, id serial PRIMARY KEY)")
        for moment, statement in (
            ("before_create", "CREATE SCHEMA shop"),
            ("before_create", "CREATE EXTENSION hstore"),
            (
                "before_create",
                r"CREATE FUNCTION one(a text = E'\\n :b %') RETURNS int LANGUAGE sql AS 'SELECT 1'",
            ),
            ("after_create", "CREATE VIEW names AS SELECT * FROM author WHERE name LIKE '%a:b'"),
            ("after_create", "CREATE VIEW shop.more AS SELECT * FROM names"),
            ("after_create", "CREATE MATERIALIZED VIEW kept AS SELECT id FROM shop.more; CREATE INDEX ix ON kept (id)"),
            ("after_create", "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)"),
            ("after_create", "CREATE TYPE mood AS ENUM ('sad', 'ok')"),
            ("after_create", "CREATE TABLE shop.journal (id int)"),
            ("after_create", "COMMENT ON VIEW names IS 'it''s all'"),
            ("after_create", "ALTER TABLE author ENABLE ROW LEVEL SECURITY"),
        ):
            self.make(statement, moment=moment)
        self.database.ask("DROP EXTENSION IF EXISTS hstore CASCADE")
        self.assertMended("CREATE VIEW names", "CREATE EXTENSION", "ENABLE ROW LEVEL SECURITY", "===", "journal")

    def test_otherwise_defined_whatever_word_the_listener_begins_with(self) -> None:
        self.migrated()
        for begin in ("CREATE", "CREATE OR REPLACE"):
            with self.subTest(begin):
                self.migrated("CREATE VIEW names AS SELECT id FROM author")
                self.models.dispatch._clear()  # type: ignore[attr-defined]
                self.make(f"{begin} VIEW names AS SELECT name FROM author")
                self.assertMended("DROP VIEW names", "CREATE VIEW names")
        self.migrated("CREATE MATERIALIZED VIEW kept AS SELECT id FROM author")
        self.make("CREATE MATERIALIZED VIEW IF NOT EXISTS kept AS SELECT name FROM author")
        self.assertMended("CREATE MATERIALIZED VIEW kept")

    def test_a_condition_in_python_or_in_sql(self) -> None:
        def names(connection: sa.Connection) -> None:
            if "names" not in sa.inspect(connection).get_view_names():
                connection.execute(sa.text("CREATE VIEW names AS SELECT name FROM author"))

        self.call(names)
        self.make("DO $$ BEGIN CREATE TYPE mood AS (a int); EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        self.migrated("CREATE VIEW names AS SELECT name FROM author", "CREATE TYPE mood AS (a int)")
        self.assertClean()
        self.migrated("CREATE VIEW names AS SELECT id FROM author", "CREATE TYPE mood AS (a int, b int)")
        self.assertMended("CREATE VIEW names", "DROP ATTRIBUTE b")

    def test_elements_of_libraries_and_functions_of_tables(self) -> None:
        sa.event.listen(self.models, "after_create", CreateNames())
        self.make("CREATE TRIGGER same BEFORE UPDATE ON author FOR EACH ROW EXECUTE FUNCTION "
                  "suppress_redundant_updates_trigger()", target=self.author)  # fmt: skip
        self.migrated()
        self.assertMended("CREATE VIEW names", "CREATE TRIGGER same")

    def test_a_trigger_a_rule_and_a_policy_of_another_name(self) -> None:
        """They are renamed: a second trigger would do it twice."""

        def made(suffix: str) -> list[str]:
            return [
                f'CREATE TRIGGER "same{suffix}" BEFORE UPDATE ON author FOR EACH ROW '
                "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                f"CREATE RULE kept{suffix} AS ON DELETE TO author DO INSTEAD NOTHING",
                f"CREATE POLICY mine{suffix} ON author USING (id > 0)",
            ]

        self.make(*made(""), target=self.author)
        self.migrated(*made("_old"))
        self.assertMended(
            "ALTER TRIGGER same_old ON author RENAME TO same",
            "ALTER RULE kept_old ON author RENAME TO kept",
            "ALTER POLICY mine_old ON author RENAME TO mine",
        )
        self.migrated(*made("_old"), *made(""))  # both: the old ones are the migrations' own
        self.assertClean()

    def test_the_order_of_columns_and_the_writing_of_a_function_make_no_difference(self) -> None:
        self.make(
            "CREATE VIEW names AS SELECT * FROM author",
            "CREATE FUNCTION one() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; -- one\nEND'",
        )
        self.migrated(
            "CREATE VIEW names AS SELECT * FROM author",
            "create function one() returns int language plpgsql as $$\nbegin\n    return 1;\nend $$",
        )
        self.assertClean()
        self.migrated("CREATE FUNCTION one() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN ''1 ''; END'")
        self.assertMended("FUNCTION public.one()", "CREATE VIEW names")

    def test_what_needs_the_migrations_own(self) -> None:
        """A table and a view of the models need a function that only the migrations make."""
        self.author.append_constraint(sa.CheckConstraint("twice(id) > 0", name="ck"))
        self.make(
            "CREATE VIEW names AS SELECT twice(id) AS name FROM author",
            "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        )
        own = "CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1'"
        check = "ALTER TABLE author ADD CONSTRAINT ck CHECK (twice(id) > 0)"
        one = "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'"
        self.migrated(own, check, one, "CREATE VIEW names AS SELECT twice(id) AS name FROM author")
        self.assertClean()
        self.migrated(own, check, one.replace("1'", "2'"), "CREATE VIEW names AS SELECT id AS name FROM author")
        self.assertMended("CREATE OR REPLACE FUNCTION public.one()", "VIEW names")
        self.assertEqual(self.database.ask("SELECT twice(4)"), [(8,)])

    def test_what_cannot_be_made_is_named_and_the_rest_compared(self) -> None:
        def wrong(connection: sa.Connection) -> None:
            raise LookupError("no such thing")

        self.call(wrong)
        self.make("CREATE VIEW names AS SELECT nothing FROM author", "CREATE VIEW more AS SELECT id FROM author")
        self.migrated("ALTER TABLE author ADD extra int")
        found = self.found()
        self.assertIn('# view public.names of the models cannot be made: column "nothing" does not exist', found)
        self.assertTrue(any("listener" in line and "no such thing" in line for line in found), found)
        self.assertIn("op.drop_column('author', 'extra')", found)
        self.assertIn("CREATE VIEW more", "\n".join(found))
        self.assertClean(exclude=["names", "*listener", "more", "extra"])

    def test_nothing_that_a_listener_does_outlives_the_comparison(self) -> None:
        self.migrated("INSERT INTO author VALUES ('Ada')")
        ends = ("commit", "rollback", "close", "COMMIT", "ROLLBACK; SELECT 1")
        for end in ends:
            self.models.dispatch._clear()  # type: ignore[attr-defined]
            self.call(lambda connection: connection.execute(sa.text("INSERT INTO author VALUES ('Bob')")))

            def finish(connection: sa.Connection, end: str = end) -> None:
                getattr(connection, end)() if end.islower() else connection.execute(sa.text(end))

            self.call(finish)
            with self.subTest(end):
                self.assertIn("ends the transaction", "\n".join(self.found()))
                self.assertEqual(self.database.ask("SELECT name FROM author"), [("Ada",)])

    def test_names_schemas_and_tables_that_are_passed_over(self) -> None:
        self.migrated("CREATE SCHEMA attic")
        self.make("CREATE VIEW attic.names AS SELECT 1 AS one")
        self.make("CREATE FUNCTION one(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
        self.make("CREATE RULE quiet AS ON DELETE TO author DO INSTEAD NOTHING", target=self.author)
        self.assertClean(exclude=["one", "author.quiet", "attic.*"])
        found = "\n".join(self.found(exclude=["public.one"]))
        self.assertIn("CREATE RULE quiet", found)
        self.assertIn("CREATE VIEW attic.names", found)  # the models say it, whatever include_schemas says of others

    if hasattr(sa, "CreateView"):  # which came with SQLAlchemy 2.1

        def test_views_of_sqlalchemys_own(self) -> None:
            view = sa.CreateView(sa.select(self.author.c.name), "names", metadata=self.models)
            self.assertEqual(view.table.name, "names")
            self.migrated("CREATE VIEW names AS SELECT name FROM author")
            self.assertClean()
            self.migrated()
            self.assertMended("CREATE VIEW names")
            self.migrated("CREATE VIEW names AS SELECT name FROM author WHERE id > 1")
            self.assertMended("CREATE OR REPLACE VIEW names")

    def test_domains_and_options_of_tables_need_no_listener(self) -> None:
        word = postgresql.DOMAIN("word", sa.Text, check="VALUE <> ''")
        sa.Table("note", self.models, sa.Column("word", word), prefixes=["UNLOGGED"], **_FILLFACTOR)
        self.migrated("CREATE DOMAIN word AS varchar(9)", "CREATE TABLE note (word word)")
        self.assertMended("UNLOGGED", "DOMAIN word", *(["fillfactor"] if _FILLFACTOR else []))

    def test_an_index_for_another_database_only(self) -> None:
        sa.Index("ix", self.author.c.name).ddl_if(dialect="sqlite")
        self.migrated()
        self.assertClean()


class OtherDatabasesTest(ListenersCase):
    """Where nothing can be undone the listeners' statements are heard and not executed."""

    def check(self, url: sa.URL) -> None:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        trigger = "CREATE TRIGGER touch AFTER INSERT ON author FOR EACH ROW BEGIN UPDATE author SET name = 'x Y'; END"
        with engine.begin() as connection:
            for statement in (
                "CREATE TABLE author (id INTEGER NOT NULL PRIMARY KEY AUTO_INCREMENT, name TEXT)"
                if url.get_backend_name() != "sqlite"
                else "CREATE TABLE author (id INTEGER NOT NULL PRIMARY KEY, name TEXT)",
                "CREATE VIEW names AS SELECT name FROM author",
                "CREATE VIEW own AS SELECT id FROM author",
                trigger,
            ):
                connection.execute(sa.text(statement))
        self.make("CREATE VIEW `names` as select name from author")
        self.make(
            trigger.lower().replace("'x y'", "'x Y'").replace("begin", "\n  BEGIN /* all */ "), target=self.author
        )
        self.assertEqual(compare_models(self.project, url, metadata=self.models), [])
        with engine.begin() as connection:
            connection.execute(sa.text("DROP TRIGGER touch"))
            connection.execute(sa.text(trigger.replace("x Y", "other")))
        self.make("CREATE VIEW more AS SELECT id FROM author")
        self.call(lambda connection: connection.execute(sa.text("INSERT INTO author (name) VALUES ('Ada')")))
        self.call(lambda connection: connection.commit())
        found = compare_models(self.project, url, metadata=self.models)
        self.assertIn("ends the transaction", found[0])
        self.assertEqual(
            [line.partition("(")[2].strip(" \n'\"")[:12] for line in found[1:]],
            ["DROP TRIGGER", "create trigg", "CREATE VIEW "],
        )
        self.assertEqual(
            compare_models(self.project, url, metadata=self.models, exclude=["more", "touch", "*listener"]), []
        )
        with engine.begin() as connection:
            self.assertEqual(connection.scalar(sa.text("SELECT count(*) FROM author")), 0)
        with self.assertRaisesRegex(ConfigurationError, "all_in_models holds on PostgreSQL"):
            compare_models(self.project, url, metadata=self.models, all_in_models=["view"])

    def test_sqlite(self) -> None:
        self.check(sa.URL.create("sqlite", database=str(self.folder / "beside.db")))

    def test_mariadb(self) -> None:
        require_mariadb()
        server = mariadb_url()
        with closing(connect(server, None)) as judge:
            judge.query("CREATE OR REPLACE DATABASE beside_tables")
            try:
                self.check(server.set(database="beside_tables"))
            finally:
                judge.query("DROP DATABASE beside_tables")
