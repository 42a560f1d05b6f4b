"""Class data: model instances that ``setUpTestData`` stores on the class arrive fresh in each test.

:func:`capture` replaces each class attribute that is, or holds, a model instance by a descriptor.  A test that asks for
``self.author`` gets an instance of its own: attached to its session, with the stored state, related to its own copies
of what the original is related to.  A test that does not ask pays nothing, however many there are.

``cls.author`` stays the original.  Containers are copied with what they hold: lists, tuples, sets, dicts and their
kinds, dataclasses and namespaces; what else they hold (a client, a path) is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, TypeVar
from unittest import TestCase

from sqlalchemy.orm import Session

from .containers import Freezing, Frozen, Thawing

T = TypeVar("T", bound=TestCase)


class ClassData:
    """What :func:`capture` found on one class."""

    def __init__(self, test_class: type[TestCase], session_of: Callable[[Any], Session]) -> None:
        self._test_class = test_class
        self._session_of = session_of
        self._names: dict[str, bool] = {}  # whether the attribute was the class's own
        self._test: TestCase | None = None
        self._thawing: Thawing | None = None  # what that test was given

    def __len__(self) -> int:
        return len(self._names)

    @property
    def names(self) -> frozenset[str]:
        """The class attributes that arrive fresh."""
        return frozenset(self._names)

    def given_to(self, test: TestCase) -> list[Any]:
        """The instances that a test has asked for so far, and what hangs on them."""
        return self._thawing.instances if self._test is test and self._thawing is not None else []

    def forget(self, test: TestCase) -> None:
        """Drop what a test was given; call it when the test has ended."""
        if self._test is test and self._thawing is not None:
            for name in self._thawing.given:
                vars(test).pop(name, None)
            self._test = self._thawing = None

    def release(self) -> None:
        """Put the class's attributes back as ``setUpTestData`` left them; call it when the class has ended."""
        for name, own in self._names.items():
            datum = vars(self._test_class).get(name)
            if isinstance(datum, _Datum):
                if own:
                    setattr(self._test_class, name, datum.original)
                else:
                    delattr(self._test_class, name)
        self._names.clear()

    def _install(self, name: str, original: object, frozen: Frozen) -> None:
        self._names[name] = name in vars(self._test_class)
        setattr(self._test_class, name, _Datum(name, original, frozen, self))

    def _fresh(self, test: TestCase, name: str, frozen: Frozen) -> Any:
        if self._thawing is None or self._test is not test:
            self._test, self._thawing = test, Thawing(self._session_of(test))
        self._thawing.given.append(name)
        return self._thawing.thaw(frozen)


class ModuleData:
    """What :func:`capture_module` found in one module.

    A function reads a global without asking anybody, so these instances cannot wait until they are asked for:
    :meth:`hand_out` costs each test some 20 µs for each of them.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._globals: dict[str, tuple[object, Frozen]] = {}
        self._thawing: Thawing | None = None

    def __len__(self) -> int:
        return len(self._globals)

    def hand_out(self, session: Session) -> None:
        """Set the module's globals to instances of ``session``; call it when a test begins."""
        if self._globals:
            self._thawing = Thawing(session)
            for name, (_, frozen) in self._globals.items():
                setattr(self._module, name, self._thawing.thaw(frozen))

    def release(self) -> None:
        """Put the globals back as ``setUpModule`` left them; call it when the module has ended."""
        for name, (original, _) in self._globals.items():
            setattr(self._module, name, original)
        self._globals.clear()
        self._thawing = None


def capture(test_class: type[T], session: Session, *, session_of: Callable[[T], Session]) -> ClassData:
    """Replace the model instances stored on ``test_class``, and on its bases, by descriptors.

    :param session: the class's session: it sees the rows.  Pending changes are flushed.
    :param session_of: gives the running test's session; asked when a test first reads one of the attributes.
    """
    data = ClassData(test_class, session_of)
    freezing = Freezing(session)
    found = [
        (name, value, frozen)
        for name, value in _attributes(test_class)
        if (frozen := freezing.freeze_if_it_holds_instances(value)) is not None
    ]
    freezing.finish()
    for name, value, frozen in found:
        data._install(name, value, frozen)
    return data


def capture_module(module: ModuleType, session: Session) -> ModuleData:
    """The same for the globals of a test module, which ``setUpModule`` has filled."""
    data = ModuleData(module)
    freezing = Freezing(session)
    for name, value in vars(module).items():
        if not name.startswith("__") and (frozen := freezing.freeze_if_it_holds_instances(value)) is not None:
            data._globals[name] = (value, frozen)
    freezing.finish()
    return data


class _Datum:
    """Not a data descriptor: what it made is stored on the test, and found there without it the next time."""

    def __init__(self, name: str, original: object, frozen: Frozen, data: ClassData) -> None:
        self.name = name
        self.original = original
        self._frozen = frozen
        self._data = data

    def __get__(self, test: TestCase | None, owner: type | None = None) -> Any:
        if test is None:
            return self.original
        value = vars(test)[self.name] = self._data._fresh(test, self.name, self._frozen)
        return value


def _attributes(test_class: type) -> Iterator[tuple[str, object]]:
    seen = set()
    for base in test_class.__mro__:
        if base is TestCase or base.__module__.partition(".")[0] == __name__.partition(".")[0]:
            continue
        for name, value in vars(base).items():
            if name not in seen and not name.startswith("__"):
                seen.add(name)
                if isinstance(value, _Datum):  # of a base class whose tests are still running
                    value = value.original
                yield name, value
