"""psycopg2: its cursors, and those whose rows stay with the server."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, cast

from psycopg2 import extensions

from ..sandbox import classify, literal
from .dbapi import CursorOver, ProxyConnection

_make, _tzinfo_factory = extensions.cursor.__init__, cast(Any, extensions.cursor.tzinfo_factory)
_closed = cast(Any, extensions.cursor.closed).__get__
_STANDARD = datetime.timezone
"""What a cursor makes the zones of times with, unless it is told otherwise."""


class Psycopg2Cursor(extensions.cursor):  # type: ignore[misc]
    """A cursor of the physical connection: psycopg2's own, in C, but for what sends something or says whose it is."""

    __slots__ = ("_connection",)

    _execute = extensions.cursor.execute
    connection = property(attrgetter("_connection"))

    @property
    def _real(self) -> Any:
        """The cursor that has the rows."""
        return self

    def _raw(self, name: str) -> Any:
        """A method or an attribute as psycopg2 has it, with nothing of the sandbox's between."""
        return getattr(super(), name)

    @property
    def closed(self) -> bool:
        return bool(_closed(self) or self._connection._closed)

    def mogrify(self, *args: Any, **kwargs: Any) -> Any:
        assert self.connection.physical is not None  # with the connection's settings in force
        return self._raw("mogrify")(*args, **kwargs)

    def cast(self, oid: int, text: Any) -> Any:
        """Convert a value as one of that type in a row."""
        for types in (self.string_types, self.connection.string_types, extensions.string_types):
            if types and oid in types:
                return types[oid](text, self)
        return extensions.UNICODE(text, self)

    def execute(self, query: Any, vars: Any = None) -> None:
        """Run a statement, inside the sandbox; what is common is done here in little time."""
        connection = self._connection
        if type(query) is str and not self.closed:
            statement = classify(query)
            if statement.plain:
                sandbox, client, wire = connection._sandbox, connection._client, connection._wire
                scheduler, ticket = sandbox.scheduler, client.ticket
                scheduler.acquire(ticket)
                try:
                    command = sandbox.at_once(client, statement)
                    if command is not None:
                        if command:
                            wire.send(command)
                        if wire.string_types is not connection.string_types or wire.notices is not connection.notices:
                            connection.hear()
                        try:
                            self._execute(query, vars)
                        except Exception as error:
                            connection._explain(error)
                            raise
                        if (statement.counts or statement.calls) and not sandbox.is_over(
                            client, statement, self.rowcount
                        ):
                            connection._drive(sandbox.after(client, statement, self.rowcount))
                        return
                finally:
                    scheduler.release(ticket)
        connection._run(query, lambda new: self._execute(new or query, vars), self, parameters=vars)

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> None:
        """Run a statement for each set of parameters, inside the sandbox."""
        raw = self._raw("executemany")
        self.connection._run(query, lambda new: raw(new or query, *args, **kwargs), self, many=True)

    def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        return self._inside(sql, "copy_expert", sql, *args, **kwargs)

    def copy_from(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
        return self._inside(f"COPY {table} FROM STDIN", "copy_from", file, table, *args, **kwargs)

    def copy_to(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
        return self._inside(f"COPY {table} TO STDOUT", "copy_to", file, table, *args, **kwargs)

    def callproc(self, name: str, *args: Any) -> Any:
        return self._inside(f"SELECT {name}()", "callproc", name, *args)

    def _inside(self, text: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        raw = self._raw(method)
        return self.connection._run(text, lambda _: raw(*args, **kwargs), self)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return extensions.cursor


class CursorOverAnother(CursorOver, Psycopg2Cursor):
    """One over a cursor of a class of its own (``cursor_factory``); is one itself for code in C (types by hand)."""

    _real: Any = None
    _execute = property(attrgetter("_real.execute"))

    def __init__(self, connection: ProxyConnection, real: Any) -> None:
        _make(self, connection._wire.connection)
        if real.tzinfo_factory is not _STANDARD:
            _tzinfo_factory.__set__(self, real.tzinfo_factory)
        self.__dict__["_real"] = real
        object.__setattr__(self, "_connection", connection)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "tzinfo_factory":
            _tzinfo_factory.__set__(self, value)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(object.__getattribute__(self, "_real"))

    @property
    def closed(self) -> bool:
        return bool(self._real.closed or self._connection._closed)

    def _raw(self, name: str) -> Any:
        return getattr(self._real, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._real)

    def __next__(self) -> Any:
        return next(self._real)


def _of_the_real_one(name: str) -> Any:
    return property(attrgetter(f"_real.{name}"))  # to set one is handed on with all others


for _name in vars(extensions.cursor):
    if not _name.startswith("__") and not any(_name in vars(cls) for cls in CursorOverAnother.__mro__[:3]):
        setattr(CursorOverAnother, _name, _of_the_real_one(_name))


class NamedCursor(CursorOverAnother):
    """A server-side cursor over an unnamed one: psycopg2's own refuses a physical connection in autocommit mode."""

    _OWN = frozenset({"name", "withhold", "scrollable", "itersize", "_declared", "_mark", "_row", "_page"})
    name: Any = None
    withhold = scrollable = itersize = None

    def __init__(
        self, connection: ProxyConnection, real: Any, name: str, withhold: bool, scrollable: bool | None
    ) -> None:
        super().__init__(connection, real)
        self.name = name
        self.withhold = withhold
        self.scrollable = scrollable
        self.itersize = 2000
        self._declared = False
        self._mark = connection._mark

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._OWN:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def _quoted(self) -> str:
        return f'"{str(self.name).replace(chr(34), chr(34) * 2)}"'

    def execute(self, operation: Any, vars: Any = None) -> None:
        connection = self.connection
        if self._real.query is not None:
            raise connection._wire.error("ProgrammingError", "can't call .execute() on named cursors more than once")
        if connection._client.autocommit and not self.withhold:  # in a block of the connection, too
            raise connection._wire.error("ProgrammingError", "can't use a named cursor outside of transactions")
        if self._mark != connection._mark and not self.withhold:
            raise connection._wire.error("ProgrammingError", "named cursor isn't valid anymore")
        scroll = {None: "", True: "SCROLL ", False: "NO SCROLL "}[self.scrollable]
        hold = " WITH HOLD" if self.withhold else ""
        text = f"DECLARE {self._quoted} {scroll}CURSOR{hold} FOR {connection._text(operation)}"
        super().execute(text, vars)
        self._declared = True

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        raise self.connection._wire.error("ProgrammingError", "can't call .executemany() on named cursors")

    def _ask(self, command: str, cursor: str | None = None) -> None:
        """Ask the server about the cursor, which sees no new rows; ``cursor`` has to be there for that.

        :param cursor: empty where it is only looked for.
        """
        connection = self.connection
        if self.closed:
            raise connection._wire.error("InterfaceError", "cursor already closed")
        # what a test has left open has ended with it, though nobody has rolled back
        ended = self._mark != connection._mark or (self._declared and not connection._client.active)
        if cursor is None and ended and not self.withhold:
            raise connection._wire.error("ProgrammingError", "named cursor isn't valid anymore")
        with connection._held():
            if cursor is None:  # one that was declared elsewhere may be another connection's
                cursor = "" if self._declared else self.name
            begins = command if not self.withhold and command.startswith(("FETCH", "MOVE")) else ""
            connection._drive(connection._sandbox.recover_for(connection._client, cursor, begins))
            connection.hear()
            try:
                self._real.execute(command)
            except Exception as error:
                connection._wire.failed(error)
                raise

    def fetchone(self) -> Any:
        self._ask(f"FETCH FORWARD 1 FROM {self._quoted}")
        return self._real.fetchone()

    def fetchmany(self, size: int | None = None) -> Any:
        self._ask(f"FETCH FORWARD {self._real.arraysize if size is None else size} FROM {self._quoted}")
        return self._real.fetchall()

    def fetchall(self) -> Any:
        self._ask(f"FETCH FORWARD ALL FROM {self._quoted}")
        return self._real.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._row >= self._page:
            self._ask(f"FETCH FORWARD {self.itersize} FROM {self._quoted}")
            self._row, self._page = 0, self._real.rowcount
        row = self._real.fetchone() if self._row < self._page else None
        if row is None:
            raise StopIteration
        self._row += 1
        return row

    _row = _page = 0
    """How many rows of a page it has given, of how many."""

    def scroll(self, value: int, mode: str = "relative") -> None:
        if mode not in ("relative", "absolute"):
            raise self.connection._wire.error("ProgrammingError", "scroll mode must be 'relative' or 'absolute'")
        self._ask(f"MOVE {mode.upper()} {value} FROM {self._quoted}")

    def close(self) -> None:
        connection = self.connection
        if not self._real.closed and not connection._closed and not connection._wire.gone:
            sandbox, client = connection._sandbox, connection._client
            # where a transaction has failed the server would refuse it, and what a test has left open ended with it
            if sandbox.is_open(client) and sandbox.status(client) != "failed" and self._is_there():
                self._ask(f"CLOSE {self._quoted}")
            self._declared = False
        self._real.close()

    def _is_there(self) -> bool:
        if self._declared:
            return True
        connection = self.connection
        sandbox, client = connection._sandbox, connection._client
        if sandbox.session.has_foreign_cursor(client, self.name):
            return False
        # declared elsewhere, perhaps; if not, that is no error, as it is none on a real connection
        self._ask(f"SELECT 1 FROM pg_catalog.pg_cursors WHERE name = {literal(self.name)}", cursor="")
        return bool(self._real.fetchall())
