"""The tables are made once, whatever classes and processes there are; a build that was killed is done again."""

from __future__ import annotations

import signal
import socket
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.alembic_projects import AlembicProject
from tests.support.postgresql import PostgreSQLTestCase
from tests.support.runners import RUNNERS, Outcome, run_python, run_suite, write_suite
from tests.support.samples import a_share

MODELS = """
    from sqlalchemy import MetaData, Table, Column, Integer, event, create_engine

    metadata = MetaData()
    notes = Table("notes", metadata, Column("id", Integer, primary_key=True), comment="{unique}")
    engine = create_engine("postgresql+psycopg://nowhere.invalid/production")

    @event.listens_for(metadata, "before_create")
    def note(*_, **__):
        with open("built.log", "a") as log:
            log.write(".")
"""

BOTH_KINDS = """
    import app
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest

    class {first}Test({first}):
        {source}

        def test(self):
            {test}

    class {second}Test({second}):
        {source}

        def test(self):
            {test}
"""

WORKER = """
    import os, socket
    import app
    from sqlalchemy import text
    from dbtestcase import {base}

    with socket.socket(socket.AF_UNIX) as start:  # all begin at the same moment
        start.connect("start")
        start.recv(1)

    class WorkerTest({base}):
        {source}
        engines = [app.engine]

        def check(self):
            with app.engine.begin() as connection:
                self.assertEqual(connection.scalar(text("SELECT count(*) FROM notes")), 0)
                connection.execute(text("INSERT INTO notes (id) VALUES (1)"))
                with open(f"database-{{os.getpid()}}", "w") as file:
                    file.write(connection.scalar(text("SELECT current_database()")))

        def test_1(self):
            self.check()

        test_2 = test_1

    class AnotherTest(WorkerTest):
        pass
"""

OF_METADATA = "metadata = app.metadata"
OF_MIGRATIONS = 'migrations = "alembic.ini"'
KINDS = ("DatabaseTest", "TruncatingDatabaseTest")
LOG = 'with open("built.log", "a") as log: log.write(".")\n'


class BuildingTestCase(PostgreSQLTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.before = self.templates()
        self.addCleanup(self.drop_templates)
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        assert self.url.database == "postgres"  # our own connections to the database that the URL names must pass
        self.env = {"DBTESTCASE_URL": self.url.render_as_string(hide_password=False)}
        write_suite(self.folder, {"app.py": MODELS.format(unique=uuid.uuid4())})

    def drop_templates(self) -> None:
        for name in self.templates() - self.before:
            self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def migrate(self, top: str = "") -> AlembicProject:
        """Make the tables by a migration, whose env.py notes that it was run."""
        project = AlembicProject(self.folder)
        project.table("0001", None, "notes", top=f"# {uuid.uuid4()}\n{top}")
        project.env_py.write_text(LOG + project.env_py.read_text())
        return project

    def run_suite(self) -> Outcome:
        return run_suite(self.folder, "unittest", env=self.env)

    def builds(self) -> int:
        """How often the tables were made."""
        return len((self.folder / "built.log").read_text())

    def run_at_once(self, processes: int) -> list[Outcome]:
        """Run the suite in so many processes, which begin together."""
        with socket.socket(socket.AF_UNIX) as line, ThreadPoolExecutor(processes) as pool:
            line.bind(str(self.folder / "start"))
            line.listen(processes)
            line.settimeout(120)
            runs = [pool.submit(self.run_suite) for _ in range(processes)]
            waiting = [line.accept()[0] for _ in runs]
            for each in waiting:
                each.close()
            return [run.result() for run in runs]

    def databases(self) -> set[str]:
        """The databases that the processes worked in."""
        return {path.read_text() for path in self.folder.glob("database-*")}


class BothKindsTest(BuildingTestCase):
    def check(self, source: str) -> None:
        for first, second in a_share((KINDS, KINDS[::-1]), 2):
            with self.subTest(first=first):
                self.drop_templates()
                (self.folder / "built.log").unlink(missing_ok=True)
                test = "self.assertEqual(self.session.execute(app.notes.select()).all(), [])"
                suite = BOTH_KINDS.format(first=first, second=second, source=source, test=test)
                write_suite(self.folder, {"test_both.py": suite})
                self.run_suite().expect(passed=2)
                self.assertEqual(self.builds(), 1)
                self.run_suite().expect(passed=2)
                self.assertEqual(self.builds(), 1, "the second run makes nothing")

    def test_metadata_is_created_once_for_sandboxed_and_committing_classes(self) -> None:
        self.check(OF_METADATA)

    def test_migrations_are_run_once_for_sandboxed_and_committing_classes(self) -> None:
        self.migrate()
        suite = BOTH_KINDS.replace("import DatabaseTest", "import MigratedDatabaseTest as DatabaseTest")
        with_migrations = suite.format(first=KINDS[0], second=KINDS[1], source=OF_MIGRATIONS, test="pass")
        write_suite(self.folder, {"test_both.py": with_migrations})
        self.run_suite().expect(passed=2)
        self.assertEqual(self.builds(), 1)


class AtOnceTest(BuildingTestCase):
    def test_four_processes_with_committing_classes_have_a_database_each(self) -> None:
        write_suite(self.folder, {"test_it.py": WORKER.format(base="TruncatingDatabaseTest", source=OF_METADATA)})
        for outcome in self.run_at_once(4):
            outcome.expect(passed=4)
        self.assertEqual((self.builds(), len(self.databases())), (1, 4))
        self.assertEqual(self.databases() & self.names(), set())

    def test_eight_processes_with_migrations_build_them_once(self) -> None:
        self.migrate()
        write_suite(self.folder, {"test_it.py": WORKER.format(base="MigratedDatabaseTest", source=OF_MIGRATIONS)})
        for outcome in self.run_at_once(8):
            outcome.expect(passed=4)
        self.assertEqual((self.builds(), len(self.databases())), (1, 8))
        self.assertEqual(self.databases() & self.names(), set())


class KilledTest(BuildingTestCase):
    SUITE = """
        import app
        from dbtestcase import MigratedDatabaseTest, TruncatingDatabaseTest

        class MigratedTest({base}):
            migrations = "alembic.ini"

            def test(self):
                self.assertEqual(self.session.execute(app.notes.select()).all(), [])
    """

    def test_a_run_killed_while_it_migrates_is_made_up_for_by_the_next(self) -> None:
        before = self.names()
        die = self.folder / "die"
        self.migrate("import os, pathlib").replace(
            "def upgrade():\n",
            "def upgrade():\n    if pathlib.Path('die').exists():\n"
            "        op.execute('CREATE TABLE half ()'), os.kill(os.getpid(), 9)\n",
            self.folder / "migrations" / "versions" / "0001_step.py",
        )
        for base in a_share(("MigratedDatabaseTest", "TruncatingDatabaseTest"), 2):
            with self.subTest(base):
                self.drop_templates()
                (self.folder / "built.log").unlink(missing_ok=True)
                write_suite(self.folder, {"test_it.py": self.SUITE.format(base=base)})
                die.touch()
                killed = run_python(RUNNERS["unittest"], cwd=self.folder, env=self.env)
                self.assertEqual(killed.returncode, -signal.SIGKILL)
                left = self.names() - before
                self.assertNotEqual(left, set())
                self.assertEqual(self.templates(), self.before)
                for name in left:
                    self.wait_until_unowned(name)
                die.unlink()
                self.run_suite().expect(passed=1)
                self.assertEqual(self.builds(), 2)
                self.run_suite().expect(passed=1)
                self.assertEqual(self.builds(), 2)
                self.assertEqual(self.names(), before)
