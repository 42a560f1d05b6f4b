"""``python -m dbtestcase``: doctor, server, prune."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
from sqlalchemy import make_url

from dbtestcase.server import cache, cluster_files, prune
from dbtestcase.server.cache import remove_clusters
from dbtestcase.server.cluster_files import remove_tree
from dbtestcase.server.folders import locked
from dbtestcase.settings import Settings
from tests.support.disposable import owner, scratch, seed, temporary, wait_for_end
from tests.support.mariadb import connect, require_mariadb
from tests.support.runners import inner_environment, run_python, start_python, without_progress, write_suite
from tests.support.servers import postgresql_url

SITE = """
    import os, pathlib
    from dbtestcase.server import folders

    folders.RAM = pathlib.Path(os.environ["PLACE"])
"""


class CommandLineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.cache = Path(self.enterContext(scratch()))
        seed(self.cache)
        self.temp = Path(self.enterContext(temporary()))
        self.temp.chmod(0o755)
        self.env = {"DBTESTCASE_CACHE": str(self.cache), "TMPDIR": str(self.temp)}

    def command(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run_python(["-W", "error", "-m", "dbtestcase", *arguments], cwd="/", env=self.env | env)

    def prune(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The command, which looks at a place of its own instead of where all runs of this machine have their servers.

        It would end those that wait for a next run of somebody's, and say what others' killed runs have left.
        """
        write_suite(self.temp, {"site/sitecustomize.py": SITE})
        path = f"{self.temp / 'site'}:{Path(__file__).parents[3]}"
        place = self.enterContext(scratch())
        return self.command("prune", *arguments, **{"PYTHONPATH": path, "PLACE": place}, **env)


class UsageTest(CommandLineTest):
    def test_without_a_command_it_says_which_there_are(self) -> None:
        done = self.command()
        self.assertEqual(done.returncode, 2)
        done = self.command("--help")
        self.assertEqual(done.returncode, 0)
        for name in ("doctor", "server", "prepare", "prune"):
            self.assertIn(name, done.stdout)

    def test_the_version(self) -> None:
        done = self.command("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"\Adbtestcase \S+, Python \d+\.\d+\.\d+\n\Z")

    def test_errors_are_told_without_a_traceback(self) -> None:
        done = self.command("server", DBTESTCASE_KEEP="always")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"\AConfigurationError: DBTESTCASE_KEEP is 'always'.*\nLikely cause.*\nWhat to do"
        )


class DoctorTest(CommandLineTest):
    def test_it_shows_what_would_be_used_and_tries_it(self) -> None:
        done = self.command("doctor")
        self.assertEqual(done.returncode, 0, done.stderr)
        for pattern in (
            r"(?m)^server +a disposable PostgreSQL \d+\.\d+$",
            r"(?m)^programs +/.*\(from .*\)$",
            rf"(?m)^cache +{self.cache}/\S+ \(no templates yet for this project, \d+ MiB\)$",
            r"(?m)^data +/\S+ \(\d+ MiB free\)",
            r"(?m)^tried +started in ",
            r"(?m)^libraries +SQLAlchemy \d\S*, psycopg \d",
        ):
            self.assertRegex(done.stdout, pattern)

    def test_a_missing_extra_comes_with_the_command_that_mends_it(self) -> None:
        (self.temp / "sitecustomize.py").write_text(
            "import importlib.util as u\nreal = u.find_spec\n"
            "u.find_spec = lambda name, *a: None if name == 'alembic' else real(name, *a)\n",
            encoding="utf-8",
        )
        path = inner_environment()["PYTHONPATH"]
        done = self.command("doctor", PYTHONPATH=f"{self.temp}{os.pathsep}{path}")
        self.assertRegex(done.stdout, r"(?m)^\[migrations\] missing \(.*\): pip install 'dbtestcase\[migrations\]'$")
        self.assertEqual(done.returncode, 0)

    def test_what_cannot_be_used_is_told_with_its_remedy_and_the_exit_status(self) -> None:
        done = self.command("doctor", DBTESTCASE_POSTGRES_BIN=str(self.temp))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, rf"(?s)ProgramsNotFound: The programs in {self.temp} cannot be used.*What to do:")

    def test_every_kind_of_url_is_tried(self) -> None:
        for url, pattern in {
            "sqlite://": r"answers: SQLite \S+, in memory\ntried +a test database was made there",
            f"sqlite:///{self.temp}/a.db": r"answers: SQLite \S+, in a file\ntried +a test database was made there",
            "postgresql+asyncpg://": r"server +a disposable PostgreSQL \d",
            "postgresql+psycopg:///blog": r"server +a disposable PostgreSQL \d",  # a name, but no server
        }.items():
            with self.subTest(url):
                done = self.command("doctor", DBTESTCASE_URL=url)
                self.assertRegex(done.stdout, pattern)
                self.assertEqual((done.returncode, without_progress(done.stderr)), (0, ""))

    def test_a_mariadb_that_is_asked_for_is_started(self) -> None:
        require_mariadb()
        done = self.command("doctor", DBTESTCASE_URL="mariadb+pymysql://")
        self.assertRegex(done.stdout, r"server +a disposable MariaDB \S+\ntried +started in ")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_what_is_not_supported_is_told(self) -> None:
        for url in ("mssql+pyodbc://x/y", "postgres://x/y", "postgresql+nodriver://x/y"):
            with self.subTest(url):
                done = self.command("doctor", DBTESTCASE_URL=url)
                self.assertRegex(done.stdout, "THIS CANNOT BE USED\n +ConfigurationError: DBTESTCASE_URL is ")
                self.assertEqual(done.returncode, 1)

    def test_a_server_by_url_is_asked(self) -> None:
        url = postgresql_url()
        done = self.command("doctor", DBTESTCASE_URL=url.render_as_string(hide_password=False))
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"answers: PostgreSQL \d+.*, as the role postgres")

    def test_a_server_that_does_not_answer_is_named_without_its_password(self) -> None:
        done = self.command("doctor", DBTESTCASE_URL="postgresql+psycopg://ada:secret@127.0.0.1:1/blog")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"ServerUnreachable: .* at host 127\.0\.0\.1, port 1 .*\*\*\*@127")
        self.assertNotIn("secret", done.stdout + done.stderr)

    def test_a_role_that_may_not_create_databases_is_told_so(self) -> None:
        url = postgresql_url()
        query: dict[str, Any] = dict(url.query)
        with psycopg.connect(**query, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute("DROP ROLE IF EXISTS doctor_test")
            connection.execute("CREATE ROLE doctor_test LOGIN")
            try:
                done = self.command("doctor", DBTESTCASE_URL=url.set(username="doctor_test").render_as_string())
            finally:
                connection.execute("DROP ROLE doctor_test")
        self.assertEqual(done.returncode, 1)
        self.assertIn("'doctor_test' may not create databases", done.stdout)


class ServerTest(CommandLineTest):
    @contextlib.contextmanager
    def server(self, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """The command, which goes on; it is killed at the end if it still does."""
        process = start_python(["-W", "error", "-m", "dbtestcase", "server", *arguments], env=self.env | env)
        with process:
            try:
                yield process
            finally:
                process.kill()

    def test_it_prints_its_url_and_runs_until_it_is_ended(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name), self.server() as process:
                assert process.stdout is not None and process.stderr is not None
                url = make_url(process.stdout.readline().strip())
                query: dict[str, Any] = dict(url.query)
                psycopg.connect(**query, user=url.username, dbname=url.database).close()
                process.send_signal(number)
                self.assertEqual(process.wait(60), 0)
                self.assertEqual(process.stdout.read(), "")
                self.assertRegex(process.stderr.read(), r"dbtestcase: .*export DBTESTCASE_URL='postgresql.*'\n\Z")
                self.assertFalse(Path(str(url.query["host"])).exists())

    def test_it_starts_the_kind_that_is_asked_for_or_that_the_url_names(self) -> None:
        require_mariadb()
        for arguments, url in ((["--kind", "mariadb"], ""), ([], "mariadb+pymysql://")):
            with self.subTest(url=url), self.server(*arguments, DBTESTCASE_URL=url) as process:
                assert process.stdout is not None
                found = make_url(process.stdout.readline().strip())
                self.assertEqual(found.get_backend_name(), "mariadb")
                connect(found, None).close()
                process.send_signal(signal.SIGINT)
                _, stderr = process.communicate(timeout=60)
                self.assertRegex(stderr, r"dbtestcase: MariaDB \d+\S* runs until Ctrl-C")

    def test_sqlite_has_no_server(self) -> None:
        done = self.command("server", DBTESTCASE_URL="sqlite:///shop.db")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("--kind postgresql", done.stderr)

    def test_a_server_that_ends_of_itself_is_reported(self) -> None:
        with self.server() as process:
            assert process.stdout is not None
            folder = Path(str(make_url(process.stdout.readline().strip()).query["host"]))
            postmaster = int((folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0])
            os.kill(postmaster, signal.SIGTERM)
            _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(stderr, r"(?s)ServerError: The disposable PostgreSQL .* has ended.*shutting down")
        self.assertFalse(folder.exists())


class PruneTest(CommandLineTest):
    def test_it_removes_the_cache_and_what_a_killed_run_left_and_says_so(self) -> None:
        # in the temp folder: whoever starts a server meanwhile would sweep the RAM folder first
        with owner(env=self.env | {"PLACE": str(self.temp)}) as run:
            os.kill(run.watcher, signal.SIGKILL)
            wait_for_end(run.server)
            run.kill(signal.SIGKILL)
            would = self.prune("--dry-run")
            self.assertTrue(run.folder.exists() and self.cache.exists())
            done = self.prune()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(f"would remove data that a killed run left: {run.folder}\n", would.stdout)
        self.assertEqual(would.stdout, done.stdout.replace("removed ", "would remove "))
        self.assertIn(f"removed data that a killed run left: {run.folder}\n", done.stdout)
        self.assertRegex(done.stdout, rf"(?m)^removed cached clusters: {self.cache}/postgresql-\S+ \(\d+ MB\)$")
        self.assertFalse(run.folder.exists() or self.cache.exists())
        self.cache.mkdir()
        self.assertEqual(self.prune().stdout, "nothing to remove\n")
        self.cache.mkdir(exist_ok=True)

    def test_it_leaves_a_run_that_is_alive_and_its_programs_alone(self) -> None:
        # in this process, so that the other runs of this machine do not count
        self.enterContext(mock.patch.object(prune, "_places", lambda: [self.temp]))
        base = self.temp / f"dbtestcase-{os.geteuid()}"
        with owner(env=self.env | {"PLACE": str(self.temp)}) as run:
            (base / "programs-18.6-0000").mkdir()
            self.assertEqual(self._prune(), [])
            self.assertEqual(len(run.traces()), 4)
        wait_for_end(run.watcher)
        copied = [f"copied programs: {path}" for path in sorted(base.glob("programs-[0-9]*"))]
        self.assertIn(f"copied programs: {base}/programs-18.6-0000", copied)
        self.assertEqual(self._prune(), copied)
        self.assertFalse(base.exists())

    def test_it_leaves_what_a_run_may_still_fetch_and_the_end_of_the_run_removes_it(self) -> None:
        with owner(env=self.env | {"PLACE": str(self.temp)}) as run:
            (folder,) = self.cache.glob("postgresql-*")
            (cluster,) = folder.glob("base-*")
            self.prune()
            self.assertEqual({*folder.iterdir()}, {folder / "lock", cluster})
            self.assertNotIn("clusters", self.prune("--dry-run").stdout)
            run.kill(signal.SIGTERM)
            wait_for_end(run.watcher)
        self.assertFalse(cluster.exists())
        self.prune()
        self.assertFalse(self.cache.exists())
        self.cache.mkdir()

    def test_a_run_that_starts_meanwhile_makes_its_cluster_anew_beside_what_is_being_removed(self) -> None:
        self.enterContext(mock.patch.object(prune, "_places", lambda: [self.temp]))
        (folder,) = self.cache.glob("postgresql-*")

        def starts(doomed: str) -> bool:
            with locked(folder / "lock"):
                (folder / "base-new").mkdir()
            return remove_tree(doomed)

        with mock.patch.object(cache, "remove_tree", starts):
            prune.prune_machine(Settings(cache=self.cache, cache_is_chosen=True))
        self.assertEqual({*folder.iterdir()}, {folder / "lock", folder / "base-new"})
        self.assertEqual([*self.cache.iterdir()], [folder])

    def test_a_cache_that_is_pruned_while_a_sweep_waits_is_not_swept_without_its_lock(self) -> None:
        (folder,) = self.cache.glob("postgresql-*")
        flock = fcntl.flock

        def later(descriptor: int, how: int) -> None:
            if (folder / "base.json").exists():
                remove_clusters(folder, [])
                with locked(folder / "lock"):
                    self.writes = self.enterContext(open(folder / "lock"))
                    (folder / "base-being-made").mkdir()
                flock(self.writes, fcntl.LOCK_EX)
            flock(descriptor, how)

        with mock.patch.object(cluster_files.fcntl, "flock", later):
            cluster_files.sweep_unless_busy(str(folder))
        self.assertTrue((folder / "base-being-made").exists())

    def test_it_leaves_programs_alone_that_somebody_runs_from_a_place_unknown(self) -> None:
        self.enterContext(mock.patch.object(prune, "_places", lambda: [self.temp]))
        programs = self.temp / f"dbtestcase-{os.geteuid()}" / "programs-18.6-0000"
        programs.mkdir(mode=0o700, parents=True)
        programs.parent.chmod(0o700)
        shutil.copy("/bin/sleep", programs)
        linked = self.temp / "linked"
        linked.symlink_to(self.temp)
        with subprocess.Popen([programs / "sleep", "60"]) as process:
            self.assertEqual(self._prune(), [])
            with mock.patch.object(prune, "_places", lambda: [linked]):
                self.assertEqual(self._prune(), [])
            process.kill()
        self.assertEqual(self._prune(), [f"copied programs: {programs}"])

    def test_it_removes_no_programs_without_their_lock_though_nobody_has_made_that_before(self) -> None:
        self.enterContext(mock.patch.object(prune, "_places", lambda: [self.temp]))
        base = self.temp / f"dbtestcase-{os.geteuid()}"
        (base / "making-0000").mkdir(mode=0o700, parents=True)
        base.chmod(0o700)
        remove = shutil.rmtree

        def held(path: Path) -> None:
            with open(base / "programs-being-copied", "a") as lock, self.assertRaises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)

        with mock.patch.object(prune.shutil, "rmtree", held):
            self.assertEqual(self._prune(), [f"copied programs: {base}/making-0000"])
        self.assertFalse(base.exists())

    def test_it_waits_for_a_run_that_copies_its_programs(self) -> None:
        self.enterContext(mock.patch.object(prune, "_places", lambda: [self.temp]))
        base = self.temp / f"dbtestcase-{os.geteuid()}"
        (base / "making-0000").mkdir(mode=0o700, parents=True)
        base.chmod(0o700)
        pruned: list[list[str]] = []
        thread = threading.Thread(target=lambda: pruned.append(self._prune()))
        with locked(base / "programs-being-copied"):
            thread.start()
            thread.join(0.1)  # what it does not do cannot be awaited
            (base / "making-0000").rename(base / "programs-18.6-0000")
        thread.join()
        self.assertEqual(pruned, [[f"copied programs: {base}/programs-18.6-0000"]])

    def _prune(self) -> list[str]:
        # a cache that is chosen: what runs of this machine have in the temp folder, without one, is theirs
        return prune.prune_machine(Settings(cache=self.temp / "none", cache_is_chosen=True))

    def test_leftovers_on_a_server_by_url_go_too(self) -> None:
        url = postgresql_url()
        done = self.prune(DBTESTCASE_URL=url.render_as_string(hide_password=False))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.cache.mkdir(exist_ok=True)
