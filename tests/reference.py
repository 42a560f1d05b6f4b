"""Whether the built documentation lists everything that is public: ``python -m tests.reference FOLDER_OF_THE_HTML``.

What is public is asked of the package itself: the names of ``__all__``, the members of the public classes, the errors,
the variables of the environment, the commands and their options.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
import unittest
import zlib
from collections.abc import Iterator
from pathlib import Path

import dbtestcase
from dbtestcase.__main__ import make_parser
from dbtestcase.settings import VARIABLES

# Whose __all__ is public besides the package's own.
MODULES = ("dbtestcase.pytest_plugin", "dbtestcase.nose2_plugin")
# What the public calls give.
GIVEN = (
    "dbtestcase.data.factories.ManagedFactory",
    "dbtestcase.reporting.queries.Query",
    "dbtestcase.reporting.queries.Recording",
)


def read_inventory(path: Path) -> set[str]:
    """``domain:name`` of all that Sphinx's ``objects.inv`` lists."""
    _, _, _, _, compressed = path.read_bytes().split(b"\n", 4)
    entries = (line.rsplit(" ", 4) for line in zlib.decompress(compressed).decode("utf-8").splitlines())
    return {f"{role.partition(':')[0]}:{name}" for name, role, *_ in entries}


def public_names() -> Iterator[str]:
    """``domain:name`` of all that a user may write or meet."""
    for name in dbtestcase.__all__:
        yield from _names(f"dbtestcase.{name}", getattr(dbtestcase, name))
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            yield from _names(f"{module}.{name}", getattr(importlib.import_module(module), name))
    for full_name in GIVEN:
        module, _, name = full_name.rpartition(".")
        yield from _names(full_name, getattr(importlib.import_module(module), name))
    for variable in VARIABLES:
        yield f"std:{variable}"
    yield from _options("dbtestcase", make_parser())


def _names(full_name: str, value: object) -> Iterator[str]:
    yield f"py:{full_name}"
    if not inspect.isclass(value) or issubclass(value, BaseException | tuple):
        return
    of_unittest = set(dir(unittest.IsolatedAsyncioTestCase))
    for base in value.__mro__:
        if not base.__module__.startswith("dbtestcase"):
            continue
        told = set(re.findall(r":ivar (?:\w+ )?(\w+):", base.__doc__ or ""))  # listed with the class, wherever that is
        for name in {*vars(base), *inspect.get_annotations(base)} - told:
            if not name.startswith("_") and name not in of_unittest and not _is_nose2s(base, name):
                yield f"py:{full_name}.{name}"


def _is_nose2s(base: type, name: str) -> bool:
    return any(hasattr(parent, name) for parent in base.__mro__ if parent.__module__.startswith("nose2"))


def _options(program: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield f"std:{program}.{name}"
                yield from _options(f"{program}-{name}", command)
        elif not isinstance(action, argparse._HelpAction):
            yield from (f"std:{program}.{option}" for option in action.option_strings or [action.dest.upper()])


def unlisted(inventory: set[str]) -> list[str]:
    """What is public and not in the inventory, sorted."""
    return sorted(set(public_names()) - inventory)


if __name__ == "__main__":
    missing = unlisted(read_inventory(Path(sys.argv[1]) / "objects.inv"))
    print("\n".join(f"not in the reference: {name}" for name in missing) or "the reference lists everything")
    sys.exit(bool(missing))
