"""SQLAlchemy's own tests of dialects, plain and in a sandbox: python -m tests.support.sqlalchemy_suite DRIVER HOW

They come with SQLAlchemy (``sqlalchemy.testing.suite``).  In the sandbox their engines are led to one virtual
transaction, as an application's are; what becomes of each test is written to a file that pytest makes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import psycopg
import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.dialects.sqlite import provision

from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.runners import run_python, write_suite
from tests.support.servers import postgresql_url

__all__ = ["ALL", "CHANGES", "CORE", "outcomes"]

CORE = ("cte", "insert", "results", "rowcount", "sequence", "update_delete", "dialect")
"""The modules that say most about connections and transactions, without reflection and types."""

CHANGES = ("insert", "rowcount", "update_delete")
"""Those that change rows."""

ALL = (*CORE, "ddl", "reflection", "select", "table_via_select", "types", "unicode_ddl")

FILES = {
    "conftest.py": """
        import pytest
        pytest.register_assert_rewrite("sqlalchemy.testing.assertions")
        from sqlalchemy.testing.plugin.pytestplugin import *
    """,
    "suite_requirements.py": """
        from sqlalchemy.testing.requirements import SuiteRequirements
        class Requirements(SuiteRequirements):
            pass
    """,
    "setup.cfg": """
        [sqla_testing]
        requirement_cls=suite_requirements:Requirements
        profile_file=profiles.txt
        [tool:pytest]
        python_files=test_suite.py
    """,
}


def outcomes(driver: str, how: str, modules: tuple[str, ...], timeout: float) -> dict[str, str]:
    """What became of each test: ``passed``, ``failure``, ``error`` or ``skipped``, by its name without the driver's."""
    with tempfile.TemporaryDirectory() as folder:
        suite = "\n".join(f"from sqlalchemy.testing.suite.test_{module} import *" for module in modules)
        write_suite(folder, {**FILES, "test_suite.py": suite + "\n"})
        command = ["-m", "tests.support.sqlalchemy_suite", driver, how]
        done = run_python(command, cwd=Path(folder), timeout=timeout)
        report = Path(folder, "report.xml")
        if not report.exists():
            raise AssertionError(
                f"{driver}, {how}: the suite did not run\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        found = {}
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("classname", "").rpartition(".")[2].partition(f"_{_dialect(driver)}")[0]
            verdicts = [each.tag for each in case if each.tag in ("failure", "error", "skipped")]
            found[f"{name}.{case.get('name')}"] = verdicts[0] if verdicts else "passed"
        return found


def _dialect(driver: str) -> str:
    return "sqlite" if driver == "pysqlite" else "postgresql"


@contextlib.contextmanager
def _database(driver: str) -> Iterator[URL]:
    if driver == "pysqlite":
        yield make_url("sqlite:///suite_pysqlite.db")  # the name that SQLAlchemy would give it
        return
    server = postgresql_url()
    name = f"suite_{os.getpid()}"
    with psycopg.connect(_dsn(server), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    try:
        with psycopg.connect(_dsn(server.set(database=name)), autocommit=True) as connection:
            connection.execute("CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2")
        yield server.set(drivername=f"postgresql+{driver}", database=name)
    finally:
        with psycopg.connect(_dsn(server), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _dsn(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def main(driver: str, how: str) -> int:
    """Run the suite in the current folder."""
    sys.path.insert(0, os.getcwd())
    with _database(driver) as url, contextlib.ExitStack() as stack:
        if how == "inside":
            # it deletes the files of SQLite with each engine that is disposed of: here one connection stays
            keeping = SimpleNamespace(path=SimpleNamespace(exists=lambda path: False))
            stack.enter_context(mock.patch.object(provision, "os", keeping))
            run = stack.enter_context(running_sandbox(SimpleNamespace(url=url), url))
            run.sandbox.begin("the suite")
            run.sandbox.mark("the suite")
        arguments = ("--dburi", url.render_as_string(hide_password=False), "--junitxml", "report.xml")
        plugins = ("-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::dbtestcase.DirtyReadWarning")
        status = int(pytest.main(["-q", *arguments, *plugins, "test_suite.py"]))
        if how == "inside" and not run.sandbox.application_connected:
            raise AssertionError("no engine of the suite was led into the sandbox")
        return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
