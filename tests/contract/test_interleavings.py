"""Random sequences on several connections: the rows of independent connections, or a conflict nobody could avoid."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from sqlalchemy import NullPool, create_engine, make_url

from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.interleavings import SCHEMA, Comparison, Sandboxed, Sequence, Side, sequence, shrink
from tests.support.requirements import require_module
from tests.support.samples import LONG
from tests.support.two_databases import TwoDatabases

SEQUENCES = 20_000 if LONG else 40


class InterleavingsTest(TwoDatabases):
    name, schema = "verify", SCHEMA

    def compare(self, driver: str, sequences: Iterable[tuple[object, Sequence]]) -> Comparison:
        """Run some sequences; a difference is shown as the shortest sequence that has it."""
        module: Any = __import__(driver)
        url = make_url(self.url.set(drivername=f"postgresql+{driver}"))
        cleaner = self.real_connection()
        with running_sandbox(SimpleNamespace(url=url), url) as run:
            # no pool: a SET that was committed would live on in it, in production too
            engine = create_engine(url, poolclass=NullPool)
            # psycopg 3.3 takes a statement for prepared that an error in a pipeline kept from being so
            options = {"prepare_threshold": None} if driver == "psycopg" else {}
            real = Side(lambda: module.connect(**self.arguments, **options))
            sandboxed = Sandboxed(engine, run.sandbox)
            self.addCleanup(real.dispose)
            comparison = Comparison(real, sandboxed)
            run.sandbox.begin("class")
            run.sandbox.mark("test")

            def attempt(each: Sequence) -> Exception | None:
                try:
                    comparison.run(each)
                except Exception as difference:  # an error of the comparison itself is worth a short sequence too
                    return difference
                finally:
                    for i in range(each.connections):
                        real.close(i)
                    run.wire.settle()
                    run.sandbox.rollback_to_mark("test")
                    for i in range(each.connections):
                        sandboxed.close(i)
                    cleaner.execute("TRUNCATE item, part, deleted" if attempt.count % 100 == 0 else CLEAN)
                    attempt.count += 1
                return None

            attempt.count = 0
            for seed, each in sequences:
                run.sandbox.facts.forget()  # what it knows of the schema may be asked for at any point
                first = attempt(each)
                if first is not None:
                    shortest = shrink(each, lambda other: attempt(other) is not None)
                    difference = attempt(shortest)
                    raise AssertionError(f"{driver}, seed {seed}: {shortest}\n{difference or first}") from first
                if attempt.count % 500 == 0:
                    run.sandbox.renew("test")
        return comparison

    def check(self, driver: str, **options: Any) -> None:
        comparison = self.compare(driver, ((seed, sequence(seed, **options)) for seed in range(SEQUENCES)))
        counts = comparison.counts
        if LONG:
            share = counts["conflicts"] / counts["sequences"]
            print(f"\n{driver} {options or ''}: {dict(counts)}, {share:.1%} of the sequences conflict")
        self.assertEqual(counts["sequences"], SEQUENCES)
        # neither never nor always: both kinds of sequences were really tried
        self.assertGreater(counts["conflicts"], SEQUENCES // 50)
        self.assertLess(counts["conflicts"], SEQUENCES // 2)

    def test_psycopg_gives_the_rows_of_independent_connections(self) -> None:
        self.check("psycopg")

    def test_sequences_that_once_made_a_difference(self) -> None:
        for driver in ("psycopg", "psycopg2"):
            require_module(driver)
            self.compare(driver, ((why, Sequence.parse(text)) for why, text in DIFFERENCES.items()))

    def test_psycopg2_gives_the_rows_of_independent_connections(self) -> None:
        require_module("psycopg2", "psycopg2-binary")
        self.check("psycopg2")

    def test_broken_deferred_constraints_fail_the_commits_that_fail_in_production(self) -> None:
        self.check("psycopg", deferred=True)


CLEAN = "DELETE FROM part; DELETE FROM item; DELETE FROM deleted"
DIFFERENCES = {
    "a cursor whose savepoint was merged into what stays": "A.read(9) B.insert_twice(2) A.insert(1) B.savepoint(0) "
    "B.cursor(4) A.cursor(5) A.commit(3) B.insert_many(3) B.rollback_to(2) B.commit(1) A.read(9) B.read(4)",
    "a cursor that is closed beside another's error": "A.savepoint(4) A.cursor(9) A.rollback_to(4) B.divide(4) "
    "A.commit(0) B.commit(0)",
    "a cursor that is closed while a rollback waits": "A.copy_in(480) D.insert(177) D.savepoint(767) D.cursor(395) "
    "D.rollback_to(335) B.set(279) A.close(0) D.commit(0) B.insert(1) B.read(2)",
    "what is not known of the schema, asked for in a pipeline": "A.insert(1) B.insert_many(2) B.read(3) B.rollback(4)",
    "a cursor that is refused outside of transactions, and closed": "autocommit: A; A.cursor(32) B.cursor(1) A.read(2)",
}
"""Found by random sequences, or by hand."""
