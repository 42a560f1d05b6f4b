"""Random sequences of what connections own in the session: as on independent connections, or refused by name."""

from __future__ import annotations

import asyncio
import functools
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import NullPool, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from dbtestcase.drivers import patiently
from dbtestcase.errors import ServerUnreachable
from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.interleavings import Sequence, shrink
from tests.support.requirements import require_module
from tests.support.samples import LONG
from tests.support.session_interleavings import ASKED, SESSION_SCHEMA, SessionComparison, SessionSide, session_sequence
from tests.support.two_databases import TwoDatabases

SEQUENCES = int(os.environ.get("SEQUENCES", 20_000)) if LONG else 20
CLEAN = "DELETE FROM part; DELETE FROM item; DELETE FROM note"


class SessionInterleavingsTest(TwoDatabases):
    name, schema = "session", SESSION_SCHEMA

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.admin.execute("ALTER DATABASE session_real SET lock_timeout = '50ms'")

    def compare(self, driver: str, sequences: Iterable[tuple[object, Sequence]]) -> SessionComparison:
        """Run some sequences; a difference is shown as the shortest sequence that has it."""
        url = self.url.set(drivername=f"postgresql+{driver}")
        make = create_async_engine if driver == "asyncpg" else create_engine
        cleaner = self.real_connection()
        with warnings.catch_warnings(), running_sandbox(SimpleNamespace(url=url), url) as run:
            warnings.simplefilter("ignore", ResourceWarning)  # of streams that are never closed
            engines = [
                getattr(engine, "sync_engine", engine)
                for engine in (make(url, poolclass=NullPool, connect_args=_asking(driver, asked)) for asked in ASKED)
            ]
            dialect, autocommit = engines[0].dialect, _make_autocommit(engines[0].dialect)
            stocks = [_Stock(dialect, _address(url.set(database="session_real"), driver), asked) for asked in ASKED]
            real = SessionSide(tuple(stock.connect for stock in stocks), autocommit, _stream(driver))
            virtual = SessionSide(
                tuple(engine.raw_connection for engine in engines), autocommit, _stream(driver), run.sandbox
            )
            comparison = SessionComparison(real, virtual, keeps_plans=driver == "asyncpg")
            run.sandbox.begin("class")
            run.sandbox.mark("test")

            def attempt(each: Sequence) -> Exception | None:
                try:
                    comparison.run(each)
                except ServerUnreachable:
                    raise  # no difference, and a shorter sequence would not show it
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
                        for stock in stocks:
                            stock.close()
                for stock in stocks:
                    stock.close()

            if driver == "asyncpg":
                asyncio.run(greenlet_spawn(all_of_them))
            else:
                all_of_them()
        return comparison

    def check(self, driver: str) -> None:
        require_module(driver, "psycopg2-binary" if driver == "psycopg2" else driver)
        begin = int(os.environ.get("FIRST_SEED", 0)) if LONG else 0
        counts: Counter[str] = Counter()
        # a session of the server becomes large and slow with the functions and temporary tables that it has seen
        for first in range(begin, begin + SEQUENCES, 1_000):
            seeds = range(first, min(first + 1_000, begin + SEQUENCES))
            counts += self.compare(driver, ((seed, session_sequence(seed)) for seed in seeds)).counts
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


class _Stock:
    """Real connections, used again where that cannot be told from a new one: to connect takes long."""

    RESET = """
        DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT p.name FROM pg_prepared_statements p WHERE from_sql LOOP
                EXECUTE format('DEALLOCATE %I', name);
            END LOOP;
        END $$;
        CLOSE ALL; RESET ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES; SELECT pg_advisory_unlock_all();
    """

    def __init__(self, dialect: sa.Dialect, url: sa.URL, asked: dict[str, str]) -> None:
        self.dialect, self.url = dialect, url
        self.args, self.parameters = dialect.create_connect_args(url)
        self.parameters |= _asking(dialect.driver, asked)
        self.free: list[Any] = []

    def connect(self) -> _Real:
        # a machine that has no process left for one more is not what is compared
        new = functools.partial(self.dialect.connect, *self.args, **self.parameters)
        return _Real(self, self.free.pop() if self.free else patiently(new, self.url))

    def take_back(self, connection: Any) -> None:
        driver = self.dialect.driver
        connection.rollback()
        connection.autocommit = True
        cursor = connection.cursor()
        if driver == "asyncpg":
            connection._prepared_statement_cache.clear()
            await_only(connection._connection.execute(self.RESET))
        else:
            cursor.execute(self.RESET, **({"prepare": False} if driver == "psycopg" else {}))
        cursor.execute("SELECT current_setting('app.name', true), pg_my_temp_schema() <> 0")
        name, temporary = cursor.fetchone()
        cursor.close()
        # A setting of the application's own that was set once is never unknown again.  A plan that asyncpg keeps for a
        # permanent table goes on to read that, unless the temporary one that hides it is the first of the session.
        if name == "" or (temporary and driver == "asyncpg"):
            connection.close()
        else:
            connection.autocommit = False
            if driver == "asyncpg":
                connection.isolation_level = connection._isolation_setting = None
            self.free.append(connection)

    def close(self) -> None:
        while self.free:
            self.free.pop().close()


class _Real:
    """A connection of the stock's until it is closed."""

    def __init__(self, stock: _Stock, connection: Any) -> None:
        self.stock, self.dbapi_connection = stock, connection

    def cursor(self, *args: Any, **keywords: Any) -> Any:
        return self.dbapi_connection.cursor(*args, **keywords)

    def commit(self) -> None:
        self.dbapi_connection.commit()

    def rollback(self) -> None:
        self.dbapi_connection.rollback()

    def close(self) -> None:
        self.stock.take_back(self.dbapi_connection)


def _asking(driver: str, settings: dict[str, str]) -> dict[str, Any]:
    """The keywords of ``connect()`` that ask for settings of the server."""
    if not settings:
        return {}
    if driver == "asyncpg":
        return {"server_settings": settings}
    if driver == "pg8000":
        named = {name: settings[name] for name in settings if name == "application_name"}
        return {**named, "startup_params": {name: settings[name] for name in settings if name not in named}}
    return {"options": " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())}


def _stream(driver: str) -> Any:
    """Runs a query whose rows stay with the server, where the driver can; gives its cursor and the first rows."""

    def stream(connection: Any, query: str) -> Any:
        if driver == "asyncpg":
            cursor = connection.cursor(server_side=True)
        else:
            cursor = connection.cursor("stream") if driver != "pg8000" else connection.cursor()
        cursor.execute(query)
        return cursor, cursor.fetchmany(1)

    return stream


def _address(url: sa.URL, driver: str) -> sa.URL:
    if driver != "pg8000":
        return url
    host = str(url.query["host"])
    return url.difference_update_query(["host"]).update_query_dict({"unix_sock": f"{host}/.s.PGSQL.5432"})


DIFFERENCES: dict[str, str] = {
    "SET CONSTRAINTS in autocommit mode": "autocommit: A; A.defer(744) B.orphan(884)",
    "a cursor WITH HOLD of a closed one": "autocommit: none; A.declare(746) A.commit(0) A.close(0) A.declare(300)",
    "a cursor of a transaction that an error has aborted": (
        "autocommit: none; A.declare(858) B.temp_create(344) A.fetch(749) B.fetch(673)"
    ),
    "a stream that is read on when its name is another's": (
        "autocommit: none; A.stream(222) A.commit(770) C.stream(172) A.stream_on(255)"
    ),
    "SET TRANSACTION after a savepoint": (
        "autocommit: none; A.savepoint(989) A.access(976) A.rollback_to(275) A.access(363)"
    ),
    "modes of constraints that a rollback brings back": (
        "autocommit: none; B.defer(17) A.fetch(423) B.at_once(120) A.reconnect(408) A.temp_create(779) B.rollback(0)"
    ),
    "and that reach the next test": "autocommit: none; B.orphan(36)",
    "EXECUTE of a name that another has found to be nothing": (
        "autocommit: none; A.commit(596) B.execute(226) A.prepare(150) A.execute(100)"
    ),
    "a plan from before the temporary table": (
        "autocommit: none; A.advisory(120) A.temp_read(565) A.temp_create(461) A.temp_read(93)"
    ),
    "a stream of asyncpg that has given all rows": (
        "autocommit: none; A.stream(42) A.temp_insert(957) A.temp_create(847) A.stream_on(52)"
    ),
    "a snapshot beside writes in a temporary table of a permanent one's name": (
        "autocommit: none; A.temp_as(215) A.temp_insert(503) B.reconnect(175) B.declare(605) A.commit(191) "
        "B.temp_insert(805)"
    ),
    "SET TRANSACTION after a stream that asyncpg has refused": "autocommit: A; A.stream(723) A.level(434)",
    "FETCH from a cursor that another one has asked for before it was declared": (
        "autocommit: A; A.rollback(726) C.fetch(96) A.declare(782) A.fetch(774)"
    ),
    "RESET ALL where another one has invented a setting": "autocommit: none; C.set(962) A.reset(574) A.setting(367)",
    "a stream that is read on after an error, when its name is another's": (
        "autocommit: none; A.stream(497) A.commit(847) B.stream(437) A.execute(884) A.stream_on(56)"
    ),
    "rows taken without waiting while a temporary table of another connection is being dropped": (
        "autocommit: none; A.temp_create(872) A.temp_drop(351) C.skip_locked(889)"
    ),
}
"""Found by random sequences, or by hand."""
