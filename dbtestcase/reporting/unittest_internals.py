"""What is used of unittest beyond its public interface, in one place: each with the reason, checked at import.

It is the same from Python 3.11 to 3.14.
"""

from __future__ import annotations

import functools
import platform
import unittest
import warnings
from collections.abc import Callable
from typing import Any

from .imports import require_internals

CALLS = ("_callSetUp", "_callTestMethod", "_callTearDown", "_callCleanup")
"""Overridden: they are where an error can still be given notes, and where a coroutine that nobody awaits is seen."""


def name_test(test: unittest.TestCase, name: str) -> None:
    """Name a test that no runner has made."""
    test._testMethodName = name


def name_of(test: unittest.TestCase) -> str:
    """The name of a test's method, to make the test again by."""
    return test._testMethodName


def cleanups_of(test: Any) -> list[Any]:
    """The cleanups that are yet to run, the next one last: ``doCleanups()`` swallows what goes wrong in them."""
    cleanups: list[Any] = test._cleanups
    return cleanups


def module_cleanups() -> list[Any]:
    """The cleanups of the module that runs, which are yet to run: each a function, its arguments and its keywords."""
    cleanups: list[Any] = unittest.case._module_cleanups  # type: ignore[attr-defined]
    return cleanups


def is_expected_to_fail(test: unittest.TestCase) -> bool:
    """Whether ``expectedFailure`` stands at a test's method or class: what the method raises is no error then."""
    method = getattr(test, test._testMethodName, None)
    return any(getattr(each, "__unittest_expecting_failure__", False) for each in (test, method))


def loop_runner_of(test: Any) -> Any:
    """The ``asyncio.Runner`` of a test, whose loop its connections belong to; None where it has none."""
    return getattr(test, "_asyncioRunner", None)


def forget_class_cleanups(cls: type) -> None:
    """Take away what unittest notes on every subclass of ``TestCase``: classes with tests have it, ours have none."""
    for name in ("_class_cleanups", "_classSetupFailed"):
        if name in vars(cls):
            delattr(cls, name)


def add_class_cleanup(cls: Any, function: Callable[..., object], *args: object) -> None:
    """``addClassCleanup``, where it would call for no check, of a class that may lack a list of its own for them.

    One that an ``__init_subclass__`` has made does.
    """
    if "_class_cleanups" not in vars(cls):
        cls._class_cleanups = []
    cls._class_cleanups.append((function, args, {}))


def when_never_awaited(note: Callable[[Any], object]) -> None:
    """Call ``note`` with each coroutine that is thrown away before it has run, just before Python warns of it."""
    original: Callable[[Any], object] = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]

    @functools.wraps(original)
    def warn(coroutine: Any) -> None:
        note(coroutine)
        original(coroutine)

    warnings._warn_unawaited_coroutine = warn  # type: ignore[attr-defined]


require_internals(
    f"unittest of Python {platform.python_version()}",
    [
        (unittest.TestCase, CALLS),
        (unittest.case, ("_module_cleanups",)),
        (warnings, ("_warn_unawaited_coroutine",)),
        (type("Case", (unittest.TestCase,), {}), ("_class_cleanups", "_classSetupFailed")),  # set on subclasses
        (unittest.TestCase("run"), ("_testMethodName", "_cleanups")),
    ],
    "use a version of Python from 3.11 on that dbtestcase names in its documentation",
)
