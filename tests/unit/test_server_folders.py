"""Folders of runs are private, locked while they are in use, and swept when they are not."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from dbtestcase.errors import ServerError
from dbtestcase.server import folders
from dbtestcase.server.account import server_account
from dbtestcase.server.folders import RunFolder, locked, private_folder, run_places, sweep


class FoldersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.place.chmod(0o755)
        self.base = self.place / f"dbtestcase-{os.geteuid()}"

    def test_a_folder_that_is_not_ours_alone_is_refused_by_name(self) -> None:
        def symbolic_link() -> None:
            self.base.symlink_to(self.place)

        def open_folder() -> None:
            self.base.mkdir()
            self.base.chmod(0o777)

        def foreign() -> None:
            self.base.mkdir(0o711)
            self.enterContext(mock.patch("os.geteuid", return_value=os.geteuid() + 1))
            self.base.rename(self.place / f"dbtestcase-{os.geteuid()}")

        for attack in (symbolic_link, self.base.touch, open_folder, foreign):
            with self.subTest(attack.__name__):
                attack()
                with self.assertRaisesRegex(
                    ServerError, rf"{self.place}/dbtestcase-\d+ is not a folder of uid \d+ alone"
                ):
                    private_folder(self.place)
                for path in self.place.iterdir():
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def test_a_place_that_cannot_be_written_is_an_error_with_what_to_do(self) -> None:
        with self.assertRaisesRegex(ServerError, "(?s)cannot be made.*TMPDIR"):
            private_folder(Path("/proc"))

    def test_what_nobody_holds_is_swept_and_what_somebody_holds_is_not(self) -> None:
        account = server_account()
        dead, alive = RunFolder.create(self.place, account), RunFolder.create(self.place, account)
        (dead.path / "data").mkdir()
        dead.let_go()
        self.assertEqual(sweep([self.place]), [dead.path])
        self.assertEqual(sorted(self.base.iterdir()), sorted([alive.path, alive.lock_path]))
        alive.remove()
        alive.let_go()
        self.assertFalse(self.base.exists())

    def test_a_lock_without_its_folder_is_swept(self) -> None:
        private_folder(self.place)
        (self.base / "1-a.lock").touch()
        self.assertEqual(sweep([self.place]), [])
        self.assertFalse(self.base.exists())

    def test_a_sweep_passes_over_what_belongs_to_somebody_else(self) -> None:
        self.base.mkdir()
        self.base.chmod(0o777)
        (self.base / "1-a.lock").touch()
        self.assertEqual(sweep([self.place]), [])
        self.assertTrue((self.base / "1-a.lock").exists())

    def test_a_lock_file_that_is_removed_while_one_waits_is_made_again(self) -> None:
        path = self.place / "cache" / "lock"
        with locked(path):
            real, calls = folders._is_at, []

            def removed(descriptor: int, at: Path) -> bool:
                calls.append(at)
                if len(calls) == 1:
                    path.unlink()
                return real(descriptor, at)

            path.rename(path.with_name("other"))
            with mock.patch.object(folders, "_is_at", removed), locked(path):
                self.assertTrue(path.exists())
        self.assertEqual(len(calls), 2)

    def test_places_whose_sockets_would_have_too_long_a_path_are_left_out(self) -> None:
        long = self.place / ("x" * 60)
        long.mkdir()
        with mock.patch.object(folders, "temp_places", lambda: [long, self.place]):
            self.assertNotIn(long, run_places(server_account()))
