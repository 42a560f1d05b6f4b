"""SQLAlchemy's own tests of dialects, plain and in a sandbox: python -m tests.support.sqlalchemy_suite DRIVER HOW

They come with SQLAlchemy (``sqlalchemy.testing.suite``).  In the sandbox their engines are led to one virtual
transaction, as an application's are; what becomes of each test is written to a file that pytest makes.  On MariaDB,
where what makes a table commits, the tables of a class are made before its transaction begins, as an application's are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, NullPool, create_engine, make_url

from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.mariadb import connect as connect_mariadb
from tests.support.mariadb import mariadb_url
from tests.support.runners import run_python, write_suite
from tests.support.servers import inner_url, postgresql_url

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
        from sqlalchemy.testing import exclusions
        from sqlalchemy.testing.requirements import SuiteRequirements
        class Requirements(SuiteRequirements):
            @property
            def independent_connections(self):  # it makes an engine that does not attach SQLite's second database
                return exclusions.skip_if("sqlite")
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
    """What became of each test, by its name without the driver's.

    :returns: ``passed``, ``failure``, ``error``, ``skipped``, or ``refused`` where the sandbox has refused by name what
        would commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        suite = "\n".join(f"from sqlalchemy.testing.suite.test_{module} import *" for module in modules)
        write_suite(folder, {**FILES, "test_suite.py": suite + "\n"})
        command = ["-m", "tests.support.sqlalchemy_suite", driver, how]
        url = (postgresql_url() if how == "plain" else inner_url()).set(database="postgres")
        env = {"TESTS_URL": url.render_as_string(hide_password=False), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = run_python(command, cwd=Path(folder), timeout=timeout, env=env)
        report = Path(folder, "report.xml")
        if not report.exists():
            raise AssertionError(
                f"{driver}, {how}: the suite did not run\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        found = {}
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("classname", "").rpartition(".")[2].partition(f"_{_dialect(driver)}")[0]
            verdicts = [_verdict(each) for each in case if each.tag in ("failure", "error", "skipped")]
            found[f"{name}.{case.get('name')}"] = verdicts[0] if verdicts else "passed"
        return found


def _verdict(found: ElementTree.Element) -> str:
    refused = re.search(r"SandboxEscape: The statement .* would commit the transaction", found.text or "")
    return "refused" if refused and found.tag != "skipped" else found.tag


def _dialect(driver: str) -> str:
    return {"pysqlite": "sqlite", "pymysql": "mariadb"}.get(driver, "postgresql")


@contextlib.contextmanager
def _database(driver: str) -> Iterator[URL]:
    if driver == "pysqlite":
        yield make_url("sqlite:///suite_pysqlite.db")  # the name that SQLAlchemy would give it
        return
    if driver == "pymysql":
        server = mariadb_url()
        with contextlib.closing(connect_mariadb(server, None)) as admin, admin.cursor() as cursor:
            for name in ("suite", "test_schema", "test_schema_2"):
                cursor.execute(f"CREATE OR REPLACE DATABASE {name} CHARACTER SET utf8mb4")
        yield server.set(database="suite")
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


def _begin(sandbox: Any) -> None:
    sandbox.begin("the suite")
    sandbox.mark("the suite")


class _KeepsFiles:
    """A plugin of pytest: SQLAlchemy does not delete the files of SQLite with each engine that is disposed of."""

    def pytest_collection_finish(self) -> None:
        from sqlalchemy.dialects.sqlite import provision

        provision.os = SimpleNamespace(path=SimpleNamespace(exists=lambda path: False))


class _TablesFirst:
    """A plugin of pytest: the tables of a class are made and dropped for real, between two transactions."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.engine = create_engine(run.url, poolclass=NullPool)

    def pytest_collection_finish(self) -> None:
        from sqlalchemy.testing import fixtures

        for name in ("_setup_once_tables", "_teardown_once_metadata_bind"):
            original = getattr(fixtures.TablesTest, name).__func__
            setattr(fixtures.TablesTest, name, classmethod(functools.partial(self.between, original)))
        for name in ("_setup_each_tables", "_teardown_each_tables"):
            setattr(fixtures.TablesTest, name, self.each(getattr(fixtures.TablesTest, name)))

    def between(self, original: Callable[[Any], None], owner: Any) -> None:
        """Call a method that makes or drops the tables of a class or test."""
        bind, owner.bind = owner.bind, self.engine
        self.run.sandbox.end()
        try:
            original(owner)
        finally:
            if owner.bind is not None:
                owner.bind = bind
            self.run.sandbox.facts.forget()
            _begin(self.run.sandbox)

    def each(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        def method(test: Any) -> None:
            if test.run_create_tables == "each":
                self.between(original, test)
            else:
                original(test)

        return method


def main(driver: str, how: str) -> int:
    """Run the suite in the current folder."""
    sys.path.insert(0, os.getcwd())
    with _database(driver) as url, contextlib.ExitStack() as stack:
        plugins: list[object] = []
        if how == "inside":
            run = stack.enter_context(running_sandbox(SimpleNamespace(url=url, built=True), url))
            _begin(run.sandbox)
            plugins += {"pysqlite": [_KeepsFiles()], "pymysql": [_TablesFirst(run)]}.get(driver, [])
        arguments = ("--dburi", url.render_as_string(hide_password=False), "--junitxml", "report.xml")
        options = ("-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::dbtestcase.DirtyReadWarning")
        status = int(pytest.main(["-q", *arguments, *options, "test_suite.py"], plugins=plugins))
        if how == "inside" and not run.sandbox.application_connected:
            raise AssertionError("no engine of the suite was led into the sandbox")
        return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
