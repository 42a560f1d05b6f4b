"""A disposable MariaDB: warm starts, databases that are kept, and its end with its owner."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from contextlib import closing, redirect_stderr
from pathlib import Path
from unittest import mock

from dbtestcase.errors import ProgramsNotFound, ServerStartFailed
from dbtestcase.server import disposable_server, mariadb
from dbtestcase.settings import Settings
from tests.support.disposable import scratch
from tests.support.mariadb import connect, require_mariadb
from tests.support.runners import ROOT

OWNER = """
import sys, time
from dbtestcase.server import disposable_server
from dbtestcase.settings import read_settings
server = disposable_server(read_settings(), kind="mariadb")
print(server.data, flush=True)
sys.stdin.read()
"""


class MariaDBServerTest(unittest.TestCase):
    cache: Path

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_mariadb()
        cls.cache = Path(cls.enterClassContext(scratch()))

    def settings(self) -> Settings:
        return Settings(cache=self.cache, cache_is_chosen=True)

    def test_it_listens_on_a_socket_only_and_leaves_nothing(self) -> None:
        with disposable_server(self.settings(), kind="mariadb") as server:
            with closing(connect(server.url, None)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT @@skip_networking, @@version")
                networking, version = cursor.fetchone() or ()
            self.assertEqual(networking, 1)
            self.assertTrue(version.startswith(server.version))
            folder = server.data.parent
            self.assertTrue(folder.exists())
        self.assertFalse(folder.exists())

    def test_what_is_persisted_is_there_in_the_next_run_and_the_rest_is_not(self) -> None:
        for name, kept in (("kept", True), ("lost", False)):
            with disposable_server(self.settings(), kind="mariadb") as server:
                with closing(connect(server.url, None)) as connection, connection.cursor() as cursor:
                    cursor.execute(f"CREATE DATABASE {name}")
                    cursor.execute(f"CREATE TABLE {name}.item (id INT PRIMARY KEY)")
                    cursor.execute(f"INSERT INTO {name}.item VALUES (7)")
                if kept:
                    server.persist()
        with disposable_server(self.settings(), kind="mariadb") as server:
            with closing(connect(server.url, None)) as connection, connection.cursor() as cursor:
                cursor.execute("SHOW DATABASES")
                names = {name for (name,) in cursor.fetchall()}
                cursor.execute("SELECT id FROM kept.item")
                self.assertEqual(cursor.fetchall(), ((7,),))
        self.assertIn("kept", names)
        self.assertNotIn("lost", names)

    def test_it_ends_with_an_owner_that_is_killed(self) -> None:
        environment = os.environ | {"DBTESTCASE_CACHE": str(self.cache), "PYTHONPATH": str(ROOT)}
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        with owner:
            assert owner.stdout is not None
            data = Path(owner.stdout.readline().strip())
            self.assertTrue(data.exists())
            owner.send_signal(signal.SIGKILL)
            owner.wait()
            until = time.monotonic() + 60
            while data.parent.exists() and time.monotonic() < until:
                time.sleep(0.02)  # another process's end is nothing that can be awaited
        self.assertFalse(data.parent.exists())

    def test_a_broken_cache_is_made_again(self) -> None:
        cache = Path(self.enterContext(scratch()))
        settings = Settings(cache=cache, cache_is_chosen=True)
        with disposable_server(settings, kind="mariadb"):
            pass
        (table,) = cache.glob("mariadb-*/base-*/ibdata1")
        table.unlink()
        with redirect_stderr(io.StringIO()) as said, disposable_server(settings, kind="mariadb") as server:
            self.assertIn("mysql", {path.name for path in server.data.iterdir()})
        self.assertIn("is broken", said.getvalue())

    def test_a_mysql_url_is_told_that_a_mariadb_stands_in(self) -> None:
        with redirect_stderr(io.StringIO()) as said, disposable_server(self.settings(), kind="mysql"):
            pass
        self.assertIn("a disposable MariaDB", said.getvalue())


class WithoutProgramsTest(unittest.TestCase):
    def test_an_error_says_what_to_install(self) -> None:
        with mock.patch.object(shutil, "which", return_value=None), self.assertRaises(ProgramsNotFound) as caught:
            mariadb.find_mariadb()
        self.assertIn("apt-get install mariadb-server", caught.exception.remedy)

    def test_another_server_under_the_name_is_no_mariadb(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("mariadbd", "mysqld", "mariadb-install-db"):
            (folder / name).write_text("#!/bin/sh\necho 'mysqld  Ver 8.0.36 for Linux on x86_64'\n")
            (folder / name).chmod(0o755)
        with (
            mock.patch.dict(os.environ, {"PATH": str(folder)}),
            mock.patch.object(mariadb, "_FOLDERS", ()),
            mock.patch.object(mariadb.glob, "glob", return_value=[]),
            self.assertRaisesRegex(ProgramsNotFound, "it is no MariaDB"),
        ):
            mariadb.find_mariadb()

    def test_a_server_without_the_programs_that_it_is_initialised_with_is_named(self) -> None:
        """Some packages hold the server alone, and its mariadb-install-db needs one of the client's programs."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("mariadbd", "mariadb-install-db"):
            (folder / name).write_text("#!/bin/sh\necho 'mariadbd  Ver 10.11.6-MariaDB for Linux on x86_64'\n")
            (folder / name).chmod(0o755)
        with (
            mock.patch.dict(os.environ, {"PATH": str(folder)}),
            mock.patch.object(mariadb, "_FOLDERS", ()),
            mock.patch.object(mariadb.glob, "glob", return_value=[]),
            self.assertRaisesRegex(ProgramsNotFound, "mariadbd: its my_print_defaults is missing"),
        ):
            mariadb.find_mariadb()

    def test_a_server_that_does_not_start_says_why(self) -> None:
        require_mariadb()
        with (
            mock.patch.object(mariadb, "_OPTIONS", ("--no-such-option",)),
            self.assertRaisesRegex(ServerStartFailed, "no-such-option"),
        ):
            disposable_server(Settings(), kind="mariadb")
