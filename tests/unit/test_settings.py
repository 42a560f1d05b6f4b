"""What the environment says is read once, and refused where it cannot be used."""

import re
import tempfile
import unittest
from pathlib import Path

from dbtestcase.errors import ConfigurationError
from dbtestcase.settings import VARIABLES, Settings, read_settings


class ReadSettingsTest(unittest.TestCase):
    def test_nothing_set_means_a_disposable_server_and_a_cache_below_the_home(self) -> None:
        self.assertEqual(read_settings({"HOME": "/home/ada"}), Settings(cache=Path("/home/ada/.cache/dbtestcase")))

    def test_the_empty_string_counts_as_not_set(self) -> None:
        names = ("URL", "POSTGRES_BIN", "CACHE", "KEEP", "SQL")
        empty = {f"DBTESTCASE_{name}": "" for name in names}
        self.assertEqual(read_settings({"HOME": "/h", **empty}), read_settings({"HOME": "/h"}))

    def test_everything_set(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        found = read_settings(
            {
                "DBTESTCASE_URL": "postgresql+psycopg://ada@db/blog",
                "DBTESTCASE_POSTGRES_BIN": folder,
                "DBTESTCASE_CACHE": "/var/cache/x",
                "DBTESTCASE_KEEP": "fail",
                "DBTESTCASE_SQL": "ALL",
            }
        )
        expected = Settings(
            url="postgresql+psycopg://ada@db/blog",
            postgres_bin=Path(folder),
            cache=Path("/var/cache/x"),
            cache_is_chosen=True,
            keep="fail",
            sql="all",
        )
        self.assertEqual(found, expected)

    def test_the_cache_is_turned_off_by_off(self) -> None:
        self.assertIsNone(read_settings({"DBTESTCASE_CACHE": "off"}).cache)

    def test_the_cache_folder_of_the_desktop_is_used_unless_it_is_relative(self) -> None:
        found = read_settings({"XDG_CACHE_HOME": "/x", "HOME": "/h"})
        self.assertEqual((found.cache, found.cache_is_chosen), (Path("/x/dbtestcase"), True))
        found = read_settings({"XDG_CACHE_HOME": "x", "HOME": "/h"})
        self.assertEqual((found.cache, found.cache_is_chosen), (Path("/h/.cache/dbtestcase"), False))

    def test_what_means_nothing_is_refused_with_its_name_and_what_would_do(self) -> None:
        for name, value, pattern in (
            ("DBTESTCASE_KEEP", "always", "DBTESTCASE_KEEP is 'always'.*never, fail"),
            ("DBTESTCASE_SQL", "yes", "DBTESTCASE_SQL is 'yes'.*fail, all, off"),
            ("DBTESTCASE_POSTGRES_BIN", "/no/such", "DBTESTCASE_POSTGRES_BIN names '/no/such'.*initdb and postgres"),
            ("DBTESTCASE_URL", "localhost", "DBTESTCASE_URL is not a database URL.*driver://"),
        ):
            with self.subTest(name), self.assertRaisesRegex(ConfigurationError, f"(?s){pattern}") as caught:
                read_settings({name: value})
            with self.subTest(name, part="three parts"):
                self.assertTrue(caught.exception.cause and caught.exception.remedy)

    def test_a_variable_that_means_nothing_is_named_with_the_nearest_that_does(self) -> None:
        for name, nearest in {
            "DBTESTCASE_KEP": "DBTESTCASE_KEEP",
            "DBTESTCASE_SQLS": "DBTESTCASE_SQL",
            "DBTESTCASE_POSTGRESBIN": "DBTESTCASE_POSTGRES_BIN",
            "DBTESTCASE_ANYTHING": "DBTESTCASE_URL",
            "DBTESTCASEURL": "DBTESTCASE_URL",
            "DB_TESTCASE_KEEP": "DBTESTCASE_KEEP",
            "DBTESCASE_URL": "DBTESTCASE_URL",
            "dbtestcase_keep": "DBTESTCASE_KEEP",
        }.items():
            for value in ("1", ""):
                with self.subTest(name, value=value), self.assertRaises(ConfigurationError) as raised:
                    read_settings(
                        {name: value, "DBTEST": "1", "DBTEST_URL": "x", "DATABASE_URL": "x", "TESTCASE_URL": "x"}
                    )
                self.assertIn(f"The variable {name} is set", str(raised.exception))
                self.assertIn(nearest, str(raised.exception))

    def test_the_project_itself_uses_no_variable_that_means_nothing(self) -> None:
        root = Path(__file__).parents[2]
        here = {Path(__file__)}
        for folder in (root / "tests", root / "docs", root / "dbtestcase", root / ".ci"):
            for path in set(folder.rglob("*")) - here:
                if path.suffix in (".py", ".rst", ".cfg") or path.parent.name == ".ci":
                    named = set(re.findall(r"DBTESTCASE_[A-Z_]*[A-Z]", path.read_text("utf-8")))
                    with self.subTest(path.relative_to(root)):
                        self.assertLessEqual(named, set(VARIABLES), "the tests' own are called TESTS_… or LONG_TESTS")

    def test_a_url_that_cannot_be_parsed_is_not_shown_since_it_may_hold_a_password(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            read_settings({"DBTESTCASE_URL": "postgres//ada:secret@db"})
        self.assertNotIn("secret", str(caught.exception))
