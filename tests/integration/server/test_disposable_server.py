"""A disposable PostgreSQL: what one gets, and what is said when one does not get it."""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy

from dbtestcase.errors import ConfigurationError, DBTestCaseError, ServerError, ServerStartFailed
from dbtestcase.reporting import progress
from dbtestcase.server import Server, account, base, disposable_server, postgresql, register
from dbtestcase.server.account import server_account
from dbtestcase.server.folders import RunFolder
from dbtestcase.settings import Settings, read_settings
from tests.support.disposable import scratch, seed, wrap_programs, write_program
from tests.support.requirements import require


class DisposableServerTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.place = Path(self.enterContext(scratch()))
        self.place.chmod(0o755)
        self.cache = Path(self.enterContext(scratch()))
        seed(self.cache)
        self.settings = Settings(postgres_bin=read_settings().postgres_bin, cache=self.cache, cache_is_chosen=True)
        self.places = [self.place]
        self.enterContext(mock.patch.object(base, "run_places", lambda _: self.places))
        self.said: list[str] = []
        self.enterContext(mock.patch.object(base, "say", self.said.append))

    @contextlib.contextmanager
    def assertFailsWithThreeParts(self, kind: type[DBTestCaseError], pattern: str) -> Iterator[None]:
        """The block raises it, all three parts are there, and nothing is left behind."""
        with self.assertRaisesRegex(kind, f"(?s){pattern}") as caught:
            yield
        error: Any = caught.exception
        self.assertTrue(error.what and error.cause and error.remedy, error)
        self.assertEqual([path for place in self.places for path in place.glob("dbtestcase-*")], [])


class ServerTest(DisposableServerTestCase):
    def query(self, server: Server, query: str) -> Any:
        engine = sqlalchemy.create_engine(server.url, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            return connection.execute(sqlalchemy.text(query)).scalar()

    def test_its_url_reaches_it_as_a_superuser(self) -> None:
        with disposable_server(self.settings) as server:
            self.assertEqual(server.url.drivername, "postgresql+psycopg")
            self.assertEqual(server.url.database, "postgres")
            version = self.query(server, "SHOW server_version")
            self.assertTrue(version == server.version or version.startswith(f"{server.version} "), version)
            self.assertEqual(self.query(server, "SHOW is_superuser"), "on")
            self.assertEqual(self.query(server, "SHOW data_directory"), str(server.data))

    def test_the_variables_of_libpq_do_not_lead_it_astray(self) -> None:
        with mock.patch.dict(os.environ, PGPORT="1", PGHOST="db", PGDATA="/nowhere", PGUSER="ada"):
            with disposable_server(self.settings) as server:
                self.assertEqual(self.query(server, "SELECT 1"), 1)

    def test_it_listens_on_a_unix_socket_in_a_private_folder_only(self) -> None:
        with disposable_server(self.settings) as server:
            self.assertEqual(self.query(server, "SHOW listen_addresses"), "")
            self.assertEqual(server.data.parent.stat().st_mode & 0o777, 0o700)

    def test_text_is_sorted_and_changed_as_unicode_wherever_it_runs(self) -> None:
        with (
            mock.patch.dict(os.environ, LC_ALL="POSIX", LANG="de_DE.UTF-8"),
            disposable_server(self.settings) as server,
        ):
            self.assertEqual(self.query(server, "SELECT upper('é')"), "É")
            self.assertEqual(self.query(server, "SHOW server_encoding"), "UTF8")
            self.assertEqual(self.query(server, "SHOW timezone"), "UTC")

    def test_parallel_plans_and_two_phase_commits_work(self) -> None:
        with disposable_server(self.settings) as server:
            self.assertEqual(self.query(server, "SHOW dynamic_shared_memory_type"), "mmap")
            self.assertGreater(int(self.query(server, "SHOW max_prepared_transactions")), 0)

    def test_a_folder_with_a_quote_and_a_blank_in_its_name_will_do(self) -> None:
        self.places = [self.place / "it's a place"]
        self.places[0].mkdir()
        self.places[0].chmod(0o755)
        with disposable_server(self.settings) as server:
            self.assertEqual(self.query(server, "SELECT 1"), 1)

    def test_a_kind_of_server_that_nobody_knows_is_named(self) -> None:
        with self.assertFailsWithThreeParts(ConfigurationError, "'oracle' cannot be started.*known are .*postgresql"):
            disposable_server(self.settings, kind="oracle")

    def test_another_kind_is_found_in_the_module_that_was_registered(self) -> None:
        with mock.patch.dict("dbtestcase.server.disposable._MODULES"):
            register("other", "dbtestcase.server.postgresql")
            with disposable_server(self.settings, kind="other") as server:
                self.assertEqual(self.query(server, "SELECT 1"), 1)


class RoomTest(DisposableServerTestCase):
    def full(self, size: str) -> Path:
        """A folder on a file system of its own, of that size."""
        folder = Path(self.enterContext(scratch()))
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder], capture_output=True, check=False
        )
        require(mounted.returncode == 0, "the right to mount a file system", "run the tests as root")
        self.addCleanup(subprocess.run, ["umount", folder], check=True)
        return folder

    def pretend(self) -> None:
        """Let every place seem to have room."""
        self.enterContext(mock.patch.object(base, "room_in", lambda place: 1 << 40))

    def test_a_place_without_room_gives_way_to_the_next_and_that_is_said(self) -> None:
        self.places = [self.full("20m"), self.place]
        with disposable_server(self.settings) as server:
            self.assertTrue(server.data.is_relative_to(self.place))
        (line,) = self.said
        self.assertRegex(
            line, rf"data is in {self.place}: there is no room for \d+ MiB in {self.places[0]} \(20 MiB free"
        )

    def test_so_does_a_place_that_turns_out_to_be_full_while_it_is_written(self) -> None:
        self.places = [self.full("20m"), self.place]
        self.pretend()
        with disposable_server(self.settings) as server:
            self.assertTrue(server.data.is_relative_to(self.place))
        self.assertEqual(list(self.places[0].iterdir()), [])

    def test_so_does_one_that_is_full_while_a_cluster_is_initialised(self) -> None:
        self.places = [self.full("20m"), self.place]
        self.pretend()
        with disposable_server(Settings(postgres_bin=self.settings.postgres_bin)) as server:
            self.assertTrue(server.data.is_relative_to(self.place))

    def test_no_place_with_room_is_an_error_that_names_them_all(self) -> None:
        self.places = [self.full("20m"), self.full("10m")]
        one, other = self.places
        with self.assertFailsWithThreeParts(ServerError, f"no room.*{one}: 20 MiB free, {other}: 10 MiB free.*TMPDIR"):
            disposable_server(self.settings)

    def test_no_place_at_all_is_an_error(self) -> None:
        self.places = []
        with self.assertFailsWithThreeParts(ServerError, "no folder can be written"):
            disposable_server(self.settings)

    def test_a_place_that_cannot_be_written_is_an_error_that_names_it(self) -> None:
        error = OSError(24, "Too many open files")
        with mock.patch.object(RunFolder, "create", side_effect=error):
            with self.assertFailsWithThreeParts(
                ServerError, f"cannot be written to {self.place}: .*Too many open files"
            ):
                disposable_server(self.settings)


class StartFailureTest(DisposableServerTestCase):
    def programs(self, **scripts: str) -> Settings:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        return Settings(postgres_bin=wrap_programs(folder, scripts), cache=self.cache, cache_is_chosen=True)

    def test_a_server_that_does_not_start_is_quoted(self) -> None:
        settings = self.programs(postgres='case "$1" in -D) echo "FATAL:  no luck" >&2; exit 1;; esac')
        with self.assertFailsWithThreeParts(ServerStartFailed, "does not start on .*FATAL:  no luck.*doctor"):
            disposable_server(settings)
        with disposable_server(self.settings):
            self.assertEqual(self.said, [], "the cluster was not taken for broken")

    def test_a_server_that_says_nothing_is_given_up(self) -> None:
        settings = self.programs(postgres='case "$1" in -D) exec sleep 60;; esac')
        with mock.patch.object(base, "START_SECONDS", 0.2):
            with self.assertFailsWithThreeParts(ServerStartFailed, "did not accept connections within"):
                disposable_server(settings)

    def test_a_cluster_that_cannot_be_initialised_is_quoted(self) -> None:
        settings = self.programs(initdb='echo "initdb: error: no luck" >&2; exit 1')
        with mock.patch.object(postgresql, "cache_name", return_value="postgresql-new"):
            with self.assertFailsWithThreeParts(ServerStartFailed, "cannot be initialised.*initdb: error: no luck"):
                disposable_server(settings)
        self.assertEqual([path.name for path in (self.cache / "postgresql-new").iterdir()], ["lock"])

    def test_programs_that_cannot_be_executed_are_named(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_program(wrap_programs(folder), "initdb", "")
        (folder / "initdb").write_text("#!/no/such/interpreter\n", encoding="utf-8")
        with self.assertFailsWithThreeParts(ServerStartFailed, f"{folder}/initdb: .*No such file"):
            disposable_server(Settings(postgres_bin=folder))

    def test_an_interpreter_that_cannot_be_started_is_named(self) -> None:
        with mock.patch("sys.executable", "/no/such/python"):
            with self.assertFailsWithThreeParts(
                ServerStartFailed, "watches over the server does not start: /no/such/python"
            ):
                disposable_server(self.settings)

    def test_a_watcher_that_ends_at_once_is_reported(self) -> None:
        with mock.patch("sys.executable", "/bin/true"):
            with self.assertFailsWithThreeParts(ServerError, "(watches over the disposable server has ended|did not)"):
                disposable_server(self.settings)

    def test_ctrl_c_while_it_starts_leaves_nothing(self) -> None:
        with mock.patch.object(postgresql.PostgreSQLServer, "_launched", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                disposable_server(self.settings)
        self.assertEqual(list(self.place.iterdir()), [])

    def test_root_without_an_account_to_give_the_server_to_is_told_what_to_do(self) -> None:
        with mock.patch("os.geteuid", return_value=0), mock.patch.object(account, "_refuse_powerless_root"):
            with self.assertFailsWithThreeParts(ServerStartFailed, "refuses to run as root.*no-such-account.*useradd"):
                server_account(("no-such-account",))


class ProgressTest(DisposableServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(progress, "_progress", progress._Progress()))
        self.stderr = self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def test_a_quick_start_says_nothing(self) -> None:
        with mock.patch.object(progress, "PATIENCE", 60.0):
            disposable_server(self.settings).close()
        self.assertEqual(self.stderr.getvalue(), "")

    def test_a_slow_one_says_what_it_is_doing_in_one_line(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        wrap_programs(folder, {"initdb": "sleep 0.5"})
        with mock.patch.object(progress, "PATIENCE", 0.3):
            disposable_server(Settings(postgres_bin=folder)).close()
        # on a busy machine the time may be over before that
        expected = r"\Adbtestcase: (initialising PostgreSQL \S+, once|starting a disposable PostgreSQL) \.\.\.\n\Z"
        self.assertRegex(self.stderr.getvalue(), expected)
