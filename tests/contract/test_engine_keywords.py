"""Every keyword of ``create_engine()`` holds inside as outside: each is used on a real database and in a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import unittest
from collections.abc import Callable
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event, pool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

from dbtestcase.isolation.engines import Until
from tests.support.samples import a_share
from tests.support.sandboxes import SandboxTestCase
from tests.support.scratch import connect

METADATA = sa.MetaData()
ITEM = sa.Table(
    "item",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("data", sa.JSON),
)
CREATED = sa.Table("created", METADATA, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))


class Plugin(sa.CreateEnginePlugin):
    """Tells that it was asked."""

    def __init__(self, url: sa.URL, kwargs: dict[str, Any]) -> None:
        self.note = kwargs.pop("note", "")

    def update_url(self, url: sa.URL) -> sa.URL:
        return url

    def engine_created(self, engine: sa.Engine) -> None:
        engine.note = self.note  # type: ignore[attr-defined]


sa.dialects.plugins.register("noting", __name__, "Plugin")


def use(engine: sa.Engine) -> dict[str, Any]:
    """Use an engine in many ways; what an application could see of it."""
    seen: dict[str, Any] = {"events": []}
    statements: list[str] = []
    for name in ("connect", "checkout", "reset", "checkin", "close"):
        event.listen(engine.pool, name, lambda *_, name=name, **__: seen["events"].append(name))
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    with engine.connect() as connection:
        seen["levels"] = [connection.get_isolation_level(), connection.default_isolation_level]
        seen["autocommit"] = connection.connection.dbapi_connection.autocommit  # type: ignore[union-attr]
        shown = ("transaction_isolation", "transaction_read_only", "transaction_deferrable", "client_encoding")
        seen["shown"] = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in shown]
        connection.rollback()
        insert = sa.insert(CREATED).returning(CREATED.c.id)
        try:
            seen["returned"] = len(connection.execute(insert, [{"name": f"n{n}"} for n in range(7)]).all())
        except sa.exc.StatementError as error:
            seen["returned"] = str(error).splitlines()[0]
        connection.execute(sa.insert(ITEM), [{"id": n, "name": "many", "data": {"n": n}} for n in range(1, 8)])
        seen["json"] = connection.execute(sa.select(ITEM.c.data).where(ITEM.c.id == 3)).scalar()
        connection.commit()
        connection.execute(sa.update(ITEM).where(ITEM.c.id == 1).values(name="left"))
    with contextlib.suppress(sa.exc.TimeoutError), engine.connect() as connection:
        seen["left"] = connection.execute(sa.select(ITEM.c.name).where(ITEM.c.id == 1)).scalar()
        try:
            with engine.connect() as second:
                seen["second"] = second.execute(sa.select(sa.func.count()).select_from(ITEM)).scalar()
        except Exception as error:  # of the pool: there is no second
            seen["second"] = type(error).__name__
        try:
            connection.execute(sa.insert(ITEM), {"id": 1, "name": "secret"})
        except sa.exc.DBAPIError as error:
            seen["error"] = type(error).__name__, "secret" in str(error)
        connection.rollback()
        query = sa.select(ITEM.c.id.label("a_label_that_is_quite_long")).order_by(ITEM.c.id)
        seen["labels"] = list(connection.execute(query).keys())
    engine.dispose()
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM item WHERE id > 2")
    with contextlib.suppress(ZeroDivisionError), engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM item")
        raise ZeroDivisionError
    with engine.connect() as connection:
        seen["rows"] = [tuple(row) for row in connection.execute(sa.select(ITEM.c.id, ITEM.c.name).order_by(ITEM.c.id))]
    settings = ("_pre_ping", "_recycle", "_timeout", "_max_overflow", "_reset_on_return", "logging_name", "echo")
    seen["pool"] = [type(engine.pool).__name__, *(getattr(engine.pool, name, None) for name in settings)]
    seen["pool"].append(engine.pool.size() if isinstance(engine.pool, pool.QueuePool) else None)
    seen["engine"] = [engine.hide_parameters, engine.logging_name, engine.echo, getattr(engine, "note", None)]
    seen["cache"] = engine._compiled_cache.capacity if engine._compiled_cache is not None else None
    seen["dialect"] = [engine.dialect.paramstyle, engine.dialect.label_length, engine.dialect.use_insertmanyvalues]
    seen["statements"] = statements
    engine.dispose()
    return seen


KEYWORDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "isolation_level": {"isolation_level": "SERIALIZABLE"},
    "isolation_level, autocommit": {"isolation_level": "AUTOCOMMIT"},
    "skip_autocommit_rollback": {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True},
    "execution_options, level": {"execution_options": {"isolation_level": "REPEATABLE READ"}},
    "execution_options, autocommit": {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
    "execution_options, schema": {"execution_options": {"schema_translate_map": {None: "other"}}},
    "execution_options, modes": {
        "execution_options": {
            "postgresql_readonly": False,
            "postgresql_deferrable": True,
            "isolation_level": "SERIALIZABLE",
        }
    },
    "poolclass, none": {"poolclass": pool.NullPool},
    "poolclass, static": {"poolclass": pool.StaticPool},
    "pool_size": {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05},
    "max_overflow": {"pool_size": 1, "max_overflow": 1, "pool_timeout": 0.05},
    "pool_use_lifo": {"pool_use_lifo": True},
    "pool_pre_ping": {"pool_pre_ping": True},
    "pool_recycle": {"pool_recycle": 0},
    "pool_reset_on_return, commit": {"pool_reset_on_return": "commit"},
    "pool_reset_on_return, none": {"pool_reset_on_return": None, "poolclass": pool.NullPool},
    "hide_parameters": {"hide_parameters": True},
    "logging_name": {"logging_name": "mine", "pool_logging_name": "pool of mine"},
    "query_cache_size": {"query_cache_size": 0},
    "insertmanyvalues_page_size": {"insertmanyvalues_page_size": 3},
    "use_insertmanyvalues": {"use_insertmanyvalues": False},
    "label_length": {"label_length": 10},
    "json": {
        "json_serializer": lambda value: json.dumps({"wrapped": value}),
        "json_deserializer": lambda text: ["read", json.loads(text)],
    },
    "plugins": {"plugins": ["noting"], "note": "noted"},
    "enable_from_linting": {"enable_from_linting": False},
    "pool_events": {"pool_events": [(lambda *_: None, "connect")]},
}

OF_DRIVERS: dict[str, dict[str, dict[str, Any]]] = {
    "psycopg": {
        "paramstyle": {"paramstyle": "format"},
        "native_inet_types": {"native_inet_types": False},
        "single threads": {"poolclass": pool.SingletonThreadPool},
        "one at a time": {"poolclass": pool.AssertionPool},
        "client_encoding": {"connect_args": {"client_encoding": "utf8"}},
        "connect_args": {"connect_args": {"prepare_threshold": 0, "autocommit": False}},
    },
    "psycopg2": {
        "paramstyle": {"paramstyle": "format"},
        "executemany_mode": {"executemany_mode": "values_plus_batch", "executemany_batch_page_size": 3},
        "executemany_mode, values": {"executemany_mode": "values_only"},
        "use_native_hstore": {"use_native_hstore": False},
        "client_encoding": {"client_encoding": "utf8"},
    },
    "asyncpg": {"connect_args": {"connect_args": {"prepared_statement_cache_size": 0, "command_timeout": 30}}},
}


class PsycopgKeywordsTest(SandboxTestCase):
    SCHEMA = (
        "CREATE TABLE item (id int PRIMARY KEY, name text, data json); INSERT INTO item VALUES (0, 'base', '{}');"
        "CREATE TABLE created (id serial PRIMARY KEY, name text); CREATE SCHEMA other;"
        "CREATE TABLE other.item (LIKE item INCLUDING ALL); CREATE TABLE other.created (LIKE created INCLUDING ALL)"
    )
    make: ClassVar[Callable[..., Any]] = staticmethod(sa.create_engine)
    use: ClassVar[Callable[[Any], Any]] = staticmethod(use)

    def test_each_keyword_holds_on_engines_of_the_same_url_and_on_those_that_are_named(self) -> None:
        logging.getLogger("sqlalchemy").setLevel(logging.WARNING)
        real = f"{self.url.database}_real"
        with connect(self.url.set(database="postgres"), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {real} WITH (FORCE)".encode())
            admin.execute(f"CREATE DATABASE {real}".encode())
            self.addCleanup(self._drop, real)
        with connect(self.url.set(database=real), autocommit=True) as judge:
            judge.execute(self.SCHEMA.encode())
            for name, keywords in a_share({**KEYWORDS, **OF_DRIVERS[self.driver]}.items(), 3):
                judge.execute(
                    "TRUNCATE item, created, other.item, other.created; INSERT INTO item VALUES (0, 'base', '{}')"
                )
                expected = self.outcome(self.url.set(database=real), keywords)
                if isinstance(expected, tuple):
                    print(name, expected)
                for named in (False, True):
                    with self.subTest(name, named=named):
                        self.assertEqual(self.outcome(self.url, keywords, lead=named), expected)
                    self.sandbox.raised.clear()
                    self.run_.board.release(Until.TEST)
                    self.wire.settle()
                    self.sandbox.rollback_to_mark("the next keyword")

    def outcome(self, url: sa.URL, keywords: dict[str, Any], *, lead: bool = False) -> Any:
        try:
            engine = type(self).make(url.set(database="somewhere_else") if lead else url, **keywords)
        except Exception as error:
            return type(error).__name__, str(error)
        if lead:
            self.run_.board.lead(engine, until=Until.TEST)
        return type(self).use(engine)


def use_async(engine: Any) -> dict[str, Any]:
    async def used() -> Any:
        seen = await greenlet_spawn(use, engine.sync_engine)
        await engine.dispose()
        return seen

    return asyncio.run(used())


class Psycopg2KeywordsTest(PsycopgKeywordsTest):
    driver = "psycopg2"


class AsyncpgKeywordsTest(PsycopgKeywordsTest):
    driver = "asyncpg"
    make = staticmethod(create_async_engine)
    use = staticmethod(use_async)

    def rows(self) -> list[Any]:
        with self.run_.engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(self.ROWS)]


if __name__ == "__main__":
    unittest.main()
