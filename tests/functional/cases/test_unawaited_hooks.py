"""Hooks and cleanups that give back a coroutine or a generator, of which no line has run, fail by name."""

import contextlib
import functools
import unittest
from collections.abc import Callable
from typing import Any

from dbtestcase import AsyncDatabaseTest, DatabaseTest, TruncatingDatabaseTest
from tests.support.blog_models import Base
from tests.support.inner import InnerRuns, run_inner


async def coroutine(*args: Any) -> None:
    raise AssertionError("it has run")


def generator(*args: Any) -> Any:
    yield


def behind(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that calls what it decorates as an ordinary function."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


class UnawaitedTest(InnerRuns):
    def test_hooks_of_the_class(self) -> None:
        for kind in (DatabaseTest, TruncatingDatabaseTest, AsyncDatabaseTest):
            for hook in ("setUpTestData", "load_base_data", "load_initial_schema"):
                for function in (coroutine, generator):
                    with self.subTest(hook, kind=kind.__name__, function=function.__name__):
                        attributes = {hook: classmethod(behind(function)), "metadata": Base.metadata}
                        cls = type("Inner", (kind,), attributes | {"test_it": lambda test: None})
                        result = run_inner(cls)
                        self.assertEqual((result.testsRun, len(result.errors)), (0, 1))
                        self.assertRegex(result.errors[0][1], rf"ConfigurationError: .*({hook}|{function.__name__})")

    def test_what_is_made_and_not_called_or_entered(self) -> None:
        def fails(*args: Any) -> None:
            raise AssertionError("it has run")

        @contextlib.contextmanager
        def block(*args: Any) -> Any:
            yield fails()

        @contextlib.asynccontextmanager
        async def async_block(*args: Any) -> Any:
            yield fails()

        for kind in (DatabaseTest, TruncatingDatabaseTest, AsyncDatabaseTest):
            for made in (
                block,
                async_block,
                lambda *args: fails,
                lambda *args: functools.partial(fails),
                lambda *args: DatabaseTest.run,
            ):
                for hook in ("test_it", "setUp", "tearDown"):
                    attributes = {"metadata": Base.metadata, "test_it": lambda test: None, hook: made}
                    with self.subTest(hook, kind=kind.__name__, made=made.__qualname__):
                        cls = type("Inner", (kind,), attributes)
                        self.assertFailed(cls, pattern=rf"{hook} gave back .*, which nobody runs", tests=1)

    def test_cleanups(self) -> None:
        for function in (coroutine, behind(coroutine), generator, lambda: coroutine()):

            class OfTheTest(DatabaseTest):
                metadata = Base.metadata

                def test_it(self) -> None:
                    self.addCleanup(function)  # noqa: B023

            class OfTheClass(DatabaseTest):
                metadata = Base.metadata

                @classmethod
                def setUpClass(cls) -> None:
                    super().setUpClass()
                    cls.addClassCleanup(function)  # noqa: B023

                def test_it(self) -> None: ...

            for cls in (OfTheTest, OfTheClass):
                with self.subTest(cls.__name__, function=function.__qualname__):
                    self.assertFailed(cls, pattern="gave back a (coroutine|generator), which nobody runs", tests=1)

    def test_those_that_run_are_left_alone(self) -> None:
        ran: list[str] = []

        async def awaited(name: str) -> None:
            ran.append(name)

        class Inner(AsyncDatabaseTest):
            metadata = Base.metadata

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                cls.addClassCleanup(ran.append, "class")

            async def test_it(self) -> None:
                self.addCleanup(awaited, "awaited")
                self.addAsyncCleanup(awaited, "async")
                self.addCleanup(ran.append, "plain")

        self.assertPassed(Inner, tests=1)
        self.assertEqual(ran, ["plain", "async", "awaited", "class"])


if __name__ == "__main__":
    unittest.main()
