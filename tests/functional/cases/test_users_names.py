"""Every name on a test case but the public ones and ``_dbtestcase`` belongs to the user."""

import inspect
import pkgutil
import tokenize
import unittest
from importlib import import_module
from io import StringIO

from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.orm import Session

import dbtestcase
import dbtestcase.cases
from dbtestcase import DatabaseTest, TruncatingDatabaseTest
from tests.support.inner import InnerRuns

METADATA = MetaData()
ITEM = Table("item", METADATA, Column("id", Integer, primary_key=True))
CASES = [
    dbtestcase.AsyncDatabaseTest,
    dbtestcase.AsyncMigratedDatabaseTest,
    dbtestcase.AsyncTruncatingDatabaseTest,
    dbtestcase.DatabaseTest,
    dbtestcase.MigratedDatabaseTest,
    dbtestcase.MigrationChecks,
    dbtestcase.TruncatingDatabaseTest,
]


def names_of_the_library() -> set[str]:
    """Every identifier with a leading underscore in the modules of the cases: what might get onto a test case."""
    found = set()
    for module in pkgutil.iter_modules(dbtestcase.cases.__path__):
        source = inspect.getsource(import_module(f"dbtestcase.cases.{module.name}"))
        for token in tokenize.generate_tokens(StringIO(source).readline):
            if token.type == tokenize.NAME and token.string.startswith("_") and not token.string.startswith("__"):
                found.add(token.string)
    return found - {"_dbtestcase", "_AsyncLife"} - set(dir(unittest.IsolatedAsyncioTestCase()))


class OnePrivateNameTest(unittest.TestCase):
    def test_the_classes_have_one_private_name(self) -> None:
        for case in CASES:
            unittests = set(dir(unittest.TestCase)) | set(dir(unittest.IsolatedAsyncioTestCase))
            ours = {name for name in dir(case) if name.startswith("_") and not name.startswith("__")} - unittests
            with self.subTest(case.__name__):
                self.assertLessEqual(ours, {"_dbtestcase"})


class NamesInUseTest(InnerRuns):
    def test_a_test_may_use_any_other_private_name(self) -> None:
        taken = {*names_of_the_library(), "_state", "_sessions", "_server", "_connection", "_recipe", "_run_state"}
        for base in (DatabaseTest, TruncatingDatabaseTest):

            class Taking(base):  # type: ignore[misc,valid-type]
                metadata = METADATA

                @classmethod
                def setUpTestData(cls) -> None:
                    cls.session.execute(ITEM.insert())

                def check(self) -> None:
                    self.session.execute(ITEM.insert())
                    self.session.commit()
                    self.connection.execute(text("SELECT 1"))
                    self.assertRowCount(ITEM, 2)

                test_1 = test_2 = check

            class OnTheTest(Taking):
                def setUp(self) -> None:
                    vars(self).update(dict.fromkeys(taken, "the user's"))

            on_the_class = type("OnTheClass", (Taking,), dict.fromkeys(taken, "the user's"))
            with self.subTest(base.__name__):
                self.assertPassed(OnTheTest, on_the_class, tests=4)

    def test_a_test_may_set_the_public_ones_itself(self) -> None:
        class Recipe(DatabaseTest):
            metadata = METADATA

            def setUp(self) -> None:
                self.connection = self.engine.connect()
                self.addCleanup(self.connection.close)
                self.session = Session(self.connection, join_transaction_mode="create_savepoint")
                self.addCleanup(self.session.close)

            def check(self) -> None:
                self.session.execute(ITEM.insert())
                self.session.commit()
                self.assertRowCount(ITEM, 1)
                self.assertEqual(self.connection.scalar(text("SELECT count(*) FROM item")), 1)

            test_1 = test_2 = check

        self.assertPassed(Recipe, tests=2)


if __name__ == "__main__":
    unittest.main()
