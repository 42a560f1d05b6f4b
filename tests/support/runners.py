"""Inner test suites, run in a subprocess by the runner that a user would use.

with tempfile.TemporaryDirectory() as folder:
    write_suite(folder, {"test_blog.py": SOURCE})
    run_suite(folder, "nose2").expect(passed=3)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.forks import forked, started
from tests.support.samples import LONG
from tests.support.servers import inner_url

#: The folder that holds ``dbtestcase/`` and ``tests/``.
ROOT = Path(__file__).resolve().parents[2]

# the library's plugin, which pytest loads by itself where the library is installed
_PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-p", "dbtestcase.pytest_plugin")

#: How each runner is started in the suite's folder: what comes after ``python``.
RUNNERS: dict[str, tuple[str, ...]] = {
    "unittest": ("-m", "unittest", "discover", "-v"),
    "nose2": ("-m", "nose2", "-v"),
    "pytest": (*_PYTEST, "-rA", "--tb=long"),
    "nose2-mp": ("-m", "nose2", "-v", "--plugin", "nose2.plugins.mp", "-N", "2"),
    "xdist": (*_PYTEST, "-p", "xdist", "-rA", "-n", "2"),
    "unittest-parallel-class": ("-m", "unittest_parallel", "-v", "-j", "2", "--level", "class"),
    "unittest-parallel-test": ("-m", "unittest_parallel", "-v", "-j", "2", "--level", "test"),
}
#: Frameworks with a life of their own: what their users start.
FRAMEWORKS: dict[str, tuple[str, ...]] = {
    "zope.testrunner": ("-m", "zope.testrunner", "--test-path=.", "--tests-pattern", "^test_", "-v"),
    "behave": ("-m", "behave", "--no-color"),
    "pytest-bdd": (*_PYTEST, "-p", "pytest_bdd.plugin", "-rA"),
}
SERIAL_RUNNERS = ("unittest", "nose2", "pytest")
PARALLEL_RUNNERS = ("nose2-mp", "xdist", "unittest-parallel-class", "unittest-parallel-test")


def some_of(runners: Sequence[str], of: str) -> tuple[str, ...]:
    """One of some runners, which differs by test and by Python; all of them in the long mode.

    :param of: a name for the test.
    """
    chosen = (zlib.crc32(of.encode()) + sys.version_info[1]) % len(runners)
    return tuple(runners) if LONG else (runners[chosen],)


# What the outer run says about itself must not reach the inner one: it would take itself for a worker of the outer. Nor
# what says how runners print: pytest shortens its summary unless CI or BUILD_NUMBER is set.
_OUTER = re.compile(
    r"^(PYTEST_|NOSE2_|DBTESTCASE_(URL|KEEP|SQL|TESTS_)|PYTHONWARNINGS$"
    r"|(CI|BUILD_NUMBER|COLUMNS|NO_COLOR|FORCE_COLOR|PY_COLORS|PYTHON_COLORS)$)"
)

# What an inner run of which the server is tested has in its environment.
_OF_A_SERVER = {
    *("DBTESTCASE_URL", "DBTESTCASE_CACHE", "DBTESTCASE_STAY", "DBTESTCASE_POSTGRES_BIN", "DBTESTCASE_KEEP"),
    *("TMPDIR", "HOME"),
}


@dataclass(frozen=True)
class Outcome:
    """How an inner run ended, in the unittest sense: an error is not a failure, a skip is not a pass."""

    command: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    passed: int
    failed: int
    errors: int
    skipped: int

    @property
    def output(self) -> str:
        """Everything that the runner printed."""
        return f"{self.stdout}\n{self.stderr}"

    def expect(self, *, passed: int, failed: int = 0, errors: int = 0, skipped: int = 0) -> Outcome:
        """This outcome, if its counts are these and its exit status agrees with them.

        pytest counts a failing ``setUp`` among the failures, unittest and nose2 among the errors: failures and errors
        are therefore compared as a sum.

        :raises AssertionError: something else happened; the message holds the whole output.
        """
        counted = (self.passed, self.failed + self.errors, self.skipped)
        expected = (passed, failed + errors, skipped)
        if counted != expected or (self.returncode == 0) != (failed + errors == 0):
            raise AssertionError(
                f"expected (passed, failed or error, skipped) {expected}, found {counted}, exit status "
                f"{self.returncode}, of {' '.join(self.command)}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
            )
        return self


def write_suite(folder: str | Path, files: Mapping[str, str]) -> Path:
    """Write ``files`` (path relative to ``folder``: indented source) and give back the folder."""
    folder = Path(folder)
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
    return folder


def inner_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what tells a run about itself, with the project importable, and ``extra``."""
    environment = {name: value for name, value in os.environ.items() if not _OUTER.match(name)}
    path = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return environment | dict(extra or {})


def run_python(
    arguments: Sequence[str],
    *,
    cwd: str | Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    python: str = sys.executable,
    new: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run this interpreter (or ``python``) in a session of its own; kill the whole session after ``timeout`` seconds.

    :param new: it may not be a fork of one that has imported SQLAlchemy, psycopg and this library already.
    :raises AssertionError: it did not end in time; the message holds its output.
    """
    command = [python, *arguments]
    if not new and python == sys.executable:
        try:
            done = forked(arguments, cwd=Path(cwd), env=inner_environment(env), root=ROOT, timeout=timeout)
        except subprocess.TimeoutExpired as late:
            raise _late(command, timeout, str(late.output), str(late.stderr)) from None
        if done is not None:
            return done
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=inner_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise _late(command, timeout, stdout, stderr) from None
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def start_python(
    arguments: Sequence[str],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    mixed: bool = False,
) -> subprocess.Popen[str]:
    """Start what :func:`run_python` would run, with a pipe for each stream, or one for both."""
    return started(arguments, cwd=Path(cwd or Path.cwd()), env=inner_environment(env), root=ROOT, mixed=mixed)


def without_progress(text: str) -> str:
    """What a run has said, without the line for the person who waits for a server that takes longer than a second."""
    return re.sub(r"(?m)^dbtestcase: .* \.\.\.\n", "", text)


def _late(command: Sequence[str], timeout: float, stdout: str, stderr: str) -> AssertionError:
    return AssertionError(f"no end after {timeout} s: {' '.join(command)}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")


def run_suite(
    folder: str | Path,
    runner: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    warnings: str = "error",
    python: str = sys.executable,
    new: bool = False,
    own_server: bool = False,
) -> Outcome:
    """Run the suite in ``folder`` under ``runner`` (of :data:`RUNNERS` or :data:`FRAMEWORKS`) and count its tests.

    :param arguments: appended to the runner's own.
    :param env: variables added to the environment.
    :param timeout: seconds.
    :param warnings: for ``python -W``.
    :param new: see :func:`run_python`.
    :param own_server: start a disposable server, as a run does by itself; so does one whose ``env`` says where a
        server is, or how one is made.  Others share a server of this process, where they cost a third.
    """
    started = (RUNNERS | FRAMEWORKS)[runner]
    command = ("-W", warnings, *started, *arguments)
    # Plugins that happen to be installed are not what is tested, and pytest compiles all of them in each run.
    env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **(env or {})}
    if not (own_server or _OF_A_SERVER & env.keys()):
        env = {"DBTESTCASE_URL": inner_url().render_as_string(hide_password=False)} | env
    done = run_python(command, cwd=folder, env=env, timeout=timeout, python=python, new=new)
    count = _COUNTS.get(runner, _count_pytest if "pytest" in started[:2] else _count_unittest)
    counts = count(done)
    return Outcome((python, *command), done.returncode, done.stdout, done.stderr, **counts)


def each_runner(folder: str | Path, runners: Sequence[str] = SERIAL_RUNNERS) -> Iterator[tuple[str, Outcome]]:
    """:func:`run_suite` under each of ``runners``, for a loop over ``subTest``."""
    for runner in runners:
        yield runner, run_suite(folder, runner)


def _count_unittest(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """From ``Ran 3 tests in 0.1s`` and ``FAILED (failures=1, errors=1, skipped=1)``, on either stream."""
    output = f"{done.stdout}\n{done.stderr}"
    ran = re.findall(r"^Ran (\d+) tests? in ", output, re.MULTILINE)
    verdict = re.findall(r"^(?:OK|FAILED|NO TESTS RAN)\b.*", output, re.MULTILINE)
    found = {name.strip(): int(count) for name, count in re.findall(r"([a-z ]+)=(\d+)", verdict[-1] if verdict else "")}
    counts = {
        "failed": found.get("failures", 0) + found.get("unexpected successes", 0),
        "errors": found.get("errors", 0),
        "skipped": found.get("skipped", 0),
    }
    return {"passed": max(int(ran[-1]) - sum(counts.values()), 0) if ran else 0, **counts}


def _count_pytest(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """From ``=== 1 failed, 2 passed, 1 skipped, 1 error in 0.1s ===``."""
    summary = re.findall(r"^=+ (.*) in [\d.]+s.* =+$", done.stdout, re.MULTILINE)
    found = {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", summary[-1] if summary else "")}
    return {
        "passed": found.get("passed", 0),
        "failed": found.get("failed", 0),
        "errors": found.get("error", found.get("errors", 0)),
        "skipped": found.get("skipped", 0),
    }


def _count_zope(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """From ``Total: 6 tests, 0 failures, 0 errors and 0 skipped in 2.0 seconds.``; ``Ran`` with one layer."""
    counts = r"(\d+) failures, (\d+) errors and (\d+) skipped"
    total = re.search(rf"^Total: (\d+) tests, {counts}", done.stdout, re.MULTILINE) or re.search(
        rf"^  Ran (\d+) tests with {counts}", done.stdout, re.MULTILINE
    )
    tests, failed, errors, skipped = map(int, total.groups()) if total else (0, 0, 0, 0)
    return {"passed": tests - failed - errors - skipped, "failed": failed, "errors": errors, "skipped": skipped}


def _count_behave(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """From ``3 scenarios passed, 1 failed, 0 error, 0 skipped``."""
    line = re.search(r"^\d+ scenarios? passed.*", done.stdout, re.MULTILINE)
    found = {name: int(n) for n, name in re.findall(r"(\d+) (?:scenarios? )?(\w+)", line[0] if line else "")}
    return {
        "passed": found.get("passed", 0),
        "failed": found.get("failed", 0),
        "errors": found.get("error", 0) + found.get("errors", 0),
        "skipped": found.get("skipped", 0),
    }


_COUNTS = {"zope.testrunner": _count_zope, "behave": _count_behave}
