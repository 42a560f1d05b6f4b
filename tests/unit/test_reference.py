"""A public name that the documentation does not list is told; whether all are listed is asked of the built pages."""

import unittest

from tests.reference import public_names, unlisted


class ReferenceTest(unittest.TestCase):
    def test_a_name_that_is_taken_out_is_told(self) -> None:
        names = set(public_names())
        self.assertEqual(unlisted(names), [])
        for name in sorted(names)[::40]:
            self.assertEqual(unlisted(names - {name}), [name])

    def test_every_kind_of_thing_is_asked_for(self) -> None:
        expected = {
            "py:dbtestcase.AsyncDatabaseTest.sync_session",
            "py:dbtestcase.AsyncMigratedDatabaseTest.upgrade",
            "py:dbtestcase.DatabaseTest.assertRowCount",
            "py:dbtestcase.DatabaseTest.database_url",
            "py:dbtestcase.DatabaseTest.load_base_data",
            "py:dbtestcase.DatabaseTest.outside",
            "py:dbtestcase.LeakError",
            "py:dbtestcase.Life.begin_class",
            "py:dbtestcase.pytest_plugin.database_fixture",
            "py:dbtestcase.session_scope",
            "std:DBTESTCASE_URL",
            "std:dbtestcase-prune.--dry-run",
            "std:dbtestcase.doctor",
        }
        self.assertEqual(expected - set(public_names()), set())


if __name__ == "__main__":
    unittest.main()
