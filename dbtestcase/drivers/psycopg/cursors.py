"""psycopg: the generators that are mixed into classes of cursors, those of the application among them."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import AsyncIterator, Hashable, Iterator
from typing import Any, cast

import psycopg
from psycopg import errors as pg_errors
from psycopg import sql

from ...errors import SandboxEscape
from ...sandbox import Kind, Statement, classify, with_parameter_names
from .hooks import Gen

__all__ = ["query_text", "sandboxed", "statement_of_caller"]


class _CursorGenerators:
    """What is mixed into a class of cursors: each statement is announced to its connection."""

    __slots__ = ()

    _conn: Any
    _rowcount: int

    def _start_query(self, query: Any = None) -> Gen:
        if query is not None and self._conn._announced is None:
            self._conn._announce(query)
        yield from super()._start_query(query)  # type: ignore[misc]

    def _execute_gen(self, query: Any, params: Any = None, **kwargs: Any) -> Gen:
        conn = self._conn
        statement = conn._announce(query)
        if not statement.plain:
            if statement.kind in _CONTROL:
                conn._announced = None
                self._reset()  # type: ignore[attr-defined]
                yield from conn._control(statement)
                return
            replacement = conn._sandbox.replacement(conn._client, statement)
            if replacement is not None:
                query = replacement
            if "?" in statement.settings:
                conn._announced = statement = with_parameter_names(statement, params)
        try:
            yield from super()._execute_gen(query, params, **kwargs)  # type: ignore[misc]
        except pg_errors.LockNotAvailable as error:
            raise conn._lock_timeout(error) from error
        except pg_errors.ProgrammingError:
            conn._leave_copy()  # which execute() has begun and cannot read
            raise
        except pg_errors.Error as error:
            conn._sandbox.explain(conn._client, error)
            raise
        if not conn._sandbox.is_over(conn._client, statement, self._rowcount):
            yield from conn._finish(self._rowcount)

    def _executemany_gen_pipeline(self, query: Any, *args: Any, **kwargs: Any) -> Gen:
        if _COPIES.search(self._conn._announce(query).text):
            self._conn._announced = None
            raise pg_errors.NotSupportedError("COPY cannot be used in pipeline mode")  # it would lose the connection
        yield from super()._executemany_gen_pipeline(query, *args, **kwargs)  # type: ignore[misc]

    def _executemany_gen_no_pipeline(self, query: Any, *args: Any, **kwargs: Any) -> Gen:
        self._conn._announce(query)
        yield from super()._executemany_gen_no_pipeline(query, *args, **kwargs)  # type: ignore[misc]
        yield from self._conn._finish(-1)

    def _start_copy_gen(self, statement: Any, *args: Any, **kwargs: Any) -> Gen:
        self._conn._announce(statement)
        self._conn._begin_stream()
        yield from super()._start_copy_gen(statement, *args, **kwargs)  # type: ignore[misc]

    def _stream_send_gen(self, *args: Any, **kwargs: Any) -> Gen:
        self._conn._begin_stream()
        yield from super()._stream_send_gen(*args, **kwargs)  # type: ignore[misc]

    def _declare_gen(self, query: Any, *args: Any, **kwargs: Any) -> Gen:
        yield from super()._declare_gen(query, *args, **kwargs)  # type: ignore[misc]
        yield from self._conn._finish(-1)

    def _close_gen(self) -> Gen:
        # psycopg asks the wire's transaction, but it is the virtual one that the cursor has ended with
        status = self._conn.status
        if status == "active" or (status == "idle" and self._withhold):  # type: ignore[attr-defined]
            # an error of somebody else would let psycopg pass over it
            yield from self._conn._drive(self._conn._sandbox.recover_for(self._conn._client))
            yield from super()._close_gen()  # type: ignore[misc]


class _SyncCursor(_CursorGenerators):
    __slots__ = ()

    @contextlib.contextmanager
    def copy(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        stream = None
        try:
            with super().copy(*args, **kwargs) as copy:  # type: ignore[misc]
                stream = self._conn._stream
                yield copy
        finally:
            self._conn._end_stream(stream)
        with self._conn.lock:
            self._conn.wait(self._conn._finish(-1))

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        rows = super().stream(*args, **kwargs)  # type: ignore[misc]
        stream = None
        try:
            for row in rows:
                stream = self._conn._stream
                yield row
        finally:
            rows.close()
            self._conn._end_stream(stream or self._conn._stream)


class _AsyncCursor(_CursorGenerators):
    __slots__ = ()

    @contextlib.asynccontextmanager
    async def copy(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        stream = None
        try:
            async with super().copy(*args, **kwargs) as copy:  # type: ignore[misc]
                stream = self._conn._stream
                yield copy
        finally:
            self._conn._end_stream(stream)
        async with self._conn.lock:
            await self._conn.wait(self._conn._finish(-1))

    async def stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        rows = super().stream(*args, **kwargs)  # type: ignore[misc]
        stream = None
        try:
            async for row in rows:
                stream = self._conn._stream
                yield row
        finally:
            await rows.aclose()
            self._conn._end_stream(stream or self._conn._stream)


_COPIES = re.compile(r"\bcopy\b[^;]*\b(?:to\s+stdout|from\s+stdin)\b", re.IGNORECASE)
_CONTROL = (Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)


@functools.cache
def sandboxed(cls: type[Any]) -> type[Any]:
    """The class of cursors with the sandbox's generators mixed in."""
    if issubclass(cls, _CursorGenerators):
        return cls
    mixin = _AsyncCursor if issubclass(cls, psycopg.AsyncCursor) else _SyncCursor
    return type(cls.__name__, (mixin, cls), {"__slots__": (), "__module__": cls.__module__})


def query_text(query: Any, connection: Any) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode(connection.pgconn._encoding)
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return sql.as_string(query, connection)


def statement_of_caller(frame: Any, connection: Any) -> Statement:
    """The statement of a cursor that was made without ``connection.cursor()``, such as ``ClientCursor(connection)``."""
    sandbox = getattr(connection, "_sandbox", None)  # a real connection is none of a sandbox's
    for _ in range(16):  # other watchers and recorders may stand in between
        if frame is None:
            break
        for name in ("query", "statement"):
            query = frame.f_locals.get(name)
            if isinstance(query, (str, bytes, sql.Composable)):
                found = classify(query_text(query, connection))
                if found.kind in _CONTROL and sandbox is not None:
                    raise sandbox.note(
                        SandboxEscape(
                            f"The statement {found.text!r} was run by a cursor that the sandbox did not make; "
                            "it was not sent.",
                            cause="a cursor class called directly with the connection",
                            remedy="use connection.cursor(), or set connection.cursor_factory",
                        )
                    )
                cursor = frame.f_locals.get("self")
                if sandbox is not None and isinstance(cursor, (psycopg.Cursor, psycopg.AsyncCursor)):
                    cursor.__class__ = sandboxed(cast(Hashable, type(cursor)))  # what it does next is announced
                return found
        frame = frame.f_back
    return classify("CALL unknown()")
