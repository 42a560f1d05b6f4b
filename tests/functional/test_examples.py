"""The example applications' own suites pass under every runner, and so does the README's example."""

import difflib
import shutil
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import psycopg

from dbtestcase.server import disposable_server
from dbtestcase.settings import read_settings
from tests.support.documents import read_page
from tests.support.requirements import require_module
from tests.support.runners import PARALLEL_RUNNERS, ROOT, SERIAL_RUNNERS, run_suite, some_of, write_suite

EXAMPLES = ROOT / "docs" / "examples"

#: How many tests each has, and what it imports that the library does not bring.
COUNTS = {
    "blog": (14, ()),
    "committing": (11, ()),
    "fastapi_notes": (7, ("fastapi", "httpx")),
    "flask_shop": (6, ("flask", "flask_sqlalchemy")),
    "script": (4, ()),
    "sqlmodel_heroes": (4, ("sqlmodel",)),
    "behaviour": (4, ("behave", "pytest_bdd")),
    "commands_and_tasks": (5, ("celery", "typer")),
    "fastapi_template": (7, ("fastapi", "httpx2", "sqlmodel")),
    "frameworks": (6, ("zope.testrunner", "testresources")),
    "late_engines": (8, ("dishka", "dependency_injector")),
    "property_based": (3, ("hypothesis",)),
    "sql_files": (3, ()),
    "web_frameworks": (
        10,
        ("flask_sqlalchemy", "httpx2", "litestar", "pyramid_tm", "quart", "starlette", "webtest", "zope.sqlalchemy"),
    ),
    "users": (11, ()),
    "worker": (4, ()),
}


#: Those that have runners of their own, or need no more than one: it is the one that their users start.
ITS_RUNNERS = {
    "behaviour": ("behave", "pytest-bdd"),
    "commands_and_tasks": ("unittest",),
    "fastapi_template": ("pytest",),
    "late_engines": ("unittest",),
    "sql_files": ("unittest",),
    "web_frameworks": ("unittest",),
    "frameworks": ("zope.testrunner",),
    "property_based": ("unittest",),
}


#: Where libraries warn of themselves (webob of ``cgi``, Litestar of its next version).
WARNINGS = {"web_frameworks": "default"}


class ExamplesTest(unittest.TestCase):
    """One test for each example and runner is added below, so that parallel runners can share them out."""

    def test_every_example_is_run(self) -> None:
        self.assertEqual({path.name for path in EXAMPLES.iterdir() if path.is_dir()}, set(COUNTS))

    def test_the_applications_know_nothing_of_the_library(self) -> None:
        for path in EXAMPLES.rglob("*.py"):
            if not {"tests", "features"} & set(path.parts[-2:]):
                with self.subTest(path.name):
                    self.assertNotIn("dbtestcase", path.read_text(encoding="utf-8"))

    def test_a_suite_of_functions_moves_by_ten_lines_of_its_conftest(self) -> None:
        folder = EXAMPLES / "fastapi_template" / "tests"
        before, after = ((folder / name).read_text().splitlines() for name in ("conftest_before.txt", "conftest.py"))
        written = [line for line in difflib.ndiff(before, after) if line.startswith("+ ") and line[2:].strip()]
        self.assertLessEqual(len(written), 10, written)

    def test_the_readmes_example(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "blog"
        shutil.copytree(EXAMPLES / "blog" / "blog", folder / "blog")
        [code] = read_page(ROOT / "README.rst").without_caption
        write_suite(folder, {"test_readme.py": code})
        run_suite(folder, "unittest", own_server=True).expect(passed=2)

    def test_nothing_stays_on_a_server_of_ones_own(self) -> None:
        """A runner that kills its workers leaves databases; the next run drops them, and its own."""
        with disposable_server(read_settings()) as server:
            environment = {"DBTESTCASE_URL": server.url.set(database="app").render_as_string(hide_password=False)}
            for example, runner in (("users", "unittest-parallel-test"), ("worker", "nose2-mp"), ("users", "unittest")):
                with self.subTest(example, runner=runner):
                    run_suite(EXAMPLES / example, runner, env=environment).expect(passed=COUNTS[example][0])
            with psycopg.connect(server.url.set(drivername="postgresql").render_as_string(), autocommit=True) as judge:
                names = judge.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate")
                self.assertEqual([name for (name,) in names], ["postgres"])
                others = (
                    "SELECT query FROM pg_stat_activity "
                    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
                until = time.monotonic() + 60  # the server takes notice of a client's end when it can
                while (left := judge.execute(others).fetchall()) and time.monotonic() < until:
                    time.sleep(0.01)
                self.assertEqual(left, [])


def _test_for(example: str, runner: str) -> Callable[[unittest.TestCase], None]:
    def test(self: unittest.TestCase) -> None:
        count, modules = COUNTS[example]
        for module in modules:
            require_module(module)
        warnings = WARNINGS.get(example, "error")
        own = runner == "unittest" and example in ("blog", "users")  # as its reader starts it; the others share one
        run_suite(EXAMPLES / example, runner, warnings=warnings, own_server=own).expect(passed=count)

    test.__doc__ = f"docs/examples/{example} under {runner}."
    return test


def _runners_of(example: str) -> tuple[str, ...]:
    if example in ITS_RUNNERS:
        return ITS_RUNNERS[example]
    if example == "users":
        return (*some_of(SERIAL_RUNNERS, example), *some_of(PARALLEL_RUNNERS, example))
    # a process for each test costs most: test_nothing_stays_on_a_server_of_ones_own has that
    several = [each for each in PARALLEL_RUNNERS if each != "unittest-parallel-test"]
    if example in ("committing", "worker"):
        return some_of(several, f"{example} example")
    return some_of(SERIAL_RUNNERS, example)


for _example in COUNTS:
    for _runner in _runners_of(_example):
        setattr(
            ExamplesTest,
            f"test_{_example}_under_{_runner.replace('-', '_').replace('.', '_')}",
            _test_for(_example, _runner),
        )
