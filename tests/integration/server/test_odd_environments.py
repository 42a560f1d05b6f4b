"""What shells, jobs and machines say of themselves: it changes nothing, or it is refused by name."""

import errno
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from sqlalchemy import make_url

from dbtestcase.backends.filelocks import FileLock
from dbtestcase.backends.postgresql.admin import Admin
from dbtestcase.errors import ConfigurationError, DatabaseError, ServerError
from dbtestcase.reporting.report import write_outputs
from dbtestcase.server import disposable_server, folders
from dbtestcase.settings import Settings, read_settings
from tests.support.disposable import scratch, seed
from tests.support.farm import require_namespaces
from tests.support.runners import Outcome, inner_environment, run_python, run_suite, write_suite
from tests.support.samples import a_share

SUITE = """
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest

    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))

    class Tests:
        metadata = metadata
        def put(self):
            self.assertEqual(self.session.execute(sa.select(item.c.id)).all(), [])
            self.session.execute(sa.insert(item).values(id=1))
            self.session.commit()
        def test_a(self): self.put()
        def test_b(self): self.put()
    class ATest(Tests, DatabaseTest): pass
    class BTest(Tests, TruncatingDatabaseTest): pass
"""
SERVICES = """
    [near]
    host=nowhere.invalid
    user=nobody

    [far]
    hostaddr=127.0.0.9
"""
#: Runs the suite with its results in a file, as something does that has closed its descriptors.
INTO_A_FILE = """
import sys, unittest
with open("said", "w") as said:
    unittest.main(module="test_it", argv=["x"], testRunner=unittest.TextTestRunner(stream=said))
"""


class OddEnvironmentsTest(unittest.TestCase):
    folder: Path
    caches: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.folder.chmod(0o755)
        write_suite(cls.folder, {"test_it.py": SUITE, "setup.cfg": "", "services": SERVICES})
        cls.caches = Path(cls.enterClassContext(scratch()))
        seed(cls.caches / "cache")

    def run_suite(self, **env: str) -> Outcome:
        return run_suite(self.folder, "unittest", env={"DBTESTCASE_CACHE": str(self.caches / "cache")} | env)

    def test_what_the_shell_says_of_other_servers_and_of_itself_changes_nothing(self) -> None:
        odd = {
            "LC_ALL": "xx",
            "LANG": "zz",
            "TZ": "Nowhere/Land",
            "HOME": "/nonexistent",
            "PGHOST": "nowhere.invalid",
            "PGPORT": "1",
            "PGUSER": "nobody",
            "PGPASSWORD": "secret",
            "PGDATABASE": "none",
            "PGSSLMODE": "verify-full",
            "PGPASSFILE": "/nonexistent",
            "PGDATA": "/nonexistent",
            "PGTZ": "Asia/Tokyo",
            "PGDATESTYLE": "German",
            "PGCLIENTENCODING": "LATIN1",
            "PGSERVICE": "near",
            "PGSERVICEFILE": str(self.folder / "services"),
        }
        self.run_suite(**odd).expect(passed=4)

    def test_a_variable_that_leads_to_another_server_is_refused_by_name(self) -> None:
        for env in (
            {"PGHOSTADDR": "127.0.0.9"},
            {"PGSERVICE": "far", "PGSERVICEFILE": str(self.folder / "services")},
        ):
            with self.subTest(env):
                outcome = self.run_suite(**env).expect(passed=0, errors=2)
                self.assertRegex(
                    outcome.output,
                    r"environment leads connections to 127\.0\.0\.9, and not to the server of postgresql\+psycopg://",
                )
                self.assertIn("PGHOSTADDR, or hostaddr of the service that PGSERVICE names", outcome.output)

    def test_a_variable_that_keeps_from_connecting_is_named(self) -> None:
        outcome = self.run_suite(PGREQUIREPEER="nobody-here", PGSSLMODE="prefer").expect(passed=0, errors=2)
        self.assertRegex(outcome.output, "The environment has a say in it: .*PGREQUIREPEER")

    def test_temp_folders_with_strange_and_long_names(self) -> None:
        for name in a_share(('it\'s a "folder"', "x" * 100, "none"), 2):
            with self.subTest(name):
                if name != "none":
                    (self.folder / name).mkdir(mode=0o777)
                    (self.folder / name).chmod(0o1777)
                self.run_suite(TMPDIR=str(self.folder / name)).expect(passed=4)

    def test_a_process_that_has_closed_its_standard_descriptors(self) -> None:
        for closed in a_share(("<&-", "<&- >&-", "<&- >&- 2>&-"), 3):
            with self.subTest(closed):
                subprocess.run(
                    ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-W", "error", "-c", INTO_A_FILE],
                    cwd=self.folder,
                    env=inner_environment({"DBTESTCASE_CACHE": str(self.caches / "cache")}),
                    timeout=300,
                    check=False,
                )
                said = (self.folder / "said").read_text(encoding="utf-8")
                self.assertTrue(re.search(r"^Ran 4 tests", said, re.MULTILINE) and said.endswith("OK\n"), said)

    def test_a_process_that_ignores_the_end_of_its_children(self) -> None:
        program = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + INTO_A_FILE
        for cache in a_share(("cache", "empty"), 2):  # the second initialises a cluster
            with self.subTest(cache):
                env = {"DBTESTCASE_CACHE": str(self.caches / cache)}
                run_python(["-W", "error", "-c", program], cwd=self.folder, env=env)
                said = (self.folder / "said").read_text(encoding="utf-8")
                self.assertTrue(re.search(r"^Ran 4 tests", said, re.MULTILINE) and said.endswith("OK\n"), said)


class WithoutLocksTest(unittest.TestCase):
    """A file system that has no locks, such as NFS without its lock service, is named; nothing is left on it."""

    def setUp(self) -> None:
        self.place = Path(self.enterContext(scratch()))
        self.enterContext(mock.patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available")))

    def test_the_cache(self) -> None:
        settings = Settings(postgres_bin=read_settings().postgres_bin, cache=self.place, cache_is_chosen=True)
        with self.assertRaisesRegex(ServerError, "No locks available") as caught:
            disposable_server(settings)
        self.assertIn("NFS", caught.exception.cause)

    def test_the_place_of_the_data(self) -> None:
        for _ in range(2):  # what the first one leaves would be met by the second
            with mock.patch.object(folders, "RAM", self.place), self.assertRaisesRegex(ServerError, "No locks"):
                disposable_server(Settings(postgres_bin=read_settings().postgres_bin))
        self.assertEqual([path for path in self.place.rglob("*") if not path.is_dir()], [])

    def test_templates_of_sqlite(self) -> None:
        with self.assertRaisesRegex(DatabaseError, "cannot be locked: No locks available") as caught:
            FileLock(self.place / "lock").acquire(wait=True)
        self.assertIn("local disk", caught.exception.remedy)


class FullFileSystemTest(unittest.TestCase):
    """What lies on a full file system is named."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_templates_of_sqlite(self) -> None:
        require_namespaces("--mount")
        suite = SUITE.replace("metadata = metadata", 'metadata = metadata; url = "sqlite://"')
        write_suite(self.folder, {"test_it.py": suite, "setup.cfg": "", "small/x": ""})
        mount = f'mount -t tmpfs -o size=16k tmpfs {self.folder}/small && exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-W", "error", "-m", "unittest"],
            cwd=self.folder,
            env=inner_environment({"DBTESTCASE_CACHE": str(self.folder / "small")}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertRegex(done.stderr, r"The template of .*item.* cannot be written to .*small/sqlite: .*full")
        self.assertIn("What to do: make room there", done.stderr)

    def test_the_report(self) -> None:
        full = mock.patch("pathlib.Path.write_text", side_effect=OSError(errno.ENOSPC, "No space left on device"))
        with full, self.assertRaisesRegex(ConfigurationError, "report .*r.json cannot be written: No space left"):
            write_outputs({}, [self.folder / "r.json"])  # type: ignore[typeddict-item]


class WithoutTempTest(unittest.TestCase):
    def test_ram_is_enough(self) -> None:
        with mock.patch("tempfile.gettempdir", side_effect=FileNotFoundError("no usable temporary directory")):
            self.assertEqual(folders.temp_places(), [Path("/tmp"), Path("/var/tmp")])


class NamedServerTest(unittest.TestCase):
    def test_a_variable_that_leads_away_from_the_named_server_is_refused_before_anything_is_sent(self) -> None:

        url = make_url("postgresql+psycopg://localhost/app")
        with mock.patch.dict(os.environ, PGHOSTADDR="192.0.2.1"), mock.patch("psycopg.Connection.connect") as connect:
            with self.assertRaisesRegex(ConfigurationError, "leads connections to 192.0.2.1"):
                Admin(url)
            connect.assert_not_called()


if __name__ == "__main__":
    unittest.main()
