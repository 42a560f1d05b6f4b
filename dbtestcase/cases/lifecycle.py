"""``_dbtestcase``: the one private attribute of a test case, and the way from it to all that the library does there.

On a class it is the :class:`~.per_class.ClassLifecycle`, on a test the :class:`~.per_test.TestLifecycle`.  The case
classes hand their parts to it: what a migrated, a committing or an async case does otherwise stands in a subclass of
these two, so every other name on a test case belongs to the user.
"""

from __future__ import annotations

import functools
from typing import Any, Generic, TypeVar, overload

C = TypeVar("C", covariant=True)
T = TypeVar("T", covariant=True)

NAME = "_dbtestcase"


class Lifecycle(Generic[C, T]):
    """The descriptor; each class gets one of its own when it is first asked.

    :param parts: the part of classes and the part of tests, where a case class has its own.
    """

    def __init__(self, *parts: type) -> None:
        self._parts = parts
        self._owner: type | None = None
        self._of_class: Any = None
        self._test_class: Any = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner

    @overload
    def __get__(self, test: None, cls: type) -> C: ...

    @overload
    def __get__(self, test: object, cls: type) -> T: ...

    def __get__(self, test: object | None, cls: type) -> Any:
        if self._owner is not cls:
            own: Lifecycle[C, T] = Lifecycle()
            own.__set_name__(cls, NAME)
            setattr(cls, NAME, own)
            return own.__get__(test, cls)
        if self._of_class is None:
            lives = [base.__dict__.get(NAME) for base in cls.__mro__]
            handed = tuple(each._parts for each in lives if isinstance(each, Lifecycle) and each._parts)
            of_class, self._test_class = _composed(handed)
            self._of_class = of_class(cls)
        if test is None:
            return self._of_class
        made = vars(test)[NAME] = self._test_class(test, self._of_class)
        return made


@functools.lru_cache(maxsize=64)
def _composed(handed: tuple[tuple[type, ...], ...]) -> list[type]:
    """One type each of the parts of all bases, in the order of the bases."""
    return [_joined(parts) for parts in zip(*handed, strict=True)]


def _joined(parts: tuple[type, ...]) -> type:
    own = [part for part in dict.fromkeys(parts) if not any(issubclass(o, part) and o is not part for o in parts)]
    return own[0] if len(own) == 1 else type("+".join(part.__name__ for part in own), tuple(own), {})


def lifecycle_of(case: Any) -> Any:
    """The one of a class or of a test."""
    return getattr(case, NAME)
