"""What the errors say: three parts, a tree that the docstring draws, messages that survive pickling."""

import inspect
import pickle
import re
import unittest

from dbtestcase import errors
from dbtestcase.errors import DBTestCaseError, DBTestCaseWarning, MissingExtra, UnsafeDatabase

CLASSES = [getattr(errors, name) for name in errors.__all__]


class WordingTest(unittest.TestCase):
    def test_a_message_has_three_parts(self) -> None:
        error = UnsafeDatabase("the database 'shop' has rows", cause="it is production", remedy="name a test database")
        self.assertEqual(
            str(error),
            "the database 'shop' has rows\nLikely cause: it is production\nWhat to do: name a test database",
        )

    def test_parts_that_are_not_known_are_left_out(self) -> None:
        self.assertEqual(str(UnsafeDatabase("the database 'shop' has rows")), "the database 'shop' has rows")

    def test_a_missing_extra_says_what_needs_it_and_the_exact_command(self) -> None:
        self.assertEqual(
            str(MissingExtra("greenlet", "asyncio", "AsyncDatabaseTest")),
            "AsyncDatabaseTest needs the module 'greenlet', which is not installed.\n"
            "Likely cause: dbtestcase was installed without its [asyncio] extra.\n"
            "What to do: pip install 'dbtestcase[asyncio]'",
        )

    def test_every_class_says_what_it_is_for(self) -> None:
        for cls in CLASSES:
            with self.subTest(cls.__name__):
                self.assertRegex((cls.__doc__ or "").partition("\n")[0], r"^[A-Z].*\.$")


class TreeTest(unittest.TestCase):
    def test_the_docstring_draws_the_tree_as_it_is(self) -> None:
        drawn: dict[str, str | None] = {}
        path: dict[int, str] = {}
        for line in (errors.__doc__ or "").splitlines():
            match = re.match(r"^    ([│├└─ ]*)([A-Z]\w+)\b", line)
            if match:
                depth, name = len(match[1]) // 4, match[2]
                drawn[name] = path.get(depth - 1)
                path[depth] = name
        self.assertEqual(set(drawn), set(errors.__all__))
        for name, parent in drawn.items():
            if parent is not None:
                with self.subTest(name):
                    self.assertIs(getattr(errors, name).__bases__[0], getattr(errors, parent))

    def test_nothing_is_left_out_of_all(self) -> None:
        defined = {
            name for name, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__
        }
        self.assertEqual(set(errors.__all__), defined)

    def test_no_error_is_a_dbapi_error(self) -> None:
        """SQLAlchemy would wrap it, and an application's ``except DBAPIError`` would swallow it."""
        from psycopg import Error
        from sqlalchemy.exc import SQLAlchemyError

        for cls in CLASSES:
            with self.subTest(cls.__name__):
                self.assertFalse(issubclass(cls, Error | SQLAlchemyError))

    def test_errors_and_warnings_have_one_base_each(self) -> None:
        for cls in CLASSES:
            self.assertTrue(issubclass(cls, DBTestCaseError | DBTestCaseWarning), cls)


class PickleTest(unittest.TestCase):
    def test_an_error_crosses_to_another_process_with_its_parts(self) -> None:
        """nose2's mp plugin and unittest-parallel send results between processes."""
        for cls in CLASSES:
            if issubclass(cls, DBTestCaseWarning):
                continue
            with self.subTest(cls.__name__):
                if cls is MissingExtra:
                    error = MissingExtra("greenlet", "asyncio", "AsyncDatabaseTest")
                else:
                    error = cls("what", cause="cause", remedy="remedy")
                copy = pickle.loads(pickle.dumps(error))
                self.assertIs(type(copy), cls)
                self.assertEqual(str(copy), str(error))
