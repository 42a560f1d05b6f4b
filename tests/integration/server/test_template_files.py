"""Templates whose files stay in the cache until somebody asks for them: none is cloned that lacks them."""

import itertools
import os
import shutil
import signal
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from unittest import mock

import psycopg

from dbtestcase.errors import ServerError
from dbtestcase.server import disposable_server, template_files
from dbtestcase.server.cache import ClusterCache
from dbtestcase.server.cluster_files import Unreadable, publish
from dbtestcase.server.postgresql import PostgreSQLServer
from dbtestcase.server.watcher import Watcher
from dbtestcase.settings import Settings, read_settings
from tests.support.disposable import Owner, owner, scratch, seed, wait_for_end
from tests.support.samples import a_share

NAMES = [f"dbtestcase_template_{number:031x}" for number in range(3)]
FIRST, SECOND, LAST = NAMES


def connect(server: PostgreSQLServer, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
    """The judge's own connection."""
    host = str(server.data.parent)
    return psycopg.connect(host=host, port=5432, user="postgres", dbname=database, autocommit=True)


def run(server: PostgreSQLServer, statement: str) -> None:
    with connect(server) as connection:
        connection.execute(statement.encode())


def add_template(server: PostgreSQLServer, name: str) -> None:
    """A template that holds its own name."""
    run(server, f"CREATE DATABASE {name}")
    with connect(server, name) as connection:
        connection.execute(f"CREATE TABLE own AS SELECT '{name}' AS name".encode())
    run(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")


def clone(server: PostgreSQLServer, template: str, database: str = "clone") -> str:
    """What is in a database made of the template."""
    strategy = "STRATEGY FILE_COPY" if int(server.version.split(".")[0]) >= 15 else ""
    run(server, f"CREATE DATABASE {database} TEMPLATE {template} {strategy}")
    with connect(server, database) as connection:
        row = connection.execute("SELECT name FROM own").fetchone()
    run(server, f"DROP DATABASE {database}")
    assert row is not None
    return str(row[0])


class Cached(unittest.TestCase):
    """A cache with three templates, made once for a class; each test has a copy."""

    made: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.made = Path(cls.enterClassContext(scratch()))
        seed(cls.made)
        with cls.start_on(cls.made) as server:
            for name in NAMES:
                add_template(server, name)
            server.persist()

    def setUp(self) -> None:
        self.root = Path(self.enterContext(scratch()))
        shutil.copytree(self.made, self.root, copy_function=os.link, dirs_exist_ok=True)  # nobody writes into them
        self.said: list[str] = []
        for module in ("cache", "postgresql"):
            self.enterContext(mock.patch(f"dbtestcase.server.{module}.say", self.said.append))
        self.was_used(LAST)

    @staticmethod
    @contextmanager
    def start_on(root: Path, *, on_demand: bool = True) -> Iterator[PostgreSQLServer]:
        settings = Settings(postgres_bin=read_settings().postgres_bin, cache=root, cache_is_chosen=True)
        with disposable_server(settings, on_demand=on_demand) as server:
            assert isinstance(server, PostgreSQLServer)
            assert server.fetch("")
            yield server

    def start(self, *, on_demand: bool = True) -> PostgreSQLServer:
        return self.enterContext(self.start_on(self.root, on_demand=on_demand))

    @property
    def cache(self) -> ClusterCache:
        (folder,) = self.root.iterdir()
        return ClusterCache(self.root, folder.name)

    def source(self, name: str) -> Path:
        """The folder of a template in the cache."""
        cluster = self.cache.read(self.cache.project)
        assert cluster is not None
        files = cluster.templates[name]
        assert files is not None
        return cluster.folder / files.folder

    def was_used(self, name: str) -> None:
        """A run before has asked for this template, and for no other after it."""
        for each in NAMES:
            os.utime(self.source(each), (1e9 + (each == name), 1e9 + (each == name)))

    def not_copied(self, server: PostgreSQLServer) -> list[str]:
        """The templates whose files are not there, as the folders of the data show them."""
        with connect(server) as connection:
            databases = connection.execute("SELECT datname, oid FROM pg_database ORDER BY 1").fetchall()
        return [str(name) for name, oid in databases if not (server.data / f"base/{oid}/PG_VERSION").exists()]


class TemplateFilesTest(Cached):
    def test_what_was_used_last_is_copied_at_the_start_and_the_rest_on_demand(self) -> None:
        server = self.start()
        self.assertEqual(self.not_copied(server), [FIRST, SECOND])
        self.assertEqual(clone(server, LAST), LAST)
        for name in (LAST, SECOND, SECOND):
            self.assertTrue(server.fetch(name))
            self.assertEqual(clone(server, name), name)
        self.assertEqual(self.not_copied(server), [FIRST])
        server.close()
        self.assertEqual(self.not_copied(self.start()), [FIRST, LAST])

    def test_what_a_database_is_made_from_by_default_is_copied_after_the_start(self) -> None:
        with self.start_on(self.root) as server:
            for number, template in enumerate(("template1", "template0")):
                run(server, f"CREATE DATABASE own{number} TEMPLATE {template}")
            cluster = self.cache.read(self.cache.project)
            assert cluster is not None
            for folder in ("base/1", "base/4") if int(server.version.split(".")[0]) >= 15 else ():
                self.assertEqual(
                    set(os.listdir(cluster.folder / folder)) - set(os.listdir(server.data / folder)), set()
                )
            server.fetch("")
            server.fetch_all()

    def test_a_server_whose_settings_somebody_has_altered_is_not_kept(self) -> None:
        with self.start_on(self.root) as server:
            add_template(server, "altered")
            run(server, "ALTER SYSTEM SET default_transaction_read_only = on")
            server.persist()
        self.assertIn("ALTER SYSTEM has set default_transaction_read_only", "".join(self.said))
        cluster = self.cache.read(self.cache.project)
        assert cluster is not None
        self.assertEqual(set(cluster.templates), set(NAMES))

    def test_where_that_cannot_be_copied_no_database_is_made(self) -> None:
        gone = {"event": "incomplete", "text": "base/1: No such file or directory"}
        with self.start_on(self.root) as server:
            server._is_complete, server._completed = False, None
            with mock.patch.object(server._watcher, "event", return_value=gone):
                for ask in (lambda: server.fetch(""), server.fetch_all, server.persist):
                    self.assertRaisesRegex(ServerError, "base/1: No such file", ask)
            server._is_complete = True

    def test_a_watcher_that_cannot_copy_it_says_so(self) -> None:
        own = self.root / "run.own"
        own.mkdir()
        watcher = Watcher(os.getpid(), str(self.root / "run"), "", -1, -1)
        watcher.later = {"base/1": str(self.root / "nowhere")}
        with mock.patch.object(watcher, "say") as said:
            watcher.complete()
        said.assert_called_once_with("incomplete", text=f"{self.root / 'nowhere'}: No such file or directory")
        self.assertEqual(os.listdir(own), [])

    def test_no_road_makes_a_database_of_what_is_not_there(self) -> None:
        server = self.start()
        strategies = [""]
        if int(server.version.split(".")[0]) >= 15:
            strategies += [" STRATEGY FILE_COPY", " STRATEGY WAL_LOG"]
        for strategy in strategies:
            with self.subTest(strategy), self.assertRaisesRegex(psycopg.Error, "could not open file"):
                run(server, f"CREATE DATABASE clone TEMPLATE {FIRST}{strategy}")
        run(server, f"ALTER DATABASE {FIRST} ALLOW_CONNECTIONS true")
        with self.assertRaisesRegex(psycopg.OperationalError, "is not a valid data directory"):
            connect(server, FIRST)
        with connect(server) as connection:
            self.assertIsNone(connection.execute("SELECT FROM pg_database WHERE datname = 'clone'").fetchone())

    def test_who_did_not_say_that_it_fetches_has_all_of_them(self) -> None:
        server = self.start(on_demand=False)
        self.assertEqual(self.not_copied(server), [])
        self.assertEqual([clone(server, name) for name in NAMES], NAMES)

    def test_a_server_that_is_kept_or_stays_has_all_of_them(self) -> None:
        for hand_over in (PostgreSQLServer.keep, lambda server: server.stay(60.0, "00000000")):
            with self.subTest(hand_over), self.start_on(self.root) as server:
                with mock.patch.object(server._watcher, "order"):
                    hand_over(server)
                self.assertEqual(self.not_copied(server), [])

    def test_a_new_template_is_kept_with_all_the_others(self) -> None:
        new = f"dbtestcase_template_{99:031x}"
        server = self.start()
        add_template(server, new)
        server.persist()
        server.close()
        self.assertEqual(self.said, [])
        again = self.start()
        self.assertEqual(len(self.not_copied(again)), 3)
        for name in (*NAMES, new):
            self.assertTrue(again.fetch(name))
            self.assertEqual(clone(again, name), name)

    def test_a_folder_that_is_not_complete_is_never_kept(self) -> None:
        server = self.start()
        with connect(server) as connection:
            row = connection.execute(f"SELECT oid FROM pg_database WHERE datname = '{FIRST}'".encode()).fetchone()
        assert row is not None
        note = self.cache.note({FIRST: f"base/{row[0]}"})
        before = self.cache.read(self.cache.project)
        with self.cache.changing(), self.assertRaises(Unreadable):
            publish(str(server.data), str(self.cache.project), note)
        self.assertEqual(self.cache.read(self.cache.project), before)
        self.assertTrue(self.source(FIRST).is_dir())

    def test_what_is_gone_from_the_cache_is_said_not_to_be_there(self) -> None:
        server = self.start()
        shutil.rmtree(self.root)
        self.assertFalse(server.fetch(FIRST))
        self.assertTrue(server.fetch(LAST))
        server.fetch_all()
        self.assertEqual(self.not_copied(server), [FIRST])
        with self.assertRaisesRegex(psycopg.ProgrammingError, "does not exist"):
            run(server, f"CREATE DATABASE clone TEMPLATE {SECOND}")

    def test_one_that_has_lost_a_file_is_not_used_and_said_to_be_broken(self) -> None:
        server = self.start()
        (self.source(FIRST) / "pg_filenode.map").unlink()
        self.assertFalse(server.fetch(FIRST))
        self.assertRegex(self.said[0], r"cached cluster .* is broken \(.*base/\d+ has \d+ files of \d+")
        self.assertIn(FIRST, self.not_copied(server))

    def test_nothing_comes_back_for_a_database_that_was_dropped(self) -> None:
        server = self.start()
        before = set(os.listdir(server.data / "base"))
        run(server, f"DROP DATABASE {FIRST}")
        self.assertFalse(server.fetch(FIRST))
        self.assertEqual(len(before - set(os.listdir(server.data / "base"))), 1)
        server.fetch_all()
        self.assertEqual(self.not_copied(server), [])

    def test_another_run_that_writes_to_the_cache_takes_nothing_away(self) -> None:
        server, other = self.start(), self.start()
        old = self.source(FIRST).parent.parent
        add_template(other, f"dbtestcase_template_{77:031x}")
        other.persist()
        other.close()
        self.assertNotEqual(self.source(FIRST).parent.parent, old)
        self.assertTrue(server.fetch(FIRST))
        self.assertEqual(clone(server, FIRST), FIRST)
        self.assertTrue(old.is_dir())
        server.close()
        self.assertFalse(old.is_dir(), "its watcher was the last to hold it")

    def test_a_cluster_whose_last_reader_was_killed_is_removed_by_the_next(self) -> None:
        old = self.source(FIRST).parent.parent
        with owner("signal.pause()", env={"DBTESTCASE_CACHE": str(self.root), "ON_DEMAND": "1"}) as process:
            with self.start_on(self.root) as other:
                add_template(other, f"dbtestcase_template_{77:031x}")
                other.persist()
            self.assertTrue(old.is_dir())
            os.kill(process.watcher, signal.SIGKILL)
            wait_for_end(process.watcher, process.server)
        self.start()
        self.assertFalse(old.is_dir())

    def test_a_full_place_is_an_error_and_leaves_things_as_they_were(self) -> None:
        server = self.start()

        def full(source: str, target: str, *_: object) -> None:
            os.mkdir(target)
            raise OSError(28, "No space left on device", target)

        with mock.patch.object(template_files, "copy_tree", full), self.assertRaisesRegex(ServerError, "No space left"):
            server.fetch(FIRST)
        self.assertTrue(server.fetch(FIRST))
        self.assertEqual(clone(server, FIRST), FIRST)

    def test_an_interrupt_leaves_things_as_they_were(self) -> None:
        server = self.start()
        with mock.patch.object(template_files, "copy_tree", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, server.fetch, FIRST)
        self.assertEqual(self.not_copied(server), [FIRST, SECOND])
        self.assertTrue(server.fetch(FIRST))
        with mock.patch("os.rename", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, server.fetch, SECOND)
        self.assertFalse(server.fetch(SECOND), "it is made again")


#: Where a fetch stops, and says so.
STOPS = {
    "before the first file": "template_files.copy_tree = lambda *_: stop()",
    "in the middle": """
        original = cluster_files._Copying.file
        def file(self, name, *rest):
            if name == "PG_VERSION":
                stop()
            return original(self, name, *rest)
        cluster_files._Copying.file = file
        """,
    "when it is copied": "template_files.put = lambda *_: stop()",
    "between the two steps": "os.rename = lambda *_, **__: stop()",
}


class KilledTest(Cached):
    """Whoever is killed while files are fetched leaves nothing, and the next run has what it needs."""

    @contextmanager
    def fetching(self, stop: str) -> Iterator[Owner]:
        self.was_used(LAST)
        more = """
            from dbtestcase.server import cluster_files, template_files
            def stop():
                say("fetching")
                signal.pause()
            """
        env = {"DBTESTCASE_CACHE": str(self.root), "ON_DEMAND": "1"}
        code = dedent(more) + dedent(stop) + f"\nserver.fetch({FIRST!r})"
        with owner(code, env=env) as process:
            self.assertEqual(process.line(), "fetching")
            yield process

    def test_the_owner_or_its_watcher(self) -> None:
        for place, who in a_share(itertools.product(STOPS, ("owner", "watcher")), 3):
            with self.subTest(place, killed=who), self.fetching(STOPS[place]) as process:
                if who == "owner":
                    process.kill(signal.SIGKILL)
                else:
                    os.kill(process.watcher, signal.SIGKILL)
                    wait_for_end(process.server)
                    process.kill(signal.SIGKILL)
                wait_for_end(process.watcher, process.server)
                with self.start_on(self.root) as server:  # sweeps
                    self.assertEqual(process.traces(), [])
                    self.assertTrue(server.fetch(FIRST))
                    self.assertEqual(clone(server, FIRST), FIRST)
        self.assertEqual(self.said, [])


if __name__ == "__main__":
    unittest.main()
