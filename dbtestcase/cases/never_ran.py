"""What did not run fails the test that it belongs to; what never would is refused before (:mod:`.configuration`)."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

from ..errors import ConfigurationError
from ..reporting import module_cleanups, when_never_awaited


def refuse_unfinished(value: Any, name: str) -> Any:
    """Give back what a test or a hook has given back, unless somebody would have to run it.

    :raises ConfigurationError: none of its lines has run.
    """
    if value is None:
        return None
    cause = "`async def` or `yield` behind a decorator that calls it as an ordinary function"
    if inspect.isawaitable(value):
        remedy = TO_BE_AWAITED
    elif inspect.isgenerator(value) or inspect.isasyncgen(value):
        remedy = TO_BE_ITERATED
    elif inspect.isroutine(value) or isinstance(value, _DEFERRED):
        cause = (
            "a decorator that makes something of the function and does not call it, @contextmanager, or forgotten ()"
        )
        remedy = "call it there, and enter it by `with` if it is a block"
    else:
        return value
    close = getattr(value, "close", None)
    if callable(close):
        close()  # Python would warn that it was never awaited
    raise ConfigurationError(
        f"{name} gave back {value!r}, which nobody runs: it has not run.", cause=cause, remedy=remedy
    )


TO_BE_AWAITED = (
    "write a plain `def`, or use AsyncDatabaseTest (AsyncMigratedDatabaseTest, AsyncTruncatingDatabaseTest), "
    "whose tests are awaited"
)
TO_BE_ITERATED = "take the `yield` away; for one test with several parts there is `with self.subTest(…):`"
"""What to do about a test that nobody runs, by what calling it gives."""

_DEFERRED = (functools.partial, contextlib.ContextDecorator, contextlib.AsyncContextDecorator)


@contextlib.contextmanager
def outliving_exits(name: str) -> Iterator[None]:
    """Let a hook not end the process: unittest would end with it, as if all had passed that has not run.

    :raises ConfigurationError: it has called ``sys.exit()``.
    """
    try:
        yield
    except SystemExit as error:
        raise ConfigurationError(
            f"{name} called sys.exit({'' if error.code is None else repr(error.code)}).",
            cause="a command, which ends its process when it is done: click's do, and argparse after --help",
            remedy="call the function behind it, or let it return (click: `standalone_mode=False`).",
        ) from error


def outliving(hook: Callable[[], Any], name: str, module: str = "") -> Callable[[], None]:
    """A hook that fails where it would end the process, and where it did not run.

    :param module: whose hook it is: the cleanups that it adds run right after it where it fails.
    """

    @functools.wraps(hook)
    def call() -> None:
        try:
            with outliving_exits(name):
                refuse_unfinished(hook(), name)
        finally:
            if module:
                watch_module_cleanups(module)

    call._dbtestcase_passes_on = False  # type: ignore[attr-defined]
    return call


def watch_module(name: str) -> None:
    """Put such hooks in the place of those that the module of a test has for unittest."""
    module = sys.modules.get(name)
    if module is None or _watched.get(name) is module:
        return  # as mostly: each test that is made asks
    for hook in ("setUpModule", "tearDownModule"):
        own = getattr(module, hook, None)
        if own is None or hasattr(own, "_dbtestcase_passes_on"):
            continue
        label = f"{name}.{hook}()"
        if not isinstance(own, FunctionType):  # such as patcher.start, which may well give back a function
            own = functools.partial(_call_cleanup, own, label, (), {})
        elif own.__code__.co_argcount:
            continue  # it is one of pytest's alone
        setattr(module, hook, outliving(own, label, name))
    is_loading = getattr(getattr(module, "__spec__", None), "_initializing", False)
    if not is_loading:  # else what its last lines define is yet to come
        _watched[name] = module


_watched: dict[str, ModuleType] = {}


def watch_module_cleanups(module: str) -> None:
    """The same for the cleanups that have been added for a module."""
    cleanups = module_cleanups()
    for n, (function, args, keywords) in enumerate(cleanups):
        if not hasattr(function, "_dbtestcase_passes_on"):
            name = f"{module}: the cleanup"
            call = functools.partial(_call_cleanup, function, name, args, keywords)
            cleanups[n] = (outliving(call, f"{name} {getattr(function, '__qualname__', function)}()"), (), {})


def _call_cleanup(function: Any, name: str, args: Any, keywords: Any) -> None:
    refuse_lost(function(*args, **keywords), function, name)


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
