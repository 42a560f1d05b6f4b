"""What a test costs in each home: python -m tests.benchmarks.bench_homes

The same tests of the blog example as classes of unittest, sync and async, and as functions of pytest with
``database_fixture()``, all under pytest; CPU time of the process, without its start, in milliseconds a test.

Beside them the same tests by hand, without the library: plain functions, async functions with the same fixture (what
the loop costs), and async functions over an ``AsyncConnection`` (what SQLAlchemy's asyncio costs too).  What an async
function costs more than a plain one by hand is not the library's: it is taken off before the two are compared.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import finish, in_turns, print_table, printed_seconds, shared_server, verdict
from tests.support.forty_by_hand import BY_HAND
from tests.support.forty_tests import (
    CONFTEST,
    FORGETFUL,
    RIGHT,
    async_functions,
    functions,
    functions_in_greenlets,
    unittest_class,
)
from tests.support.runners import ROOT, write_suite

COPIES, ROUNDS = 6, 3

TIMED = """
import time
ends = []

def pytest_runtest_logfinish(nodeid, location):     # the first test pays for what is paid once
    ends.append(time.process_time())

def pytest_unconfigure(config):
    print((ends[-1] - ends[0]) / (len(ends) - 1))
"""
STYLES = {
    "unittest class": (CONFTEST, unittest_class(RIGHT)),
    "pytest functions": (CONFTEST, functions(RIGHT)),
    "async unittest class": (CONFTEST, unittest_class(RIGHT, base="AsyncBlog")),
    "async functions": (CONFTEST, async_functions(RIGHT, first="pass")),
    "by hand: functions": (BY_HAND, functions(RIGHT)),
    "by hand: async functions, sync fixture": (BY_HAND, async_functions(RIGHT, first="pass")),
    "by hand: async functions, AsyncConnection": (BY_HAND, functions_in_greenlets(RIGHT)),
}


def main() -> None:
    with shared_server() as (_, environment), tempfile.TemporaryDirectory() as folder:
        variants = {}
        for number, (style, (conftest, text)) in enumerate(STYLES.items()):
            suite = Path(folder) / str(number)
            shutil.copytree(ROOT / "docs" / "examples" / "blog" / "blog", suite / "blog")
            copies = {f"test_{copy}.py": text for copy in range(COPIES)}
            write_suite(suite, {"conftest.py": conftest + TIMED, "forgetful.py": FORGETFUL, **copies})
            command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "anyio.pytest_plugin", "-s"]
            env = environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
            variants[style] = partial(printed_seconds, command, suite, env)
        seconds = in_turns(variants, ROUNDS)
    first, of_async = seconds["unittest class"], seconds["async unittest class"]
    by_hand = seconds["by hand: functions"]
    loop = seconds["by hand: async functions, sync fixture"] - by_hand
    whole = seconds["by hand: async functions, AsyncConnection"] - by_hand
    rows = [(style, each, f"{each / first:.2f} x") for style, each in seconds.items()]
    print_table(f"A test of the blog example, under pytest, CPU time ({COPIES * len(RIGHT) * 4} tests)", rows, "ms")
    more = seconds["async functions"] - seconds["pytest functions"]
    rows = [
        ("with the library", more, ""),
        ("by hand, sync fixture", loop, "the loop of each test"),
        ("by hand, AsyncConnection", whole, "and SQLAlchemy's asyncio"),
    ]
    print_table("An async function, more than a plain one", rows, "ms")
    finish(
        [
            verdict("a function, to a test of a class", seconds["pytest functions"] / first, 1.1),
            verdict("an async function, to a test of an async class", seconds["async functions"] / of_async, 1.1),
            verdict(
                "an async function without what its loop costs by hand",
                (seconds["async functions"] - loop) / first,
                1.1,
            ),
        ]
    )


if __name__ == "__main__":
    main()
