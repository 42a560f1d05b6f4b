"""Among several bases, ours and those of others must not hide each other; what would be hidden is named."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import unittest
from collections.abc import Callable, Collection, Iterator
from typing import Any

from ..errors import ConfigurationError
from .bases import HOOKS, Bases, is_ours
from .never_ran import outliving, refuse_unfinished
from .spelling import codes_of

_CHAINED = ("run", "debug")  # what each class hands on to the next
_UNITTESTS = ("setUp", "tearDown", "setUpClass", "tearDownClass", "asyncSetUp", "asyncTearDown", "run")


def check_bases(bases: Bases, *, given: Collection[str]) -> bool:
    """Refuse a class among whose bases something is hidden.

    :param given: the names that the class and its tests are given while they run.
    :returns: whether somebody has written a ``setUpClass()`` for the class.
    :raises ConfigurationError: ``run()`` or ``setUpClass()`` of a base stands before ours and does not hand on; a base
        after ours brings attributes or hooks that are never seen; a framework's name is one of ours.
    """
    ours = {base.__name__ for base in bases.ours}
    if {"AsyncDatabaseTest", "TruncatingDatabaseTest"} <= ours and "AsyncTruncatingDatabaseTest" not in ours:
        raise ConfigurationError(
            f"{bases.cls.__qualname__} has both TruncatingDatabaseTest and an Async class among its bases.",
            cause="two kinds of class, where one is both",
            remedy=f"class {bases.cls.__name__}(AsyncTruncatingDatabaseTest): …",
        )
    for base in bases.all[: bases.all.index(bases.case)]:
        _check_handing_on(bases, base)
    for base in bases.others:
        if base in bases.foreign:
            _check_clash(base, given, bases.case.__name__)
    if bases.all[: len(bases.others)] != tuple(bases.others):  # else, as mostly, nothing can be hidden
        for name in sorted({*bases.settings, *HOOKS, *given, *_UNITTESTS}):
            _check_hidden(bases, name)
    return any("setUpClass" in vars(base) and not _is_passing_on(base) for base in bases.others)


def _check_handing_on(bases: Bases, base: type) -> None:
    case, cls = bases.case.__name__, bases.cls
    for name in _CHAINED:
        static = vars(base).get(name)
        if static is None or getattr(static, "_dbtestcase_passes_on", False) or _reaches_super(static, bases):
            continue
        where = f"{base.__module__}.{base.__qualname__}.{name}()"
        if base not in bases.foreign:
            raise ConfigurationError(
                f"{where} does not call super().{name}(): the tests would run outside of {case}'s transaction.",
                cause=f"an overridden {name}() that forgot it",
                remedy=f"call super().{name}({'result' if name == 'run' else ''}) in it",
            )
        raise ConfigurationError(
            f"{where} stands before {case}.{name}() and does not call super().{name}(): the tests would run outside of "
            f"{case}'s transaction.",
            cause=f"{base.__qualname__} comes first among the bases of {cls.__qualname__}",
            remedy=f"class {cls.__name__}({case}, {base.__name__}): …, with {case} first",
        )


def forgotten_set_up(bases: Bases) -> ConfigurationError:
    """The error for a ``setUpClass()`` that has ended and did not reach ours."""
    owners = [base for base in bases.all if "setUpClass" in vars(base) and not _is_passing_on(base)]
    owner = next((base for base in owners if not _reaches_super(vars(base)["setUpClass"], bases)), owners[0])
    return ConfigurationError(
        f"{owner.__module__}.{owner.__qualname__}.setUpClass() ran without calling super().setUpClass().",
        cause="an overridden setUpClass() that forgot it",
        remedy="make super().setUpClass() its first line, or move the rows to setUpTestData(), which needs no super()"
        if owner not in bases.foreign
        else f"let {owner.__name__} come after the class of dbtestcase among the bases of {bases.cls.__qualname__}",
    )


def refuse_never_entered(module: str, test: str) -> None:
    """Refuse a test whose class no runner has begun, where the module's rows are made by what nobody has called.

    :raises ConfigurationError: its ``setUpModule()`` calls ``enterModule()``, and has not been called.
    """
    if "enterModule" in (_names_in(getattr(sys.modules.get(module), "setUpModule", None)) or ()):
        raise ConfigurationError(
            f"{module}.setUpModule() has not been called before {test}: the rows that it makes are missing.",
            cause="a runner that calls no set-up of modules: zope.testrunner, trial, a layer of nose2, run() by hand, "
            "unittest-parallel with --level test",
            remedy="run it with unittest, nose2 or pytest, or make the rows in setUpTestData() of a common base",
        )


def _check_clash(base: type, names: Collection[str], case: str) -> None:
    for name in sorted(names):
        if name in vars(base):
            raise ConfigurationError(
                f"{base.__module__}.{base.__qualname__}.{name} and {case}.{name} are two things with one name.",
                cause="a framework that uses the name for something of its own",
                remedy=f"use them in classes of their own, or a mixin with what of {base.__qualname__} does not clash",
            )


def _check_hidden(bases: Bases, name: str) -> None:
    """Refuse an attribute of a base where a class of ours, or unittest's, stands before it and has it too."""
    owners = [base for base in bases.all if name in vars(base)]
    if not owners or owners[0] in bases.others:
        return
    # what comes after unittest's own is never asked; what comes after ours is, where ours hands on
    unittests = next((n for n, base in enumerate(owners) if base.__module__.startswith("unittest.")), len(owners))
    hidden = owners[unittests:] if name in _UNITTESTS else owners
    base = next((each for each in hidden if each in bases.others), None)
    if base is None:
        return
    by = owners[unittests] if name in _UNITTESTS else owners[0]
    cls, first = bases.cls, bases.case
    raise ConfigurationError(
        f"{base.__module__}.{base.__qualname__}.{name} is hidden by {by.__name__}.{name}: it would be ignored.",
        cause=f"{base.__qualname__} comes after {first.__name__} among the bases of {cls.__qualname__}",
        remedy=f"class {cls.__name__}({base.__name__}, {first.__name__}): …, with {base.__name__} first",
    )


def watched(cls: Any) -> Any:
    """The ``setUpClass`` of a class, such that its life knows when it begins and ends; None if it does already.

    Where a class has none of its own, one that only hands on is made: a base that is not ours may have one.
    """
    own = vars(cls).get("setUpClass")
    set_up_class: Callable[[Any], Any]
    if own is None:
        inherited = inspect.getattr_static(cls, "setUpClass")
        if watches(inherited) or not isinstance(inherited, classmethod):
            return None

        def hand_on(running: Any) -> Any:
            return super(cls, running).setUpClass()

        set_up_class = hand_on
    elif isinstance(own, classmethod):
        set_up_class = own.__func__
    else:
        return None

    @functools.wraps(set_up_class)
    def setUpClass(running: Any) -> None:
        with running._dbtestcase.setting_up():
            if (made := set_up_class(running)) is not None:
                refuse_unfinished(made, f"{cls.__qualname__}.setUpClass()")

    setUpClass._dbtestcase_passes_on = own is None  # type: ignore[attr-defined]
    return classmethod(setUpClass)


def watched_tear_down(cls: Any) -> Any:
    """The ``tearDownClass`` of a class, such that it does not end the process; None if it is ours or unittest's."""
    own = vars(cls).get("tearDownClass")
    inherited = inspect.getattr_static(cls, "tearDownClass")
    if own is None and (watches(inherited) or inherited is vars(unittest.TestCase)["tearDownClass"]):
        return None
    if own is not None and not isinstance(own, classmethod | staticmethod):
        return None

    @functools.wraps(getattr(own, "__func__", inherited))
    def tearDownClass(running: Any) -> None:
        hook = super(cls, running).tearDownClass if own is None else own.__get__(None, running)
        outliving(hook, f"{running.__qualname__}.tearDownClass()")()

    tearDownClass._dbtestcase_passes_on = own is None  # type: ignore[attr-defined]
    return classmethod(tearDownClass)


def watches(static: object) -> bool:
    """Whether a hook of the class is one that :func:`watched` or :func:`watched_tear_down` has given."""
    return hasattr(getattr(static, "__func__", None), "_dbtestcase_passes_on")


def watched_run(cls: Any) -> Any:
    """The ``run`` of a class that is another's, such that a test fails which it has not handed on; None if it is ours.

    Whether it will hand on cannot be seen in its code alone: ``super().run()`` may stand in a branch.
    """
    owner = next(base for base in cls.__mro__ if "run" in vars(base))
    own = vars(owner)["run"]
    if is_ours(owner) or not inspect.isroutine(own) or hasattr(own, "_dbtestcase_passes_on"):
        return None

    @functools.wraps(own)
    def run(test: Any, result: Any = None) -> Any:
        life = test._dbtestcase.of_class
        before = life.tests_begun
        with _noting(result) as reported:
            made = own(test, result) if owner is cls else super(cls, test).run(result)
        if life.tests_begun == before and not reported:
            _fail(test, result, f"{owner.__module__}.{owner.__qualname__}.run()")
        return made

    run._dbtestcase_passes_on = owner is not cls  # type: ignore[attr-defined]
    return run


_REPORTS = ("addSkip", "addError", "addFailure", "addExpectedFailure", "addUnexpectedSuccess")


@contextlib.contextmanager
def _noting(result: Any) -> Iterator[list[str]]:
    """Which of the reports that are no success the result is given meanwhile."""
    reported: list[str] = []
    own: dict[str, Any] = vars(result) if hasattr(result, "__dict__") else {}
    before = {name: own[name] for name in _REPORTS if name in own}

    def note(name: str, report: Any) -> Any:
        def noting(*args: Any, **kwargs: Any) -> Any:
            reported.append(name)
            return report(*args, **kwargs)

        return noting

    for name in _REPORTS:
        if hasattr(result, name):
            own[name] = note(name, getattr(result, name))
    try:
        yield reported
    finally:
        for name in _REPORTS:
            own.pop(name, None)
        own.update(before)


def _fail(test: Any, result: Any, where: str) -> None:
    error = ConfigurationError(
        f"{test.id()} has not begun, and nobody was told: {where} did not hand it on.",
        cause="a run() that calls super().run() in some cases only",
        remedy="call super().run(result) in it always, and report what is to be left out: result.addSkip(self, 'why')",
    )
    if result is None:
        raise error
    result.addError(test, (type(error), error, error.__traceback__))


def _is_passing_on(base: type) -> bool:
    """Whether the ``setUpClass`` of a class was made by :func:`watched` only to hand on."""
    function = getattr(vars(base).get("setUpClass"), "__func__", None)
    return bool(getattr(function, "_dbtestcase_passes_on", False))


def _reaches_super(static: Any, bases: Bases) -> bool:
    """Whether a method may hand on to the next class: by super(), or by the name of a class that is one of ours."""
    names = _names_in(static)
    return names is None or not names.isdisjoint({"super"} | bases.on_ours)  # None: nothing is known of it


def _names_in(static: Any) -> set[str] | None:
    """The names that the code of a function reads, and of those within it; None for what has no code of Python's."""
    codes = list(codes_of([inspect.unwrap(getattr(static, "__func__", static))]))
    return {name for code in codes for name in (*code.co_names, *code.co_freevars)} if codes else None
