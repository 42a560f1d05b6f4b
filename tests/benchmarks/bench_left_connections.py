"""What connections cost that a committing test leaves alone or open: python -m tests.benchmarks.bench_left_connections

An engine made from ``database_url``, with and without ``pool_pre_ping``; a live server in another process that writes
on request; a read transaction that each test leaves open.  Beside each: the same with a named engine, all closed.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import TIMING, finish, in_turns, print_table, printed_seconds, shared_server, verdict
from tests.support.runners import write_suite

TESTS, ROUNDS, MOST = 50, 5, 2.0  # milliseconds

PROGRAM = """
import os, subprocess, sys, unittest, warnings
import sqlalchemy as sa
from dbtestcase import TruncatingDatabaseTest
from timing import run

warnings.simplefilter("ignore")
metadata = sa.MetaData()
note = sa.Table("note", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(50)))
app = sa.create_engine("postgresql+psycopg://nowhere/app")
SERVER = '''
import sys
import sqlalchemy as sa
engine = sa.create_engine(sys.argv[1]) if sys.argv[1] else None
for line in sys.stdin:
    if engine is not None:
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO note (text) VALUES ('x')"))
    print("done", flush=True)
'''

def write(engine):
    with engine.begin() as connection:
        connection.execute(note.insert(), {"text": "x"})

class Case(TruncatingDatabaseTest):
    metadata = metadata
    engines = [app]
    made = None
    left = []

    def engine(self, **options):
        cls = type(self)
        if cls.made is None:
            cls.made = sa.create_engine(self.database_url, **options)
        return cls.made

    def server(self, url):
        cls = type(self)
        if cls.made is None:
            cls.made = subprocess.Popen(
                [sys.executable, "-c", SERVER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        cls.made.stdin.write("go\\n")
        cls.made.stdin.flush()
        assert cls.made.stdout.readline() == "done\\n"

    def named(self): write(app)
    def by_url(self): write(self.engine())
    def by_url_with_ping(self): write(self.engine(pool_pre_ping=True))

    def beside_a_server(self):
        self.server("")
        write(app)
    def by_a_server(self): self.server(self.database_url)

    def closed(self):
        with app.connect() as connection:
            connection.execute(sa.select(note)).all()
        write(app)
    def left_open(self):
        connection = app.connect()
        connection.execute(sa.select(note)).all()
        self.left[:] = [connection]
        write(app)

    check = locals()[sys.argv[1]]

run(Case, int(sys.argv[2]))
if isinstance(Case.made, subprocess.Popen):
    Case.made.communicate()
"""
PAIRS = {
    "an engine of database_url": ("named", "by_url"),
    "the same with pool_pre_ping": ("named", "by_url_with_ping"),
    "a live server in another process": ("beside_a_server", "by_a_server"),
    "a read transaction left open": ("closed", "left_open"),
}


def main() -> None:
    with shared_server() as (_, environment), tempfile.TemporaryDirectory() as name:
        folder = write_suite(Path(name), {"timing.py": TIMING, "program.py": PROGRAM})
        environment["DBTESTCASE_CACHE"] = str(folder / "cache")
        kinds = dict.fromkeys(kind for pair in PAIRS.values() for kind in pair)
        found = in_turns(
            {kind: partial(printed_seconds, ["program.py", kind, str(TESTS)], folder, environment) for kind in kinds},
            ROUNDS,
        )
        rows = [(kind.replace("_", " "), found[kind] / TESTS, "") for kind in kinds]
        print_table(f"{TESTS} committing tests on PostgreSQL, per test", rows, "ms")
        finish(
            [
                verdict(f"{what}, ms over the same without", (found[other] - found[plain]) / TESTS * 1e3, MOST)
                for what, (plain, other) in PAIRS.items()
            ]
        )


if __name__ == "__main__":
    os.environ.pop("DBTESTCASE_URL", None)
    main()
