"""SQLite in memory and MariaDB beside hand-written recipes: python -m tests.benchmarks.bench_dialects

Empty tests, and tests that insert three rows through the ORM and commit, over a plain TestCase; and what a run costs
before its first test with 100 tables on MariaDB: warm, and with the tables created.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from dbtestcase.server import disposable_server
from dbtestcase.settings import read_settings
from tests.benchmarks.measure import CHECKS, RECIPE, TIMING, finish, in_turns, print_table, printed_seconds, verdict
from tests.support.runners import write_suite

EMPTY, ROWS, ROUNDS, TABLES = 1_000, 300, 5, 100

MODELS = """
from sqlalchemy import String, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

class Base(DeclarativeBase): pass

class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
"""
OURS = """
import sys
from dbtestcase import DatabaseTest
from models import Base, Row, Session, create_engine
from timing import run

engine = create_engine({engine!r})

class Ours(DatabaseTest):
    url = {url}
    metadata = Base.metadata
    engines = [engine]
    if sys.argv[1] == "empty":
        def check(self): pass
    else:
        def check(self):
            with Session(engine) as session:
                session.add_all(Row(name=str(number)) for number in range(3))
                session.commit()

run(Ours, int(sys.argv[2]))
"""
JOINED = """
import os, sys
from checks import check
from documented import Recipe
from models import Base, StaticPool, create_engine, event
from timing import run

{engine}
Base.metadata.create_all(engine)
run(type("Joined", (Recipe,), {{"engine": engine, "check": check}}), int(sys.argv[2]))
"""
SQLITE_RECIPE = """
engine = create_engine("sqlite://", poolclass=StaticPool)
@event.listens_for(engine, "connect")
def connect(connection, record):
    connection.isolation_level = None
@event.listens_for(engine, "begin")
def begin(connection):
    connection.exec_driver_sql("BEGIN")
"""
MANY = f"""
import os, sys, time, unittest
import pymysql
from dbtestcase import DatabaseTest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine

metadata = MetaData()
for number in range({TABLES}):
    Table(f"t{{number}}", metadata, Column("id", Integer, primary_key=True), Column("name", String(50), index=True))
engine = create_engine(os.environ["SCRATCH"])  # an application has one
if sys.argv[1] == "database":
    from dbtestcase.backends import test_database
    from dbtestcase.backends.schema import MetadataRecipe
    from dbtestcase.settings import read_settings
    from sqlalchemy import make_url
    settings, recipe = read_settings(), MetadataRecipe(metadata, dialect="mariadb")
    recipe.fingerprint()
    started = time.perf_counter()
    database = test_database(make_url(os.environ["SERVER"]), recipe, base="alone", settings=settings)
    seconds = time.perf_counter() - started
    database.close()
    print(seconds)
    sys.exit()
if sys.argv[1] == "ours":
    class Case(DatabaseTest):
        url = os.environ["SERVER"]
        metadata = metadata
else:
    class Case(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            metadata.create_all(engine)
        @classmethod
        def tearDownClass(cls):
            metadata.drop_all(engine)
            engine.dispose()

def test(self):
    self.__class__.reached = time.perf_counter()

Case.test = test
started = time.perf_counter()
result = unittest.TestResult()
unittest.TestSuite([Case("test")]).run(result)
assert result.wasSuccessful(), (result.errors + result.failures)[0][1]
print(Case.reached - started)
"""
PROGRAMS = {
    "timing.py": TIMING,
    "models.py": MODELS,
    "documented.py": RECIPE,
    "checks.py": CHECKS,
    "plain.py": """
        import sys, unittest
        from timing import run

        class Plain(unittest.TestCase):
            def check(self): pass

        run(Plain, int(sys.argv[2]))
        """,
    "sqlite_ours.py": OURS.format(engine="sqlite:///shop.db", url='"sqlite://"'),
    "sqlite_recipe.py": JOINED.format(engine=SQLITE_RECIPE),
    "mariadb_ours.py": "import os\n" + OURS.format(engine="mariadb+pymysql://nowhere/app", url='os.environ["SERVER"]'),
    "mariadb_recipe.py": JOINED.format(engine='engine = create_engine(os.environ["SCRATCH"])'),
    "start.py": MANY,
}
NAMES = {
    "plain": "unittest.TestCase",
    "sqlite_ours": "DatabaseTest, SQLite in memory",
    "sqlite_recipe": "hand-written recipe, SQLite in memory",
    "mariadb_ours": "DatabaseTest, MariaDB",
    "mariadb_recipe": "hand-written recipe, MariaDB",
}


def main() -> None:
    with disposable_server(read_settings(), kind="mariadb") as server, tempfile.TemporaryDirectory() as name:
        folder = write_suite(Path(name), PROGRAMS)
        environment = {
            "SERVER": server.url.set(database="bench").render_as_string(hide_password=False),
            "SCRATCH": server.url.set(database="scratch").render_as_string(hide_password=False),
            "DBTESTCASE_CACHE": str(folder / "cache"),
        }
        _create_scratch(server.url)
        measure = partial(printed_seconds, folder=folder, env=environment)
        for kind, count in (("empty", EMPTY), ("rows", ROWS)):
            found = in_turns(
                {each: partial(measure, [f"{each}.py", kind, str(count)]) for each in NAMES},
                ROUNDS,
            )
            over = {each: (found[each] - found["plain"]) / count for each in NAMES if each != "plain"}
            print_table(
                f"{count} tests ({kind}), per test over a plain TestCase",
                [(NAMES[each], seconds, "") for each, seconds in over.items()],
                "us",
            )
            for dialect in ("sqlite", "mariadb"):
                ratio = over[f"{dialect}_ours"] / over[f"{dialect}_recipe"]
                print(f"          {dialect}: {ratio:.2f} of the recipe")
        kept = _startup(folder, environment)
    finish([kept])


def _startup(folder: Path, environment: dict[str, str]) -> bool:
    """A warm start with 100 tables beside one that creates them: seconds until the first test begins."""
    off = environment | {"DBTESTCASE_CACHE": "off"}
    found = in_turns(
        {
            "warm": lambda: printed_seconds(["start.py", "ours"], folder, environment),
            "created": lambda: printed_seconds(["start.py", "ours"], folder, off),
            "create_all by hand": lambda: printed_seconds(["start.py", "hand"], folder, environment),
            "the database alone, warm": lambda: printed_seconds(["start.py", "database"], folder, environment),
            "the database alone, created": lambda: printed_seconds(["start.py", "database"], folder, off),
        },
        ROUNDS,
    )
    print_table(
        f"from the start of a class with {TABLES} tables to its first test, on a MariaDB in memory that runs",
        [(each, seconds, "") for each, seconds in found.items()],
    )
    warm, created = found["the database alone, warm"], found["the database alone, created"]
    return verdict("a warm database, of one whose tables are created", warm / created, 0.1)


def _create_scratch(url: object) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(url, isolation_level="AUTOCOMMIT")  # type: ignore[call-overload]
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE scratch"))
    engine.dispose()


if __name__ == "__main__":
    os.environ.pop("DBTESTCASE_URL", None)
    main()
