"""Random sequences on several sessions and engines: what independent connections give, or a conflict."""

from __future__ import annotations

import unittest
import warnings
from collections import Counter
from types import SimpleNamespace
from typing import Any

import psycopg
from sqlalchemy import create_engine, make_url

from dbtestcase.errors import DirtyReadWarning, SandboxConflict
from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.orm_interleavings import READS, TABLES, Play, Side, play_of
from tests.support.requirements import require_module
from tests.support.servers import postgresql_url

SEQUENCES = 30
IGNORED = (DirtyReadWarning, ResourceWarning)  # the latter comes whenever the collector does
CLEAN = "DELETE FROM child; DELETE FROM parent"


class OrmInterleavingsTest(unittest.TestCase):
    """One database for the sandbox and one in which everything is committed for real."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        server = postgresql_url()
        host = str(server.query["host"])
        admin = psycopg.connect(host=host, user=server.username, dbname=server.database, autocommit=True)
        cls.addClassCleanup(admin.close)
        cls.urls = []
        for name in ("verify_orm_sandboxed", "verify_orm_real"):
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {name}")
            cls.addClassCleanup(admin.execute, f"DROP DATABASE {name} WITH (FORCE)")
            cls.urls.append(server.set(drivername="postgresql+psycopg", database=name))
            engine = create_engine(cls.urls[-1])
            TABLES.create_all(engine)
            engine.dispose()
        cls.cleaner = psycopg.connect(host=host, user=server.username, dbname="verify_orm_real", autocommit=True)
        cls.addClassCleanup(cls.cleaner.close)

    def check(self, driver: str) -> None:
        require_module(driver)
        sandbox_url, real_url = (make_url(url.set(drivername=f"postgresql+{driver}")) for url in self.urls)
        with running_sandbox(SimpleNamespace(url=sandbox_url), sandbox_url) as run:
            sides = Side(create_engine(real_url)), Side(create_engine(sandbox_url))
            for side in sides:
                self.addCleanup(side.engine.dispose)
            run.sandbox.begin("class")
            run.sandbox.mark("test")
            self.cleaner.execute(CLEAN)
            counts: Counter[str] = Counter()
            for seed in range(SEQUENCES):
                run.sandbox.facts.forget()
                counts[self.compare(sides, play_of(seed), run.sandbox, f"{driver}, seed {seed}")] += 1
                run.wire.settle()
                run.sandbox.rollback_to_mark("test")
                self.cleaner.execute(CLEAN)
                if seed % 500 == 499:
                    run.sandbox.renew("test")
        self.assertGreater(counts["conflict"], SEQUENCES // 50)
        self.assertGreater(counts["equal"], SEQUENCES // 3)

    def compare(self, sides: tuple[Side, Side], play: Play, sandbox: Any, name: str) -> str:
        for side in sides:
            side.begin(play.options)
        try:
            warned = [False] * len(play.options)
            for time, (i, operation, n) in enumerate(play.steps, 1):
                really, virtually = (self.outcome(side, i, operation, n, 10 + time) for side in sides)
                if virtually[0] == "conflict" or self.has_conflict(sandbox):
                    return "conflict"
                warned[i] |= virtually[2]
                seen = operation in READS and warned[i] and really[0] == virtually[0] == "ok"
                if not seen:  # a dirty read was told of
                    self.assertEqual(really[:2], virtually[:2], f"{name}, step {time}, {operation}: {play}")
                if operation in ("commit", "rollback", "close"):
                    warned[i] = False
            try:
                for side in sides:
                    side.end()
            except SandboxConflict:
                return "conflict"
            if self.has_conflict(sandbox):
                return "conflict"
            self.assertEqual(sides[0].everything(), sides[1].everything(), f"{name}, the rows at the end: {play}")
            return "equal"
        finally:
            for side in sides:
                try:
                    side.end()
                except SandboxConflict:
                    self.assertTrue(self.has_conflict(sandbox))

    def has_conflict(self, sandbox: Any) -> bool:
        """Whether there was one, perhaps where a pool or session has swallowed it."""
        return any(isinstance(error, SandboxConflict) for error in sandbox.raised)

    def outcome(self, side: Side, i: int, operation: str, n: int, fresh: int) -> tuple[str, Any, bool]:
        """How it ended, what was seen, and whether a dirty read was told of."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found: tuple[str, Any] = "ok", side.perform(i, operation, n, fresh)
            except SandboxConflict as conflict:
                found = "conflict", conflict.what
            except Exception as error:
                original = getattr(error, "orig", None)
                state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
                found = "error", (type(error).__name__, state)
        told = [each for each in caught if issubclass(each.category, DirtyReadWarning)]
        others = [str(each.message) for each in caught if not issubclass(each.category, IGNORED)]
        return found[0], (found[1], others), bool(told)

    def test_psycopg(self) -> None:
        self.check("psycopg")

    def test_psycopg2(self) -> None:
        self.check("psycopg2")


if __name__ == "__main__":
    unittest.main()
