"""A class or a test that begins while a test runs, in a thread or inside, is refused; the one that runs goes on."""

import threading
import unittest
from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine

from dbtestcase import DatabaseTest, TruncatingDatabaseTest
from tests.support.border import INSERT, Base, Note
from tests.support.inner import InnerRuns


class AtOnceTest(InnerRuns):
    def in_threads(self, *functions: Callable[[], Any]) -> None:
        threads = [threading.Thread(target=function) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def test_a_suite_inside_of_a_test(self) -> None:
        real = create_engine("sqlite:///no/such/folder/real.db")  # to reach it is an error

        def write() -> None:
            with real.begin() as connection:
                connection.execute(INSERT)

        for base in (DatabaseTest, TruncatingDatabaseTest):
            attributes = {"url": "sqlite://", "metadata": Base.metadata, "engines": [real]}
            other: Any = type("Other", (base,), {**attributes, "test_it": lambda test: write()})
            for way in ("suite", "test", "thread"):

                def test_it(test: Any, way: str = way, other: Any = other) -> None:
                    told = unittest.TestResult()
                    run = other("test_it").run if way == "test" else unittest.TestSuite([other("test_it")]).run
                    self.in_threads(lambda: run(told)) if way == "thread" else run(told)
                    self.assertRegex(told.errors[0][1], r"Other was to begin while \S+Outer.test_it is running")
                    write()
                    test.assertRowCount(Note, 1)

                with self.subTest(way, base=base.__name__):
                    self.assertPassed(type("Outer", (base,), {**attributes, "test_it": test_it}), tests=1)

    def test_two_tests_of_one_class_in_threads(self) -> None:
        both = threading.Barrier(2, timeout=60)

        class Inner(DatabaseTest):
            url = "sqlite://"
            metadata = Base.metadata

            def setUp(self) -> None:
                with self.engine.begin() as connection:
                    connection.execute(INSERT)
                both.wait()

            def test_a(self) -> None:
                both.wait()
                self.assertRowCount(Note, 1)

            def test_b(self) -> None:
                raise AssertionError("not reached")

        result = unittest.TestResult()

        def late() -> None:
            both.wait()
            Inner("test_b").run(result)
            both.wait()

        self.addCleanup(Inner.doClassCleanups)
        Inner.setUpClass()
        self.in_threads(lambda: Inner("test_a").run(result), late)
        ((_, text),) = result.errors
        self.assertEqual(result.failures, [])
        self.assertRegex(text, r"Inner.test_b was to begin while \S+Inner.test_a is running")


if __name__ == "__main__":
    unittest.main()
