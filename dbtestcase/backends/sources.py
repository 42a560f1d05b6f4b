"""What a Python function does, as a digest: so that a template is rebuilt when the hook that filled it has changed.

Covered: the code of the function; of the functions, methods and classes of the project that it names (through globals,
closures, ``cls.``, modules and imports inside the function), however deep; default arguments; the plain data (numbers,
strings, dates, and lists, tuples, sets and dictionaries of them) that they name.  Comments and blank lines make no
difference.  Not covered: files that it reads, what installed packages do, and values that are not plain data.
"""

from __future__ import annotations

import datetime
import decimal
import dis
import enum
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import sys
import sysconfig
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

_SCALARS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    pathlib.PurePath,
    enum.Enum,
)


def digest_of(*functions: Callable[..., object]) -> str:
    """A hex digest of what functions do (or whatever can be called); the same in every process of a Python version."""
    reader = _Reader()
    for function in functions:
        reader.visit(function)
    return reader.hash.hexdigest()


def is_plain(value: object) -> bool:
    """Whether ``value`` is plain data: written the same in every process."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    return isinstance(value, _SCALARS)


def _written(value: object) -> str:
    if isinstance(value, (set, frozenset)):  # iterated in the order of a hash that differs from process to process
        return "{" + ",".join(sorted(_written(item) for item in value)) + "}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "(" + ",".join(_written(item) for item in value) + ")"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_written(key)}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    return repr(value)


@functools.cache
def _installed() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({str(pathlib.Path(sysconfig.get_path(name)).resolve()) + "/" for name in names})


@functools.cache
def _is_project(module_name: str) -> bool:
    """Whether a module belongs to the project: neither the standard library nor an installed package."""
    if module_name == "__main__":
        return True
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    return not str(pathlib.Path(file).resolve()).startswith(_installed())


class _Reader:
    """Follows what a function names, each thing once."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._seen: set[int] = set()
        self._kept: list[object] = []  # an id is only unique while its object lives

    def _add(self, *texts: str) -> None:
        for text in texts:
            self.hash.update(text.encode("utf-8", "surrogatepass") + b"\0")

    def visit(self, value: object, name: str = "", owner: object = None) -> None:
        if is_plain(value):
            self._add(name, _written(value))
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._kept.append(value)
        if isinstance(value, (staticmethod, classmethod)):
            self.visit(value.__func__, name, owner)
        elif isinstance(value, functools.partial):
            self.visit(value.func, name)
            self.visit([*value.args, value.keywords], name)
        elif isinstance(value, types.MethodType):
            if isinstance(value.__func__, types.FunctionType):
                self._function(value.__func__, value.__self__)
        elif isinstance(value, types.FunctionType):
            self._function(value, owner)
        elif isinstance(value, property):
            self.visit(value.fget, name)
        elif isinstance(value, type):
            self._class(value)
        elif not isinstance(value, types.ModuleType) and callable(value) and _is_project(type(value).__module__):
            self._class(type(value))

    def _class(self, cls: type) -> None:
        if not _is_project(cls.__module__):
            return
        self._add("class", cls.__qualname__)
        for base in cls.__bases__:
            self.visit(base)
        for name, value in vars(cls).items():
            own = isinstance(value, (types.FunctionType, staticmethod, classmethod, property)) or is_plain(value)
            if own and name not in ("__module__", "__doc__", "__firstlineno__", "__static_attributes__"):
                self.visit(value, name)

    def _function(self, function: types.FunctionType, owner: object) -> None:
        home: str | None = function.__module__  # none: of a text that was executed by itself
        if home is not None and not _is_project(home):
            self._add("installed", home, function.__qualname__)
            return
        self._add("function", function.__qualname__)
        self.visit([item for item in function.__defaults__ or () if is_plain(item)])
        self.visit({key: item for key, item in (function.__kwdefaults__ or {}).items() if is_plain(item)})
        for cell in function.__closure__ or ():
            try:
                self.visit(cell.cell_contents)
            except ValueError:  # not filled yet
                continue
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.visit(wrapped)
        code: types.CodeType = function.__code__
        names: list[str] = []
        for part in _codes(code):
            self._add(part.co_code.hex(), *part.co_names, *part.co_varnames)
            self._add(*(_written(item) for item in part.co_consts if is_plain(item)))
            names += part.co_names
        for module in _imported(code, function.__globals__):
            self._members(module, names)
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, types.ModuleType):
                if _is_project(value.__name__):
                    self._members(value, names)
            elif name in function.__globals__:
                self.visit(value, name)
        if owner is not None:
            self._members(owner if isinstance(owner, type) else type(owner), names)

    def _members(self, holder: Any, names: list[str]) -> None:
        """What a function may reach by ``holder.name``: looked up without running descriptors."""
        places = holder.__mro__ if isinstance(holder, type) else (holder,)
        for name in names:
            for place in places:
                if name in vars(place):
                    self.visit(vars(place)[name], name, holder if isinstance(holder, type) else None)
                    break


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _imported(code: types.CodeType, namespace: dict[str, Any]) -> Iterator[types.ModuleType]:
    """The project's modules that the function imports when it runs; they are imported here, as it would."""
    for part in _codes(code):
        before: list[Any] = [None, None]
        for instruction in dis.get_instructions(part):
            if instruction.opname == "IMPORT_NAME":
                level = before[0] if isinstance(before[0], int) else 0
                name = "." * level + str(instruction.argval)
                yield from _project_modules(name, before[1], namespace.get("__package__") or "")
            before = [before[1], instruction.argval]


def _project_modules(name: str, members: object, package: str) -> Iterator[types.ModuleType]:
    try:
        absolute = importlib.util.resolve_name(name, package)
        top = importlib.util.find_spec(absolute.partition(".")[0])
        if top is None or top.origin is None or str(pathlib.Path(top.origin).resolve()).startswith(_installed()):
            return
        module = importlib.import_module(absolute)
    except ImportError:  # the hook itself will say so when it runs, if it does run that line
        return
    if _is_project(module.__name__):
        yield module
        for member in members if isinstance(members, tuple) else ():
            inner = getattr(module, member, None)
            if isinstance(inner, types.ModuleType) and _is_project(inner.__name__):
                yield inner
