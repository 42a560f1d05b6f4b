"""What containers and shared machines do: small places, limits, umasks, users without an account, others' files."""

import errno
import os
import re
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from dbtestcase.reporting.limits import limit_named_by
from dbtestcase.server import room
from dbtestcase.server.account import server_account
from dbtestcase.server.cluster_files import copy_tree
from dbtestcase.server.room import MIB, memory_left
from tests.integration.server import test_server_accounts as accounts
from tests.support.disposable import owner, scratch, seed, temporary, wrap_programs
from tests.support.farm import require_namespaces, shared_server
from tests.support.requirements import require
from tests.support.runners import Outcome, inner_environment, run_suite, without_progress, write_suite
from tests.support.samples import a_share

SUITE = """
    import os
    import sqlalchemy as sa
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest

    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))
    TEXT = os.urandom(1 << 19).hex()  # a MiB
    sa.event.listen(metadata, "after_create", sa.DDL("ALTER TABLE item ALTER text SET STORAGE EXTERNAL"))
    FILL = sa.text("INSERT INTO item (id, text) SELECT g + :n, :text FROM generate_series(1, 4) g")

    class Tests:
        def put(self):
            self.assertEqual(self.session.execute(sa.select(item.c.id)).all(), [])
            self.session.execute(sa.insert(item).values(id=1))
            self.session.commit()
        def fill(self, mib, log=False):
            for number in range(1, mib // 4):
                place = os.statvfs(os.environ["TMPDIR"])
                if log and place.f_bavail * place.f_frsize < 8 << 20:
                    # the log alone: the server can only end then
                    self.session.execute(sa.text("SELECT pg_logical_emit_message(true, 'x', :text)"), {"text": TEXT})
                else:
                    self.session.execute(FILL, {"n": number * 1000, "text": TEXT})
        def test_a(self): self.put()
        def test_b_fills(self): self.fill(400)
        def test_c(self):
            self.put()
            self.fill(20)  # what the test before has left would be in the way
        def test_d_fills_the_log(self): self.fill(400, log=True)
        def test_e(self):
            self.put()
            self.fill(20)
    class ATest(Tests, DatabaseTest):
        metadata = metadata
    class BTest(DatabaseTest):
        metadata = metadata
        test_a = Tests.test_a
        put = Tests.put
    class CTest(Tests, TruncatingDatabaseTest):
        metadata = metadata
"""


def in_small_places(temp: Path, size: str, *command: str) -> list[str]:
    """A command that runs where /dev/shm has no room, and ``temp`` is memory of this size."""
    mounts = f"mount -t tmpfs -o size=1m tmpfs /dev/shm && mount -t tmpfs -o mode=1777,size={size} tmpfs {temp}"
    return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]


class FullPlaceTest(unittest.TestCase):
    def test_a_full_place_fails_one_test_by_name_and_not_the_next(self) -> None:
        require_namespaces("--mount")
        folder = Path(self.enterContext(temporary()))
        write_suite(folder, {"test_it.py": SUITE})
        place = folder / "t"
        place.mkdir()
        place.chmod(0o1777)
        folder.chmod(0o755)
        # A cache in /dev/shm would lie below the small place.  It has the templates already: they need room as well.
        seed(folder / "cache")
        cache = {"DBTESTCASE_CACHE": str(folder / "cache")}
        run_suite(folder, "unittest", "-k", "test_a", env=cache).expect(passed=3)
        kinds = a_share(("ATest", "CTest"), 2)  # each fills the place twice
        chosen = [word for kind in ("BTest", *kinds) for word in ("-k", kind)]
        # what a start asks for, and the server's programs, which are copied there from a private home
        done = subprocess.run(
            in_small_places(place, "210m", sys.executable, "-W", "error", "-m", "unittest", "-v", *chosen),
            cwd=folder,
            env=inner_environment({"TMPDIR": str(place), "DBTESTCASE_SQL": "off", **cache}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stderr
        self.assertIn(f"Ran {1 + 5 * len(kinds)} tests", said)
        failed = re.findall(r"^ERROR: (\S+) \(test_it\.(\S+)\.", said, re.MULTILINE)
        fills = ["test_b_fills", "test_d_fills_the_log"]
        self.assertEqual(failed, [(test, case) for case in kinds for test in fills], said)
        self.assertRegex(
            said,
            rf"(?s)The place of the server's data is full: {place} \(210 MiB, \d+ MiB free\).*holds "
            r"data/base/\d+ \d+ MiB.*What to do: write fewer rows, or give it more room.*TMPDIR",
        )


class RoomTest(unittest.TestCase):
    """Control groups of both versions, in files as the kernel shows them, and for real where the machine lets us."""

    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def write(self, **files: str) -> None:
        write_suite(self.root, {name.replace("__", "/"): text for name, text in files.items()})

    def left(self) -> int:
        return memory_left(self.root / "cgroup", self.root / "proc") // MIB

    def proc(self, group: str, available: int = 9000) -> None:
        write_suite(
            self.root,
            {
                "proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {available * 1024} kB\nSwapFree: 0 kB\n",
                "proc/self/cgroup": group,
            },
        )

    def group(self, path: str, limit: str, used: int, inactive: int, *, version: int) -> None:
        names = ("memory.max", "memory.current", "inactive_file")
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        write_suite(
            self.root / "cgroup" / path,
            {
                names[0]: limit + "\n",
                names[1]: f"{used * MIB}\n",
                "memory.stat": f"anon 1\n{names[2]} {inactive * MIB}\n",
            },
        )

    def test_the_machine_without_a_limit(self) -> None:
        self.proc("0::/\n")
        self.assertEqual(self.left(), 9000)

    def test_version_2(self) -> None:
        self.proc("0::/a/b\n")
        self.group("a/b", "max", 10, 0, version=2)
        self.assertEqual(self.left(), 9000)
        self.group("a/b", str(512 * MIB), 200, 50, version=2)
        self.assertEqual(self.left(), 362)
        self.group("a", str(300 * MIB), 250, 0, version=2)
        self.assertEqual(self.left(), 50, "a limit of a group above counts")

    def test_version_1_as_a_container_sees_it(self) -> None:
        self.proc("9:name=systemd:/x\n4:memory:/docker/0123\n0::/\n")
        self.group("memory", str(400 * MIB), 100, 0, version=1)  # its own group is the root of what is mounted
        self.assertEqual(self.left(), 300)
        self.group("memory/docker/0123", "9223372036854771712", 100, 0, version=1)
        self.assertEqual(self.left(), 300)

    def test_a_limit_that_is_passed_leaves_nothing(self) -> None:
        self.proc("0::/\n")
        self.group("", str(100 * MIB), 120, 0, version=2)
        self.assertEqual(self.left(), 0)

    def test_a_real_group(self) -> None:
        path = Path("/sys/fs/cgroup/memory")
        name = f"dbtestcase-tests-{os.getpid()}"
        group, limit = path / name, "memory.limit_in_bytes"
        if not path.is_dir():
            group, limit = Path("/sys/fs/cgroup") / name, "memory.max"
        try:
            group.mkdir()
            self.addCleanup(group.rmdir)
            (group / limit).write_text(str(256 * MIB))
        except OSError as error:
            require(False, f"a memory control group of our own ({error})", "run the tests as root on the host")
        program = "from dbtestcase.server.room import *; from pathlib import Path; print(room_in(Path('/dev/shm')))"
        done = subprocess.run(
            ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh", sys.executable, "-c", program],
            env=inner_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertLess(int(done.stdout), 256 * MIB)
        self.assertGreater(int(done.stdout), 100 * MIB)

    def test_memory_counts_only_where_files_are_memory(self) -> None:
        with mock.patch.object(room, "memory_left", return_value=1):
            self.assertGreater(room.room_in(Path("/usr")), 1)
            if room._is_memory(Path("/dev/shm")):
                self.assertEqual(room.room_in(Path("/dev/shm")), 1)


class AnyUserTest(accounts.ServerAccountsTest):
    """With the helpers of the tests of accounts."""

    def test_root_with_a_umask_that_takes_everything_from_others(self) -> None:
        for umask in a_share(("077", "027", "777"), 3):
            with self.subTest(umask), scratch() as place:
                os.chmod(place, 0o755)
                command = ("sh", "-c", f'umask {umask}; exec "$@"', "sh")
                self.run_owner(*command, env={"PLACE": place, "DBTESTCASE_CACHE": f"{place}/cache-{umask}"})

    def test_a_number_without_an_account_uses_what_was_prepared(self) -> None:
        cache = self.temp / "prepared"
        environment = inner_environment({"DBTESTCASE_CACHE": str(cache)})
        done = subprocess.run(
            ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "dbtestcase", "prepare"],
            env=environment,
            cwd=self.temp,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, rf"prepared PostgreSQL \S+ in {cache}/postgresql-(?s:.*)every user may use it")
        env: dict[str, str | None] = {"HOME": "/", "XDG_CACHE_HOME": None, "DBTESTCASE_CACHE": str(cache)}
        ran = self.run_owner(*accounts.setpriv(54321), python=self.python_for_all(), env=env | self.library())
        self.assertEqual(without_progress(ran.stderr), "")
        self.assertEqual([path.name for path in cache.glob("*/project-*")], [])

    def test_a_root_that_may_not_become_another_is_told_what_it_lacks_and_leaves_nothing(self) -> None:
        needed = ("chown", "dac_override", "kill", "setgid", "setuid")
        env = {"DBTESTCASE_CACHE": str(self.temp / "cache")}
        for missing in a_share(needed, 5):
            kept = ",".join(f"+{name}" for name in needed if name != missing)
            with (
                self.subTest(missing),
                self.assertRaisesRegex(
                    AssertionError, f"(?s)lacks the capabilities CAP_{missing.upper()} .*--cap-add={missing.upper()};"
                ),
            ):
                self.run_owner("setpriv", f"--bounding-set=-all,{kept}", env=env)
        with self.assertRaisesRegex(AssertionError, "this user namespace, has none of the accounts"):
            self.run_owner("unshare", "--user", "--map-root-user", env=env)
        self.run_owner(
            "setpriv", f"--bounding-set=-all,{','.join(f'+{name}' for name in needed)}", "--no-new-privs", env=env
        )

    def test_a_place_in_which_somebody_has_taken_our_name_is_used_under_another(self) -> None:
        taken = self.temp / "dbtestcase-0"
        taken.mkdir()
        os.chown(taken, 65534, 65534)
        with scratch() as place:
            os.chmod(place, 0o1777)
            name = Path(place) / "dbtestcase-0"
            name.symlink_to(taken)
            os.chown(name, 65534, 65534, follow_symlinks=False)
            done = self.run_owner(env={"PLACE": place})
            self.assertRegex(done.stdout, rf"{place}/dbtestcase-0-[0-9a-f]{{4}}/")
            self.assertRegex(done.stderr, r"dbtestcase-0 is not a folder of uid 0 alone \(.*uid 65534\): passed over")
        self.assertEqual(list(taken.iterdir()), [])

    # what the class above tests is tested there
    test_programs_below_a_private_home_are_copied_once_and_the_home_stays_private = None  # type: ignore[assignment]
    test_an_ordinary_user_without_a_home = None  # type: ignore[assignment]
    test_a_user_that_has_no_account_is_told_what_to_do = None  # type: ignore[assignment]


class HostileAccountTest(unittest.TestCase):
    """The server's account may be that of somebody else's program: what root does in its folders follows no link."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.victim = self.folder / "victim"
        self.victim.write_text("of root")

    def test_root_writes_through_no_link_that_the_account_has_put_into_its_folder(self) -> None:
        require(server_account().switched, "the right to change the user", "run the tests as root")
        place = Path(self.enterContext(scratch()))
        place.chmod(0o755)
        more = """
            victim = pathlib.Path(os.environ["VICTIM"])
            for name in ("given", "said", "stage", "data/postgresql.conf", "data/base/link", "data/pg_wal/link"):
                path = server.data.parent / name
                path.unlink(missing_ok=True)
                path.symlink_to(victim)
            os.mkfifo(server.data / "pipe")
            import psycopg
            with psycopg.connect(host=str(server.data.parent), port=5432, user="postgres", autocommit=True) as c:
                c.execute("CREATE DATABASE dbtestcase_template_0123456789abcdef0123456789abcde")
                c.execute("ALTER DATABASE dbtestcase_template_0123456789abcdef0123456789abcde ALLOW_CONNECTIONS false")
            server.persist()
            server.close()
            say("closed")
        """
        cache = Path(self.enterContext(scratch()))
        seed(cache)
        env = {"PLACE": str(place), "VICTIM": str(self.victim), "DBTESTCASE_CACHE": str(cache)}
        with owner(more, env=env) as run:
            self.assertEqual(run.line(), "closed", run.process.stderr and run.process.stderr.read())
        self.assertEqual(self.victim.read_text(), "of root")
        self.assertEqual(self.victim.stat().st_uid, os.geteuid())
        self.assertEqual(len(list(cache.glob("*/project-*.json"))), 1)
        self.assertEqual([path for path in cache.rglob("*") if "of root" in _text(path)], [])
        self.assertEqual(list(place.iterdir()), [])

    def test_a_copy_follows_no_link_and_waits_for_no_pipe(self) -> None:
        source, target = self.folder / "source", self.folder / "target"
        (source / "inner").mkdir(parents=True)
        (source / "inner" / "file").write_text("x")
        (source / "link").symlink_to(self.victim)
        (source / "elsewhere").symlink_to(self.folder)
        os.mkfifo(source / "pipe")
        self.assertEqual(copy_tree(str(source), str(target)), (1, 1))
        self.assertEqual(sorted(str(path.relative_to(target)) for path in target.rglob("*")), ["inner", "inner/file"])
        with self.assertRaises(OSError) as caught:
            copy_tree(str(source / "elsewhere"), str(self.folder / "other"))
        self.assertIn(caught.exception.errno, (errno.ENOTDIR, errno.ELOOP))

    def test_modes_of_a_copy_do_not_depend_on_the_umask(self) -> None:
        source = self.folder / "source"
        (source / "inner").mkdir(parents=True)
        (source / "inner" / "file").touch()
        for umask in (0o077, 0o777) if os.geteuid() == 0 else (0o077,):  # nobody else may enter what 0o777 leaves
            for public, modes in ((False, {0o700, 0o600}), (True, {0o755, 0o644})):
                target = self.folder / f"target-{umask}-{public}"
                before = os.umask(umask)
                try:
                    copy_tree(str(source), str(target), public=public)
                finally:
                    os.umask(before)
                found = {stat.S_IMODE(path.stat().st_mode) for path in (target, *target.rglob("*"))}
                self.assertEqual(found, modes)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


class LimitsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def run_limited(self, limit: str, suite: str) -> Outcome:
        write_suite(self.folder, {"test_it.py": suite})
        done = subprocess.run(
            ["sh", "-c", f'{limit}; exec "$@"', "sh", sys.executable, "-m", "unittest", "-v"],
            cwd=self.folder,
            env=inner_environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Outcome((), done.returncode, done.stdout, done.stderr, 0, 0, 0, 0)

    def test_too_few_open_files_are_named(self) -> None:
        done = self.run_limited("ulimit -n 40", SUITE)
        self.assertRegex(done.output, r"(?s)ServerStartFailed.*limit of open files \(ulimit -n\).*raise it: ulimit -n")

    def test_too_few_locks_are_named(self) -> None:
        write_suite(
            self.folder,
            {
                "test_it.py": """
                    import sqlalchemy as sa
                    from dbtestcase import DatabaseTest
                    class ATest(DatabaseTest):
                        metadata = sa.MetaData()
                        for number in range(900):
                            sa.Table(f"t{number}", metadata, sa.Column("id", sa.Integer, primary_key=True))
                        def test_a(self): pass
                """
            },
        )
        with shared_server(max_locks_per_transaction=10, max_connections=20, max_prepared_transactions=0) as server:
            outcome = run_suite(self.folder, "unittest", env={"DBTESTCASE_URL": server.url}).expect(passed=0, errors=1)
            self.assertEqual(server.databases(), [])
        self.assertRegex(
            outcome.output, r"(?s)SchemaError.*Likely cause: one transaction holds more locks.*raise max_locks"
        )

    def test_quotas_and_the_like_are_known_by_their_numbers(self) -> None:
        for number, word in (
            (errno.EMFILE, "ulimit -n"),
            (errno.EDQUOT, "quota"),
            (errno.ENOSPC, "full"),
            (errno.EAGAIN, "ulimit -u"),
        ):
            found = limit_named_by(OSError(number, "said otherwise"))
            self.assertIn(word, (found or ("",))[0])
        self.assertIsNone(limit_named_by(OSError(errno.ENOENT, "No such file")))

    def test_a_server_that_does_not_start_is_tried_once_a_run(self) -> None:
        programs = self.folder / "programs"
        programs.mkdir()
        wrap_programs(programs, {"initdb": f"echo x >> {self.folder}/tries; exit 1"})
        self.folder.chmod(0o777)
        tests = "\n".join(
            f"class {name}Test(DatabaseTest):\n    metadata = metadata\n    def test_a(self): pass" for name in "ABC"
        )
        head = "import sqlalchemy as sa\nfrom dbtestcase import DatabaseTest\nmetadata = sa.MetaData()\n"
        write_suite(self.folder, {"test_it.py": head + tests})
        env = {"DBTESTCASE_POSTGRES_BIN": str(programs), "DBTESTCASE_CACHE": "off"}
        outcome = run_suite(self.folder, "unittest", env=env).expect(passed=0, errors=3)
        self.assertEqual(outcome.output.count("ServerStartFailed"), 3)
        self.assertEqual((self.folder / "tries").read_text(), "x\n")

    def test_a_schema_that_cannot_be_built_is_tried_once_a_run(self) -> None:
        write_suite(
            self.folder,
            {
                "test_it.py": """
                    import sqlalchemy as sa
                    from dbtestcase import DatabaseTest
                    metadata = sa.MetaData()
                    sa.Table("t", metadata, sa.Column("id", sa.Integer, server_default=sa.text("nonsense()")))
                    tries = []
                    sa.event.listen(metadata, "before_create", lambda *_, **__: tries.append(1))
                    class ATest(DatabaseTest):
                        metadata = metadata
                        def test_a(self): pass
                    class BTest(ATest): pass
                    class CTest(ATest): pass
                    def tearDownModule(): print("tries", sum(tries))
                """
            },
        )
        outcome = run_suite(self.folder, "unittest", env={"DBTESTCASE_SQL": "off"})
        self.assertEqual(outcome.output.count("\nERROR: setUpClass"), 3)
        self.assertIn("SchemaError: Creating the table t failed", outcome.output)
        self.assertIn("tries 1", outcome.output)


if __name__ == "__main__":
    unittest.main()
