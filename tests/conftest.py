"""What pytest does for a whole run of the tests: once before its workers start, and in each of them."""

import compileall
import gc
import os
import signal
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if is_worker or not config.getoption("numprocesses", None):
        from tests.support.servers import keep_no_templates  # imports the library, which who has workers does without

        keep_no_templates()
    if is_worker:
        return
    # A run in the background of a script has it ignored, and so would all programs that the tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Once: a new interpreter, of which the tests start many, takes a second for it, and does not keep what it has
    # compiled where PYTHONDONTWRITEBYTECODE is set.
    tests = Path(__file__).parent
    for folder in (tests.parent / "dbtestcase", tests):
        compileall.compile_dir(folder, quiet=2)


def pytest_collection_finish() -> None:
    """What was imported stays: each of the many looks at everything would take some tenths of a second for it."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Three for two processors: every test waits for servers that start, answer and end."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return -(-3 * len(os.sched_getaffinity(0)) // 2)
