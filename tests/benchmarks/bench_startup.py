"""What a run costs before its first test: python -m tests.benchmarks.bench_startup

A process with one empty DatabaseTest and 50 tables, beside an empty unittest.TestCase with the same imports, and beside
the same with testing.postgresql started once per run.  All warm: the caches are filled by a round that is not counted.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import finish, in_turns, print_table, process_seconds, verdict
from tests.support.runners import write_suite

TABLES = 50
ROUNDS = 9

MODELS = f"""
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, create_engine

engine = create_engine("postgresql+psycopg://localhost/app")
metadata = MetaData()
for number in range({TABLES}):
    Table(
        f"t{{number}}",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String, nullable=False, index=True),
        *([Column("parent_id", ForeignKey(f"t{{number - 1}}.id"))] if number else []),
    )
"""
SUITES = {
    "models.py": MODELS,
    "test_empty.py": """
        import unittest
        from dbtestcase import DatabaseTest
        from models import create_engine, metadata

        class EmptyTest(unittest.TestCase):
            def test(self): pass
        """,
    "test_ours.py": """
        import unittest
        from dbtestcase import DatabaseTest
        from models import create_engine, metadata

        class EmptyTest(DatabaseTest):
            metadata = metadata
            def test(self): pass
        """,
    "test_other.py": """
        import os, unittest
        from dbtestcase import DatabaseTest
        from models import create_engine, metadata
        from testing.postgresql import Postgresql

        def setUpModule():
            programs = {name: os.environ["WRAPPERS"] + "/" + name for name in ("initdb", "postgres")}
            server = Postgresql(base_dir=os.environ["BASE"], **programs)
            unittest.addModuleCleanup(server.stop)
            engine = create_engine(server.url().replace("postgresql:", "postgresql+psycopg:"))
            unittest.addModuleCleanup(engine.dispose)
            metadata.create_all(engine)

        class EmptyTest(unittest.TestCase):
            def test(self): pass
        """,
}


def newest_programs() -> Path:
    """The folder of PostgreSQL's programs that both use: $DBTESTCASE_POSTGRES_BIN, or the newest of the system."""
    if "DBTESTCASE_POSTGRES_BIN" in os.environ:
        return Path(os.environ["DBTESTCASE_POSTGRES_BIN"])
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found:
        sys.exit("no PostgreSQL in /usr/lib/postgresql: set DBTESTCASE_POSTGRES_BIN")
    return found[-1]


def write_wrappers(folder: Path, programs: Path) -> None:
    """Programs that testing.postgresql can run as root, which PostgreSQL itself refuses."""
    folder.mkdir()
    for name in ("initdb", "postgres"):
        start = f'exec "{programs / name}" "$@"'
        if os.getuid() == 0:
            user = "--reuid=postgres --regid=postgres --clear-groups"
            start = f'chown -R postgres "$BASE"; exec setpriv {user} "{programs / name}" "$@"'
        (folder / name).write_text(f"#!/bin/sh\n{start}\n")
        (folder / name).chmod(0o755)


def main() -> None:
    programs = newest_programs()
    folder = Path(tempfile.mkdtemp(prefix="dbtestcase-bench-"))
    try:
        folder.chmod(0o755)
        write_suite(folder, SUITES)
        write_wrappers(folder / "programs", programs)
        environment = {"DBTESTCASE_POSTGRES_BIN": str(programs), "WRAPPERS": str(folder / "programs")}

        def other() -> float:
            base = Path(tempfile.mkdtemp(dir=folder))
            base.chmod(0o755)
            try:
                return process_seconds(["-m", "unittest", "test_other"], folder, environment | {"BASE": str(base)})
            finally:
                shutil.rmtree(base)

        ours = partial(process_seconds, folder=folder, env=environment)
        found = in_turns(
            {
                "empty unittest.TestCase": lambda: ours(["-m", "unittest", "test_empty"]),
                "empty DatabaseTest": lambda: ours(["-m", "unittest", "test_ours"]),
                "testing.postgresql once per run": other,
            },
            ROUNDS,
        )
    finally:
        shutil.rmtree(folder)
    empty, mine, theirs = found.values()
    print_table(
        f"One process, one empty test, {TABLES} tables, warm; {programs}; median of {ROUNDS}",
        [(name, seconds, f"{seconds - empty:+.3f} s") for name, seconds in found.items()],
    )
    finish(
        [
            verdict("seconds longer than the empty TestCase", mine - empty, 0.35),
            verdict("share of testing.postgresql", mine / theirs, 0.3),
        ]
    )


if __name__ == "__main__":
    main()
