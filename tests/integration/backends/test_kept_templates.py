"""Templates made in a run's copy are found by the next run, whatever becomes of the run that made them."""

import contextlib
import json
import signal
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg

from dbtestcase.server import Server, disposable_server
from dbtestcase.server.postgresql import PostgreSQLServer
from dbtestcase.settings import Settings, read_settings
from tests.support.disposable import owner, scratch, seed, wait_for_end

MAKE_TEMPLATE = """
    import psycopg
    c = psycopg.connect(host=str(server.data.parent), port=5432, user="postgres", dbname="postgres", autocommit=True)
    c.execute("CREATE DATABASE kept ALLOW_CONNECTIONS false")
    server.persist()
    say("asked")
    signal.pause()
"""


def connect(server: Server, database: str = "postgres") -> psycopg.Connection[Any]:
    query: dict[str, Any] = dict(server.url.query)
    return psycopg.connect(**query, user="postgres", dbname=database, autocommit=True)


def databases(server: Server) -> set[str]:
    with connect(server) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")} - {
            "postgres",
            "template0",
            "template1",
        }


def make_template(server: Server, name: str) -> None:
    with connect(server) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    with connect(server, name) as connection:
        connection.execute("CREATE TABLE post AS SELECT 1 AS id")
    with connect(server) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')


class KeptTemplatesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.cache = Path(self.enterContext(scratch()))
        seed(self.cache)
        self.settings = Settings(postgres_bin=read_settings().postgres_bin, cache=self.cache, cache_is_chosen=True)

    def server(self) -> PostgreSQLServer:
        server = self.enterContext(disposable_server(self.settings))
        assert isinstance(server, PostgreSQLServer)
        return server

    def pointers(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text(encoding="utf-8")) for path in self.cache.glob("*/project-*.json")]

    def test_the_next_run_finds_the_template_with_its_tables_and_no_other_database(self) -> None:
        server = self.server()
        make_template(server, "kept")
        with connect(server) as connection:
            connection.execute('CREATE DATABASE "a ""quoted"" clone" TEMPLATE kept')
        server.persist()
        server.close()
        server = self.server()
        self.assertEqual(databases(server), {"kept"})
        with connect(server) as connection:
            connection.execute("CREATE DATABASE clone TEMPLATE kept")
        with connect(server, "clone") as connection:
            self.assertEqual(connection.execute("SELECT id FROM post").fetchall(), [(1,)])

    def test_the_run_goes_on_while_and_after_its_template_is_kept(self) -> None:
        server = self.server()
        make_template(server, "kept")
        with connect(server) as idle:
            server.persist()
            self.assertEqual(idle.execute("SELECT 1").fetchall(), [(1,)])
            idle.execute("CREATE DATABASE clone TEMPLATE kept")
        self.assertEqual(databases(server), {"kept", "clone"})

    def test_a_kill_right_after_loses_nothing(self) -> None:
        with owner(MAKE_TEMPLATE, env={"DBTESTCASE_CACHE": str(self.cache)}) as run:
            self.assertEqual(run.line(), "asked")
            run.kill(signal.SIGKILL)
            wait_for_end(run.watcher, run.server)
            self.assertEqual(run.traces(), [])
        self.assertEqual(databases(self.server()), {"kept"})

    def test_what_is_known_is_not_written_again(self) -> None:
        server = self.server()
        make_template(server, "kept")
        server.persist()
        server.close()
        before = self.pointers()
        server = self.server()
        server.persist()
        server.close()
        self.assertEqual(self.pointers(), before)
        self.assertEqual(list(before[0]["templates"]), ["kept"])

    def test_a_run_that_made_nothing_leaves_the_cache_alone(self) -> None:
        server = self.server()
        server.persist()
        server.close()
        self.assertEqual(self.pointers(), [])

    def test_of_two_runs_at_once_the_last_wins_and_a_later_one_unites(self) -> None:
        one, other = self.server(), self.server()
        make_template(one, "first")
        make_template(other, "second")
        one.persist()
        one.close()
        other.persist()
        other.close()
        server = self.server()
        self.assertEqual(databases(server), {"second"})
        make_template(server, "first")
        server.persist()
        server.close()
        self.assertEqual(databases(self.server()), {"first", "second"})
        self.assertEqual(len(list(self.cache.glob("*/project-*/PG_VERSION"))), 1, "replaced clusters are removed")

    def test_while_something_is_written_the_end_of_the_run_keeps_it(self) -> None:
        server = self.server()
        make_template(server, "kept")
        positions = iter(range(1000))
        with mock.patch("dbtestcase.server.postgresql._position", side_effect=lambda _: str(next(positions))):
            server.persist()
        self.assertEqual(list(server.data.parent.glob("stage-*")), [])
        server.close()
        self.assertEqual(databases(self.server()), {"kept"})

    def test_projects_do_not_copy_each_others_templates(self) -> None:
        here, there = (Path(self.enterContext(tempfile.TemporaryDirectory())) for _ in range(2))
        (here / "setup.cfg").touch()
        (here / "tests").mkdir()
        with contextlib.chdir(here / "tests"):
            server = self.server()
            make_template(server, "kept")
            server.persist()
            server.close()
        for folder, expected in ((here, {"kept"}), (there, set())):
            with self.subTest(expected), contextlib.chdir(folder):
                self.assertEqual(databases(self.server()), expected)

    def test_a_template_that_cannot_be_kept_is_said_and_the_run_passes(self) -> None:
        server = self.server()
        make_template(server, "kept")
        lines: list[str] = []
        with mock.patch("dbtestcase.server.postgresql.say", lines.append):
            for base in self.cache.glob("*"):
                (base / "lock").unlink()
                (base / "lock").mkdir()
            server.persist()
            server.close()
        self.assertRegex("\n".join(lines), "the new templates are not kept for the next runs: .*Is a directory")

    def test_nothing_is_kept_without_a_cache(self) -> None:
        self.settings = Settings(postgres_bin=self.settings.postgres_bin)
        server = self.server()
        make_template(server, "kept")
        server.persist()
        server.close()
        self.assertEqual(self.pointers(), [])
