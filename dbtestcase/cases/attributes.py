"""The types of what stands on a test class, and of what a test is given: so that an editor sees a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, overload

from sqlalchemy import Engine, MetaData
from sqlalchemy.orm import registry

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ..migrations import Config

C = TypeVar("C")
T = TypeVar("T")


class Given(Generic[C, T]):
    """An attribute that a test is given when it first asks, and may set to something of its own.

    It is a ``C`` on the class and a ``T`` on a test.

    :param of_class: what it is on the class; default: this descriptor.
    """

    def __init__(self, of_class: Callable[[Any], Any] | None = None) -> None:
        self._of_class = of_class

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, test: None, cls: type) -> C: ...

    @overload
    def __get__(self, test: object, cls: type) -> T: ...

    def __get__(self, test: Any, cls: type) -> Any:
        if test is not None:
            return test._dbtestcase.give(self._name)
        return self._of_class(cls) if self._of_class is not None else self

    if TYPE_CHECKING:  # not when it runs: what a test sets stands in the test's own dictionary

        def __set__(self, test: object, value: T) -> None: ...


class _OfInstance(Protocol):
    metadata: MetaData


class _OfClass(Protocol):
    metadata: ClassVar[MetaData]


class _OfBinds(Protocol):
    @property
    def metadatas(self) -> Mapping[Any, MetaData]: ...


# A table has a `metadata` too, but would bring all the others along: so classes only, such as a declarative base.
_Tables = MetaData | type[_OfClass] | type[_OfInstance] | registry | _OfBinds
Tables = _Tables | Iterable[_Tables] | Mapping[Any, _Tables] | None
"""``metadata``: a ``MetaData``, a declarative base, a registry, Flask-SQLAlchemy's ``db``, or several."""

if TYPE_CHECKING:
    _Engine = Engine | AsyncEngine

    class _MakesEngines(Protocol):  # a Callable would be taken for a method
        def __call__(self) -> _Engine | Iterable[_Engine] | Mapping[Any, _Engine]: ...

    _Engines = _Engine | _MakesEngines
    Engines = _Engines | Iterable[_Engines] | Mapping[Any, _Engines] | None
    AlembicConfig = str | Path | Config
else:
    Engines = Any
    """``engines``, ``outside``: engines, sync or async, or functions that return one or several."""
    AlembicConfig = Any
    """``migrations``: path of an ``alembic.ini`` or ``pyproject.toml``, or an Alembic ``Config``."""
