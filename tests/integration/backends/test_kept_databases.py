"""Databases with the rows of failing tests: made beside the test's own, recognised, and dropped in the end."""

import json
import time
from typing import Any

from psycopg import sql
from sqlalchemy import URL

from dbtestcase import backends as databases
from dbtestcase.backends.interface import Database
from dbtestcase.backends.postgresql import catalog as catalogs
from tests.support.postgresql import CACHE, NO_CACHE, PostgreSQLTestCase, recipe


class KeptDatabasesTest(PostgreSQLTestCase):
    def setUp(self) -> None:
        databases.prune(self.url, templates=False)
        super().setUp()
        self.addCleanup(databases.prune, self.url, templates=False)

    def make(self, **options: Any) -> Database:
        return databases.test_database(self.url, recipe("note"), base="shop", **{"settings": CACHE} | options)

    def fill(self, url: URL) -> None:
        self.ask("INSERT INTO note (title) VALUES ('kept')", url)

    def keep(self, test: str = "app.PostTest.test_publish") -> URL:
        with self.make() as database:
            return database.keep(test, self.fill)

    def age(self, url: URL, seconds: float) -> None:
        note = catalogs.KEPT + json.dumps({"test": "of old", "kept": time.time() - seconds})
        with self.connection() as connection:
            connection.execute(
                sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(str(url.database)), sql.Literal(note))
            )

    def test_it_stays_when_its_maker_has_closed_and_carries_our_mark(self) -> None:
        for options in ({}, {"settings": NO_CACHE}, {"disposable": True}):
            with self.subTest(**options):
                with self.make(**options) as database:
                    url = database.keep("app.PostTest.test_publish", self.fill)
                    self.assertEqual(self.ask("SELECT count(*) FROM note", database.url), [(0,)])
                self.assertRegex(str(url.database), r"^shop_kept_test_publish_[0-9a-f]{6}$")
                self.assertEqual(self.ask("SELECT title FROM note", url), [("kept",)])
                query = (
                    "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
                )
                self.assertRegex(str(self.ask(query, url)), "dbtestcase: .*app.PostTest.test_publish")
        databases.prune(self.url, templates=False)

    def test_the_next_run_leaves_it_alone_and_prune_drops_it_and_says_so(self) -> None:
        url = self.keep()
        self.make().close()
        self.assertIn(url.database, self.names())
        self.assertEqual(databases.prune(self.url, templates=False), [url.database])
        self.assertNotIn(url.database, self.names())

    def test_the_next_run_drops_what_is_older_than_a_day(self) -> None:
        old, young = self.keep(), self.keep()
        self.age(old, catalogs.KEPT_SECONDS + 60)
        self.age(young, catalogs.KEPT_SECONDS - 60)
        self.make().close()
        self.assertEqual({old.database, young.database} & self.names(), {young.database})

    def test_the_next_run_leaves_the_ten_newest(self) -> None:
        kept = [self.keep() for _ in range(catalogs.KEPT_ROWS + 1)]
        for number, url in enumerate(kept):
            self.age(url, 100 - number)
        self.make().close()
        names = {str(url.database) for url in kept}
        self.assertEqual(names - self.names(), {kept[0].database})

    def test_what_a_run_keeps_is_its_own_until_it_ends(self) -> None:
        with self.make() as database:
            url = database.keep("test", self.fill)
            self.age(url, catalogs.KEPT_SECONDS + 60)
            self.make().close()
            self.assertEqual(databases.prune(self.url, templates=False), [])
            self.assertIn(url.database, self.names())
        self.make().close()
        self.assertNotIn(url.database, self.names())

    def test_one_that_somebody_looks_at_is_not_dropped_by_the_next_run(self) -> None:
        url = self.keep()
        self.age(url, catalogs.KEPT_SECONDS + 60)
        with self.connection(url) as connection:
            self.make().close()
            connection.execute("SELECT 1")
        self.assertIn(url.database, self.names())

    def test_where_it_cannot_be_filled_nothing_is_left(self) -> None:
        def fail(url: URL) -> None:
            raise ZeroDivisionError

        for disposable in (False, True):
            with self.subTest(disposable=disposable), self.make(disposable=disposable) as database:
                before = self.names()
                with self.assertRaises(ZeroDivisionError):
                    database.keep("test", fail)
                self.assertEqual(self.names(), before)

    def test_a_database_of_somebody_else_with_such_a_name_is_left_alone(self) -> None:
        with self.database("shop_kept_test_publish_abcdef") as url:
            self.assertEqual(databases.prune(self.url, templates=False), [])
            self.assertIn(url.database, self.names())
