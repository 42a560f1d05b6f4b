"""A signal's handler raises in the middle of a statement, as timeouts do: nobody takes its answer for theirs."""

import tempfile
import unittest

from tests.support.mariadb import require_mariadb
from tests.support.requirements import require_module
from tests.support.runners import Outcome, run_suite, write_suite

SUITE = """
    import signal
    import sqlalchemy as sa
    {imports}

    URL = {url!r}
    metadata = sa.MetaData()
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sleep = "SELECT pg_sleep(1)" if URL.startswith("postgresql") else "SELECT sleep(1)"
    engine = {create}(URL)

    class TooLate(Exception): pass

    def raise_it(*args):
        raise TooLate

    signal.signal(signal.SIGALRM, raise_it)

    class InterruptedTest({base}):
        metadata = metadata
        url = None if URL.startswith("postgresql") else URL
        engines = [engine]

        {a}def test_a(self):
            {a}with engine.begin() as connection:
                {w}connection.execute(sa.insert(item).values(id=1))
            with self.assertRaises(TooLate):
                {a}with engine.begin() as connection:
                    {w}connection.execute(sa.insert(item).values(id=2))
                    signal.setitimer(signal.ITIMER_REAL, 0.2)
                    {w}connection.exec_driver_sql(sleep)
            {rest}

        {a}def test_b(self):
            for number in range(1, 4):
                {a}with engine.begin() as connection:
                    rows = {w}connection.execute(sa.select(item))
                    self.assertEqual(rows.all(), [(i,) for i in range(1, number)])
                    {w}connection.execute(sa.insert(item).values(id=number))
"""
GOES_ON = """{a}with engine.begin() as connection:
                self.assertEqual(({w}connection.execute(sa.select(item))).all(), [(1,)])"""


class InterruptedStatementsTest(unittest.TestCase):
    def run_with(self, url: str, *, rest: str = "", asynchronous: bool = False) -> Outcome:
        words = {"a": "async ", "w": "await "} if asynchronous else {"a": "", "w": ""}
        base = "AsyncDatabaseTest" if asynchronous else "DatabaseTest"
        source = SUITE.format(
            url=url,
            create="create_async_engine" if asynchronous else "sa.create_engine",
            base=base,
            imports=f"from dbtestcase import {base}"
            + ("; from sqlalchemy.ext.asyncio import create_async_engine" if asynchronous else ""),
            rest=rest.format(**words),
            **words,
        )
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, {"test_interrupted.py": source})
            return run_suite(folder, "unittest", warnings="ignore")

    def test_the_test_goes_on_where_the_driver_can(self) -> None:
        for driver, asynchronous in (("psycopg", False), ("psycopg2", False), ("psycopg", True), ("asyncpg", True)):
            with self.subTest(driver, asynchronous=asynchronous):
                require_module(driver)
                if asynchronous:
                    require_module("greenlet")
                url = f"postgresql+{driver}:///app"
                self.run_with(url, rest=GOES_ON, asynchronous=asynchronous).expect(passed=2)

    def test_elsewhere_it_fails_by_name_and_the_next_one_has_a_new_connection(self) -> None:
        require_mariadb()
        modules = {"pymysql": "pymysql", "mysqldb": "MySQLdb", "pg8000": "pg8000", "aiomysql": "aiomysql"}
        for driver, module in modules.items():
            with self.subTest(driver):
                require_module(module, "mysqlclient" if module == "MySQLdb" else None)
                url = f"{'postgresql' if driver == 'pg8000' else 'mariadb'}+{driver}:///app"
                outcome = self.run_with(url, asynchronous=driver == "aiomysql")
                outcome.expect(passed=1, errors=1)
                self.assertRegex(outcome.output, r"test_a lost the connection of the sandbox: TooLate was")


if __name__ == "__main__":
    unittest.main()
