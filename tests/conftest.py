"""What pytest does once for a whole run of the tests, before its workers start."""

import compileall
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Compile the library and its tests once: a new interpreter, of which the tests start many, takes a second for it.

    Where PYTHONDONTWRITEBYTECODE is set, none of them would keep what it has compiled.
    """
    if not hasattr(config, "workerinput"):
        tests = Path(__file__).parent
        for folder in (tests.parent / "dbtestcase", tests):
            compileall.compile_dir(folder, quiet=2)
