"""Operations that a test leaves half-finished, in random company: the next test passes, whatever became of them."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import random
import unittest
import warnings
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dbtestcase.isolation.rollback import SandboxIsolation
from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.garbage import ManyCollections
from tests.support.requirements import require_module
from tests.support.samples import LONG
from tests.support.scratch import connect
from tests.support.servers import postgresql_url

ROUNDS = int(os.environ.get("ROUNDS", 2_000)) if LONG else 10
SCHEMA = """
CREATE TABLE item (id int PRIMARY KEY, name text);
INSERT INTO item SELECT n, 'base' FROM generate_series(1, 300) n
"""

Left = Callable[[], Any]
"""Goes on with what was left, or ends it, in a later test."""


class Boom(Exception):
    pass


class _File(io.StringIO):
    """Fails in the middle of a COPY."""

    def write(self, text: str) -> int:
        raise Boom

    read = write  # type: ignore[assignment]


def _begun(block: Any) -> Any:
    block.__enter__()
    return lambda: block.__exit__(None, None, None)


def _half(rows: Any) -> Left:
    next(iter(rows))
    return lambda: list(rows)


class Operations:
    """Each leaves something in the middle and gives back how it could go on."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.fairies: list[Any] = []

    def raw(self) -> Any:
        fairy = self.engine.raw_connection()
        self.fairies.append(fairy)  # or else its pool would take it back at once
        return fairy.driver_connection

    def named_cursor(self) -> Left:
        connection = self.raw()
        cursor = connection.cursor("left")
        cursor.execute("SELECT id FROM item")
        cursor.fetchmany(2)
        return cursor.fetchall

    def yield_per(self) -> Left:
        session = Session(self.engine)
        rows = iter(session.execute(sa.text("SELECT id FROM item"), execution_options={"yield_per": 10}))
        next(rows)
        return lambda: (list(rows), session.close())

    def nested(self) -> Left:
        session = Session(self.engine)
        session.execute(sa.text("SELECT 1"))
        nested = session.begin_nested()
        session.execute(sa.text("SELECT count(*) FROM item"))
        return nested.rollback

    def writes(self) -> Left:
        connection = self.engine.connect()
        connection.exec_driver_sql("INSERT INTO item VALUES (1000, 'left')")
        return connection.commit

    def failed(self) -> Left:
        connection = self.engine.connect()
        with contextlib.suppress(sa.exc.DBAPIError):
            connection.exec_driver_sql("SELECT 1 / 0")
        return connection.rollback

    def temporary(self) -> Left:
        connection = self.engine.connect()
        connection.exec_driver_sql("CREATE TEMP TABLE staging (id int) ON COMMIT DROP")
        return lambda: connection.exec_driver_sql("SELECT * FROM staging")

    def prepared(self) -> Left:
        connection = self.engine.connect()
        connection.exec_driver_sql("PREPARE left_over AS SELECT 1")
        return lambda: connection.exec_driver_sql("EXECUTE left_over")

    def locks(self) -> Left:
        connection = self.engine.connect()
        connection.exec_driver_sql("SELECT pg_advisory_lock(1), pg_advisory_xact_lock(2)")
        connection.exec_driver_sql("SELECT * FROM item WHERE id = 1 FOR UPDATE")
        return lambda: connection.exec_driver_sql("SELECT pg_advisory_unlock(1)")

    def modes(self) -> Left:
        connection = self.engine.connect()
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY")
        connection.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
        connection.exec_driver_sql("SELECT count(*) FROM item")
        return connection.commit

    def schema(self) -> Left:
        connection = self.engine.connect()
        connection.exec_driver_sql("ALTER TABLE item ADD COLUMN extra int DEFAULT 5")
        for _ in range(7):
            connection.exec_driver_sql("SELECT * FROM item WHERE id = 1").all()
        return connection.rollback


class PsycopgOperations(Operations):
    def copy_out(self) -> Left:
        copy = self.raw().cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT")
        rows = copy.__enter__().rows()
        next(rows)
        return lambda: (list(rows), copy.__exit__(None, None, None))

    def copy_out_in_generator(self) -> Left:
        connection = self.raw()

        def export() -> Any:
            with connection.cursor().copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
                yield from copy.rows()

        return _half(export())

    def copy_in(self) -> Left:
        copy = self.raw().cursor().copy("COPY item FROM STDIN")
        inner = copy.__enter__()
        inner.write_row((2000, "left"))
        return lambda: (inner.write_row((2001, "left")), copy.__exit__(None, None, None))

    def copy_by_execute(self) -> Left:
        connection = self.raw()
        with contextlib.suppress(psycopg.Error):
            connection.execute("COPY item TO STDOUT")
        return lambda: connection.execute("SELECT 1")

    def copy_by_executemany(self) -> Left:
        connection = self.raw()
        with contextlib.suppress(psycopg.Error):
            connection.cursor().executemany("COPY item FROM STDIN", [(), ()])
        return lambda: connection.execute("SELECT 1")

    def stream(self) -> Left:
        return _half(self.raw().cursor().stream("SELECT * FROM item, generate_series(1, 1000)"))

    def pipeline(self) -> Left:
        connection = self.raw()
        end = _begun(connection.pipeline())
        connection.execute("INSERT INTO item VALUES (3000, 'left')")
        return lambda: (connection.execute("SELECT 1"), end())

    def broken_pipeline(self) -> Left:
        connection = self.raw()
        end = _begun(connection.pipeline())
        connection.execute("SELECT 1 / 0")
        connection.execute("SELECT 2")
        return lambda: end()

    def block(self) -> Left:
        connection = self.raw()
        end = _begun(connection.transaction())
        connection.execute("SELECT 1")
        return lambda: end()


class Psycopg2Operations(Operations):
    def copy_out(self) -> Left:
        connection = self.raw()
        with contextlib.suppress(Boom, sa.exc.DBAPIError, Exception):
            connection.cursor().copy_expert("COPY item TO STDOUT", _File())
        return connection.rollback

    def copy_in(self) -> Left:
        connection = self.raw()
        with contextlib.suppress(Exception):
            connection.cursor().copy_expert("COPY item FROM STDIN", _File())
        return connection.commit

    def copy_by_execute(self) -> Left:
        connection = self.raw()
        with contextlib.suppress(Exception):
            connection.cursor().execute("COPY item TO STDOUT")
        return connection.rollback


class HalfFinishedTest(ManyCollections, unittest.TestCase):
    """One isolation for all rounds, as a class of many tests has it."""

    def check(self, driver: str, made: type[Operations]) -> None:
        require_module(driver, "psycopg2-binary" if driver == "psycopg2" else driver)
        server = postgresql_url()
        name = f"half_finished_{driver}"
        with connect(server, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            admin.execute(f"CREATE DATABASE {name}".encode())
            self.addCleanup(self.drop, name)
        url = server.set(drivername=f"postgresql+{driver}", database=name)
        with connect(url, autocommit=True) as connection:
            connection.execute(SCHEMA.encode())
        names = [n for n in dir(made) if not n.startswith("_") and n not in ("raw",)]
        counts: Counter[str] = Counter()
        database = SimpleNamespace(url=url, built=True, reclone=lambda: None, renew_lease=lambda: None)
        with warnings.catch_warnings(), running_sandbox(database, url) as run:
            warnings.simplefilter("ignore")
            isolation = SandboxIsolation(run, "class")
            kept: list[tuple[str, Left]] = []
            isolation.begin_class("the class", [])
            for seed in range(ROUNDS):
                r = random.Random(seed)
                chosen = [r.choice(names) for _ in range(r.choice((1, 1, 2, 3)))]
                said = f"{driver}, round {seed}: {chosen}"
                if seed % 400 == 399:  # a session of the server becomes large and slow with the tables that it has seen
                    isolation.spoil()
                    isolation.begin_class("the class", [])
                isolation.begin_test(f"round {seed}")
                operations = made(run.engine)
                for each in chosen:
                    # another one may keep the wire, or have made the same
                    self.try_it(functools.partial(self.keep, kept, operations, each), f"{said}: {each}")
                    counts[each] += 1
                isolation.end_test(failed=False, test_files=frozenset([__file__]))
                if isolation.needs_rebuild:
                    counts["connections renewed"] += 1
                    isolation.begin_class("the class", [])
                del operations
                isolation.begin_test(f"after round {seed}")
                while kept and r.random() < 0.6:
                    name_of_it, go_on = kept.pop(r.randrange(len(kept)))
                    if r.random() < 0.5:
                        self.try_it(go_on, f"{said}: {name_of_it} goes on")
                    del go_on  # perhaps the collector ends it
                if r.random() < 0.3:
                    gc.collect()
                run.sandbox.raised.clear()
                self.look(run.engine, said)
                problems = isolation.end_test(failed=False, test_files=frozenset([__file__]))
                self.assertEqual(problems, [], said)
            kept.clear()
            gc.collect()  # what was left and is warned of is not to be warned of in another test
            isolation.end_class()
        if LONG:
            print(f"\n{driver}: {ROUNDS} rounds, {dict(counts)}")

    @staticmethod
    def keep(kept: list[tuple[str, Left]], operations: Operations, name: str) -> None:
        kept.append((name, getattr(operations, name)()))

    def try_it(self, work: Left, said: str) -> None:
        """It works, or it fails with an error of the driver's or the library's."""
        try:
            work()
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("psycopg", "psycopg2", "sqlalchemy", "dbtestcase"):
                raise AssertionError(f"{said}: {error!r}") from error

    def look(self, engine: sa.Engine, said: str) -> None:
        """A test that must pass."""
        with engine.connect() as a, engine.connect() as b:
            self.assertEqual(a.exec_driver_sql("SELECT count(*), min(name) FROM item").one(), (300, "base"), said)
            a.commit()
            self.assertEqual(b.exec_driver_sql("SHOW transaction_read_only").scalar(), "off", said)
            b.exec_driver_sql("CREATE TEMP TABLE staging (id int)")
            b.exec_driver_sql("PREPARE left_over AS SELECT 2")
            self.assertTrue(
                b.exec_driver_sql("SELECT pg_try_advisory_lock(1) AND pg_try_advisory_xact_lock(2)").scalar()
            )
            b.commit()
            b.exec_driver_sql("DROP TABLE item")
            b.commit()

    @staticmethod
    def drop(name: str) -> None:
        with connect(postgresql_url(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def test_psycopg(self) -> None:
        self.check("psycopg", PsycopgOperations)

    def test_psycopg2(self) -> None:
        self.check("psycopg2", Psycopg2Operations)
