"""Random sequences of what connections own in the session: as on independent connections, or refused by name."""

from __future__ import annotations

import asyncio
import os
import unittest
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import NullPool, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.interleavings import Sequence, shrink
from tests.support.requirements import require_module
from tests.support.servers import postgresql_url
from tests.support.session_interleavings import SESSION_SCHEMA, SessionComparison, SessionSide, session_sequence

LONG = os.environ.get("LONG_TESTS") == "1"
SEQUENCES = int(os.environ.get("SEQUENCES", 20_000)) if LONG else 60
CLEAN = "DELETE FROM part; DELETE FROM item; DELETE FROM note"


class SessionInterleavingsTest(unittest.TestCase):
    """One database for the sandbox and one for connections that are real."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        url = postgresql_url()
        host = str(url.query["host"])
        admin = psycopg.connect(host=host, user=url.username, dbname=url.database, autocommit=True)
        cls.addClassCleanup(admin.close)
        for name in ("session_sandboxed", "session_real"):
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {name}")
            cls.addClassCleanup(admin.execute, f"DROP DATABASE {name} WITH (FORCE)")
            with psycopg.connect(host=host, user=url.username, dbname=name, autocommit=True) as connection:
                connection.execute(SESSION_SCHEMA)
        admin.execute("ALTER DATABASE session_real SET lock_timeout = '50ms'")
        cls.arguments = {"host": host, "user": url.username, "dbname": "session_real"}
        cls.url = url.set(database="session_sandboxed")

    def compare(self, driver: str, sequences: Iterable[tuple[object, Sequence]]) -> SessionComparison:
        """Run some sequences; a difference is shown as the shortest sequence that has it."""
        url = self.url.set(drivername=f"postgresql+{driver}")
        real_url = url.set(database="session_real")
        make = create_async_engine if driver == "asyncpg" else create_engine
        cleaner = psycopg.connect(**self.arguments, autocommit=True)
        self.addCleanup(cleaner.close)
        with running_sandbox(SimpleNamespace(url=url), url) as run:
            engine, outside = (getattr(e, "sync_engine", e) for e in (make(url, poolclass=NullPool), make(real_url)))
            pool = outside.pool  # made by hand: the sandbox leads engines of the same driver, not what they make
            arguments = outside.dialect.create_connect_args(_address(real_url, driver))

            def connect() -> Any:
                return outside.dialect.connect(*arguments[0], **arguments[1])

            pool.dispose()
            real = SessionSide(connect, _make_autocommit(outside.dialect))
            virtual = SessionSide(engine.raw_connection, _make_autocommit(engine.dialect), run.sandbox)
            comparison = SessionComparison(real, virtual)
            run.sandbox.begin("class")
            run.sandbox.mark("test")

            def attempt(each: Sequence) -> Exception | None:
                try:
                    comparison.run(each)
                except Exception as difference:
                    return difference
                finally:
                    real.close()
                    run.wire.settle()
                    run.sandbox.rollback_to_mark("test")
                    virtual.close()
                    cleaner.execute(CLEAN)
                return None

            def all_of_them() -> None:
                for number, (seed, each) in enumerate(sequences, 1):
                    first = attempt(each)
                    if first is not None:
                        shortest = shrink(each, lambda other: attempt(other) is not None)
                        difference = attempt(shortest)
                        raise AssertionError(f"{driver}, seed {seed}: {shortest}\n{difference or first}") from first
                    if number % 500 == 0:
                        run.sandbox.renew("test")
                        cleaner.execute("VACUUM part, item, note")

            if driver == "asyncpg":
                asyncio.run(greenlet_spawn(all_of_them))
            else:
                all_of_them()
        return comparison

    def check(self, driver: str) -> None:
        require_module(driver, "psycopg2-binary" if driver == "psycopg2" else driver)
        begin = int(os.environ.get("FIRST_SEED", 0)) if LONG else 0
        comparison = self.compare(driver, ((seed, session_sequence(seed)) for seed in range(begin, begin + SEQUENCES)))
        counts = comparison.counts
        if LONG:
            share = counts["conflict"] / counts["sequences"]
            print(f"\n{driver}: {dict(counts)}, {share:.1%} of the sequences conflict")
        self.assertEqual(counts["sequences"], SEQUENCES)
        self.assertGreater(counts["conflict"], 0)
        self.assertLess(counts["conflict"], SEQUENCES // 2)

    def test_psycopg(self) -> None:
        self.check("psycopg")

    def test_psycopg2(self) -> None:
        self.check("psycopg2")

    def test_asyncpg(self) -> None:
        self.check("asyncpg")

    def test_pg8000(self) -> None:
        self.check("pg8000")

    def test_sequences_that_once_made_a_difference(self) -> None:
        for driver in ("psycopg", "psycopg2", "asyncpg", "pg8000"):
            with self.subTest(driver):
                self.compare(driver, ((why, Sequence.parse(text)) for why, text in DIFFERENCES.items()))


def _make_autocommit(dialect: sa.Dialect) -> Any:
    return lambda connection: dialect.set_isolation_level(
        getattr(connection, "dbapi_connection", None) or connection, "AUTOCOMMIT"
    )


def _address(url: sa.URL, driver: str) -> sa.URL:
    if driver != "pg8000":
        return url
    host = str(url.query["host"])
    return url.difference_update_query(["host"]).update_query_dict({"unix_sock": f"{host}/.s.PGSQL.5432"})


DIFFERENCES: dict[str, str] = {}
"""Found by random sequences, or by hand."""
