"""The cache of clusters: complete or not there, under any number of writers and whatever kills them."""

import json
import os
import shutil
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from dbtestcase.errors import ServerError
from dbtestcase.server import cache, disposable_server
from dbtestcase.server.postgresql import PostgreSQLServer
from dbtestcase.settings import Settings, read_settings
from tests.support.disposable import OWNER, initialised, scratch, seed
from tests.support.runners import start_python
from tests.support.samples import a_share


class ClusterCacheTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        initialised()  # which is not to meet what the tests put in its place

    def setUp(self) -> None:
        self.root = Path(self.enterContext(scratch()))
        self.settings = Settings(postgres_bin=read_settings().postgres_bin, cache=self.root, cache_is_chosen=True)
        self.said: list[str] = []
        for module in ("cache", "postgresql"):
            self.enterContext(mock.patch(f"dbtestcase.server.{module}.say", self.said.append))

    @staticmethod
    def initialise(server: PostgreSQLServer) -> None:
        """As initdb would do it, which takes four times as long and is what other tests are about."""
        server._templates, server._is_complete = None, True
        with scratch() as made:
            seed(Path(made))
            (cluster,) = Path(made).glob("*/base-*/")
            shutil.copytree(cluster, server.data, copy_function=shutil.move, dirs_exist_ok=True)
        for path in (server.data, *server.data.rglob("*")):
            os.chown(path, server._account.uid, server._account.gid)

    def seed(self) -> None:
        """Begin with a cluster in the cache."""
        seed(self.root)

    def run_once(self) -> str:
        """Start and stop a server; ``initialised`` or ``copied``."""
        with mock.patch.object(
            PostgreSQLServer, "_initialise", autospec=True, side_effect=self.initialise
        ) as initialise:
            disposable_server(self.settings).close()
        return "initialised" if initialise.called else "copied"

    def folder(self) -> Path:
        (folder,) = self.root.iterdir()
        return folder

    def cluster(self) -> Path:
        (cluster,) = self.folder().glob("base-*")
        return cluster

    def test_a_cluster_is_initialised_once_and_then_copied(self) -> None:
        with mock.patch.object(self, "initialise", PostgreSQLServer._initialise):
            self.assertEqual([self.run_once(), self.run_once()], ["initialised", "copied"])
        self.assertEqual(self.said, [])

    def test_another_version_is_another_cluster(self) -> None:
        self.seed()
        self.folder().rename(self.folder().with_name("postgresql-12.1-00000000"))
        self.assertEqual(self.run_once(), "initialised")

    def test_without_a_cache_every_run_initialises(self) -> None:
        self.settings = Settings(postgres_bin=self.settings.postgres_bin)
        self.assertEqual([self.run_once(), self.run_once()], ["initialised", "initialised"])

    def test_runs_that_start_at_once_on_an_empty_cache_initialise_one_cluster(self) -> None:
        program = "\n".join(line.removeprefix("    ") for line in OWNER.splitlines()) + "\nserver.close()"
        runs = [
            start_python(["-W", "error", "-c", program], env={"DBTESTCASE_CACHE": str(self.root)}) for _ in range(4)
        ]
        for run in runs:
            output, _ = run.communicate(timeout=300)
            self.assertEqual((run.returncode, len(output.split())), (0, 3))
        self.assertEqual(self.run_once(), "copied")
        self.assertTrue(self.cluster().is_dir())

    def test_what_a_killed_writer_left_is_not_used_and_removed_by_the_next(self) -> None:
        self.seed()
        half, note = self.folder() / "base-12345678", self.folder() / "base-12345678.json.new"
        half.mkdir()
        (half / "PG_VERSION").write_text("18", encoding="utf-8")
        note.write_text("{", encoding="utf-8")
        self.assertEqual(self.run_once(), "copied")
        (self.folder() / "base.json").unlink()
        self.assertEqual(self.run_once(), "initialised")
        self.assertFalse(half.exists() or note.exists())
        self.assertTrue(self.cluster().is_dir())

    def test_a_cluster_that_lost_a_file_is_made_again_and_says_so(self) -> None:
        self.seed()
        (self.cluster() / "global" / "pg_control").unlink()
        self.assertEqual(self.run_once(), "initialised")
        self.assertRegex(self.said[0], r"the cached cluster .*base-\w+ is broken \(it has \d+ files of \d+.*made again")
        self.assertEqual(self.run_once(), "copied")

    def test_a_cluster_whose_file_was_cut_off_is_made_again(self) -> None:
        self.seed()
        os.truncate(self.cluster() / "global" / "pg_control", 0)
        self.assertEqual(self.run_once(), "initialised")

    def test_a_cluster_whose_folder_is_gone_is_made_again(self) -> None:
        self.seed()
        self.cluster().rename(self.root.with_name(f"{self.root.name}-away"))
        self.addCleanup(self.root.with_name(f"{self.root.name}-away").rename, self.root / "back")
        self.assertEqual(self.run_once(), "initialised")
        self.assertIn("is missing", self.said[0])

    def test_a_cluster_that_does_not_start_is_made_again(self) -> None:
        self.seed()
        control = self.cluster() / "global" / "pg_control"
        control.write_bytes(bytes(control.stat().st_size))
        self.assertEqual(self.run_once(), "initialised")
        self.assertIn("is broken", self.said[0])
        self.assertEqual([self.run_once(), self.run_once()], ["initialised", "copied"])

    def test_a_pointer_that_cannot_be_understood_counts_as_none(self) -> None:
        self.seed()
        for text in a_share(("", "[]", '{"folder": "x"}'), 3):
            with self.subTest(text):
                (self.folder() / "base.json").write_text(text, encoding="utf-8")
                self.assertEqual([self.run_once(), self.run_once()], ["initialised", "copied"])

    def test_clusters_that_nobody_used_for_long_are_removed_when_another_is_written(self) -> None:
        self.seed()
        old = self.folder() / "project-0000.json"
        old.write_text(json.dumps({"folder": "project-0000-1"}), encoding="utf-8")
        (self.folder() / "project-0000-1").mkdir()
        other = self.root / "postgresql-12.1-00000000"
        other.mkdir()
        (other / "base.json").touch()
        month = time.time() - cache.UNUSED_SECONDS - 60
        for path in (old, other / "base.json"):
            os.utime(path, (month, month))
        (old.parent / "base.json").unlink()
        self.run_once()
        left = {path.name.partition("-")[0] for path in old.parent.iterdir()}
        self.assertEqual(left, {"base", "base.json", "lock"})
        self.assertFalse(other.exists())

    def test_the_cluster_of_a_project_that_is_gone_is_removed_when_another_is_written(self) -> None:
        self.seed()
        for name, project in (("project-0001", self.root / "gone"), ("project-0002", self.root)):
            (self.folder() / name).mkdir()
            note = {"folder": name, "project": str(project)}
            (self.folder() / f"{name}.json").write_text(json.dumps(note), encoding="utf-8")
        (self.folder() / "base.json").unlink()
        self.run_once()
        left = {path.name for path in self.folder().glob("project-*")}
        self.assertEqual(left, {"project-0002", "project-0002.json"})

    def test_a_chosen_folder_that_cannot_be_written_is_an_error_that_names_it(self) -> None:
        occupied = self.root / "occupied"
        occupied.touch()
        for folder in (occupied, occupied / "below", Path("/proc/dbtestcase")):
            self.settings = Settings(postgres_bin=self.settings.postgres_bin, cache=folder, cache_is_chosen=True)
            with (
                self.subTest(folder),
                self.assertRaisesRegex(ServerError, f"cache folder {folder} cannot be") as caught,
            ):
                self.run_once()
            self.assertIn("DBTESTCASE_CACHE", caught.exception.remedy)

    def test_the_default_folder_gives_way_to_the_temp_folder_and_says_so(self) -> None:
        temp = Path(self.enterContext(tempfile.TemporaryDirectory()))
        temp.chmod(0o755)
        settings = Settings(postgres_bin=self.settings.postgres_bin, cache=Path("/proc/home/.cache/dbtestcase"))
        with mock.patch("tempfile.tempdir", str(temp)):
            disposable_server(settings).close()
        self.assertTrue(list(temp.glob(f"dbtestcase-{os.geteuid()}/cache/*/base.json")))
        self.assertRegex(self.said[0], r"/proc/home/.cache/dbtestcase cannot be written .* are cached in .*/cache")

    def test_a_full_disk_under_the_cache_is_an_error_that_names_it(self) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device", str(self.root / "base-1"))

        with mock.patch.object(cache, "publish", full), self.assertRaisesRegex(ServerError, "No space left") as caught:
            self.run_once()
        self.assertIn(str(self.root), str(caught.exception))
