"""What is to be done to a module when it is imported, whenever that is: a test may be the first to import a driver."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_waiting: dict[str, list[Callable[[Any], object]]] = {}


def when_imported(name: str, function: Callable[[Any], object]) -> None:
    """Call ``function`` with a module: now if it is there, else as soon as it has been executed."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        function(module)
        return
    functions = _waiting.setdefault(name, [])
    if function not in functions:
        functions.append(function)
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def replace_once(owner: Any, name: str, make: Callable[[Any], Any], mark: str) -> None:
    """Put what ``make`` makes of a function in its place, unless what stands there has the mark already."""
    original = getattr(owner, name)
    if not hasattr(original, mark):
        # marks of others are below: who has to come first is put on top once more
        replacement = functools.wraps(original, updated=())(make(original))
        setattr(replacement, mark, True)
        setattr(owner, name, replacement)


def replace_everywhere(
    modules: Sequence[Any], name: str, make: Callable[[Any], Any], mark: str
) -> tuple[Any, Any] | None:
    """The same for a function in the modules that have it, and in those that have imported it by its name.

    :returns: what stood there and what does now; None if the mark was there already.
    """
    original = getattr(modules[0], name)
    if hasattr(original, mark):
        return None
    replacement = functools.wraps(original, updated=())(make(original))
    setattr(replacement, mark, True)
    for module in [*modules, *sys.modules.values()]:
        if getattr(module, "__dict__", {}).get(name) is original:
            setattr(module, name, replacement)
    return original, replacement


class _Finder:
    """Finds nothing by itself; what the others find of the modules that are waited for is told when it is executed."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _waiting:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not _Finder else None
            if spec is not None:
                _tell(name, spec.loader)
                return spec
        return None


def _tell(name: str, loader: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        if module.__name__ == name:  # one loader may serve all modules of an archive
            for function in _waiting.pop(name, ()):
                function(module)

    loader.exec_module = exec_module
