"""Databases on a real PostgreSQL: made, put back, dropped; a second connection is the judge."""

import multiprocessing
import os
from typing import Any
from unittest import mock

import psycopg
from sqlalchemy import create_engine

from dbtestcase import backends as databases
from dbtestcase.backends.postgresql import admin as admin_module
from dbtestcase.backends.postgresql.admin import Admin
from dbtestcase.errors import DatabaseError
from tests.support.postgresql import CACHE, NO_CACHE, CountingRecipe, PostgreSQLTestCase, recipe
from tests.support.production import once_at_most


class CreateTest(PostgreSQLTestCase):
    def test_a_database_has_the_tables_and_the_base_data_and_is_gone_afterwards(self) -> None:
        for settings in (CACHE, NO_CACHE):
            with self.subTest(cache=settings.cache):
                with databases.test_database(self.url, recipe("author", 3), base="blog", settings=settings) as made:
                    self.assertEqual(self.ask("SELECT count(*) FROM author", made.url), [(3,)])
                    self.assertRegex(made.name, r"^blog_")
                    self.assertTrue(made.built)
                self.assertNotIn(made.name, self.names())

    def test_two_of_one_recipe_are_apart(self) -> None:
        with (
            databases.test_database(self.url, recipe("apart"), base="x", settings=CACHE) as first,
            databases.test_database(self.url, recipe("apart"), base="x", settings=CACHE) as second,
        ):
            self.ask("INSERT INTO apart DEFAULT VALUES", first.url)
            self.assertEqual(self.ask("SELECT count(*) FROM apart", second.url), [(0,)])

    def test_reclone_puts_it_back_under_the_same_name_whoever_is_connected(self) -> None:
        for settings in (CACHE, NO_CACHE):
            with (
                self.subTest(cache=settings.cache),
                databases.test_database(self.url, recipe("again", 2), base="x", settings=settings) as made,
                self.connection(made.url) as connected,
            ):
                name = made.name
                connected.execute("DELETE FROM again")
                made.reclone()
                self.assertEqual(made.name, name)
                self.assertEqual(self.ask("SELECT count(*) FROM again", made.url), [(2,)])
                with self.assertRaises(psycopg.OperationalError):
                    connected.execute("SELECT 1")

    def test_it_is_dropped_with_prepared_transactions_and_open_connections_in_it(self) -> None:
        if self.ask("SHOW max_prepared_transactions") == [("0",)]:
            self.fail("the test server must be started with max_prepared_transactions > 0")
        made = databases.test_database(self.url, recipe("prepared"), base="x", settings=CACHE)
        with self.connection(made.url) as connected:
            connected.execute("BEGIN")
            connected.execute("INSERT INTO prepared DEFAULT VALUES")
            connected.execute("PREPARE TRANSACTION 'it''s'")
            made.close()
        self.assertNotIn(made.name, self.names())

    def test_close_twice_and_the_url_keeps_the_driver(self) -> None:
        url = self.url.set(drivername="postgresql+asyncpg").update_query_dict({"prepared_statement_cache_size": "0"})
        made = databases.test_database(url, recipe("twice"), base="x", settings=CACHE)
        self.assertEqual(made.url.drivername, "postgresql+asyncpg")
        self.assertEqual(made.url.query["prepared_statement_cache_size"], "0")
        made.close()
        made.close()

    def test_the_base_may_hold_anything_and_be_of_any_length(self) -> None:
        for base in ('shop"s', "Shop", "100%s %(x)s", "größe-ж", "o'hara; --", "é" * 60, "x" * 200, "", "{name}"):
            with (
                self.subTest(base=base),
                databases.test_database(self.url, recipe("named"), base=base, settings=CACHE) as made,
            ):
                self.assertLessEqual(len(made.name.encode()), 63)
                self.assertIn(made.name, self.names())
                engine = create_engine(made.url)
                with engine.connect() as connection:
                    shown = connection.exec_driver_sql("SELECT current_database()").scalar_one()
                engine.dispose()
                self.assertEqual(shown, made.name)

    def test_a_disposable_servers_database_goes_with_its_server(self) -> None:
        options: Any = {"base": "x", "settings": CACHE, "disposable": True}
        with databases.test_database(self.url, recipe("thrown"), **options) as built:
            self.assertTrue(built.made_template)
        self.assertIn(built.name, self.names())
        with databases.test_database(self.url, recipe("thrown"), **options) as cloned:
            self.assertFalse(cloned.made_template)
        self.assertIn(cloned.name, self.names())
        self.assertEqual(databases.prune(self.url, templates=False), [cloned.name])

    def test_the_named_database_is_not_touched(self) -> None:
        with self.database("shop") as url:
            self.ask("CREATE TABLE named_shop AS SELECT 1 AS kept", url)
            with (
                self.connection(url),
                databases.test_database(url, recipe("named_shop"), base="shop", settings=CACHE) as made,
            ):
                self.assertNotEqual(made.name, "shop")
                query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'"
                self.assertEqual(once_at_most(1, lambda: int(self.ask(query)[0][0])), 1)
            self.assertEqual(self.ask("SELECT * FROM named_shop", url), [(1,)])


class LostConnectionTest(PostgreSQLTestCase):
    def end_first(self) -> Any:
        """The first connection that is made from now on has been ended before it is used."""
        original, ended = admin_module.OwnConnection.connect, []

        def connect(**arguments: Any) -> Any:
            made = original(**arguments)
            if not ended:
                ended.append(made.info.backend_pid)
                self.ask(f"SELECT pg_terminate_backend({ended[0]}, 60000)")
            return made

        return mock.patch.object(admin_module.OwnConnection, "connect", connect)

    def test_one_that_is_ended_before_its_first_statement_is_made_once_more(self) -> None:
        with self.end_first():
            admin = Admin(self.url)
        self.addCleanup(admin.close)
        self.assertEqual(admin.rows("SELECT 1"), [(1,)])

    def test_so_is_one_that_is_ended_while_it_takes_its_locks_again(self) -> None:
        admin = Admin(self.url)
        self.addCleanup(admin.close)
        admin.lock(4711, 1)
        self.ask(f"SELECT pg_terminate_backend({admin.rows('SELECT pg_backend_pid()')[0][0]}, 60000)")
        with self.end_first():
            admin.renew()
        held = self.ask("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 4711")
        self.assertEqual(held, admin.rows("SELECT pg_backend_pid()"))


class ForkTest(PostgreSQLTestCase):
    def test_a_forked_process_neither_uses_nor_closes_the_connection(self) -> None:
        counted = CountingRecipe("forked")
        with databases.test_database(self.url, counted, base="x", settings=CACHE) as made:
            reading, writing = multiprocessing.Pipe(duplex=False)

            def child() -> None:
                try:
                    made.reclone()
                except DatabaseError as error:
                    writing.send(str(error))
                made.close()

            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            self.assertIn(f"belongs to process {os.getpid()}", reading.recv())
            process.join()
            self.assertEqual(process.exitcode, 0)
            self.assertIn(made.name, self.names())
            made.reclone()  # the connection still works

    def test_the_lease_ends_with_its_owner_though_a_forked_process_lives_on(self) -> None:
        context = multiprocessing.get_context("fork")
        reading, writing = context.Pipe(duplex=False)
        may_end = context.Event()

        def owner() -> None:
            made = databases.test_database(self.url, recipe("orphan"), base="x", settings=CACHE)
            if os.fork() == 0:
                writing.send(made.name)
                may_end.wait(60)
                os._exit(0)
            os.kill(os.getpid(), 9)

        process = context.Process(target=owner)
        process.start()
        name = reading.recv()
        process.join()
        try:
            self.wait_until_unowned(name)
            self.assertEqual(databases.prune(self.url, templates=False), [name])
        finally:
            may_end.set()
