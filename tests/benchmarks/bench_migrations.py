"""What 200 revisions cost a run: python -m tests.benchmarks.bench_migrations

Whole processes with one test, side by side: a project of 200 revisions and one of 2, when the template is there (warm)
and when it is not (cold); beside plain `alembic upgrade head`, and beside the common practice: per run create a
database, `upgrade head`, drop it.  All on one server that is already running.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.benchmarks.measure import finish, in_turns, print_table, process_seconds, shared_server, verdict
from tests.support.alembic_projects import AlembicProject
from tests.support.runners import run_python, write_suite

ROUNDS = 7

OURS = """
    from sqlalchemy import text
    from dbtestcase import MigratedDatabaseTest

    class HeadTest(MigratedDatabaseTest):
        def test(self):
            self.assertEqual(self.session.scalar(text("SELECT version_num FROM alembic_version")), "{head}")
"""
PER_RUN = """
    import os, unittest
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, make_url, text

    def setUpModule():
        global engine
        server = make_url(os.environ["DBTESTCASE_URL"])
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        unittest.addModuleCleanup(admin.dispose)
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE per_run"))
        unittest.addModuleCleanup(drop, admin)
        url = server.set(database="per_run")
        config = Config("alembic.ini")
        config.set_main_option("sqlalchemy.url", url.render_as_string(False).replace("%", "%%"))
        command.upgrade(config, "head")
        engine = create_engine(url)
        unittest.addModuleCleanup(engine.dispose)

    def drop(admin):
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE per_run"))

    class HeadTest(unittest.TestCase):
        def test(self):
            with engine.connect() as connection:
                version = connection.scalar(text("SELECT version_num FROM alembic_version"))
            self.assertEqual(version, "{head}")
"""


# Down to base and up to head again: in a test, and by Alembic's own commands on a database that is at head.
STEPS = """
    import time
    from dbtestcase import MigratedDatabaseTest

    class StepsTest(MigratedDatabaseTest):
        def test(self):
            self.current_revision()  # imports Alembic and the revisions
            began = time.perf_counter()
            self.downgrade("base")
            self.upgrade("head")
            print("seconds", time.perf_counter() - began)
"""
PLAIN_STEPS = """
    import time
    from alembic import command
    from alembic.config import Config

    command.upgrade(Config("alembic.ini"), "head")
    began = time.perf_counter()
    command.downgrade(Config("alembic.ini"), "base")
    command.upgrade(Config("alembic.ini"), "head")
    print("seconds", time.perf_counter() - began)
"""


def write_project(folder: Path, count: int) -> AlembicProject:
    """A project whose revisions make a table, alter it three times, and so on."""
    folder.mkdir()
    project = AlembicProject(folder)
    down = None
    for number in range(1, count + 1):
        identifier, table = f"{number:04}", f"t{(number - 1) // 4}"
        match number % 4:
            case 1:
                up = f'op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=1), sa.Column("a", sa.Text))'
                back = f'op.drop_table("{table}")'
            case 2:
                up = f'op.add_column("{table}", sa.Column("b", sa.Numeric(10, 2), server_default="0", nullable=False))'
                back = f'op.drop_column("{table}", "b")'
            case 3:
                up = f'op.create_index("ix_{table}_a", "{table}", ["a"])'
                back = f'op.drop_index("ix_{table}_a", table_name="{table}")'
            case _:
                up = f"op.execute(\"UPDATE {table} SET a = 'x' WHERE b > 0\")\n"
                up += f'op.create_check_constraint("ck_{table}_b", "{table}", "b >= 0")'
                back = f'op.drop_constraint("ck_{table}_b", "{table}", type_="check")'
        project.revision(identifier, down, up, back)
        down = identifier
    # Alembic's own programs find the database where the common practice has them find it.
    url = 'config.set_main_option("sqlalchemy.url", os.environ["PLAIN"]) if "PLAIN" in os.environ else None'
    project.replace("target_metadata = None", f"import os\n{url}\ntarget_metadata = None")
    suites = {"test_ours.py": OURS.format(head=down), "test_per_run.py": PER_RUN.format(head=down)}
    write_suite(folder, {**suites, "test_steps.py": STEPS, "plain_steps.py": PLAIN_STEPS})
    return project


def printed_seconds(arguments: Sequence[str], folder: Path, env: Mapping[str, str]) -> float:
    """What a process says that it has taken."""
    done = run_python(arguments, cwd=folder, env=env, new=True)
    found = re.search(r"^seconds (.+)$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout + done.stderr
    return float(found[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as root, shared_server() as (server, env):
        small, large = write_project(Path(root, "small"), 2), write_project(Path(root, "large"), 200)
        admin = create_engine(server.url, isolation_level="AUTOCOMMIT")
        counter = itertools.count()
        env["DBTESTCASE_CACHE"] = str(Path(root, "cache"))
        ours = ["-m", "unittest", "test_ours"]

        def cold(project: AlembicProject) -> float:
            """Another env.py: no template has been made for it."""
            project.env_py.write_text(f"{project.env_py.read_text()}# {next(counter)}\n")
            return process_seconds(ours, project.folder, env)

        def plain(project: AlembicProject, measure: Callable[..., float], *arguments: str) -> float:
            """Alembic alone, on an empty database that is there."""
            with admin.connect() as connection:
                connection.execute(text("CREATE DATABASE plain"))
            url = server.url.set(database="plain").render_as_string(False).replace("%", "%%")
            seconds = measure(arguments, project.folder, {**env, "PLAIN": url})
            with admin.connect() as connection:
                connection.execute(text("DROP DATABASE plain"))
            return seconds

        found = in_turns(
            {
                "warm, 2 revisions": partial(process_seconds, ours, small.folder, env),
                "warm, 200 revisions": partial(process_seconds, ours, large.folder, env),
                "plain alembic upgrade head, 200": partial(
                    plain, large, process_seconds, "-m", "alembic", "upgrade", "head"
                ),
                "cold, 200 revisions": partial(cold, large),
                "create, upgrade head, drop per run, 200": partial(
                    process_seconds, ["-m", "unittest", "test_per_run"], large.folder, env
                ),
                "200 down and up in a test": partial(
                    printed_seconds, ["-m", "unittest", "test_steps"], large.folder, env
                ),
                "200 down and up by Alembic": partial(plain, large, printed_seconds, "plain_steps.py"),
                # Each cold run changed env.py; the warm one after it must find a template again.
                "(template of the next warm run)": partial(process_seconds, ours, large.folder, env),
            },
            ROUNDS,
        )
        admin.dispose()
    warm = found["warm, 200 revisions"]
    per_run = found["create, upgrade head, drop per run, 200"]
    plain_upgrade = found["plain alembic upgrade head, 200"]
    steps = found["200 down and up in a test"] / found["200 down and up by Alembic"]
    remarks = {
        "200 down and up in a test": f"{steps:.2f} times Alembic's own",
        "warm, 200 revisions": f"{warm / found['warm, 2 revisions']:.2f} times 2 revisions",
        "cold, 200 revisions": f"{found['cold, 200 revisions'] / plain_upgrade:.2f} times plain",
        "create, upgrade head, drop per run, 200": f"{per_run / warm:.1f} times warm",
    }
    print_table("A whole process with one test", [(name, found[name], remarks.get(name, "")) for name in found][:-1])
    finish(
        [
            verdict("warm with 200 revisions / with 2", warm / found["warm, 2 revisions"], 1.05),
            verdict("200 revisions down and up in a test / by Alembic", steps, 1.1),
            verdict(
                "cold / plain alembic upgrade head",
                found["cold, 200 revisions"] / plain_upgrade,
                1.1,
            ),
        ]
    )


if __name__ == "__main__":
    main()
