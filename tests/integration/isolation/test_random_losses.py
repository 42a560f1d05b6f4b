"""Random classes whose server ends their connections at random moments: nothing escapes, and what failed is named.

A run is a few classes of one or two modules.  At random moments the server ends every connection to the test database,
or crashes and recovers.  The application's engines name a second server, the production: whatever happens, it sees
neither a row nor a connection.  A test that passes has seen exactly the rows that it should.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import types
import unittest
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbtestcase import DatabaseTest
from tests.support.inner import run_inner
from tests.support.production import PostgreSQLProduction
from tests.support.samples import LONG

RUNS = 1000 if LONG else 6
SEED = 20_000
MOMENTS = ("before the class", "in setUpTestData", "after setUpClass", "between tests", "at the start", "in the middle")
NAMED = ("lost", "closed", "terminat", "ended", "connection", "recovery", "Nobody answers", "shut down")


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Saboteur:
    """Ends connections when the moment has come.

    :param chance: the probability at each moment.
    """

    def __init__(self, rng: random.Random, chance: float) -> None:
        self.rng, self.chance = rng, chance
        self.place: dict[str, Any] = {}
        self.struck = 0

    def learn(self, url: str) -> None:
        """Where the test database is."""
        parsed = sa.make_url(url)
        host, port = parsed.query["host"], parsed.query.get("port", 5432)
        self.place = {"host": host, "port": port, "user": parsed.username, "dbname": "postgres"}
        self.name = parsed.database

    def maybe(self, moment: str) -> None:
        assert moment in MOMENTS
        if not self.place or self.rng.random() >= self.chance:
            return
        self.struck += 1
        crash = self.rng.random() < 0.03
        try:
            with psycopg.connect(**self.place, autocommit=True) as judge:
                pids = judge.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", (self.name,)).fetchall()
                for (pid,) in pids:
                    if crash:
                        os.kill(pid, signal.SIGKILL)  # the server ends all others as well, and recovers
                        return
                    judge.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
        except (psycopg.OperationalError, ProcessLookupError):
            return  # it is down already


def make_class(number: int, module: str, rng: random.Random, saboteur: Saboteur, engine: sa.Engine) -> Any:
    scope = rng.choice(["class", "class", "test", "module"])
    with_data = scope != "test" and rng.random() < 0.5
    before = ["class data"] if with_data else []

    def set_up_class(cls: Any) -> None:
        saboteur.maybe("before the class")
        super(made, cls).setUpClass()
        saboteur.learn(cls.database_url)
        saboteur.maybe("after setUpClass")

    def set_up_test_data(cls: Any) -> None:
        cls.session.add(Note(text="class data"))
        saboteur.maybe("in setUpTestData")

    def run(self: Any, result: Any = None) -> Any:
        saboteur.maybe("between tests")
        return super(made, self).run(result)

    def texts() -> list[str]:
        with Session(engine) as session:
            return list(session.scalars(sa.select(Note.text).order_by(Note.id)))

    def test(self: Any) -> None:
        saboteur.maybe("at the start")
        self.assertEqual(texts(), before)
        for step in range(rng.randint(1, 3)):
            with Session(engine) as session:
                session.add(Note(text=f"row {step}"))
                session.commit()
            if rng.random() < 0.3:
                saboteur.maybe("in the middle")
            self.assertEqual(texts(), [*before, *(f"row {n}" for n in range(step + 1))])

    body: dict[str, Any] = {
        "__module__": module,
        "metadata": Base.metadata,
        "engines": [engine],
        "transaction_scope": scope,
        "reset_sequences": rng.random() < 0.3,
        "setUpClass": classmethod(set_up_class),
        "run": run,
    }
    if with_data:
        body["setUpTestData"] = classmethod(set_up_test_data)
    for name in "abc"[: rng.randint(1, 3)]:
        body[f"test_{name}"] = test
    made = type(f"Class{number}Test", (DatabaseTest,), body)
    return made


class RandomLossesTest(unittest.TestCase):
    def test_nothing_escapes_and_what_failed_is_named(self) -> None:
        production = PostgreSQLProduction("losses_production")
        self.addCleanup(production.close)
        counts = {"tests": 0, "green": 0, "failed": 0, "losses": 0}
        for number in range(RUNS):
            seed = SEED + number
            with self.subTest(seed=seed):
                self.one_run(seed, production, counts)
        if LONG:
            print(counts, file=sys.stderr)
        self.assertGreater(counts["losses"], RUNS / 4)
        self.assertGreater(counts["green"], counts["failed"])

    def one_run(self, seed: int, production: PostgreSQLProduction, counts: dict[str, int]) -> None:
        rng = random.Random(seed)
        engine = create_engine(production.url("psycopg"))
        saboteur = Saboteur(rng, chance=0.12)
        modules = [f"losses_{seed}_{index}" for index in range(2)]
        for name in modules:
            sys.modules[name] = types.ModuleType(name)
            self.addCleanup(sys.modules.pop, name, None)
        classes = [
            make_class(index, name, rng, saboteur, engine) for name in modules for index in range(rng.randint(1, 2))
        ]
        result = run_inner(*classes)
        saboteur.chance = 0.0
        last = run_inner(make_class(9, f"{modules[0]}_last", rng, saboteur, engine))
        engine.dispose()

        self.assertEqual(production.rows(), [])
        self.assertEqual(production.clients(), 0)
        self.assertEqual([text for _, text in last.errors + last.failures], [], "after the losses a class is not green")
        problems = [text for _, text in result.errors + result.failures]
        for text in problems:
            self.assertTrue(any(word in text for word in NAMED), text)
        self.assertEqual([text for _, text in result.failures], [], "a test saw rows that it should not see")
        self.assertLessEqual(len(problems), max(1, 4 * saboteur.struck) if saboteur.struck else 0)
        counts["tests"] += result.testsRun
        counts["failed"] += len(problems)
        counts["green"] += result.testsRun - len(problems)
        counts["losses"] += saboteur.struck


if __name__ == "__main__":
    unittest.main()
