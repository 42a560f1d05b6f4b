"""A URL that cannot be had is named with what to write, before a server is asked for."""

import unittest
from types import SimpleNamespace
from typing import Any

from sqlalchemy import create_engine, make_url

from dbtestcase import ConfigurationError, DatabaseTest
from dbtestcase.backends.server_urls import checked_url, names_a_server
from dbtestcase.settings import Settings


class CheckedUrlTest(unittest.TestCase):
    def assertSays(self, url: Any, *words: str) -> None:
        with self.assertRaises(ConfigurationError) as raised:
            checked_url(url, "BlogTest.url")
        said = str(raised.exception)
        for word in ("BlogTest.url", *words):
            self.assertIn(word, said)
        self.assertNotIn("secret", said)

    def test_a_url_that_can_be_had_is_taken(self) -> None:
        for url in ("postgresql+psycopg://", "postgresql+psycopg://app:secret@db:5432/shop", "sqlite://"):
            with self.subTest(url):
                self.assertEqual(checked_url(url, "url").render_as_string(hide_password=False), url)

    def test_a_url_without_a_host_asks_for_a_kind_of_server_only(self) -> None:
        for url in ("postgresql+psycopg://", "postgresql:///blog", "mariadb+pymysql://"):
            with self.subTest(url):
                self.assertFalse(names_a_server(make_url(url)))
        for url in ("postgresql://db", "postgresql://?host=db", "mysql://?unix_socket=/run/x", "sqlite://"):
            with self.subTest(url):
                self.assertTrue(names_a_server(make_url(url)))

    def test_other_names_of_a_dialect_are_known(self) -> None:
        self.assertSays("postgres://app:secret@db/shop", "postgresql+psycopg://app:***@db/shop", "'postgres'")
        self.assertSays("postgres+psycopg2://db/shop", "postgresql+psycopg2://db/shop")
        self.assertSays("mysql2://db/shop", "mysql+pymysql://db/shop")
        self.assertSays("sqlite3:///shop.db", "sqlite:///shop.db")

    def test_an_unknown_dialect_is_named_with_the_known_ones(self) -> None:
        for url in ("foo://app:secret@db/shop", "oracle+oracledb://app:secret@db/shop", "mssql+pyodbc://db/shop"):
            with self.subTest(url):
                self.assertSays(url, url.partition("+")[0].partition(":")[0], "postgresql", "mariadb", "sqlite")

    def test_a_driver_that_is_not_there_is_named(self) -> None:
        self.assertSays("postgresql+psycopgx://db/shop", "'psycopgx'", "postgresql+psycopg://")
        self.assertSays("mysql+oursql://db/shop", "oursql")
        self.assertSays("mysql+mysqlconnector://db/shop", "not installed", "pip install mysql")

    def test_what_is_no_url_is_named(self) -> None:
        self.assertSays("db.invalid:secret", "not a database URL")
        self.assertSays("", "not a database URL")
        self.assertSays("sqlite://\n", "not a database URL", "blanks")
        self.assertSays(create_engine("sqlite://"), "Engine", "`engines`")
        self.assertSays(lambda: "sqlite://", "function")


class KindsTest(unittest.TestCase):
    def server_url(self, engine: str, settings: Settings, **attributes: Any) -> Any:
        engines = [create_engine(engine)] if isinstance(engine, str) else engine
        cls = type("ShopTest", (DatabaseTest,), attributes)
        life = cls._dbtestcase  # type: ignore[attr-defined]
        life.server = lambda settings, kind: SimpleNamespace(url=create_engine(f"{kind}://").url)
        return life.server_url(settings, engines)

    def test_an_engine_of_another_kind_than_the_test_database_is_refused_with_the_right_url(self) -> None:
        for engine, settings, words in [
            ("sqlite:///real.db", Settings(), r'sqlite:///real\.db[\s\S]*ShopTest\.url = "sqlite://"'),
            ("mysql+pymysql://app@db/shop", Settings(), r'ShopTest\.url = "mysql\+pymysql://"'),
            ("sqlite://", Settings(url="postgresql+psycopg://db/shop"), "the URL is postgresql"),
        ]:
            with self.subTest(engine), self.assertRaisesRegex(ConfigurationError, words):
                self.server_url(engine, settings)

    def test_mysql_and_mariadb_are_one_kind(self) -> None:
        url, _ = self.server_url("mysql+pymysql://app@db/shop", Settings(), url="mariadb+pymysql://db/shop")
        self.assertEqual(url.host, "db")

    def test_the_second_name_of_psycopg_is_its_driver(self) -> None:
        url, _ = self.server_url([], Settings(), url="postgresql+psycopg_async://db/shop")  # type: ignore[arg-type]
        self.assertEqual(url.drivername, "postgresql+psycopg")

    def test_a_class_with_engines_of_two_kinds_is_told_to_part_them(self) -> None:
        engines: Any = [create_engine("postgresql+psycopg://db/shop"), create_engine("sqlite:///cache.db")]
        with self.assertRaisesRegex(ConfigurationError, r"cache\.db[\s\S]*class of its own"):
            self.server_url(engines, Settings())


if __name__ == "__main__":
    unittest.main()
