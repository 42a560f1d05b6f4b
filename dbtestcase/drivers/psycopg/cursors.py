"""psycopg: what cursors of virtual connections do otherwise, in psycopg's classes and those of the application alike.

Their classes stay psycopg's own and the application's: ``type(cursor)`` is what it is on any connection.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
from psycopg import errors as pg_errors
from psycopg import sql

from ...sandbox import Kind, Statement, Topic, classify, with_parameter_names
from .hooks import Gen

Original = Callable[..., Any]
"""A method of psycopg's, as a function."""


class Led:
    """A mark of connections whose cursors announce each statement to them."""


_BASE: Any = psycopg.Cursor.__mro__[1]
_SERVER: Any = psycopg.ServerCursor.__mro__[1]
_PIPELINE: Any = psycopg.Pipeline.__mro__[1]
_psycopgs_start_query, _psycopgs_execute_gen = (vars(_BASE)[name] for name in ("_start_query", "_execute_gen"))


@functools.wraps(_psycopgs_start_query)
def _start_query(self: Any, query: Any = None) -> Gen:
    if query is not None and isinstance(self._conn, Led) and self._conn._announced is None:  # type: ignore[attr-defined]
        self._conn._announce(query)  # type: ignore[attr-defined]
    made: Gen = _psycopgs_start_query(self, query)
    return made


@functools.wraps(_psycopgs_execute_gen)
def _execute_gen(self: Any, query: Any, params: Any = None, **kwargs: Any) -> Gen:
    if not isinstance(self._conn, Led):
        yield from _psycopgs_execute_gen(self, query, params, **kwargs)
        return
    conn: Any = self._conn
    conn._announced = statement = classify(query if type(query) is str else query_text(query, conn))
    if not statement.plain:
        if statement.kind in _CONTROL:
            conn._announced = None
            self._reset()
            yield from conn._control(statement)
            return
        replacement = conn._sandbox.replacement(conn._client, statement)
        if replacement is not None:
            query = replacement
        if Topic.PLANS in statement.topics:
            yield from conn._show_own_plans()
        if "?" in statement.settings:
            conn._announced = statement = with_parameter_names(statement, params)
    try:
        yield from _psycopgs_execute_gen(self, query, params, **kwargs)
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


def _executemany_gen_pipeline(original: Original, self: Any, query: Any, *args: Any, **kwargs: Any) -> Gen:
    if _COPIES.search(self._conn._announce(query).text):
        self._conn._announced = None
        raise pg_errors.NotSupportedError("COPY cannot be used in pipeline mode")  # it would lose the connection
    yield from original(self, query, *args, **kwargs)


def _executemany_gen_no_pipeline(original: Original, self: Any, query: Any, *args: Any, **kwargs: Any) -> Gen:
    self._conn._announce(query)
    yield from original(self, query, *args, **kwargs)
    yield from self._conn._finish(-1)


def _start_copy_gen(original: Original, self: Any, statement: Any, *args: Any, **kwargs: Any) -> Gen:
    self._conn._announce(statement)
    self._conn._begin_stream()
    yield from original(self, statement, *args, **kwargs)


def _stream_send_gen(original: Original, self: Any, *args: Any, **kwargs: Any) -> Gen:
    self._conn._begin_stream()
    yield from original(self, *args, **kwargs)


def _declare_gen(original: Original, self: Any, query: Any, *args: Any, **kwargs: Any) -> Gen:
    yield from original(self, query, *args, **kwargs)
    yield from self._conn._finish(-1)


def _close_gen(original: Original, self: Any) -> Gen:
    # psycopg asks the wire's transaction, but it is the virtual one that the cursor has ended with
    status = self._conn.status
    if status == "active" or (status == "idle" and self._withhold):
        # an error of somebody else would let psycopg pass over it
        yield from self._conn._drive(self._conn._sandbox.recover_for(self._conn._client))
        yield from original(self)


def _sync(original: Original, self: Any) -> Gen:
    """A Sync of the application's ends the transaction that PostgreSQL has begun by itself for what went before it."""
    yield from original(self)
    if self._conn._pipeline is self:  # not one that a test has left open
        yield from self._conn._commit_synced()


@contextlib.contextmanager
def _copy(original: Original, self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    stream = None
    try:
        with original(self, *args, **kwargs) as copy:
            stream = self._conn._stream
            yield copy
    finally:
        self._conn._end_copy(stream)
    if not self._conn.closed:
        with self._conn.lock:
            self._conn.wait(self._conn._finish(-1))


def _stream(original: Original, self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    rows = original(self, *args, **kwargs)
    stream = None
    try:
        for row in rows:
            stream = self._conn._stream
            yield row
    finally:
        rows.close()
        self._conn._end_copy(stream or self._conn._stream)


@contextlib.asynccontextmanager
async def _copy_async(original: Original, self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    stream = None
    try:
        async with original(self, *args, **kwargs) as copy:
            stream = self._conn._stream
            yield copy
    finally:
        self._conn._end_copy(stream)
    if not self._conn.closed:
        async with self._conn.lock:
            await self._conn.wait(self._conn._finish(-1))


async def _stream_async(original: Original, self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    rows = original(self, *args, **kwargs)
    stream = None
    try:
        async for row in rows:
            stream = self._conn._stream
            yield row
    finally:
        await rows.aclose()
        self._conn._end_copy(stream or self._conn._stream)


_COPIES = re.compile(r"\bcopy\b[^;]*\b(?:to\s+stdout|from\s+stdin)\b", re.IGNORECASE)
_CONTROL = (Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)


def _lead(owner: Any, name: str, ours: Callable[..., Any]) -> None:
    """Let cursors of virtual connections do ``ours`` instead of a method, which it is given."""
    original = owner.__dict__[name]

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self._conn, Led):
            return ours(original, self, *args, **kwargs)
        return original(self, *args, **kwargs)

    setattr(owner, name, method)


_OURS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (_PIPELINE, "_sync_gen", _sync),
    (_PIPELINE, "_exit_gen", _sync),
    (_BASE, "_executemany_gen_pipeline", _executemany_gen_pipeline),
    (_BASE, "_executemany_gen_no_pipeline", _executemany_gen_no_pipeline),
    (_BASE, "_start_copy_gen", _start_copy_gen),
    (_BASE, "_stream_send_gen", _stream_send_gen),
    (_SERVER, "_declare_gen", _declare_gen),
    (_SERVER, "_close_gen", _close_gen),
    (psycopg.Cursor, "copy", _copy),
    (psycopg.Cursor, "stream", _stream),
    (psycopg.AsyncCursor, "copy", _copy_async),
    (psycopg.AsyncCursor, "stream", _stream_async),
)
_BASE._start_query, _BASE._execute_gen = _start_query, _execute_gen  # of every statement: without another call between
for _owner, _name, _method in _OURS:
    _lead(_owner, _name, _method)


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
    for _ in range(16):  # other watchers and recorders may stand in between
        if frame is None:
            break
        for name in ("query", "statement"):
            query = frame.f_locals.get(name)
            if isinstance(query, (str, bytes, sql.Composable)):
                return classify(query_text(query, connection))
        frame = frame.f_back
    return classify("CALL unknown()")
