"""What a test needs from the machine: skipped by name for a person without it, failed in CI."""

from __future__ import annotations

import importlib.util
import os
import unittest

#: CI sets it to 1: whatever a test needs must be there.
VARIABLE = "TESTS_REQUIRE_ALL"

#: What may be missing all the same: the texts given as ``what``, separated by semicolons.
EXCEPTIONS = "TESTS_MAY_LACK"


def require(available: object, what: str, remedy: str) -> None:
    """Go on if ``available`` is true; else skip the running test, naming ``what`` and how to get it.

    :raises AssertionError: it is missing although ``TESTS_REQUIRE_ALL=1`` says that nothing may be.
    :raises unittest.SkipTest: it is missing.
    """
    if available:
        return
    message = f"{what} is missing; {remedy}"
    if os.environ.get(VARIABLE) == "1" and what not in os.environ.get(EXCEPTIONS, "").split(";"):
        raise AssertionError(f"{message} ({VARIABLE}=1: nothing may be skipped)")
    raise unittest.SkipTest(message)


def require_module(name: str, distribution: str | None = None) -> None:
    """:func:`require` for an importable module; ``distribution`` is its name for pip where that differs."""
    remedy = f"pip install {distribution or {'MySQLdb': 'mysqlclient'}.get(name, name)}"
    require(importlib.util.find_spec(name), f"the module {name!r}", remedy)
