"""What a class that is running owns, and what stands for it on one that is not."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ..data import ClassData, FactoryManager
from ..errors import NotRunning
from ..isolation import Isolation
from ..reporting import SQLLog
from ..settings import Settings
from .running import RunningTest
from .set_up_rows import SetUpRows

__all__ = ["ClassRun", "NoSessionYet"]

__unittest = True  # keeps these frames out of the tracebacks of failing tests


class ClassRun:
    """What a class that is running owns."""

    def __init__(self, label: str, isolation: Isolation, settings: Settings, source_files: frozenset[str]) -> None:
        self.settings = settings
        self.source_files = source_files  # of the class and of its bases outside of this library
        self.log = SQLLog(settings.sql, isolation.carries)
        self.pid = os.getpid()
        self.isolation = isolation
        self.engines: list[Engine] = []  # the application's
        self.stack = contextlib.ExitStack()  # what ends with the class, besides the isolation
        self.began = self.waited = 0.0  # in the time of the report
        self.begun = False
        self.test: RunningTest | None = None
        self.session: Session | None = None
        self.captured = False
        self.data: ClassData | None = None
        self.factories: FactoryManager | None = None
        self.set_up_rows = SetUpRows(label, isolation.carries)


class NoSessionYet:
    """``session`` on a class that has not begun: a value, because nose2 gets every attribute of a class it loads."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> Any:
        raise NotRunning(
            f"{self._cls.__qualname__}.session was used before the class began.",
            cause="setUpClass() that uses it before super().setUpClass(), or code at import",
            remedy="make rows in setUpTestData(), or call super().setUpClass() first",
        )
