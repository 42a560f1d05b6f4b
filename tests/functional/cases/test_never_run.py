"""What a test asks for and never runs fails it: blocks without `with`, coroutines without `await`, lost tasks."""

import asyncio
import contextlib
import functools
import sys
import threading
import types
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from sqlalchemy import create_engine, event, false, select
from sqlalchemy.orm import Session

from dbtestcase import (
    AsyncDatabaseTest,
    AsyncTruncatingDatabaseTest,
    ConfigurationError,
    DatabaseTest,
    OutsideDatabase,
    SandboxClosed,
    TruncatingDatabaseTest,
)
from tests.support.blog_models import Author, Base
from tests.support.inner import InnerRuns


class Lite(DatabaseTest):
    metadata = Base.metadata
    url = "sqlite://"


class AsyncLite(AsyncDatabaseTest):
    metadata = Base.metadata
    url = "sqlite+aiosqlite://"


class AsyncCommittingLite(AsyncTruncatingDatabaseTest):
    metadata = Base.metadata
    url = "sqlite+aiosqlite://"


async def save(engine: Any) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: sync.exec_driver_sql("SELECT 1"))


def calling(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that drops what the function gives back."""

    @functools.wraps(function)
    def call(*args: Any) -> None:
        function(*args)

    return call


class BlocksTest(InnerRuns):
    def assertNamed(self, base: type, body: Callable[[Any], Any], *words: str) -> None:
        self.assertFailed(type("Inner", (base,), {"test_it": body}), pattern="[^$]*".join(words), tests=1)

    def test_a_block_that_nobody_has_entered(self) -> None:
        calls: dict[str, Callable[[Any], Any]] = {
            "assertNumQueries(5)": lambda test: test.assertNumQueries(5) and None,
            "assertMaxQueries(0)": lambda test: test.assertMaxQueries(0) and None,
            "assertNoRepeatedQueries()": lambda test: test.assertNoRepeatedQueries() and None,
            "captureQueries()": lambda test: test.captureQueries() and None,
            "session_scope()": lambda test: test.session_scope() and None,
            "rolled_back()": lambda test: test.rolled_back() and None,
        }
        for base in (Lite, AsyncLite, AsyncCommittingLite):
            for call, body in calls.items():
                with self.subTest(call, base=base.__name__):
                    self.assertNamed(base, body, call.replace("(", r"\(").replace(")", r"\)"), "never entered", "with")

    def test_blocks_that_are_entered_in_other_ways(self) -> None:
        class Inner(Lite):
            def test_it(self) -> None:
                with contextlib.ExitStack() as stack, self.rolled_back():
                    stack.enter_context(self.assertNumQueries(0))
                queries = self.enterContext(self.captureQueries())
                self.assertNumQueries(0, len, "ab")

                @self.assertMaxQueries(1)
                def decorated() -> None:
                    self.session.scalars(select(Author)).all()

                decorated()
                decorated()
                self.assertEqual(len(queries), 2)

            def test_failing(self) -> None:
                with self.assertRaises(ZeroDivisionError), self.session_scope(), self.assertNumQueries(1 // 0):
                    pass

        class AsyncInner(AsyncLite):
            async def test_it(self) -> None:
                async with self.session_scope() as one, contextlib.AsyncExitStack() as stack:
                    two = await stack.enter_async_context(self.session_scope())
                    self.assertIsNot(one, two)
                with self.sync_session_scope() as sync:
                    self.assertIsInstance(sync, Session)

        self.assertPassed(Inner, tests=2)
        self.assertPassed(AsyncInner, tests=1)

    def test_a_condition_that_python_has_answered(self) -> None:
        class Inner(Lite):
            def test_it(self) -> None:
                self.session.add(Author(name="Ada"))
                self.assertRowCount(Author, 0, false())
                for condition in (Author.name is None, bool([]), None):
                    with self.assertRaisesRegex(ConfigurationError, "whatever is in the table[^$]*is_"):
                        self.assertRowCount(Author, 0, condition)  # type: ignore[arg-type]

        self.assertPassed(Inner, tests=1)


class UnawaitedTest(InnerRuns):
    def test_a_coroutine_that_nobody_has_awaited(self) -> None:
        async def of_the_test(self: Any) -> None:
            raise AssertionError("it has run")

        async def commit(self: Any) -> None:
            self.session.commit()

        async def asserted(self: Any) -> None:
            self.assertTrue(self.session.scalar(select(Author).where(false())))

        async def helper(self: Any) -> None:
            kept = save(self.engine)
            del kept

        for base, body, name in (
            (Lite, calling(of_the_test), "of_the_test"),
            (Lite, lambda self: save(self.engine) and None, "save"),
            (AsyncLite, commit, "commit"),
            (AsyncLite, asserted, "scalar"),
            (AsyncCommittingLite, helper, "save"),
        ):
            with self.subTest(name, base=base.__name__), self.assertWarns(RuntimeWarning):
                cls = type("Inner", (base,), {"test_it": body})
                self.assertFailed(cls, pattern=rf"{name}\(\) was made and never awaited", tests=1)

    def test_what_was_closed_or_is_no_part_of_the_test(self) -> None:
        namespace: dict[str, Any] = {}
        exec("async def of_the_application(): pass", namespace)

        class Inner(AsyncLite):
            async def test_it(self) -> None:
                save(self.engine).close()
                task = asyncio.create_task(save(self.engine))
                task.cancel()
                namespace["of_the_application"]()

        with self.assertWarns(RuntimeWarning):
            self.assertPassed(Inner, tests=1)


class LostTasksTest(InnerRuns):
    def test_a_refusal_in_a_task_that_nobody_asks(self) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        outside = create_async_engine("sqlite+aiosqlite:///nobody-has-named-it.db")
        kept: list[Any] = []

        async def forgotten(self: Any) -> None:
            task = asyncio.create_task(save(outside))
            await asyncio.wait([task])
            del task

        async def remembered(self: Any) -> None:
            kept.append(asyncio.create_task(save(outside)))
            await asyncio.wait(kept[-1:])

        async def asked(self: Any) -> None:
            with self.assertRaises(OutsideDatabase):
                await asyncio.create_task(save(outside))
            (error,) = await asyncio.gather(save(outside), return_exceptions=True)
            self.assertIsInstance(error, OutsideDatabase)

        for base in (AsyncLite, AsyncCommittingLite):
            for body in (forgotten, remembered):
                with self.subTest(body.__name__, base=base.__name__), self.assertLogs("asyncio"):
                    cls = type("Inner", (base,), {"test_it": body})
                    self.assertFailed(cls, pattern="OutsideDatabase was raised and swallowed", tests=1)
                    kept.clear()
            self.assertPassed(type("Inner", (base,), {"test_it": asked}), tests=1)


class EarlyAndLateTest(InnerRuns):
    def test_an_engine_that_is_used_before_its_class_begins_or_after_it_has_ended(self) -> None:
        real = create_engine("sqlite://")
        sent: list[str] = []
        event.listen(real, "before_cursor_execute", lambda *args: sent.append(args[2]))

        def write() -> None:
            with real.begin() as connection:
                connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS real (id INTEGER)")

        class Early:
            @classmethod
            def setUpClass(cls) -> None:
                write()
                super().setUpClass()  # type: ignore[misc]

        class Swallowed:
            @classmethod
            def setUpClass(cls) -> None:
                with contextlib.suppress(Exception):
                    write()
                super().setUpClass()  # type: ignore[misc]

        class Late:
            @classmethod
            def setUpClass(cls) -> None:
                cls.addClassCleanup(write)  # type: ignore[attr-defined]
                super().setUpClass()  # type: ignore[misc]

        class AfterSuper:
            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()  # type: ignore[misc]
                cls.addClassCleanup(write)  # type: ignore[attr-defined]
                write()

        for base in (Lite, TruncatingDatabaseTest):
            attributes: dict[str, Any] = {"metadata": Base.metadata, "url": "sqlite://", "engines": [real]}
            attributes["test_it"] = lambda test: None
            for mixin, said in (
                (Early, "was to begin after"),
                (Swallowed, "was to begin after"),
                (Late, "A cleanup of Inner"),
            ):
                with self.subTest(mixin.__name__, base=base.__name__):
                    sent.clear()
                    cls = type("Inner", (mixin, base), attributes)
                    self.assertFailed(cls, pattern=f"{said}[^$]*own database at [^$]*super", tests=None)
                    self.assertEqual([text for text in sent if "real" in text], [])
            sent.clear()
            self.assertPassed(type("Inner", (AfterSuper, base), attributes), tests=1)
            self.assertEqual(len([text for text in sent if "real" in text]), 2)  # led: in the test database

    def test_an_engine_that_is_used_when_the_module_of_its_class_ends(self) -> None:
        real, other = create_engine("sqlite://"), create_engine("sqlite://")
        self.addCleanup(real.dispose)
        self.addCleanup(other.dispose)

        def use(engine: Any) -> None:
            engine.connect().close()

        for base in (Lite, TruncatingDatabaseTest):
            for ends in (  # the last of them is as it should be
                {"tearDownModule": lambda: use(real)},
                {"setUpModule": lambda: unittest.addModuleCleanup(use, real)},
                {"setUpModule": lambda: unittest.addModuleCleanup(use, other), "tearDownModule": real.dispose},
            ):
                module = types.ModuleType("ending")
                vars(module).update(ends)
                attributes = {
                    "__module__": "ending",
                    "url": "sqlite://",
                    "engines": [real],
                    "test_it": lambda test: None,
                }
                with self.subTest(ends, base=base.__name__), mock.patch.dict(sys.modules, ending=module):
                    cls = type("Inner", (base,), attributes)
                    if len(ends) == 2:
                        self.assertPassed(cls, tests=1)
                    else:
                        self.assertFailed(
                            cls, pattern="end of the module ending [^$]* own database, at [^$]* in use", tests=1
                        )

    def test_an_engine_that_a_thread_of_a_test_uses_when_the_class_has_ended(self) -> None:
        real = create_engine("sqlite://")
        self.addCleanup(real.dispose)
        for base in (Lite, TruncatingDatabaseTest):
            sent: list[str] = []
            raised: list[BaseException] = []
            go, threads = threading.Event(), list[threading.Thread]()

            def late(go: threading.Event = go, raised: list[BaseException] = raised, sent: list[str] = sent) -> None:
                while not go.wait(0.05):
                    pass
                try:
                    with real.connect():
                        sent.append("reached")
                except SandboxClosed as error:
                    raised.append(error)

            def start(test: Any, late: Callable[[], None] = late, threads: list[threading.Thread] = threads) -> None:
                threads.append(threading.Thread(target=late, daemon=True))
                threads[0].start()

            with self.subTest(base=base.__name__):
                attributes = {"metadata": Base.metadata, "url": "sqlite://", "engines": [real], "test_it": start}
                self.assertPassed(type("Inner", (base,), attributes), tests=1)
                go.set()
                threads[0].join(10)
                self.assertEqual(sent, [])
                self.assertRegex(str(raised[0]), r"was started by .*Inner\.test_it, which has ended")
                real.connect().close()  # as ever for everybody else
                following = type("Following", (base,), attributes | {"test_it": lambda test: None})
                if base is Lite:
                    self.assertPassed(following, tests=1)
                else:
                    self.assertFailed(following, pattern=r"Inner\.test_it left 'Thread-\d+ \(late\)' at work", tests=1)

    def test_a_refusal_that_is_swallowed_after_the_last_test(self) -> None:
        other = create_engine("sqlite:///nowhere.db")
        application: dict[str, Any] = {}
        code = "def run(f):\n    try: f()\n    except Exception: pass"
        exec(compile(code, "application.py", "exec"), application)

        def swallow() -> None:
            application["run"](other.connect)

        class InTearDown:
            tearDownClass = staticmethod(swallow)

        class InCleanup:
            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()  # type: ignore[misc]
                cls.addClassCleanup(swallow)  # type: ignore[attr-defined]

        for base in (Lite, TruncatingDatabaseTest):
            for mixin in (InTearDown, InCleanup):
                attributes = {"url": "sqlite://", "test_it": lambda test: None}
                with self.subTest(mixin.__name__, base=base.__name__):
                    cls = type("Inner", (mixin, base), attributes)
                    self.assertFailed(
                        cls, pattern="OutsideDatabase was raised and swallowed during the end of class", tests=1
                    )


if __name__ == "__main__":
    unittest.main()
