"""What would never run is refused when the class begins, and what did not run fails the test that it belongs to."""

from __future__ import annotations

import functools
import inspect
import unittest
from types import FunctionType
from typing import Any

from ..errors import ConfigurationError
from ..reporting import when_never_awaited
from .bases import HOOKS, Bases

_CLASS_HOOKS = ("setUpClass", "tearDownClass", "enterModule")
_SYNC_HOOKS = ("setUp", "tearDown")
_ASYNC_HOOKS = ("asyncSetUp", "asyncTearDown")
_SPECIAL = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR


def check_runnable(bases: Bases, *, asynchronous: bool) -> None:
    """Refuse tests and hooks that nobody would await or iterate, and hooks that are no class methods.

    :param asynchronous: whether the class runs coroutines: its tests, asyncSetUp, asyncTearDown, async cleanups.
    :raises ConfigurationError: the first one that is found.
    """
    seen, without_tests = set(), _WITHOUT_TESTS.union(bases.ours)  # ours are looked at by our tests
    for base in bases.all:
        for name, static in vars(base).items() if base not in without_tests else ():
            if (name.startswith("test") or name == "runTest") and name not in seen:
                seen.add(name)
                _check_test(bases.cls, name, static, asynchronous=asynchronous)
    for base in bases.users:
        for name in (*_CLASS_HOOKS, *HOOKS, *_SYNC_HOOKS, *_ASYNC_HOOKS):
            if name in vars(base):
                _check_hook(base, name, asynchronous=asynchronous)


_WITHOUT_TESTS = {object, unittest.TestCase, unittest.IsolatedAsyncioTestCase}


def _check_test(cls: type, name: str, static: object, *, asynchronous: bool) -> None:
    kind = _kind(static)
    if kind is None or (asynchronous and kind == "a coroutine function"):
        return
    raise ConfigurationError(
        f"{cls.__module__}.{cls.__qualname__}.{name} is {kind}: it would be counted as passed, and would never run.",
        cause="`async def` on a class whose tests are not awaited"
        if kind == "a coroutine function"
        else "a `yield` in the test: calling it makes a generator and runs none of its lines",
        remedy=_remedy_for(kind),
    )


def _check_hook(base: type, name: str, *, asynchronous: bool) -> None:
    where = f"{base.__module__}.{base.__qualname__}.{name}"
    static = vars(base)[name]
    kind = _kind(static)
    if name in HOOKS and not isinstance(static, classmethod) and inspect.isroutine(getattr(static, "__func__", static)):
        raise ConfigurationError(
            f"{where} is not a class method: it is called on the class, once for all of its tests.",
            cause="a forgotten @classmethod",
            remedy=f"@classmethod\n    def {name}(cls{'' if name == 'setUpTestData' else ', …'}): …",
        )
    if name in _ASYNC_HOOKS:
        if not asynchronous:
            raise ConfigurationError(
                f"{where} would never run: the class is not an async one.",
                cause="a sync class, which has no event loop",
                remedy=f"write {_sync_name(name)}(), or use the Async class of the same name",
            )
        if kind != "a coroutine function" and inspect.isfunction(static):
            raise ConfigurationError(
                f"{where} is no coroutine function, which unittest cannot await.",
                cause="a forgotten `async`",
                remedy=f"write `async def {name}(self)`, or a plain {_sync_name(name)}()",
            )
        return
    if kind is None:
        return
    remedy = "write a plain `def`; async code can be run there by asyncio.run()"
    if name in _SYNC_HOOKS:
        renamed = "async" + name[0].upper() + name[1:]
        remedy = f"rename it {renamed}" if asynchronous else f"write a plain `def`, or use an Async class and {renamed}"
    elif name in HOOKS:
        remedy = "write a plain `def`: it has a sync session, in async classes too"
    if "generator" in kind:
        remedy = (
            "write what comes before the `yield` there, and what comes after it into addCleanup() or addClassCleanup()"
        )
    raise ConfigurationError(
        f"{where} is {kind}: it would be called, and would never run.",
        cause="nobody awaits this hook" if kind == "a coroutine function" else "nobody iterates over this hook",
        remedy=remedy,
    )


def _sync_name(name: str) -> str:
    return "setUp" if name == "asyncSetUp" else "tearDown"


def _kind(attribute: object) -> str | None:
    """What calling it gives instead of running it; None where it runs."""
    function: Any = getattr(attribute, "__func__", attribute)
    if type(function) is FunctionType and not function.__dict__ and not function.__code__.co_flags & _SPECIAL:
        return None  # as mostly: every test of every class is looked at
    if isinstance(function, functools.partialmethod):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return "a coroutine function"
    if inspect.isasyncgenfunction(function):
        return "an async generator function"
    if inspect.isgeneratorfunction(function):
        return "a generator function"
    return None


def refuse_unfinished(value: Any, name: str) -> Any:
    """Give back what a test or a hook has given back, if it is no coroutine and no generator.

    :raises ConfigurationError: it is one: none of its lines has run.
    """
    if value is None:
        return None
    if inspect.isawaitable(value):
        kind = "a coroutine function"
    elif inspect.isgenerator(value) or inspect.isasyncgen(value):
        kind = "a generator"
    else:
        return value
    close = getattr(value, "close", None)
    if callable(close):
        close()  # Python would warn that it was never awaited
    raise ConfigurationError(
        f"{name} gave back {value!r}, which nobody runs: it has not run.",
        cause="`async def` or `yield` behind a decorator that calls it as an ordinary function",
        remedy=_remedy_for(kind),
    )


def refuse_lost(value: Any, cleanup: Any, name: str) -> None:
    """Refuse what a cleanup has given back, if it is a coroutine or a generator; a task is at work already.

    :raises ConfigurationError: none of its lines has run.
    """
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        value.close()
        called = f"{name} {getattr(cleanup, '__qualname__', cleanup)}()"
        raise ConfigurationError(
            f"{called} gave back a {type(value).__name__}, which nobody runs.",
            cause="`async def` or `yield` in a function that is called when the test or the class ends",
            remedy="write a plain function, or use an Async class and addAsyncCleanup()",
        )


unawaited: list[tuple[str, str, str]] = []
"""Coroutines of the test that runs which nobody has awaited: name, file and module."""

_DATABASE = {"sqlalchemy", "sqlmodel", "psycopg", "asyncpg", "aiosqlite", "aiomysql", "asyncmy", "dbtestcase"}


def _note_unawaited(coroutine: Any) -> None:
    frame = getattr(coroutine, "cr_frame", None)
    if frame is not None:
        code = frame.f_code
        unawaited.append((code.co_qualname, code.co_filename, str(frame.f_globals.get("__name__"))))


@functools.cache
def watch_unawaited() -> None:
    """Note coroutines that nobody awaits, from now on."""
    when_never_awaited(_note_unawaited)


def find_unawaited(label: str, test_files: frozenset[str]) -> list[ConfigurationError]:
    """The test's own coroutines, and those of database libraries, that were never awaited, as errors that fail it.

    What else was made and dropped is the application's: a mock in the place of ``asyncio.run()`` does so.
    """
    found, unawaited[:] = list(unawaited), []
    return [
        ConfigurationError(
            f"{label}: the coroutine {name}() was made and never awaited: none of its lines has run.",
            cause="a forgotten `await`",
            remedy="await it; close() it where it is not to run",
        )
        for name, file, module in dict.fromkeys(found)
        if file in test_files or module.partition(".")[0] in _DATABASE
    ]


def _remedy_for(kind: str) -> str:
    if kind == "a coroutine function":
        return (
            "write a plain `def`, or use AsyncDatabaseTest (AsyncMigratedDatabaseTest, AsyncTruncatingDatabaseTest), "
            "whose tests are awaited"
        )
    return "take the `yield` away; for one test with several parts there is `with self.subTest(…):`"
