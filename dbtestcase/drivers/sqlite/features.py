"""What ``sqlite3`` adds to PEP 249: factories, functions in Python, ``ATTACH``, backups, blobs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import SandboxEscape
from ...sandbox import COMMITTING, Kind, Statement
from ..dbapi import ProxyConnection
from ..direct_doors import check_attached
from ..endpoints import parts_of_file_name
from .pragmas import NOTHING
from .statements import attach_as_file
from .wire import Function, FunctionKey, SQLiteWire


class Features(ProxyConnection):
    """The part of a virtual connection that other drivers have not."""

    _wire: SQLiteWire

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._row_factory: Any = None
        self._text_factory: Any = str
        self._functions: dict[FunctionKey, Function] = {}
        self._attached: set[str] = set()
        self._hooks: dict[str, tuple[Any, ...]] = {}
        self._limits: dict[int, int] = {}
        self._wire.connections.add(self)

    def _features(self) -> tuple[object, ...]:
        """What of these a test may change."""
        return tuple(self._functions.items()), frozenset(self._attached), tuple(self._hooks.items()), dict(self._limits)

    @property
    def row_factory(self) -> Any:
        return self._row_factory

    @row_factory.setter
    def row_factory(self, factory: Any) -> None:
        self._row_factory = factory

    @property
    def text_factory(self) -> Any:
        return self._text_factory

    @text_factory.setter
    def text_factory(self, factory: Any) -> None:
        self._text_factory = factory
        self._wire.mixed_text = True

    def _give_text_factory(self) -> None:
        if self._wire.mixed_text:
            self._wire.connection.text_factory = self._text_factory

    def create_function(self, name: str, narg: int, func: Any, **kwargs: Any) -> None:
        self._register("create_function", name, narg, func, **kwargs)

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: Any) -> None:
        self._register("create_aggregate", name, n_arg, aggregate_class)

    def create_window_function(self, name: str, num_params: int, aggregate_class: Any, /) -> None:
        self._register("create_window_function", name, num_params, aggregate_class)

    def create_collation(self, name: str, callback: Any, /) -> None:
        self._register("create_collation", name, callback)

    def _register(self, how: str, name: str, *args: Any, **kwargs: Any) -> None:
        """Make a function known, unless it is: SQLite refuses to replace one while a statement runs."""
        key = ("create_collation" if how == "create_collation" else "function", name.lower(), *args[:-1])
        function = Function(how, name, args, tuple(kwargs.items()), _essence(args[-1]))
        if self._wire.functions.get(key) != function:
            getattr(self._wire.connection, how)(name, *args, **kwargs)
            self._wire.functions[key] = function
            self._wire.changed = True
        if args[-1] is None:
            self._functions.pop(key, None)
        else:
            self._functions[key] = function

    def set_trace_callback(self, callback: Any, /) -> None:
        self._hook("set_trace_callback", callback)

    def set_authorizer(self, callback: Any, /) -> None:
        self._hook("set_authorizer", callback)

    def set_progress_handler(self, handler: Any, /, n: int) -> None:
        self._hook("set_progress_handler", handler, n)

    def _hook(self, name: str, *args: Any) -> None:
        if args[0] is None:
            self._hooks.pop(name, None)
        else:
            self._hooks[name] = args

    def getlimit(self, category: int, /) -> int:
        limit = self._limits.get(category)
        return self._wire.connection.getlimit(category) if limit is None else limit

    def setlimit(self, category: int, limit: int, /) -> int:
        before, real = self.getlimit(category), self._wire.connection
        if limit >= 0:  # less only asks
            there = real.setlimit(category, limit)
            self._limits[category] = real.setlimit(category, there)  # SQLite has a greatest one
        return before

    def interrupt(self) -> None:
        """Stop what this connection runs; what another one runs goes on."""
        if self._sandbox.scheduler.has_wire(self._client.ticket):
            self._wire.connection.interrupt()

    @contextlib.contextmanager
    def _hooked(self) -> Iterator[None]:
        """Let this connection's hooks and limits hold, and no other's, on the physical one for a statement."""
        real = self._wire.connection
        before = {category: real.setlimit(category, limit) for category, limit in self._limits.items()}
        try:
            for name, args in self._hooks.items():
                getattr(real, name)(*args)
            yield
        finally:
            for name, args in self._hooks.items():
                getattr(real, name)(None, *args[1:])
            for category, limit in before.items():
                real.setlimit(category, limit)

    def _attach(self, operation: str, file: str, alias: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        """Attach a file once, for all connections share one; a name that stands for another file is refused."""
        check_attached(file)
        self._attached.add(alias)
        self._wire.changed = True
        if self._is_attached(file, alias):
            return NOTHING, ()
        changed = attach_as_file(file, alias) if self._wire.in_memory else None
        return (changed[0], (changed[1],)) if changed is not None else (operation, args)

    def _is_attached(self, file: str, alias: str) -> bool:
        for _, name, there in self._wire.send("PRAGMA database_list"):
            if name.lower() != alias:
                continue
            wanted = "" if file in ("", ":memory:") else os.path.realpath(parts_of_file_name(file)[0])
            if (there and os.path.realpath(there)) != wanted:
                raise self._sandbox.note(
                    SandboxEscape(
                        f"{file!r} cannot be attached as {alias!r}: another connection has attached "
                        f"{there or ':memory:'!r} under that name.",
                        cause="in the sandbox all connections share one, and it knows each name once",
                        remedy=COMMITTING,
                    )
                )
            return True
        return False

    def backup(
        self,
        target: sqlite3.Connection,
        *,
        pages: int = -1,
        progress: Callable[[int, int, int], object] | None = None,
        name: str = "main",
        sleep: float = 0.25,
    ) -> None:
        """Copy the database as this connection sees it; SQLite itself would wait for the outer transaction's end."""
        if isinstance(target, ProxyConnection):
            raise self._sandbox.note(
                SandboxEscape(
                    "A backup into the test database would replace it, outside of any transaction; it was not begun.",
                    cause="Connection.backup() with a connection of the sandbox as its target",
                    remedy=COMMITTING,
                )
            )
        with self._held():
            content = self._wire.connection.serialize(name=name)
        with contextlib.closing(sqlite3.connect(":memory:")) as copy:
            copy.deserialize(content)
            copy.backup(target, pages=pages, progress=progress, sleep=sleep)

    def deserialize(self, *args: Any, **kwargs: Any) -> None:
        """Refused: it replaces the database outside of any transaction."""
        raise self._sandbox.note(
            SandboxEscape(
                "Connection.deserialize() would replace the test database, outside of any transaction.",
                cause="code that restores a database",
                remedy=COMMITTING,
            )
        )

    def blobopen(self, table: str, column: str, row: int, /, *, readonly: bool = False, name: str = "main") -> Any:
        kind = Kind.READ if readonly else Kind.WRITE
        statement = Statement(kind, f"blobopen {table}.{column}")
        with self._held():
            self._drive(self._sandbox.before(self._client, statement))
            blob = self._wire.connection.blobopen(table, column, row, readonly=readonly, name=name)
            self._drive(self._sandbox.after(self._client, statement, -1))
        return blob


def _essence(function: Any) -> Any:
    """What makes two functions the same: listeners define theirs anew for each connection."""
    code = getattr(function, "__code__", None)
    if code is None or function.__closure__ or function.__defaults__ or function.__kwdefaults__:
        return function
    return code
