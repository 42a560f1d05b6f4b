"""Up, down and up again: a downgrade that does not undo its upgrade is found, named, and told what to write."""

import tempfile
import unittest
from pathlib import Path

from dbtestcase.errors import MigrationError
from dbtestcase.migrations import MigrationRecipe
from dbtestcase.migrations.project import Project
from dbtestcase.migrations.walk import Problem, round_trip, stairway
from tests.support.alembic_projects import AlembicProject, empty_database


class WalkTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        self.database = self.enterContext(empty_database())
        self.project = AlembicProject(self.folder)
        self.project.table("0001", None, "author")

    @property
    def migrations(self) -> Project:
        return MigrationRecipe(self.project.ini).project

    def reset(self) -> None:
        self.database.ask("DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS attic CASCADE; CREATE SCHEMA public")

    def walk(self, **options: object) -> list[Problem]:
        return stairway(self.migrations, self.database.url, reset=self.reset, **options)  # type: ignore[arg-type]


class StairwayTest(WalkTestCase):
    def test_a_sound_project_has_no_problems_and_ends_at_head(self) -> None:
        self.project.revision(
            "0002", "0001", "op.add_column('author', sa.Column('name', sa.Text))", "op.drop_column('author', 'name')"
        )
        self.assertEqual(self.walk(), [])
        self.assertEqual(self.migrations.current_revisions(self.database.url), ("0002",))

    def test_an_empty_downgrade_is_named_with_file_and_what_to_write(self) -> None:
        path = self.project.revision("0002", "0001", "op.create_table('post', sa.Column('id', sa.Integer))", "pass")
        [problem] = self.walk()
        self.assertEqual(
            str(problem),
            "Revision 0002 (Step 0002.) is not undone by its downgrade().\n"
            f"  {path}\n"
            "  left over: table public.post\n"
            "  In downgrade() is missing:\n"
            "      op.drop_table('post')",
        )

    def test_every_broken_downgrade_is_found_in_one_walk(self) -> None:
        self.project.revision("0002", "0001", "op.execute('CREATE TYPE mood AS ENUM (1)'.replace('1', \"'sad'\"))")
        self.project.revision("0003", "0002", "op.add_column('author', sa.Column('age', sa.Integer))", "1 / 0")
        self.project.table("0004", "0003", "post")
        self.project.revision("0005", "0004", "op.create_index('ix_post', 'post', ['id'])")
        problems = self.walk()
        self.assertEqual([problem.revision for problem in problems], ["0002", "0003", "0005"])
        self.assertIn("op.execute('DROP TYPE mood')", str(problems[0]))
        self.assertIn("failed in downgrade().", str(problems[1]))
        self.assertIn("ZeroDivisionError", str(problems[1]))
        self.assertIn("op.drop_index('ix_post', table_name='post')", str(problems[2]))

    def test_whatever_a_schema_is_made_of_is_looked_at(self) -> None:
        things = {
            "column author.age": "ALTER TABLE author ADD age int",
            "changed:   column public.author.id": "ALTER TABLE author ALTER id SET DEFAULT 7",
            "check constraint public.author.ck": "ALTER TABLE author ADD CONSTRAINT ck CHECK (id > 0)",
            "unique constraint public.author.uq": "ALTER TABLE author ADD CONSTRAINT uq UNIQUE (id)",
            "index public.author.ix": "CREATE INDEX ix ON author (id)",
            "enum public.mood": "CREATE TYPE mood AS ENUM ('sad')",
            "domain public.positive": "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
            "type public.pair": "CREATE TYPE pair AS (a int, b int)",
            "sequence public.numbers": "CREATE SEQUENCE numbers",
            "view public.names": "CREATE VIEW names AS SELECT id FROM author",
            "materialized view public.kept": "CREATE MATERIALIZED VIEW kept AS SELECT id FROM author",
            "function public.one()": "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "procedure public.nothing()": "CREATE PROCEDURE nothing() LANGUAGE sql AS ''",
            "trigger public.author.same": "CREATE TRIGGER same BEFORE UPDATE ON author FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "rule public.author.quiet": "CREATE RULE quiet AS ON DELETE TO author DO INSTEAD NOTHING",
            "policy public.author.mine": "CREATE POLICY mine ON author USING (id = 1)",
            "row security public.author.ENABLE": "ALTER TABLE author ENABLE ROW LEVEL SECURITY",
            "schema attic": "CREATE SCHEMA attic",
            "comment public.author": "COMMENT ON TABLE author IS 'who wrote it'",
            "statistics public.pairs": "CREATE STATISTICS pairs ON id, (id + 1) FROM author",
        }
        down = "0001"
        for position, statement in enumerate(things.values(), start=2):
            self.project.revision(f"{position:04}", down, f"op.execute({statement!r})")
            down = f"{position:04}"
        found = [str(problem) for problem in self.walk()]
        self.assertEqual(len(found), len(things))
        for text, name in zip(found, things, strict=True):
            self.assertIn(name.replace("column author", "column public.author"), text)

    def test_the_lines_to_write_do_undo_the_revision(self) -> None:
        """What the message says, put into downgrade(), mends it."""
        up = """
            op.execute("CREATE SCHEMA attic")
            op.execute("CREATE TYPE attic.mood AS ENUM ('sad')")
            op.create_table("box", sa.Column("id", sa.Integer, primary_key=True), schema="attic")
            op.execute("ALTER TABLE attic.box ADD mood attic.mood")
            op.execute("CREATE VIEW attic.boxes AS SELECT id FROM attic.box")
            op.execute("CREATE INDEX ix ON author (id)")
            op.execute("ALTER TABLE author ADD CONSTRAINT ck CHECK (id > 0)")
            op.execute("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
            """
        self.project.revision("0002", "0001", up)
        [problem] = self.walk()
        lines = str(problem).partition("In downgrade() is missing:\n")[2]
        self.project.revision("0002", "0001", up, "\n".join(line.strip() for line in lines.splitlines()))
        self.reset()
        self.assertEqual([str(problem) for problem in self.walk()], [])

    def test_a_downgrade_that_takes_too_much_is_told_what_to_make_again(self) -> None:
        self.project.revision("0002", "0001", "op.create_index('ix', 'author', ['id'])", "op.drop_index('ix')")
        self.project.revision("0003", "0002", "op.execute('SELECT 1')", "op.drop_index('ix')")
        [problem] = self.walk()
        self.assertEqual(problem.revision, "0003")
        self.assertIn("missing:   index public.author.ix", str(problem))
        self.assertIn("op.execute('CREATE INDEX ix ON public.author USING btree (id)')", str(problem))

    def test_an_upgrade_that_makes_another_schema_the_second_time_is_found(self) -> None:
        self.project.revision(
            "0002",
            "0001",
            "calls.append(1)\nop.execute(f'CREATE TABLE post (c{len(calls)} int)')",
            "op.drop_table('post')",
            top="calls = []",
        )
        [problem] = self.walk()
        self.assertIn("makes another schema when it is upgraded again", str(problem))

    def test_an_upgrade_that_fails_ends_the_walk(self) -> None:
        self.project.revision("0002", "0001", "1 / 0")
        self.project.table("0003", "0002", "post")
        [problem] = self.walk()
        self.assertEqual(problem.revision, "0002")
        self.assertIn("failed in upgrade()", str(problem))

    def test_without_a_way_to_begin_anew_the_first_problem_ends_the_walk(self) -> None:
        self.project.revision("0002", "0001", "op.create_index('ix', 'author', ['id'])")
        self.project.revision("0003", "0002", "op.create_index('iy', 'author', ['id'])")
        problems = stairway(self.migrations, self.database.url)
        self.assertEqual([problem.revision for problem in problems], ["0002"])

    def test_names_and_revisions_may_be_excluded(self) -> None:
        self.project.revision("0002", "0001", "op.create_index('ix', 'author', ['id'], if_not_exists=True)")
        self.project.revision("0003", "0002", "pass", "raise NotImplementedError")
        self.assertEqual([problem.revision for problem in self.walk(exclude=["ix"])], ["0003"])
        self.reset()
        self.assertEqual(self.walk(exclude=["ix", "0003"]), [])

    def test_branches_and_merges_are_walked(self) -> None:
        self.project.table("0002", "0001", "post")
        self.project.table("0003", "0001", "comment")
        self.project.revision("0004", ("0002", "0003"))
        self.project.revision("0005", "0004", "op.create_index('ix', 'post', ['id'])")
        self.assertEqual([problem.revision for problem in self.walk()], ["0005"])

    def test_a_database_at_head_is_walked_too(self) -> None:
        self.migrations.upgrade(self.database.url)
        self.assertEqual(self.walk(), [])

    def test_an_error_of_env_py_is_an_error_not_a_problem(self) -> None:
        self.project.replace("target_metadata = None", "target_metadata = nothing")
        with self.assertRaises(MigrationError):
            self.walk()


class RoundTripTest(WalkTestCase):
    def test_what_is_left_at_base_is_named(self) -> None:
        self.project.revision("0002", "0001", "op.execute(\"CREATE TYPE mood AS ENUM ('sad')\")")
        [problem] = round_trip(self.migrations, self.database.url)
        self.assertIn("Upgraded to head and downgraded to base, the database is not as it was.", str(problem))
        self.assertIn("left over: enum public.mood", str(problem))
        self.assertIn("op.execute('DROP TYPE mood')", str(problem))

    def test_it_may_be_excluded(self) -> None:
        self.project.revision("0002", "0001", "op.execute(\"CREATE TYPE mood AS ENUM ('sad')\")")
        self.assertEqual(round_trip(self.migrations, self.database.url, exclude=["mood"]), [])

    def test_sqlite_is_walked_through_the_inspector(self) -> None:
        import sqlalchemy as sa

        self.project.revision("0002", "0001", "op.create_table('post', sa.Column('id', sa.Integer))")
        [problem] = round_trip(self.migrations, sa.make_url(f"sqlite:///{self.folder}/test.db"))
        self.assertIn("left over: table post", str(problem))
