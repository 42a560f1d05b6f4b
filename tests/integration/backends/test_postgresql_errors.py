"""What is said when a database cannot be made on a real PostgreSQL, and that nothing is left behind."""

import socket
import unittest
from typing import Any

import psycopg
from sqlalchemy import DDL, URL, Column, ForeignKey, Index, Integer, MetaData, Table, Text, event, make_url
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Session
from sqlalchemy.types import UserDefinedType

from dbtestcase import backends as databases
from dbtestcase.backends.cleaning_report import cannot_connect
from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.drivers import open_wire
from dbtestcase.errors import (
    CannotCreateDatabase,
    ConfigurationError,
    DatabaseError,
    DBTestCaseError,
    SchemaError,
    ServerUnreachable,
)
from tests.support.postgresql import CACHE, NO_CACHE, PostgreSQLTestCase, recipe


class ErrorsTestCase(PostgreSQLTestCase):
    def refused(
        self, kind: type[DBTestCaseError], made_from: MetadataRecipe | None = None, url: Any = None, **options: Any
    ) -> str:
        with self.assertRaises(kind) as raised:
            databases.test_database(
                make_url(url or self.url), made_from or recipe("refused"), base="x", settings=CACHE, **options
            )
        self.assertTrue(raised.exception.remedy)
        return str(raised.exception)


class ServerTest(ErrorsTestCase):
    def test_a_port_that_nobody_listens_to(self) -> None:
        taken = self.enterContext(socket.socket())  # nobody else gets it, and it does not listen
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for driver in ("psycopg", "psycopg2", "asyncpg", "pg8000"):
            for mode in ("create", "existing"):
                with self.subTest(driver=driver, mode=mode):
                    url = f"postgresql+{driver}://ada:hun%40ter2@127.0.0.1:{port}/shop_test"
                    message = self.refused(ServerUnreachable, url=url, mode=mode)
                    for part in ("127.0.0.1", str(port), "'shop_test'", "ada"):
                        self.assertIn(part, message)
                    self.assertNotIn("ter2", message)

    def test_a_server_that_takes_the_connection_and_says_nothing(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            url = f"postgresql://ada:hunter2@127.0.0.1:{port}/shop?connect_timeout=2"
            message = self.refused(ServerUnreachable, url=url)
        self.assertIn(str(port), message)
        self.assertNotIn("hunter2", message)

    def test_a_host_that_has_no_address(self) -> None:
        self.assertIn("nowhere.invalid", self.refused(ServerUnreachable, url="postgresql://ada@nowhere.invalid/shop"))

    def test_a_role_that_is_not_there(self) -> None:
        message = self.refused(ServerUnreachable, url=self.url.set(username="nobody_knows", password="hunter2"))
        self.assertIn("nobody_knows", message)
        self.assertNotIn("hunter2", message)

    def test_a_role_that_may_not_log_in_is_told_as_that_wherever_it_is_refused(self) -> None:
        with self.role("locked") as url:
            self.ask("ALTER ROLE locked NOLOGIN")
            found = [self.refused(ServerUnreachable, url=url)]
            with self.assertRaises(ServerUnreachable) as raised, open_wire(url):
                pass
            found.append(str(raised.exception))
            try:
                psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
            except psycopg.Error as error:
                found.append(str(cannot_connect(url, error)))
        for message in found:
            self.assertIn("the server refuses the role", message)
            self.assertNotIn("secret", message)
        self.assertEqual(len(found), 3)

    def test_an_existing_database_that_is_not_there_or_not_named(self) -> None:
        missing = self.url.set(database="no_such_test")
        self.assertIn("no_such_test", self.refused(ServerUnreachable, url=missing, mode="existing"))
        nameless = URL.create("postgresql", host="localhost")
        self.assertIn("name of a database", self.refused(ConfigurationError, url=nameless, mode="existing"))

    def test_a_role_that_may_not_create_databases(self) -> None:
        with self.role("poor") as url:
            for settings in (CACHE, NO_CACHE):
                with self.subTest(cache=settings.cache), self.assertRaises(CannotCreateDatabase) as raised:
                    databases.test_database(url, recipe("poor"), base="x", settings=settings)
                message = str(raised.exception)
                for part in ("'poor'", 'ALTER ROLE "poor" CREATEDB', 'database = "existing"'):
                    self.assertIn(part, message)
                self.assertNotIn("secret", message)

    def test_a_role_that_may_not_connect_to_the_maintenance_database_uses_the_named_one(self) -> None:
        with self.database("shop") as url, self.role("walled", "CREATEDB") as role:
            self.ask("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
            try:
                role = role.set(database=url.database)
                databases.test_database(role, recipe("walled"), base="x", settings=CACHE).close()
                databases.prune(role)
            finally:
                self.ask("GRANT CONNECT ON DATABASE postgres TO PUBLIC")

    def test_a_template1_that_is_in_use(self) -> None:
        with self.connection(self.url.set(database="template1")):
            self.assertIn("template1", self.refused(DatabaseError, recipe("never_made")))


class DialectTest(unittest.TestCase):
    def test_a_dialect_that_nobody_knows(self) -> None:
        with self.assertRaises(ConfigurationError) as raised:
            databases.test_database(make_url("postgres://u:pw@h/d"), recipe("t"), base="x", settings=CACHE)
        self.assertIn("'postgres'", str(raised.exception))
        self.assertIn("postgresql", str(raised.exception))
        self.assertNotIn("pw", str(raised.exception))

    def test_a_mode_that_nobody_knows(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "'create'|\"create\""):
            databases.test_database(
                make_url("postgresql://h/d"),
                recipe("t"),
                base="x",
                settings=CACHE,
                mode="reuse",  # type: ignore[arg-type]
            )


class Unknown(UserDefinedType[object]):
    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "no_such_type"


class ModelTest(ErrorsTestCase):
    def setUp(self) -> None:
        super().setUp()
        before = self.templates()
        self.addCleanup(lambda: self.assertEqual(self.templates(), before, "templates were left behind"))

    def made(self, metadata: MetaData, **options: Any) -> str:
        for settings in (NO_CACHE, CACHE):
            with self.subTest(cache=settings.cache), self.assertRaises(SchemaError) as raised:
                databases.test_database(self.url, MetadataRecipe(metadata), base="x", settings=settings)
        return str(raised.exception)

    def test_a_column_type_that_the_server_does_not_know(self) -> None:
        metadata = MetaData()
        Table("parcel", metadata, Column("id", Integer, primary_key=True), Column("shape", Unknown()))
        message = self.made(metadata)
        for part in ("parcel", "no_such_type", "CREATE TABLE parcel"):
            self.assertIn(part, message)

    def test_a_column_without_a_type(self) -> None:
        metadata = MetaData()
        Table("parcel", metadata, Column("shape"))
        self.assertIn("parcel", self.made(metadata))

    def test_a_foreign_key_to_a_table_that_no_metadata_has(self) -> None:
        metadata = MetaData()
        Table("child", metadata, Column("parent", ForeignKey("nowhere.id")))
        message = self.made(metadata)
        self.assertIn("child", message)
        self.assertIn("nowhere", message)

    def test_an_index_that_the_server_refuses(self) -> None:
        metadata = MetaData()
        table = Table("parcel", metadata, Column("note", TSVECTOR))
        Index("parcel_note", table.c.note, postgresql_using="no_such_method")
        message = self.made(metadata)
        for part in ("parcel_note", "table parcel", "no_such_method"):
            self.assertIn(part, message)

    def test_a_listener_whose_statement_fails(self) -> None:
        metadata = MetaData()
        Table("parcel", metadata, Column("note", Text))
        event.listen(metadata, "before_create", DDL("CREATE EXTENSION no_such_extension"))
        self.assertIn("no_such_extension", self.made(metadata))

    def test_base_data_that_cannot_be_loaded_keep_their_own_error(self) -> None:
        made_from = recipe("parcel")

        def load(session: Session) -> None:
            session.add_all([object()])

        made_from.base_data = load
        with self.assertRaises(Exception) as raised:
            databases.test_database(self.url, made_from, base="x", settings=CACHE)
        self.assertIn("base data of metadata of parcel", "".join(raised.exception.__notes__))
