"""Blocks of ``with`` that a test has asked for: one that was never entered has asserted nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Generic, TypeVar

from ..errors import ConfigurationError

__unittest = True  # keeps these frames out of the tracebacks of failing tests

T = TypeVar("T")


class Blocks:
    """Those of one test that nobody has entered yet."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Any, str]] = {}

    def sync(self, call: str, make: Callable[[], AbstractContextManager[T]]) -> AbstractContextManager[T]:
        """A block, which is made when it is entered.

        :param call: how messages call it.
        """
        block = _Block(self, make)
        self._note(block, call)
        return block

    def asynchronous(
        self, call: str, make: Callable[[], AbstractAsyncContextManager[T]]
    ) -> AbstractAsyncContextManager[T]:
        """A block of ``async with``."""
        block = _AsyncBlock(self, make)
        self._note(block, call)
        return block

    def _note(self, block: object, call: str) -> None:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_globals.get("__unittest"):
            frame = frame.f_back
        self._waiting[id(block)] = block, f"{call} in line {frame.f_lineno} of {frame.f_code.co_name}()"

    def entered(self, block: object) -> None:
        self._waiting.pop(id(block), None)

    def take_problems(self, label: str) -> list[ConfigurationError]:
        """What was never entered, as errors; it is forgotten."""
        waiting, self._waiting = self._waiting, {}
        return [
            ConfigurationError(
                f"{label}: {call} was called, and its block was never entered: nothing of it has run.",
                cause="a forgotten `with` before it",
                remedy=f"with self.{call.partition('(')[0]}(…): …",
            )
            for _, call in waiting.values()
        ]


class _Block(contextlib.ContextDecorator, AbstractContextManager[T], Generic[T]):
    def __init__(self, blocks: Blocks, make: Callable[[], AbstractContextManager[T]]) -> None:
        self._blocks = blocks
        self._make = make
        self._entered: list[AbstractContextManager[T]] = []

    def __enter__(self) -> T:
        self._blocks.entered(self)
        block = self._make()
        value = block.__enter__()
        self._entered.append(block)
        return value

    def __exit__(self, *exc_info: Any) -> bool | None:
        return self._entered.pop().__exit__(*exc_info)


class _AsyncBlock(AbstractAsyncContextManager[T], Generic[T]):
    def __init__(self, blocks: Blocks, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._blocks = blocks
        self._make = make
        self._entered: list[AbstractAsyncContextManager[T]] = []

    async def __aenter__(self) -> T:
        self._blocks.entered(self)
        block = self._make()
        value = await block.__aenter__()
        self._entered.append(block)
        return value

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        return await self._entered.pop().__aexit__(*exc_info)
