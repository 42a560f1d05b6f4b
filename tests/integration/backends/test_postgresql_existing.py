"""``database = "existing"`` on a real PostgreSQL: refused where it may hold data, else emptied and built."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from sqlalchemy import DDL, URL, Column, Enum, ForeignKey, Integer, MetaData, Table, Text, create_engine, event

from dbtestcase import backends as databases
from dbtestcase.backends.interface import Database
from dbtestcase.backends.postgresql import existing as postgresql_existing
from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.errors import ConfigurationError, DatabaseError, SchemaError, UnsafeDatabase
from tests.support.postgresql import CACHE, PostgreSQLTestCase, recipe

EVERYTHING = """
    SELECT c.oid::bigint, c.relname, c.relkind, c.relfilenode::bigint, c.xmin::text FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY c.oid
"""


class ExistingTestCase(PostgreSQLTestCase):
    def use(self, url: URL, made_from: MetadataRecipe | None = None, *, transactional: bool = False) -> Database:
        return databases.test_database(
            url,
            made_from or recipe("author", 2),
            base="ignored",
            settings=CACHE,
            mode="existing",
            transactional=transactional,
        )

    @contextmanager
    def in_transaction(self, made: Database) -> Iterator[Any]:
        """The tables made in a transaction that is rolled back, as the sandbox does."""
        engine = create_engine(made.url)
        try:
            with engine.connect() as connection, connection.begin() as transaction:
                made.create_in(connection)
                yield connection
                transaction.rollback()
        finally:
            engine.dispose()

    def relations(self, url: URL) -> set[str]:
        rows = self.ask("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace", url)
        return {name for (name,) in rows}


class GuardTest(ExistingTestCase):
    def test_a_database_with_rows_and_without_our_mark_is_refused_and_not_changed(self) -> None:
        with self.database("shop") as url, self.database("latest") as latest:
            for place in (url, latest):
                self.ask("CREATE TABLE customer (id serial PRIMARY KEY, name text)", place)
                self.ask("INSERT INTO customer (name) VALUES ('Ada')", place)
                before = self.ask(EVERYTHING, place), self.ask("SELECT *, xmin FROM customer", place)
                for transactional in (True, False):
                    with self.subTest(place=place, transactional=transactional):
                        with self.assertRaises(UnsafeDatabase) as raised:
                            self.use(place.set(password="hunter2"), transactional=transactional)
                        message = str(raised.exception)
                        for part in (f"'{place.database}'", "customer", "test"):
                            self.assertIn(part, message)
                        self.assertNotIn("hunter2", message)
                        after = self.ask(EVERYTHING, place), self.ask("SELECT *, xmin FROM customer", place)
                        self.assertEqual(after, before)

    def test_a_view_or_a_table_in_another_schema_makes_it_not_empty(self) -> None:
        for statement in ("CREATE VIEW sales AS SELECT 1", "CREATE SCHEMA s; CREATE TABLE s.sales (id int)"):
            with self.subTest(statement), self.database("shop") as url:
                self.ask(statement, url)
                with self.assertRaisesRegex(UnsafeDatabase, "sales"):
                    self.use(url)

    def test_an_empty_one_is_used_and_left_empty(self) -> None:
        with self.database("shop") as url:
            for _ in range(2):
                with self.use(url) as made:
                    self.assertTrue(made.built)
                    self.assertEqual(made.name, "shop")
                    self.assertEqual(self.ask("SELECT count(*) FROM author", url), [(2,)])
                self.assertEqual(self.relations(url), set())

    def test_one_that_a_killed_run_left_is_used_again_by_its_mark(self) -> None:
        with self.database("shop") as url:
            context = multiprocessing.get_context("fork")
            reading, writing = context.Pipe(duplex=False)

            def killed() -> None:
                self.use(url)
                writing.send("ready")
                signal.pause()

            process = context.Process(target=killed)
            process.start()
            reading.recv()
            process.kill()
            process.join()
            self.assertIn("author", self.relations(url))
            with self.use(url, recipe("writer")):
                self.assertLessEqual({"writer"}, self.relations(url))
                self.assertNotIn("author", self.relations(url))

    def test_one_that_is_named_like_a_test_is_emptied(self) -> None:
        with self.database("shop_test") as url:
            self.ask("CREATE TABLE old (id int)", url)
            with self.use(url):
                self.assertNotIn("old", self.relations(url))


class InTransactionTest(ExistingTestCase):
    def test_nothing_is_ever_committed(self) -> None:
        with self.database("shop") as url:
            with self.use(url, transactional=True) as made:
                self.assertFalse(made.built)
                with self.in_transaction(made) as connection:
                    self.assertEqual(connection.exec_driver_sql("SELECT count(*) FROM author").scalar_one(), 2)
                    self.assertEqual(self.relations(url), set())
            self.assertEqual(self.relations(url), set())

    def test_what_is_there_is_hidden_by_the_transaction_and_comes_back(self) -> None:
        with self.database("shop_test") as url:
            self.ask("CREATE TABLE author (id int, old text); INSERT INTO author VALUES (1, 'kept')", url)
            with self.use(url, transactional=True) as made, self.in_transaction(made) as connection:
                self.assertEqual(connection.exec_driver_sql("SELECT count(title) FROM author").scalar_one(), 2)
            self.assertEqual(self.ask("SELECT * FROM author", url), [(1, "kept")])

    def test_it_is_not_made_in_a_transaction_where_it_is_there(self) -> None:
        with self.database("shop") as url, self.use(url) as made:
            with self.assertRaises(ConfigurationError), self.in_transaction(made):
                self.fail("made twice")

    def test_a_role_that_may_not_create_databases_can_use_it(self) -> None:
        with self.role("lodger") as role, self.database("shop_test") as url:
            self.ask("ALTER DATABASE shop_test OWNER TO lodger")
            self.ask("ALTER SCHEMA public OWNER TO lodger", url)
            own = role.set(database="shop_test")
            for transactional in (True, False):
                with self.subTest(transactional=transactional), self.use(own, transactional=transactional) as made:
                    if transactional:
                        with self.in_transaction(made):
                            pass
                    else:
                        self.assertEqual(self.ask("SELECT count(*) FROM author", url), [(2,)])


class UniversalMethodTest(ExistingTestCase):
    def test_a_circular_model_that_has_changed_is_rebuilt(self) -> None:
        def circular(extra: str) -> MetadataRecipe:
            metadata = MetaData()
            for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
                Table(
                    name,
                    metadata,
                    Column("id", Integer, primary_key=True),
                    Column(f"{other}_id", ForeignKey(f"{other}.id", use_alter=name == "c", name=f"{name}_{other}")),
                    Column(extra, Text),
                )
            return MetadataRecipe(metadata)

        with self.database("ring_test") as url:
            for extra in ("first", "second"):
                made = self.use(url, circular(extra))
                self.ask(f"CREATE VIEW over_a AS SELECT a.id, b.{extra} FROM a JOIN b ON b.id = a.b_id", url)
                self.ask("CREATE VIEW over_view AS SELECT * FROM over_a", url)
                self.ask("CREATE MATERIALIZED VIEW stored AS SELECT * FROM over_view", url)
                made._admin.close()  # type: ignore[attr-defined]  # as if the run had died
            with self.use(url, circular("third")):
                self.assertEqual(self.ask("SELECT third FROM a", url), [])
                self.assertNotIn("over_a", self.relations(url))

    def test_everything_that_a_model_can_bring_goes_and_comes_again(self) -> None:
        metadata = MetaData()
        Table(
            "thing",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("kind", Enum("a", "b", name="kind")),
            schema="other",
        )
        for statement in (
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER touched BEFORE INSERT ON other.thing FOR EACH ROW EXECUTE FUNCTION touch()",
            "CREATE PROCEDURE nothing() LANGUAGE sql AS ''",
            "CREATE AGGREGATE total (integer) (SFUNC = int4pl, STYPE = integer)",
            "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
            "CREATE TYPE pair AS (x integer, y positive)",
            "CREATE TYPE spread AS RANGE (subtype = integer)",
            "CREATE TABLE parent (id integer, kind integer) PARTITION BY LIST (kind)",
            "CREATE TABLE child PARTITION OF parent DEFAULT",
            'CREATE TABLE "Odd ""name" (id serial)',
            "CREATE SEQUENCE alone",
        ):
            event.listen(metadata, "after_create", DDL(statement.replace("%", "%%")))
        with self.database("things_test") as url:
            for _ in range(2):
                self.use(url, MetadataRecipe(metadata))._admin.close()  # type: ignore[attr-defined]
            self.use(url, MetadataRecipe(metadata)).close()
            self.assertEqual(self.relations(url), set())
            self.assertEqual(
                self.ask("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace", url), []
            )
            self.assertEqual(
                self.ask("SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace", url), []
            )

    def test_extensions_stay(self) -> None:
        with self.database("extended_test") as url:
            available = {name for (name,) in self.ask("SELECT name FROM pg_available_extensions", url)}
            if "hstore" not in available:
                self.skipTest("the server has no hstore extension (postgresql-contrib)")
            self.ask("CREATE EXTENSION hstore; CREATE EXTENSION pg_stat_statements", url)
            self.use(url).close()
            self.assertEqual(self.ask("SELECT 'a=>1'::hstore -> 'a'", url), [("1",)])

    def test_a_model_that_cannot_be_made_leaves_it_empty(self) -> None:
        made_from = recipe("author")
        event.listen(made_from.metadata[0], "after_create", DDL("SELECT no_such_function()"))
        with self.database("shop") as url:
            with self.assertRaises(SchemaError):
                self.use(url, made_from)
            self.assertEqual(self.relations(url), set())


class LeaseTest(ExistingTestCase):
    def test_one_that_is_lost_is_taken_again_and_what_was_built_is_built_anew(self) -> None:
        for transactional in (True, False):
            with (
                self.subTest(transactional=transactional),
                self.database("shop_test") as url,
                self.use(url, transactional=transactional) as lent,
            ):
                self.assertFalse(lent.renew_lease())
                self.ask("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = 'shop_test'")
                with mock.patch.object(postgresql_existing, "PATIENCE", 0.3), self.use(url, transactional=True):
                    with self.assertRaisesRegex(DatabaseError, "in use by others"):
                        self.lose_patience(lent)
                self.assertEqual(lent.renew_lease(), not transactional, "another run may have changed what was built")
                with mock.patch.object(postgresql_existing, "PATIENCE", 0.3):
                    with self.assertRaisesRegex(DatabaseError, "in use by others"):
                        self.use(url)

    def lose_patience(self, lent: Database) -> None:
        admin = lent._admin  # type: ignore[attr-defined]
        patient, admin._settings = (
            admin._settings,
            admin._settings.replace("lock_timeout = 60000", "lock_timeout = 300"),
        )
        try:
            lent.renew_lease()
        finally:
            admin._settings = patient

    def test_a_second_run_waits_and_then_says_who_is_in_it(self) -> None:
        with self.database("shop") as url, self.use(url, transactional=True):
            with mock.patch.object(postgresql_existing, "PATIENCE", 0.3), self.assertRaises(DatabaseError) as raised:
                self.use(url)
            for part in ("'shop'", "process", "dbtestcase"):
                self.assertIn(part, str(raised.exception))

    def test_a_locked_table_does_not_make_it_hang(self) -> None:
        with self.database("shop_test") as url, self.connection(url) as other:
            self.ask("CREATE TABLE held (id int)", url)
            other.execute("BEGIN")
            other.execute("LOCK TABLE held")
            with (
                mock.patch.object(postgresql_existing, "PATIENCE", 0.3),
                self.assertRaisesRegex(DatabaseError, "in use"),
            ):
                self.use(url)
            other.execute("ROLLBACK")
