"""Which known name a word is a slip of, and whether somebody's code uses it."""

from __future__ import annotations

import dis
import inspect
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache, cached_property, lru_cache
from itertools import chain, pairwise
from types import CodeType, FunctionType
from typing import Any

from ..errors import ConfigurationError


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that ``name`` is a slip of; ``None`` for a name of its own.

    Case, underscores and the ``s`` of a plural do not count.  A slip begins with the right letter, and is one edit
    away, or two from a name of eight letters and more; with the same letters in another order, it may begin with any.
    """
    return _nearest(name, tuple(sorted(known)))


@cache
def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    word = flat(name).removesuffix("s")
    for meant in known:
        goal = flat(meant).removesuffix("s")
        if sorted(word) == sorted(goal):
            return meant
        if word[:1] == goal[:1] and distance(word, goal) <= (2 if len(goal) >= 8 else 1):
            return meant
    return None


def distance(one: str, other: str) -> int:
    """How many letters are to be put in, taken out, replaced, or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        two_before, before, row = before, row, [i]
        for j, goal in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != goal))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == goal:
                cost = min(cost, two_before[j - 2] + 1)
            row.append(cost)
    return row[-1]


def flat(name: str) -> str:
    return name.replace("_", "").casefold()


def is_read(name: str, own: Iterable[type]) -> bool:
    """Whether the code of these classes uses a name."""
    return any(name in names for names in map(_names_read, own))


@lru_cache(maxsize=512)
def _names_read(cls: type) -> frozenset[str]:
    """Every name that the code of a class reads, as an attribute or otherwise."""
    return frozenset(name for code in codes_of(_functions_of(cls)) for name in code.co_names)


def _functions_of(cls: type) -> Iterator[Any]:
    for value in vars(cls).values():
        if isinstance(value, property):
            yield from filter(None, (value.fget, value.fset, value.fdel))
        else:
            found = value.func if isinstance(value, cached_property) else getattr(value, "__func__", value)
            if callable(found):
                yield inspect.unwrap(found)


def codes_of(functions: Iterable[Any]) -> Iterator[CodeType]:
    """The code of functions, and of all that is written within it; nothing of what has no code of Python's."""
    pending = [getattr(function, "__code__", None) for function in functions]
    while pending:
        code = pending.pop()
        if isinstance(code, CodeType):
            yield code
            pending += code.co_consts


def is_loaded(name: str, own: Collection[type]) -> bool:
    """Whether the code of these classes asks itself for what it has set, by a name which setting it is not."""
    classes = {cls.__name__ for cls in own}
    return any(_loads(name, code, classes) for cls in own for code in codes_of(_functions_of(cls)))


def _loads(name: str, code: CodeType, classes: set[str]) -> bool:
    """Whether code reads an attribute of ``self``; not of another object, nor in a statement that sets it (``+=``)."""
    steps = [each for each in dis.get_instructions(code) if each.opname not in ("PRECALL", "CALL")]  # type(self)
    owners = {"self", "cls", "__class__", *code.co_varnames[:1], *classes}
    lines: list[int] = []
    for before, step in pairwise(steps):
        if step.argval != name:
            continue
        line = (step.positions.lineno if step.positions is not None else None) or 0
        of = before.argval[-1] if isinstance(before.argval, tuple) else before.argval  # two loads in one step
        if step.opname == "STORE_ATTR":
            lines = [each for each in lines if each < line]  # the value comes first, and its lines stand below
        elif (
            (step.opname in ("LOAD_ATTR", "LOAD_METHOD") and before.opname.startswith("LOAD_") and of in owners)
            or step.opname == "LOAD_SUPER_ATTR"
            or (step.opname == "LOAD_CONST" and "getattr" in code.co_names)
        ):
            lines.append(line)
    return bool(lines)


_OF_MODULE = ("setUpModule", "tearDownModule")
_OF_PYTEST = ("setup_module", "teardown_module")


@lru_cache(maxsize=512)
def refuse_misspelt_hooks(module: str) -> None:
    """Refuse what looks like a module's ``setUpModule()`` and is called by nobody.

    :raises ConfigurationError: the first one that is found.
    """
    own = getattr(sys.modules.get(module), "__dict__", {})
    known = _OF_MODULE + (_OF_PYTEST if "PYTEST_CURRENT_TEST" in os.environ else ())
    for name in [each for each in own if each[:1] in ("s", "t", "S", "T") and each not in known]:
        value, meant = own[name], nearest(name, _OF_MODULE)
        if (
            meant is not None
            and type(value) is FunctionType
            and value.__module__ == module
            and not vars(value)  # what is decorated is somebody's
            and value.__code__.co_argcount <= 1
            and not _is_used(name, own)
        ):
            raise ConfigurationError(
                f"{module}.{name}() means nothing, and would be called by nobody. Did you mean {meant}()?",
                cause=f"a misspelling of `{meant}`, or another framework's name for it",
                remedy=f"write {meant}; or give a function of your own another name, such as my_{name}",
            )


def _is_used(name: str, own: dict[str, Any]) -> bool:
    """Whether a module uses a name: in a function or class, or at once, as in ``setUpModule = setup_module``."""
    values = list(own.values())
    functions = [inspect.unwrap(each) for each in values if isinstance(each, FunctionType)]
    functions += [function for each in values if isinstance(each, type) for function in _functions_of(each)]
    codes = list(codes_of(functions))
    with suppress(OSError, TypeError, SyntaxError):  # one without a file
        codes.append(compile(inspect.getsource(sys.modules[own["__name__"]]), "", "exec", dont_inherit=True))
    steps = chain.from_iterable(map(dis.get_instructions, codes))
    return any(each.argval == name and each.opname in ("LOAD_NAME", "LOAD_GLOBAL") for each in steps)
