"""How many modules of the package a commit, a class's set-up and a cleaning go through, and how often they change.

::

    PYTHONPATH=. python -m tests.benchmarks.rooms          # of the package that Python finds; any version of it

A reader who follows one of them in the source opens so many files, and turns to another one so many times.
"""

from __future__ import annotations

import contextlib
import sys
import unittest
from collections.abc import Iterator
from types import FrameType
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert
from sqlalchemy.orm import Session

from dbtestcase import DatabaseTest, TruncatingDatabaseTest

metadata = MetaData()
rows = Table("rooms", metadata, Column("id", Integer, primary_key=True), Column("name", String(30)))
engine = create_engine("postgresql+psycopg://127.0.0.1:1/nowhere")
found: dict[str, list[str]] = {}


def room(frame: FrameType | None) -> str:
    """The package's module that a frame, or the nearest of its callers below the application's code, runs in."""
    while frame is not None and frame.f_globals is not globals():
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("dbtestcase"):
            return name
        frame = frame.f_back
    return ""


@contextlib.contextmanager
def walked(what: str) -> Iterator[None]:
    """Note every change of room in a block."""
    walk: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "return"):
            now = room(frame if event == "call" else frame.f_back)
            if now and (not walk or walk[-1] != now):
                walk.append(now)

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        found[what] = walk


class First(DatabaseTest):
    """Starts the server and makes the tables, which are not counted."""

    metadata = metadata
    engines = (engine,)

    def test_it(self) -> None:
        self.assertEqual(len(self.session.execute(rows.select()).all()), 0)


class Second(First):
    @classmethod
    def setUpClass(cls) -> None:
        with walked("a class's set-up"):
            super().setUpClass()

    def test_it(self) -> None:
        for _ in range(3):  # the last one is counted: what is looked up once is known by then
            with Session(engine) as session:
                session.execute(insert(rows).values(name="a"))
                with walked("a commit"):
                    session.commit()


class Third(TruncatingDatabaseTest):
    metadata = metadata
    engines = (engine,)

    def test_it(self) -> None:
        with Session(engine) as session:
            session.execute(insert(rows).values(name="a"))
            session.commit()

    test_it_again = test_it

    def doCleanups(self) -> Any:
        with walked("a cleaning"):
            return super().doCleanups()


def main() -> int:
    suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, (First, Second, Third)))
    result = unittest.TextTestRunner(verbosity=0).run(suite)
    for what, walk in sorted(found.items()):
        print(f"{what}: {len(set(walk))} rooms, {len(walk) - 1} changes of room")
        if "-v" in sys.argv:
            print("    " + "\n    ".join(walk))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
