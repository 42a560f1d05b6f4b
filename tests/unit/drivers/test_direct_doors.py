"""Code of ours between an application and its driver is not taken for what connects."""

from __future__ import annotations

import os
import unittest
import unittest.mock
from functools import partial

from sqlalchemy import Engine

from dbtestcase.drivers import direct_doors
from dbtestcase.drivers.mysql.other_databases import names_database
from dbtestcase.isolation.switchboard import hooks


class BetweenTest(unittest.TestCase):
    def test_the_files_that_stand_between_are_there(self) -> None:
        for path in direct_doors._BETWEEN:
            self.assertTrue(os.path.exists(path), path)

    def test_what_sqlalchemy_calls_of_ours_on_its_way_to_the_driver_stands_between(self) -> None:
        hooks.install()
        for function in (Engine.raw_connection, hooks._do_connect.__func__):
            self.assertIn(function.__code__.co_filename, direct_doors._BETWEEN)


class CommandsTest(unittest.TestCase):
    """What a connection to MySQL sends is read however its driver is called."""

    def test_a_chosen_database_may_have_any_name(self) -> None:
        for name in ("my-shop", b"my-shop", "my shop"):
            text = name if isinstance(name, str) else name.decode()
            self.assertTrue(names_database(direct_doors._sends(2, name), text), name)

    def test_arguments_may_have_names(self) -> None:
        class Connection:
            def query(self, query: str) -> str:
                return query

        passes, sends = partial(direct_doors._ends, 3), partial(direct_doors._sends, 3)
        query = direct_doors._using("MySQLdb", direct_doors._unknown, Connection.query, passes=passes, sends=sends)
        with unittest.mock.patch.object(direct_doors, "_check_use") as check:
            self.addCleanup(direct_doors.guard(lambda _: False, lambda *_: AssertionError()))
            self.assertEqual(query(Connection(), query="SELECT 1"), "SELECT 1")
        self.assertEqual(check.call_args.args[-1], "SELECT 1")


if __name__ == "__main__":
    unittest.main()
