"""The class and the test that run, as far as those have to know them from whom they are built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sqlalchemy.orm import Session

from ..backends import Recipe
from ..isolation import Isolation
from ..settings import Settings

__all__ = ["RunningClass", "RunningTest"]


class RunningClass(Protocol):
    """A class; ``run`` is what it has while it runs."""

    cls: Any

    @property
    def run(self) -> Any: ...

    def recipe(self) -> Recipe: ...

    def make_isolation(self, settings: Settings, engines: list[Any]) -> Isolation: ...

    def end(self) -> None: ...


class RunningTest(Protocol):
    """A test."""

    test: Any

    @property
    def of_class(self) -> RunningClass: ...

    @property
    def isolation(self) -> Isolation: ...

    @property
    def source_files(self) -> frozenset[str]: ...

    def evidence(self, error: BaseException) -> Iterator[str]: ...

    def row_session(self) -> Session: ...

    def own_sessions(self) -> list[Session]: ...

    def run_on_session(self, function: Callable[[], Any]) -> Any: ...

    def given(self, name: str) -> Any: ...
