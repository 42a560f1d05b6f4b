"""What is written on a test class is checked when it begins, so that nothing is ignored and nothing is misread.

Checked are the names and what would never run; the order of the bases is in :mod:`.order_of_bases`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import unittest
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from sqlalchemy import URL, MetaData, Table, make_url
from sqlalchemy.exc import ArgumentError

from ..data import is_factory
from ..errors import ConfigurationError
from ..isolation import is_engine
from .bases import HOOKS, Bases
from .never_ran import TO_BE_AWAITED, TO_BE_ITERATED
from .spelling import flat, is_read, nearest, refuse_misspelt_hooks

_CLASS_HOOKS = ("setUpClass", "tearDownClass", "enterModule")
_SYNC_HOOKS = ("setUp", "tearDown")
_ASYNC_HOOKS = ("asyncSetUp", "asyncTearDown")
_ALL_HOOKS = (*_CLASS_HOOKS, *HOOKS, *_SYNC_HOOKS, *_ASYNC_HOOKS)
_SPECIAL = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR

_ELSEWHERE = {
    "migrations": "MigratedDatabaseTest, or TruncatingDatabaseTest",
    "x_arguments": "MigratedDatabaseTest, or TruncatingDatabaseTest",
    "all_in_models": "the mixin MigrationChecks",
    "exclude_from_comparison": "the mixin MigrationChecks",
    "exclude_from_stairway": "the mixin MigrationChecks",
}


def check_written(bases: Bases, *, given: Collection[str], asynchronous: bool) -> None:
    """Refuse what is misspelt on a class, what would be ignored there, and what would never run.

    :param given: the names that the class and its tests are given while they run.
    :param asynchronous: whether the class runs coroutines: its tests, asyncSetUp, asyncTearDown, async cleanups.
    :raises ConfigurationError: the first one that is found.
    """
    _check_names(bases, given)
    _check_runnable(bases, asynchronous=asynchronous)


def _check_names(bases: Bases, given: Collection[str]) -> None:
    """Refuse attributes that are nearly ours and none, are another class's, or hide what a test is given."""
    settings = bases.settings | {"session_class"}
    hooks = [name for name in HOOKS if hasattr(bases.cls, name)]
    known: frozenset[str] = frozenset()
    for base in bases.users:
        _check_annotations(base, settings)
        names = [each for each in vars(base) if each[:1] != "_" and each[:4] != "test" and each not in settings]
        for name, value in [(each, vars(base)[each]) for each in names if each not in hooks]:
            known = known or _names_of_others(bases)
            where = f"{base.__module__}.{base.__qualname__}.{name}"
            if name in given:
                if not hasattr(base, "_dbtestcase") or name not in base._dbtestcase.offered:
                    _refuse_given(where, name, value)
            elif name in known:
                continue  # to override what is another framework's is no slip
            elif name in _ELSEWHERE:
                _refuse_elsewhere(bases, where, name, value)
            else:
                meant = settings | {"database_url", *_ELSEWHERE}  # which are refused in their turn
                _refuse_near(base, bases, where, name, value, settings=meant, hooks=hooks)


def _check_annotations(base: type, settings: Collection[str]) -> None:
    """Refuse a value behind a colon: ``engines: [engine]``."""
    with contextlib.suppress(NameError):  # Python 3.14 evaluates them now
        for name, noted in inspect.get_annotations(base).items():
            if name in settings and name not in vars(base) and _is_value(noted):
                raise ConfigurationError(
                    f"{base.__module__}.{base.__qualname__}.{name} has a value behind a colon: it would be ignored.",
                    cause="an annotation, which sets nothing, where a value belongs",
                    remedy=f"write {name} = …",
                )


_OF_TYPES = ("types", "typing", "typing_extensions", "collections.abc")


def _is_value(noted: object) -> bool:
    if isinstance(noted, str):  # also under `from __future__ import annotations`, where a type may have quotes as well
        text = noted.strip("'\"")
        words = ("class", "module", "test", "create", "existing", "True", "False")
        return text in words or "://" in text or text.startswith(("[", "(")) or _is_migrations(text)
    return not isinstance(noted, type | None) and type(noted).__module__ not in _OF_TYPES


def _names_of_others(bases: Bases) -> frozenset[str]:
    """The attributes that unittest and other frameworks define."""
    return _names_in(tuple(bases.foreign))


@lru_cache(maxsize=64)
def _names_in(foreign: tuple[type, ...]) -> frozenset[str]:
    return frozenset([*dir(unittest.IsolatedAsyncioTestCase), *(name for base in foreign for name in vars(base))])


def _refuse_given(where: str, name: str, value: object) -> None:
    if hasattr(type(value), "__get__"):
        return  # a property or a method is asked in each test: the user's own answer
    meant = {
        "engine": "the application's engines go into the list `engines`: engines = [engine]",
        "sync_engine": "the application's engines go into the list `engines`: engines = [engine]",
        "session": "name the engine of the application's sessions (engines = [engine]), and use self.session, or set "
        "self.session in setUp()",
        "sync_session": "use self.sync_session, or set it in setUp()",
        "connection": "use self.connection, or set self.connection in setUp()",
        "database_url": "the server's URL is the attribute `url`",
    }
    raise ConfigurationError(
        f"{where} is set on the class ({_shown(value)}), but it is the name of what a test is given: it would be "
        "ignored.",
        cause=f"`{name}` is of the test database, and made when the class begins",
        remedy=meant[name],
    )


def _refuse_elsewhere(bases: Bases, where: str, name: str, value: object) -> None:
    if name == "migrations" and not (
        _is_migrations(value) or (isinstance(value, str) and not is_read(name, bases.users))
    ):
        return  # the user's own
    raise ConfigurationError(
        f"{where} is set, but a {bases.ours[0].__name__} has no such attribute: it would be ignored.",
        cause=f"`{name}` belongs to {_ELSEWHERE[name]}",
        remedy=f"let the class be one of {_ELSEWHERE[name]}, or take the attribute away",
    )


def _refuse_near(
    base: type,
    bases: Bases,
    where: str,
    name: str,
    value: object,
    *,
    settings: Collection[str],
    hooks: Collection[str],
) -> None:
    routine = isinstance(value, FunctionType | classmethod | staticmethod)
    own = bases.users
    meant = nearest(name, hooks if routine else settings) or _of_alembic(bases, name, value)
    if meant is None and routine and not vars(getattr(value, "__func__", value)):  # what is decorated is somebody's
        meant = _OTHER_NAMES.get(flat(name))
        if meant is not None and is_read(name, own):
            return
    if meant is None or isinstance(value, property) or _is_one_more(name, meant, base):
        return
    if isinstance(value, type) and not (meant in _EVIDENCE and _EVIDENCE[meant](value)):
        return
    if not routine and not _is_meant(name, meant, value, own):
        return
    raise ConfigurationError(
        f"{where} means nothing, and would be ignored. Did you mean {meant}?",
        cause=f"a misspelling of `{meant}`, or another name for it",
        remedy=f"write {meant}{' outside of the class' if meant == 'setUpModule' else ''}; or give an attribute of "
        f"your own another name, such as my_{name}",
    )


def _of_alembic(bases: Bases, name: str, value: object) -> str | None:
    """What an attribute of a migrated class is meant for, though its name is not near: the default would be taken."""
    if flat(name) in ("xarg", "xargs"):
        meant = "x_arguments"
    elif _is_migrations(value) and ("alembic" in flat(name) or not isinstance(value, str | Path)):
        meant = "migrations"
    else:
        return None
    return None if bases.overrides(meant) or meant not in bases.settings else meant


def _is_one_more(name: str, meant: str, base: type) -> bool:
    """Whether a name is made of the known one: ``metadata_a`` and ``metadata2``, ``METADATA`` beside ``metadata``."""
    rest = name.removeprefix(meant)
    if name != rest and (rest.isdigit() or (len(rest) > 1 and rest[0] == "_")):
        return True
    return name.isupper() and meant in vars(base)


def _is_meant(name: str, meant: str, value: object, own: Iterable[type]) -> bool:
    """Whether the attribute is a slip: its value fits, or nobody would give that name to anything else."""
    return not is_read(name, own) and (fits(meant, value) or (meant in _TERMS and not name.isupper()))


def fits(name: str, value: object) -> bool:
    """Whether a value looks like one of a setting."""
    looks = _EVIDENCE.get(name)
    values = [value, *value] if isinstance(value, list | tuple | set) else [value]
    return looks is None or any(map(looks, values))


def _is_migrations(value: object) -> bool:
    if isinstance(value, str):
        return value.endswith((".ini", ".toml"))
    return isinstance(value, Path) or any(base.__module__ == "alembic.config" for base in type(value).__mro__)


def _is_database_url(value: object) -> bool:
    if isinstance(value, URL):
        return True
    if not isinstance(value, str):
        return False
    try:
        return make_url(value).get_backend_name() in ("postgresql", "postgres", "sqlite", "mysql", "mariadb")
    except (ArgumentError, ValueError):
        return False


# What the value of an attribute looks like.  A name like `outsider` or `migration` is a slip only where that is so.
_EVIDENCE: dict[str, Callable[[Any], bool]] = {
    "url": _is_database_url,
    "database_url": _is_database_url,
    "session_class": lambda value: any("Session" in base.__name__ for base in getattr(value, "__mro__", [type(value)])),
    "database": lambda value: value in ("create", "existing"),
    "migrations": lambda value: _is_migrations(str(value) if isinstance(value, Path) else value),
    "factories": lambda value: is_factory(value) or isinstance(value, ModuleType),
    "engines": is_engine,
    "outside": is_engine,
    "metadata": lambda value: isinstance(getattr(value, "metadata", value), MetaData),
}
_OTHER_NAMES = {
    name.casefold(): name
    for name in ("setUp", "tearDown", "setUpClass", "tearDownClass", "asyncSetUp", "asyncTearDown", "setUpModule")
} | {  # half of one hook's name, and half of another's
    "loadinitialdata": "load_base_data",
    "loadbaseschema": "load_initial_schema",
    "setupclassdata": "setUpTestData",
}
_TERMS = ("engines", "metadata")  # no other thing has such a name


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _check_runnable(bases: Bases, *, asynchronous: bool) -> None:
    """Refuse tests and hooks that nobody would await or iterate, and hooks that are no class methods."""
    seen: set[str] = set()
    for base in bases.all:
        if base in _WITHOUT_TESTS or base in bases.ours:  # ours are looked at by our tests
            continue
        for name in [name for name in vars(base) if name[:4] == "test" or name == "runTest"]:
            if name not in seen:
                seen.add(name)
                _check_test(bases.cls, name, vars(base)[name], asynchronous=asynchronous)
    for base in bases.users:
        own = vars(base)
        for name in [name for name in _ALL_HOOKS if name in own]:
            _check_hook(f"{base.__module__}.{base.__qualname__}", name, own[name], asynchronous=asynchronous)
    module = bases.cls.__module__
    for name in ("setUpModule", "tearDownModule"):
        if (hook := getattr(sys.modules.get(module), name, None)) is not None:
            _check_hook(module, name, hook, asynchronous=False)
    refuse_misspelt_hooks(module)


_WITHOUT_TESTS = {object, unittest.TestCase, unittest.IsolatedAsyncioTestCase}


def _check_test(cls: type, name: str, static: object, *, asynchronous: bool) -> None:
    kind = _kind(static)
    if kind is None or (asynchronous and kind == "a coroutine function"):
        return
    raise ConfigurationError(
        f"{cls.__module__}.{cls.__qualname__}.{name} is {kind}: it would be counted as passed, and would never run.",
        cause="`async def` on a class whose tests are not awaited"
        if kind == "a coroutine function"
        else "a `yield` in the test: calling it makes a generator and runs none of its lines",
        remedy=TO_BE_AWAITED if kind == "a coroutine function" else TO_BE_ITERATED,
    )


def _check_hook(owner: str, name: str, static: object, *, asynchronous: bool) -> None:
    where = f"{owner}.{name}"
    function = getattr(static, "__func__", static)
    kind = _kind(getattr(function, "__wrapped__", static) if hasattr(function, "_dbtestcase_passes_on") else static)
    if name in HOOKS and not isinstance(static, classmethod) and inspect.isroutine(getattr(static, "__func__", static)):
        raise ConfigurationError(
            f"{where} is not a class method: it is called on the class, once for all of its tests.",
            cause="a forgotten @classmethod",
            remedy=f"@classmethod\n    def {name}(cls{'' if name == 'setUpTestData' else ', …'}): …",
        )
    if name in _ASYNC_HOOKS:
        if not asynchronous:
            raise ConfigurationError(
                f"{where} would never run: the class is not an async one.",
                cause="a sync class, which has no event loop",
                remedy=f"write {_sync_name(name)}(), or use the Async class of the same name",
            )
        if kind != "a coroutine function" and inspect.isfunction(static):
            raise ConfigurationError(
                f"{where} is no coroutine function, which unittest cannot await.",
                cause="a forgotten `async`",
                remedy=f"write `async def {name}(self)`, or a plain {_sync_name(name)}()",
            )
        return
    if kind is None:
        return
    remedy = "write a plain `def`; async code can be run there by asyncio.run()"
    if name in _SYNC_HOOKS:
        renamed = "async" + name[0].upper() + name[1:]
        remedy = f"rename it {renamed}" if asynchronous else f"write a plain `def`, or use an Async class and {renamed}"
    elif name in HOOKS:
        remedy = "write a plain `def`: it has a sync session, in async classes too"
    if "generator" in kind:
        remedy = (
            "write what comes before the `yield` there, and what comes after it into addCleanup() or addClassCleanup()"
        )
    raise ConfigurationError(
        f"{where} is {kind}: it would be called, and would never run.",
        cause="nobody awaits this hook" if kind == "a coroutine function" else "nobody iterates over this hook",
        remedy=remedy,
    )


def _sync_name(name: str) -> str:
    return "setUp" if name == "asyncSetUp" else "tearDown"


_OF_WRAPPERS = {"__wrapped__", "_dbtestcase_passes_on"}  # what says nothing of what calling it gives


def _kind(attribute: object) -> str | None:
    """What calling it gives instead of running it; None where it runs."""
    function: Any = getattr(attribute, "__func__", attribute)
    is_plain = type(function) is FunctionType and not function.__code__.co_flags & _SPECIAL
    if is_plain and (not function.__dict__ or function.__dict__.keys() <= _OF_WRAPPERS):
        return None  # as mostly: every test of every class is looked at
    if isinstance(function, functools.partialmethod):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return "a coroutine function"
    if inspect.isasyncgenfunction(function):
        return "an async generator function"
    if inspect.isgeneratorfunction(function):
        return "a generator function"
    return None


def metadata_in(cls: Any) -> list[MetaData]:
    """The ``MetaData`` that a class's ``metadata`` names, each once.

    :raises ConfigurationError: something else is in it.
    """
    return list(dict.fromkeys(_metadata_of(cls.metadata, f"{cls.__qualname__}.metadata")))


def _metadata_of(value: Any, where: str) -> Iterator[MetaData]:
    if value is None:
        return
    if isinstance(value, MetaData):
        yield value
        return
    several = getattr(value, "metadatas", None)  # Flask-SQLAlchemy: one for each bind
    if isinstance(several, Mapping) and several and all(isinstance(each, MetaData) for each in several.values()):
        yield from several.values()
        return
    one = getattr(value, "metadata", None)
    if isinstance(one, MetaData) and not isinstance(value, Table):
        yield one
        return
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Collection) and not isinstance(value, str | bytes | type):
        for each in value:
            yield from _metadata_of(each, where)
        return
    raise ConfigurationError(
        f"{where} holds {_shown(value)}, which is no MetaData and has none.",
        cause="a table, a name, a module or a function where the tables' MetaData belongs",
        remedy=_metadata_remedy(value),
    )


def _metadata_remedy(value: Any) -> str:
    if isinstance(value, Table):
        return "write metadata = table.metadata (all of its tables are made)"
    if isinstance(value, ModuleType):
        for name, each in vars(value).items():
            if isinstance(getattr(each, "metadata", None), MetaData) and not isinstance(each, Table):
                return f"write metadata = {value.__name__.rpartition('.')[2]}.{name}.metadata"
    return "write metadata = Base.metadata: a MetaData, a declarative base, a registry, `db`, or a list of them"
