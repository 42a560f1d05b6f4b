"""Code of ours between an application and its driver is not taken for what connects."""

from __future__ import annotations

import os
import unittest

from sqlalchemy import Engine

from dbtestcase.drivers import direct_doors
from dbtestcase.isolation.switchboard import hooks


class BetweenTest(unittest.TestCase):
    def test_the_files_that_stand_between_are_there(self) -> None:
        for path in direct_doors._BETWEEN:
            self.assertTrue(os.path.exists(path), path)

    def test_what_sqlalchemy_calls_of_ours_on_its_way_to_the_driver_stands_between(self) -> None:
        hooks.install()
        for function in (Engine.raw_connection, hooks._do_connect.__func__):
            self.assertIn(function.__code__.co_filename, direct_doors._BETWEEN)


if __name__ == "__main__":
    unittest.main()
