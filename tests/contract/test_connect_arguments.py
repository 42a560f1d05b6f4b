"""What an engine gives to its driver's connect() holds on its connections, and on no other engine's."""

from __future__ import annotations

import asyncio
import json
import os
import unittest
from collections.abc import Sequence
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import Engine, create_engine, event, text

from dbtestcase.drivers.arguments import HARMLESS, settings_of_options
from dbtestcase.errors import ConfigurationError
from tests.support.sandboxes import SandboxTestCase


def value(connection: Any, sql: str) -> Any:
    return connection.execute(text(sql)).scalar()


class _Arguments(SandboxTestCase):
    SCHEMA = f"{SandboxTestCase.SCHEMA}; CREATE SCHEMA alpha; CREATE TABLE alpha.item (LIKE item INCLUDING ALL)"

    @staticmethod
    def asking(settings: dict[str, str]) -> dict[str, Any]:
        """The ``connect_args`` that ask for settings of the server."""
        return {"options": " ".join(f"-c {name}={value}" for name, value in settings.items())}

    def engine_with(self, settings: dict[str, str] | None = None, **keywords: Any) -> Engine:
        if settings is not None:
            keywords.setdefault("connect_args", {}).update(self.asking(settings))
        engine = create_engine(self.url, **keywords)
        self.addCleanup(engine.dispose)
        return engine

    def test_settings_hold_on_its_connections_and_on_no_others(self) -> None:
        tuned = self.engine_with({"timezone": "Asia/Tokyo", "statement_timeout": "12345", "app.tenant": "42"})
        names = ("timezone", "statement_timeout", "app.tenant")
        for _ in range(2):
            with tuned.connect() as connection, self.engine.connect() as other:
                self.assertEqual([value(connection, f"SHOW {n}") for n in names], ["Asia/Tokyo", "12345ms", "42"])
                self.assertNotEqual(value(other, "SHOW timezone"), "Asia/Tokyo")
                connection.rollback()
                self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
                connection.commit()
                self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
            self.sandbox.rollback_to_mark("the next test")

    def test_rows_go_to_the_schema_of_the_search_path(self) -> None:
        with self.engine_with({"search_path": "alpha,public"}).begin() as connection:
            connection.execute(text("INSERT INTO item VALUES (1, 'one')"))
        with self.engine.connect() as connection:
            self.assertEqual([value(connection, f"SELECT count(*) FROM {s}.item") for s in ("alpha", "public")], [1, 1])

    def test_what_the_application_sets_itself_comes_before_and_reset_comes_back(self) -> None:
        with self.engine_with({"timezone": "Asia/Tokyo", "work_mem": "1MB"}).connect() as connection:
            connection.execute(text("SET timezone = 'Asia/Seoul'"))
            self.assertEqual(value(connection, "SHOW timezone"), "Asia/Seoul")
            connection.rollback()
            self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
            for reset in ("RESET timezone", "RESET ALL", "SET timezone TO DEFAULT", "SET TIME ZONE LOCAL"):
                with self.subTest(reset):
                    connection.execute(text("SET timezone = 'Asia/Seoul'"))
                    connection.execute(text(reset))
                    with self.engine.connect() as other:
                        value(other, "SELECT 1")
                    self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
                    self.assertEqual(value(connection, "SHOW work_mem"), "1MB")

    def test_they_survive_an_error_and_a_savepoint(self) -> None:
        with self.engine_with({"timezone": "Asia/Tokyo"}).connect() as connection:
            with self.assertRaises(sa.exc.DBAPIError), connection.begin_nested():
                connection.execute(text("SELECT * FROM nowhere"))
            self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
            connection.rollback()
            with self.assertRaises(sa.exc.DBAPIError):
                connection.execute(text("SELECT * FROM nowhere"))
            connection.rollback()
            self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")

    def test_they_hold_in_autocommit_too(self) -> None:
        engine = self.engine_with({"timezone": "Asia/Tokyo"}, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection, self.engine.connect() as other:
            for _ in range(2):
                self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
                self.assertNotEqual(value(other, "SHOW timezone"), "Asia/Tokyo")

    def test_a_role_is_taken(self) -> None:
        with self.engine_with({"role": "pg_monitor"}).connect() as connection, self.engine.connect() as other:
            self.assertEqual(value(connection, "SELECT current_user"), "pg_monitor")
            self.assertNotEqual(value(other, "SELECT current_user"), "pg_monitor")
            with self.assertRaises(sa.exc.ProgrammingError):
                connection.execute(text("SELECT * FROM item"))

    def test_a_read_only_default_refuses_writes(self) -> None:
        with self.engine_with({"default_transaction_read_only": "on"}).connect() as connection:
            self.assertEqual(value(connection, "SHOW default_transaction_read_only"), "on")
            with self.assertRaisesRegex(sa.exc.DBAPIError, "read-only transaction"):
                connection.execute(text("DELETE FROM item"))

    def test_what_would_end_the_one_session_of_all_is_left_out(self) -> None:
        with self.engine_with({"idle_in_transaction_session_timeout": "1"}).connect() as connection:
            self.assertEqual(value(connection, "SHOW idle_in_transaction_session_timeout"), "0")

    def test_what_the_server_refuses_is_named(self) -> None:
        for name, wrong in (("work_mem", "many"), ("max_connections", "5"), ("no_such_setting", "1")):
            engine = self.engine_with({name: wrong})
            with self.subTest(name), self.assertRaises(ConfigurationError) as caught:
                engine.connect()
            self.assertIn(f"{name} = {wrong}", caught.exception.what)
        with self.engine.connect() as connection:
            self.assertEqual(value(connection, "SELECT 1"), 1)

    def test_a_keyword_that_cannot_be_had_is_refused_by_name(self) -> None:
        engine = self.engine_with(connect_args={"no_such_keyword": "1"})
        with self.assertRaises(ConfigurationError) as caught:
            engine.connect()
        self.assertIn("'no_such_keyword'", caught.exception.what)

    def test_what_means_nothing_here_is_harmless(self) -> None:
        engine = self.engine_with(connect_args=self.HARMLESS)
        with engine.connect() as connection:
            self.assertEqual(value(connection, "SELECT 1"), 1)

    HARMLESS: dict[str, Any] = {}

    def test_listeners_have_a_say(self) -> None:
        engine = self.engine_with({"timezone": "Asia/Seoul"})

        @event.listens_for(engine, "do_connect")
        def connect(dialect: Any, record: Any, args: Any, parameters: dict[str, Any]) -> None:
            parameters.update(self.asking({"timezone": "Asia/Tokyo"}))

        @event.listens_for(engine, "connect")
        def connected(connection: Any, record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("SET work_mem = '2MB'")
            cursor.close()
            connection.commit()

        for _ in range(2):
            with engine.connect() as connection:
                self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
                self.assertEqual(value(connection, "SHOW work_mem"), "2MB")
            self.sandbox.rollback_to_mark("the next test")

    def test_a_listener_that_connects_by_its_own_means_is_refused(self) -> None:
        engine = self.engine_with()
        event.listen(engine, "do_connect", lambda *args: object())
        with self.assertRaisesRegex(
            ConfigurationError, r"listener of .* gave a connection .* not made by \w+.connect\(\)"
        ):
            engine.connect()

    def test_they_cost_one_round_trip_when_a_connection_is_first_used_and_nobody_else_anything(self) -> None:
        plain, tuned = self.engine_with(), self.engine_with({"timezone": "Asia/Tokyo"})
        with plain.connect() as one, tuned.connect() as two:  # what SQLAlchemy asks a new engine's first connection
            value(one, "SELECT 1"), value(two, "SELECT 1")
        found = {}
        for name, engine in (("plain", plain), ("tuned", tuned)):
            self.sandbox.rollback_to_mark("the next test")
            sent = self.sent()
            with engine.connect() as connection:
                for _ in range(3):
                    value(connection, "SELECT 1")
                connection.commit()
                value(connection, "SELECT 1")
            found[name] = [command for command in sent if "timezone" in command.lower()]
        self.assertEqual((found["plain"], len(found["tuned"])), ([], 1))

    def sent(self) -> Sequence[str]:
        """What the sandbox sends of its own from now on."""
        sent: list[str] = []
        original = self.wire.send

        def send(command: str) -> Any:
            sent.append(command)
            return original(command)

        self.wire.send = send
        self.addCleanup(vars(self.wire).pop, "send", None)
        return sent


class _Libpq(_Arguments):
    """What libpq does with the environment, and with the kind of server that is asked for."""

    def test_the_environment_says_what_the_engine_does_not(self) -> None:
        environment = {"PGAPPNAME": "from outside", "PGOPTIONS": "-c timezone=Asia/Tokyo"}
        with mock.patch.dict(os.environ, environment):
            engine, named = self.engine_with(), self.engine_with(connect_args={"application_name": "billing"})
            for each, name in ((engine, "from outside"), (named, "billing")):
                with each.connect() as connection:
                    self.assertEqual(value(connection, "SHOW application_name"), name)
                    self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
        with self.engine.connect() as connection:
            self.assertNotEqual(value(connection, "SHOW application_name"), "from outside")

    def test_another_kind_of_server_than_the_tests_is_refused(self) -> None:
        for wanted in ("any", "read-write", "primary", "prefer-standby"):
            with self.engine_with(connect_args={"target_session_attrs": wanted}).connect() as connection:
                self.assertEqual(value(connection, "SELECT 1"), 1)
        for wanted, said in (
            ("standby", "'prefer-standby'"),
            ("read-only", "'prefer-standby'"),
            ("primry", "none of any"),
        ):
            with self.subTest(wanted), self.assertRaisesRegex(ConfigurationError, said):
                self.engine_with(connect_args={"target_session_attrs": wanted}).connect()


class PsycopgArgumentsTest(_Libpq, unittest.TestCase):
    HARMLESS = {"connect_timeout": 5, "sslmode": "prefer", "keepalives": 1, "target_session_attrs": "any"}

    def sent(self) -> Sequence[str]:
        from dbtestcase.drivers.psycopg.connections import VirtualConnection

        sent: list[str] = []
        original = VirtualConnection._send

        def send(connection: Any, command: str) -> Any:
            sent.append(command)
            return (yield from original(connection, command))

        VirtualConnection._send = send  # type: ignore[method-assign]
        self.addCleanup(setattr, VirtualConnection, "_send", original)
        return sent

    def test_keywords_of_psycopg(self) -> None:
        import psycopg
        from psycopg.adapt import AdaptersMap
        from psycopg.rows import dict_row
        from psycopg.types.string import TextLoader

        class Cursor(psycopg.ClientCursor[Any]):
            pass

        context = AdaptersMap(psycopg.adapters)
        context.register_loader("int4", TextLoader)
        given = {"autocommit": True, "prepare_threshold": None, "row_factory": dict_row, "cursor_factory": Cursor}
        engine = self.engine_with(connect_args={**given, "context": _Context(context)}, _initialize=False)
        driver = engine.raw_connection().driver_connection
        assert driver is not None
        self.assertEqual((driver.autocommit, driver.prepare_threshold), (True, None))
        self.assertIsInstance(driver.cursor(), Cursor)
        self.assertEqual(driver.execute("SELECT 1 AS one").fetchone(), {"one": "1"})
        other = self.engine.raw_connection().driver_connection
        assert other is not None
        self.assertEqual((other.autocommit, other.prepare_threshold), (False, 5))
        self.assertEqual(other.execute("SELECT 1").fetchone(), (1,))
        driver.prepare_threshold = 0
        self.assertEqual(other.prepare_threshold, 5)

    def test_what_a_test_does_to_a_pooled_connection_ends_with_it(self) -> None:
        from psycopg.rows import dict_row
        from psycopg.types.string import TextLoader

        engine = self.engine_with()
        for change in (
            lambda driver: driver.adapters.register_loader("int4", TextLoader),
            lambda driver: setattr(driver, "row_factory", dict_row),
            lambda driver: setattr(driver, "autocommit", True),
            lambda driver: setattr(driver, "read_only", True),
        ):
            with self.subTest(change):
                raw = engine.raw_connection()
                change(raw.driver_connection)
                raw.close()
                self.sandbox.rollback_to_mark("the next test")
                driver: Any = (raw := engine.raw_connection()).driver_connection
                self.assertEqual(driver.execute("SELECT 1::int4").fetchone(), (1,))
                self.assertEqual((driver.autocommit, driver.read_only), (False, None))
                raw.close()
                self.sandbox.rollback_to_mark("the next test")
                self.assertIs((raw := engine.raw_connection()).driver_connection, driver)  # nothing was done to it
                raw.close()

    def test_a_connection_string_is_read(self) -> None:
        engine = self.engine_with(
            connect_args={"conninfo": "options='-c timezone=Asia/Tokyo' application_name=billing"}
        )
        with engine.connect() as connection:
            self.assertEqual(value(connection, "SHOW timezone"), "Asia/Tokyo")
            self.assertEqual(value(connection, "SHOW application_name"), "billing")

    def test_the_query_of_the_url_is_read(self) -> None:
        url = self.url.update_query_dict({"options": "-csearch_path=alpha", "application_name": "billing"})
        with create_engine(url).connect() as connection:
            self.assertEqual(value(connection, "SHOW search_path"), "alpha")
            self.assertEqual(value(connection, "SHOW application_name"), "billing")

    def test_the_connection_tells_what_it_was_given(self) -> None:
        engine = self.engine_with({"timezone": "Asia/Tokyo"}, connect_args={"application_name": "billing"})
        info: Any = engine.raw_connection().driver_connection.info  # type: ignore[union-attr]
        told = info.get_parameters()
        self.assertEqual((told["application_name"], told["options"]), ("billing", "-c timezone=Asia/Tokyo"))
        self.assertIn("application_name=billing", info.dsn)
        self.assertNotIn("billing", self.engine.raw_connection().driver_connection.info.dsn)  # type: ignore[union-attr]

    def test_an_encoding_is_followed(self) -> None:
        with self.engine_with(connect_args={"client_encoding": "latin1"}).connect() as connection:
            self.assertEqual(value(connection, "SHOW client_encoding"), "LATIN1")
            self.assertEqual(value(connection, "SELECT 'é'"), "é")
            with self.engine.connect() as other:
                self.assertEqual(value(other, "SELECT 'ł'"), "ł")

    def test_an_asynchronous_engine_is_given_them_too(self) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        async def main() -> None:
            engine = create_async_engine(self.url, connect_args=self.asking({"timezone": "Asia/Tokyo"}))
            async with engine.connect() as connection:
                self.assertEqual((await connection.execute(text("SHOW timezone"))).scalar(), "Asia/Tokyo")
            await engine.dispose()

        asyncio.run(main())


class _Context:
    """What psycopg calls an adapt context."""

    connection = None

    def __init__(self, adapters: Any) -> None:
        self.adapters = adapters


class Psycopg2ArgumentsTest(_Libpq, unittest.TestCase):
    driver = "psycopg2"
    HARMLESS = {"connect_timeout": 5, "sslmode": "prefer", "keepalives": 1, "client_encoding": "utf8"}

    def test_keywords_of_psycopg2(self) -> None:
        from psycopg2 import extras

        engine = self.engine_with(connect_args={"cursor_factory": extras.RealDictCursor}, _initialize=False)
        other = self.engine_with(connect_args={"connection_factory": extras.NamedTupleConnection}, _initialize=False)
        for each, read in ((engine, lambda row: row["one"]), (other, lambda row: row.one)):
            cursor = each.raw_connection().cursor()
            cursor.execute("SELECT 1 AS one")
            self.assertEqual(read(cursor.fetchone()), 1)

    def test_what_psycopg2_cannot_have_is_refused(self) -> None:
        from psycopg2 import extras

        factory = extras.LoggingConnection
        for name, wrong in (("connection_factory", factory), ("client_encoding", "latin1"), ("async_", True)):
            with self.subTest(name), self.assertRaises(ConfigurationError) as caught:
                self.engine_with(connect_args={name: wrong}).connect()
            self.assertIn(repr(name), caught.exception.what)

    def test_what_is_registered_on_a_connection_holds_there_and_nowhere_else(self) -> None:
        from psycopg2 import extensions, extras

        def loud(kind: str) -> Any:
            return extensions.new_type((23,), "LOUD", lambda text, cursor: text and f"{kind} {text}")

        with self.engine.connect() as connection, self.engine.connect() as other:
            driver: Any = connection.connection.driver_connection
            quiet: Any = other.connection.driver_connection
            early = driver.cursor()
            extensions.register_type(loud("int"), driver)
            extras.register_default_json(driver, loads=len)
            extras.register_uuid(conn_or_curs=driver)
            extras.register_range("int4range", "Span", driver)
            extras.register_composite("item", driver)
            for cursor in (driver.cursor(), early, driver.cursor("named")):
                with self.subTest(cursor=cursor):
                    cursor.execute("SELECT 1::int, '[1, 2]'::json, int4range(1, 5)")
                    number, length, span = cursor.fetchone()
                    self.assertEqual((number, length, type(span).__name__), ("int 1", 6, "Span"))
            cursor = driver.cursor()
            cursor.execute("SELECT item FROM item")
            self.assertEqual(cursor.fetchone()[0]._fields, ("id", "name"))
            self.assertIn(23, driver.string_types)
            cursor = quiet.cursor()
            cursor.execute("SELECT 1::int, '[1, 2]'::json")
            self.assertEqual(cursor.fetchone(), (1, [1, 2]))
            self.assertNotIn(23, self.wire.connection.string_types)
            extensions.register_type(loud("of the cursor"), cursor)
            cursor.execute("SELECT 1::int")
            self.assertEqual(cursor.fetchone(), ("of the cursor 1",))

    def test_an_engine_with_its_own_json(self) -> None:
        engine = self.engine_with(json_deserializer=lambda s: {"seen": json.loads(s)})
        for each, seen in ((engine, {"seen": [1]}), (self.engine, [1])):
            with each.connect() as connection:
                self.assertEqual(connection.execute(sa.select(sa.literal([1], sa.JSON))).scalar(), seen)

    def test_what_a_test_does_to_a_pooled_connection_ends_with_it(self) -> None:
        from psycopg2 import extensions, extras

        loud = extensions.new_type((23,), "LOUD", lambda text, cursor: text and f"int {text}")
        engine = self.engine_with()
        for change in (
            lambda driver: extensions.register_type(loud, driver),
            lambda driver: setattr(driver, "cursor_factory", extras.RealDictCursor),
            lambda driver: setattr(driver, "autocommit", True),
        ):
            with self.subTest(change):
                driver = engine.raw_connection()
                change(driver.driver_connection)
                driver.close()
                self.sandbox.rollback_to_mark("the next test")
                cursor = (raw := engine.raw_connection()).cursor()
                cursor.execute("SELECT 1::int")
                self.assertEqual(cursor.fetchone(), (1,))
                first: Any = raw.driver_connection
                self.assertFalse(first.autocommit)
                raw.close()
                self.sandbox.rollback_to_mark("the next test")
                self.assertIs((raw := engine.raw_connection()).driver_connection, first)  # nothing was done to it
                raw.close()

    def test_functions_that_need_a_connection_to_quote(self) -> None:
        from psycopg2 import extensions, sql

        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            query = sql.SQL("SELECT {} AS {}").format(sql.Literal("it's"), sql.Identifier('a "b"'))
            for context in (driver, driver.cursor()):
                self.assertEqual(query.as_string(context), "SELECT 'it''s' AS " + '"a ""b"""')
                self.assertEqual(extensions.quote_ident("a b", context), '"a b"')


class Pg8000ArgumentsTest(_Arguments, unittest.TestCase):
    driver = "pg8000"
    HARMLESS = {"timeout": 5, "tcp_keepalive": True}

    @staticmethod
    def asking(settings: dict[str, str]) -> dict[str, Any]:
        return {"startup_params": dict(settings)}

    def test_keywords_of_pg8000(self) -> None:
        with self.engine_with(connect_args={"application_name": "billing"}).connect() as connection:
            self.assertEqual(value(connection, "SHOW application_name"), "billing")
        with self.assertRaisesRegex(ConfigurationError, "'replication'"):
            self.engine_with(connect_args={"replication": "database"}).connect()


class AsyncpgArgumentsTest(SandboxTestCase):
    driver = "asyncpg"

    def on_connection(self, use: Any, **keywords: Any) -> Any:
        from sqlalchemy.ext.asyncio import create_async_engine

        async def main() -> Any:
            engine = create_async_engine(self.url, **keywords)
            try:
                async with engine.connect() as connection:
                    return await use(connection)
            finally:
                await engine.dispose()

        return asyncio.run(main())

    def rows(self) -> list[Any]:
        async def use(connection: Any) -> list[Any]:
            return [tuple(row) for row in await connection.exec_driver_sql(self.ROWS)]

        return self.on_connection(use)  # type: ignore[no-any-return]

    async def one(self, connection: Any, sql: str) -> Any:
        return (await connection.execute(text(sql))).scalar()

    def test_settings_of_the_server(self) -> None:
        async def use(connection: Any) -> list[Any]:
            return [await self.one(connection, f"SHOW {name}") for name in ("timezone", "application_name", "jit")]

        settings = {"timezone": "Asia/Tokyo", "application_name": "billing", "jit": "off"}
        plain = self.on_connection(use)
        self.assertEqual(self.on_connection(use, connect_args={"server_settings": settings}), [*settings.values()])
        self.assertEqual(self.on_connection(use), plain)
        dsn = "postgresql://nobody@nowhere/shop?application_name=billing&timezone=Asia/Tokyo"
        self.assertEqual(self.on_connection(use, connect_args={"dsn": dsn})[:2], ["Asia/Tokyo", "billing"])

    def test_keywords_of_asyncpg(self) -> None:
        async def slow(connection: Any) -> Any:
            return await connection.execute(text("SELECT pg_sleep(5)"))

        with self.assertRaises(TimeoutError):
            self.on_connection(slow, connect_args={"command_timeout": 0.05})

        async def use(connection: Any) -> Any:
            return await self.one(connection, "SELECT 1 FROM pg_sleep(0.1)")

        self.assertEqual(self.on_connection(use), 1)
        harmless = {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "timeout": 5, "ssl": False}
        self.assertEqual(self.on_connection(use, connect_args=harmless), 1)
        for name, wrong in (("record_class", dict), ("connection_class", dict), ("application_name", "x")):
            with self.subTest(name), self.assertRaises(ConfigurationError) as caught:
                self.on_connection(use, connect_args={name: wrong})
            self.assertIn(repr(name), caught.exception.what)

    def test_a_cancellation_may_take_longer_than_a_statement(self) -> None:
        from asyncpg import connect_utils

        cancel = connect_utils._cancel

        async def slowly(**arguments: Any) -> None:
            await asyncio.sleep(0.3)  # a busy server: asyncpg would end the connection after 0.05
            await cancel(**arguments)

        async def slow(connection: Any) -> Any:
            return await connection.execute(text("SELECT pg_sleep(5)"))

        async def use(connection: Any) -> Any:
            return await self.one(connection, "SELECT 1")

        with mock.patch.object(connect_utils, "_cancel", slowly), self.assertRaises(TimeoutError):
            self.on_connection(slow, connect_args={"command_timeout": 0.05})
        self.assertEqual(self.on_connection(use), 1)

    def test_codecs_hold_on_the_connection_that_they_were_set_on(self) -> None:
        async def loud(connection: Any) -> Any:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            await driver.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda s: f"int {s}")
            return await self.one(connection, "SELECT 1::int4")

        async def quiet(connection: Any) -> Any:
            return await self.one(connection, "SELECT 1::int4")

        async def reset(connection: Any) -> Any:
            first = await loud(connection)
            raw = await connection.get_raw_connection()
            await raw.driver_connection.reset_type_codec("int4", schema="pg_catalog")
            return first, await self.one(connection, "SELECT 1::int4")

        self.assertEqual([self.on_connection(each) for each in (loud, quiet, loud, quiet)], ["int 1", 1, "int 1", 1])
        self.assertEqual(self.on_connection(reset), ("int 1", 1))

    def test_an_engine_with_its_own_json(self) -> None:
        async def use(connection: Any) -> Any:
            return await connection.scalar(sa.select(sa.literal([1], sa.JSON)))

        for _ in range(2):
            self.assertEqual(
                self.on_connection(use, json_deserializer=lambda s: {"seen": json.loads(s)}), {"seen": [1]}
            )
            self.assertEqual(self.on_connection(use), [1])


del _Arguments, _Libpq


class KeywordsTest(unittest.TestCase):
    """Every keyword that a driver documents is honoured, harmless or refused on purpose: none is merely forgotten."""

    REFUSED = {
        "psycopg": {"replication"},
        "psycopg2": {"replication"},
        "asyncpg": set(),
        "pg8000": {"replication"},
    }

    def test_those_of_libpq(self) -> None:
        from psycopg.pq import Conninfo

        settings = {"options", "application_name", "fallback_application_name", "client_encoding"}
        for driver in ("psycopg", "psycopg2"):
            known = HARMLESS[driver] | settings | self.REFUSED[driver]
            self.assertEqual({option.keyword.decode() for option in Conninfo.get_defaults()} - known, set())

    def test_those_of_the_drivers_signatures(self) -> None:
        import inspect

        import asyncpg
        import pg8000.dbapi
        import psycopg

        honoured = {
            "psycopg": {"conninfo", "autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"},
            "asyncpg": {"dsn", "server_settings", "command_timeout", "connection_class", "record_class"},
            "pg8000": {"application_name", "startup_params"},
        }
        connects = {"psycopg": psycopg.connect, "asyncpg": asyncpg.connect, "pg8000": pg8000.dbapi.connect}
        for driver, connect in connects.items():
            with self.subTest(driver):
                named = {p.name for p in inspect.signature(connect).parameters.values() if p.kind is not p.VAR_KEYWORD}
                self.assertEqual(named - HARMLESS[driver] - honoured[driver] - self.REFUSED[driver], set())


class OptionsTest(unittest.TestCase):
    def test_the_servers_command_line_is_read_as_the_server_reads_it(self) -> None:
        for options, found in (
            ("-c a=1", {"a": "1"}),
            ("-ca=1 --b-c=2", {"a": "1", "b_c": "2"}),
            (r"-c a=x\ y\\z", {"a": r"x y\z"}),
            ("  -c  search_path=a,b --Work_Mem=1MB ", {"search_path": "a,b", "work_mem": "1MB"}),
            ("-S 64", {"work_mem": "64"}),
            ("-c a=", {"a": ""}),
            ("", {}),
        ):
            with self.subTest(options):
                self.assertEqual(settings_of_options(options), found)
        for options in ("-x", "-c", "-c a", "words"):
            with self.subTest(options), self.assertRaisesRegex(ConfigurationError, "'options'"):
                settings_of_options(options)


if __name__ == "__main__":
    unittest.main()
