"""A URL in a message never shows a secret, wherever it carries one; and one function writes all of them."""

import ast
import unittest
from pathlib import Path

from sqlalchemy import make_url

import dbtestcase
from dbtestcase.reporting.urls import pasteable, shown, without_secrets
from dbtestcase.settings import Settings

PACKAGE = Path(dbtestcase.__file__).parent
SECRET = "hunter2"
URLS = [
    f"postgresql+psycopg://user:{SECRET}@host/db",
    f"postgresql+psycopg://user@host/db?password={SECRET}",
    f"postgresql+psycopg://user@/db?host=one&host=two&password={SECRET}&sslmode=require",
    f"postgresql+psycopg://user@host/db?sslpassword={SECRET}&sslkey=/home/{SECRET}/key",
    f"postgresql+psycopg://user@host/db?passfile=/home/{SECRET}/.pgpass",
    f"postgresql+psycopg://user@host/db?service=shop&servicefile=/home/{SECRET}/services",
    f"postgresql+psycopg://user@host/db?oauth_client_secret={SECRET}",
    f"mariadb+mysqldb://user@host/db?passwd={SECRET}&read_default_file=/home/{SECRET}/.my.cnf",
    f"mysql+pymysql://user@host/db?ssl_key_password={SECRET}",
    f"mysql+mysqlconnector://user@host/db?password1={SECRET}",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D{SECRET}",
    f"postgresql+asyncpg://user:{SECRET}@host/db?PASSWORD={SECRET}",
]


class ShownUrlsTest(unittest.TestCase):
    def test_no_secret_is_shown(self) -> None:
        for text in URLS:
            with self.subTest(text):
                url = make_url(text)
                self.assertNotIn(SECRET, shown(url))
                self.assertIn("***", shown(url))
                secrets = [str(value) for value in (url.password, *url.query.values()) if SECRET in str(value)]
                self.assertNotIn(SECRET, without_secrets(f"no connection\nwith {secrets[0]}", url))

    def test_what_is_no_secret_is_shown(self) -> None:
        url = make_url("postgresql+psycopg://user@host:5433/db?sslmode=require&application_name=shop&service=x")
        self.assertEqual(shown(url), url.render_as_string())

    def test_what_is_to_be_pasted_has_neither_secrets_nor_masks(self) -> None:
        for text in URLS:
            with self.subTest(text):
                self.assertNotRegex(pasteable(make_url(text)), rf"{SECRET}|\*|%2A")

    def test_settings_do_not_show_theirs(self) -> None:
        self.assertNotIn(SECRET, repr(Settings(url=URLS[0])))

    def test_one_function_writes_the_urls_of_messages(self) -> None:
        """``render_as_string()`` masks the password before the host only; what an application is to use is whole."""
        for path in PACKAGE.rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            if path.match("reporting/urls.py") or "render_as_string" not in source:
                continue
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "render_as_string":
                    with self.subTest(path.relative_to(PACKAGE), line=node.lineno):
                        self.assertTrue(node.args or node.keywords, "write reporting.urls.shown(url) instead")


if __name__ == "__main__":
    unittest.main()
