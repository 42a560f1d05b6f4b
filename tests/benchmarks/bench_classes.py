"""What a class costs: python -m tests.benchmarks.bench_classes

4,000 tests in 200 classes on 300 tables, beside the recipe of SQLAlchemy's documentation; and 100 tests on 1,000 tables
in 100 classes, beside the same tests in two.  Time of the process on the processor, without what is paid once; the
100 classes also with it, as who runs them sees it.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import (
    RECIPE,
    finish,
    in_turns,
    print_table,
    printed_seconds,
    shared_server,
    tree_seconds,
    verdict,
)
from tests.support.runners import write_suite

ROUNDS = 5

PROGRAMS = {
    "models.py": """
        import sys
        from sqlalchemy import Column, ForeignKey, Integer, String, Table, create_engine, func, select
        from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

        class Base(DeclarativeBase): pass

        class Row(Base):
            __tablename__ = "rows"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str]

        for number in range(int(sys.argv[1])):
            Table(f"t{number}", Base.metadata, Column("id", Integer, primary_key=True),
                  Column("row_id", ForeignKey("rows.id")), *(Column(f"c{n}", String(50)) for n in range(8)))
        """,
    "classes.py": """
        import gc, sys, time, unittest

        def run(base, check):
            classes, tests = int(sys.argv[2]), int(sys.argv[3])
            made = [
                type(f"C{number}", (base,), {f"test_{n:03}": check for n in range(tests)})
                for number in range(classes + 1)
            ]
            load = unittest.defaultTestLoader.loadTestsFromTestCase
            once, *suites = [load(cls) for cls in made]
            for suite in (once, unittest.TestSuite(suites)):
                result = unittest.TestResult()
                gc.collect()  # a look at a thousand tables takes longer than all the classes, and falls where it likes
                started = time.process_time()
                unittest.TestSuite([suite]).run(result)
                seconds = time.process_time() - started
                assert result.wasSuccessful(), (result.errors + result.failures)[0][1]
            print(seconds)
        """,
    "ours.py": """
        from dbtestcase import DatabaseTest
        from classes import run
        from models import Base, Row, Session, create_engine, func, select

        engine = create_engine("postgresql+psycopg://nowhere/app")

        class Ours(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]

        def check(self):
            with Session(engine) as session:
                session.add(Row(name="x"))
                session.commit()
                self.assertEqual(session.scalar(select(func.count()).select_from(Row)), 1)

        run(Ours, check)
        """,
    "documented.py": RECIPE,
    "recipe.py": """
        import os
        from classes import run
        from documented import Recipe
        from models import Base, Row, Session, create_engine, func, select

        engine = create_engine(os.environ["SCRATCH"])
        Base.metadata.create_all(engine)

        class Joined(Recipe):
            engine = engine

        def check(self):
            self.session.add(Row(name="x"))
            self.session.commit()
            self.assertEqual(self.session.scalar(select(func.count()).select_from(Row)), 1)

        run(Joined, check)
        """,
}


def main() -> None:
    with shared_server() as (server, environment), tempfile.TemporaryDirectory() as name:
        folder = write_suite(Path(name), PROGRAMS)
        measure = partial(printed_seconds, folder=folder, env=environment)
        many = in_turns(
            {
                "DatabaseTest": partial(measure, ["ours.py", "299", "200", "20"]),
                "recipe": partial(measure, ["recipe.py", "299", "200", "20"]),
            },
            ROUNDS,
        )
        shapes = {"100 classes of 1": ["ours.py", "999", "100", "1"], "2 classes of 50": ["ours.py", "999", "2", "50"]}
        one = in_turns({name: partial(measure, words) for name, words in shapes.items()}, ROUNDS)

        def whole(words: list[str]) -> float:
            return tree_seconds(words, folder, environment)[1]

        processes = in_turns({name: partial(whole, words) for name, words in shapes.items()}, ROUNDS)
    for title, found in (
        ("4,000 tests in 200 classes, 300 tables", many),
        ("100 tests, 1,000 tables", one),
        ("100 tests, 1,000 tables, the whole process", processes),
    ):
        print_table(f"{title}; PostgreSQL {server.version}; median of {ROUNDS}", [(n, s, "") for n, s in found.items()])
    ours, recipe = many.values()
    hundred, two = one.values()
    print(f"  a class costs {(hundred - two) / 98 * 1e3:.2f} ms")
    whole_hundred, whole_two = processes.values()
    finish(
        [
            verdict("share of the recipe", ours / recipe, 1.0),
            verdict("100 classes over two", hundred / two, 1.1),
            verdict("100 classes over two, the whole process", whole_hundred / whole_two, 1.1),
        ]
    )


if __name__ == "__main__":
    main()
