"""Folders of runs are private, locked while they are in use, and swept when they are not."""

import os
import shutil
import stat
import unittest
from pathlib import Path
from unittest import mock

from dbtestcase.errors import ServerError
from dbtestcase.server import folders
from dbtestcase.server.account import server_account
from dbtestcase.server.folders import RunFolder, locked, private_folder, private_folders, run_places, sweep
from tests.support.disposable import temporary


class FoldersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.place = Path(self.enterContext(temporary()))
        self.place.chmod(0o755)
        self.base = self.place / f"dbtestcase-{os.geteuid()}"

    def test_a_folder_that_is_not_ours_alone_is_passed_over_with_a_line(self) -> None:
        def symbolic_link() -> None:
            self.base.symlink_to(self.place)

        def open_folder() -> None:
            self.base.mkdir()
            self.base.chmod(0o777)

        def foreign() -> None:
            self.base.mkdir(0o711)
            uid = os.geteuid() + 1
            self.enterContext(mock.patch("os.geteuid", return_value=uid))
            self.base.rename(self.place / f"dbtestcase-{uid}")

        for attack in (symbolic_link, self.base.touch, open_folder, foreign):
            with self.subTest(attack.__name__), mock.patch.object(folders, "say") as said:
                attack()
                if attack is foreign:
                    with mock.patch.object(folders, "_is_ours", side_effect=[False, False, False, True]):
                        self.assertNotEqual(private_folder(self.place), self.base)
                else:
                    found = private_folder(self.place)
                    self.assertRegex(found.name, rf"^{self.base.name}-[0-9a-f]{{4}}$")
                    self.assertEqual(private_folder(self.place), found, "the next one finds it again")
                    self.assertEqual(private_folders(self.place), [found])
                self.assertRegex(said.call_args[0][0], r"dbtestcase-\d+ is not a folder of uid \d+ alone .*passed over")
                for path in self.place.iterdir():
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def test_modes_are_set_whatever_the_umask(self) -> None:
        for umask in (0, 0o022, 0o077, 0o777):
            before = os.umask(umask)
            try:
                folder = private_folder(self.place)
                run = RunFolder.create(self.place)
            finally:
                os.umask(before)
            modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, run.path, run.own)]
            self.assertEqual(modes, [0o711, 0o700, 0o711])
            run.remove()
            run.let_go()

    def test_a_place_whose_entries_anybody_may_rename_is_left_out(self) -> None:
        open_place = self.place / "open"
        open_place.mkdir()
        open_place.chmod(0o777)
        with mock.patch.object(folders, "temp_places", lambda: [open_place]):
            self.assertNotIn(open_place, run_places(server_account()))
            open_place.chmod(0o1777)
            self.assertIn(open_place, run_places(server_account()))

    def test_folders_without_a_lock_are_swept_and_those_of_others_are_not(self) -> None:
        base = private_folder(self.place)
        for name in ("12-0123abcd", "12-0123abcd.own", "13-0123abce.own", "programs-17", "cache"):
            (base / name / "inside").mkdir(parents=True)
        self.assertEqual(sweep([self.place]), [base / "12-0123abcd"])
        self.assertEqual(sorted(path.name for path in base.iterdir()), ["cache", "programs-17"])

    def test_removing_goes_on_past_what_vanishes_and_the_lock_goes_last(self) -> None:
        run = RunFolder.create(self.place)
        run.let_go()
        (run.path / "a" / "b").mkdir(parents=True)
        real = shutil.rmtree
        calls = []

        def half(path: str, **how: object) -> None:
            calls.append(path)
            if len(calls) == 2:
                (run.path / "late").touch()  # by a server that is just ending
                (run.path / "a" / "b").rmdir()
                return
            real(path, **how)  # type: ignore[arg-type]

        with mock.patch("shutil.rmtree", half):
            sweep([self.place])
        self.assertFalse(self.base.exists())

        run = RunFolder.create(self.place)
        run.let_go()
        with mock.patch("shutil.rmtree"):
            self.assertEqual(sweep([self.place]), [])
        self.assertTrue(run.lock_path.exists(), "so that the next one tries again")

    def test_a_place_that_cannot_be_written_is_an_error_with_what_to_do(self) -> None:
        with self.assertRaisesRegex(ServerError, "(?s)cannot be made.*TMPDIR"):
            private_folder(Path("/proc"))

    def test_what_nobody_holds_is_swept_and_what_somebody_holds_is_not(self) -> None:
        dead, alive = RunFolder.create(self.place), RunFolder.create(self.place)
        (dead.path / "data").mkdir()
        dead.let_go()
        self.assertEqual(sweep([self.place]), [dead.path])
        self.assertEqual(sorted(self.base.iterdir()), sorted([alive.path, alive.lock_path, alive.own]))
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
