"""SQLAlchemy's own tests of its dialects give the same in a sandbox as plain; what differs is documented."""

from __future__ import annotations

import re
import unittest
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.support.mariadb import require_mariadb
from tests.support.requirements import require_module
from tests.support.runners import ROOT
from tests.support.samples import LONG, a_share
from tests.support.sqlalchemy_suite import ALL, CHANGES, CORE, outcomes

DRIVERS = ("psycopg", "psycopg2", "pysqlite", *(("asyncpg", "pymysql") if LONG else ()))
PAGE = ROOT / "docs" / "explanation" / "differences.rst"
_ENTRY = re.compile(r"^\* ``(\w+): ([^`]+)``: (.+)$", re.MULTILINE)


def documented() -> dict[tuple[str, str], str]:
    """The differences that the documentation lists, with their reasons."""
    listed = PAGE.read_text(encoding="utf-8").partition(".. list of differences")[2]
    return {(driver, test): reason for driver, test, reason in _ENTRY.findall(listed)}


class SQLAlchemySuiteTest(unittest.TestCase):
    def test_no_difference_is_silent(self) -> None:
        for (driver, test), reason in documented().items():
            with self.subTest(driver, test=test):
                self.assertNotIn("silent", reason)


def _test_of(driver: str) -> Callable[[unittest.TestCase], None]:
    def test(self: unittest.TestCase) -> None:
        if driver == "pymysql":
            require_mariadb()
        else:
            require_module({"pysqlite": "sqlite3"}.get(driver, driver))
        more = [module for module in CORE if module not in CHANGES]
        chosen = (*a_share(CHANGES, 3), *a_share(more, 6)) if driver == "psycopg" else tuple(a_share(CHANGES, 4))
        modules = ALL if LONG else chosen
        with ThreadPoolExecutor() as pool:
            plain, inside = pool.map(lambda how: outcomes(driver, how, modules, timeout=900), ("plain", "inside"))
        # what makes a table in the middle of a test is refused by name on MariaDB
        refused = {name for name, verdict in inside.items() if verdict == "refused"} if driver == "pymysql" else set()
        counts = Counter(inside.values())
        if LONG:
            print(
                f"\n{driver}: {len(plain)} tests, plain {dict(Counter(plain.values()))}, in the sandbox {dict(counts)}"
            )
        self.assertGreater(counts["passed"], 400 if LONG else 5 * len(modules), modules)
        differ = {name for name in {*plain, *inside} - refused if plain.get(name) != inside.get(name)}
        listed = {name for each, name in documented() if each == driver and name in plain}
        self.assertEqual(
            {name: (plain.get(name), inside.get(name)) for name in differ - listed}, {}, "(plain, in the sandbox)"
        )
        self.assertEqual(listed - differ, set(), "these are listed and do not differ any more")

    test.__doc__ = f"What becomes of the tests of {driver}, plain and in a sandbox."
    return test


for _driver in DRIVERS:
    setattr(SQLAlchemySuiteTest, f"test_{_driver}", _test_of(_driver))


if __name__ == "__main__":
    unittest.main()
