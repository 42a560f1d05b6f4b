"""Which statements the process sends: recorded by SQLAlchemy's events, and only while somebody wants to know.

One pair of listeners on :class:`sqlalchemy.Engine` itself sees every engine of the process, present and future, sync
and async, in every thread.  Not seen: what is sent by a DBAPI cursor behind SQLAlchemy's back.

>>> with recording() as queries:                                    # doctest: +SKIP
...     session.scalars(select(Post)).all()
>>> len(queries), queries[0].statement, str(queries[0].origin)      # doctest: +SKIP
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from time import perf_counter
from typing import Any, overload

from sqlalchemy import Connection, Engine, event

from .call_sites import CallSite, find_call_site

STATEMENT, SAVEPOINT, TRANSACTION = "statement", "savepoint", "transaction"
_SAVEPOINTS = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")
_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE")


class Query:
    """One statement as it was sent.

    :ivar str statement: the SQL, with the driver's placeholders.
    :ivar parameters: as given to the driver: a tuple or dict, or a list of them if ``executemany``.
    :ivar bool executemany: whether it was sent once for many rows.
    :ivar str kind: ``"statement"``, ``"savepoint"``, or ``"transaction"`` for COMMIT and ROLLBACK.
    :ivar origin: the application's line (as ``str()``: with its file), or ``None`` where the stack is libraries only.
    :ivar int thread: identifier of the thread that sent it.
    :ivar error: the driver's exception if the statement failed, else ``None``.
    :ivar bool later_batch: whether it goes on where the statement before it ended: many rows go in several batches.
    :ivar float started: when it was sent, in seconds of :func:`time.perf_counter`.
    :ivar ended: when the server had answered, in seconds of the same clock; ``None`` if it failed or is still running.
    :ivar connection: a weak reference to the ``Connection`` that sent it.
    """

    __slots__ = (
        "connection",
        "ended",
        "error",
        "executemany",
        "kind",
        "later_batch",
        "origin",
        "parameters",
        "started",
        "statement",
        "thread",
    )

    def __init__(
        self,
        connection: Connection,
        statement: str,
        parameters: Any,
        executemany: bool,
        kind: str,
        origin: CallSite | None,
    ) -> None:
        self.statement = statement
        self.parameters = parameters
        self.executemany = executemany
        self.kind = kind
        self.origin = origin
        self.later_batch = False
        self.thread = threading.get_ident()
        self.connection = weakref.ref(connection)
        self.ended: float | None = None
        self.error: BaseException | None = None
        self.started = perf_counter()

    @property
    def milliseconds(self) -> float | None:
        """From the sending to the server's answer, in ms; ``None`` if it failed or is still running."""
        return None if self.ended is None else (self.ended - self.started) * 1000

    @property
    def running(self) -> bool:
        """Whether the server has not answered yet."""
        return self.ended is None and self.error is None

    @property
    def reads(self) -> bool:
        """Whether it is not an INSERT, UPDATE, DELETE, MERGE, savepoint or end of a transaction."""
        return self.kind is STATEMENT and not self.statement.lstrip(" \t\r\n(")[:7].upper().startswith(_WRITES)

    def __repr__(self) -> str:
        return f"<Query {' '.join(self.statement.split())!r} {self.parameters!r} at {self.origin}>"


class Recording(Sequence[Query]):
    """The queries since the recording began, oldest first: statements only, without savepoints.

    :attr:`entries` has everything, also SAVEPOINT, COMMIT and ROLLBACK.
    """

    def __init__(self, accept: Callable[[Connection], bool]) -> None:
        self.accept = accept
        #: Everything that was sent, oldest first: also SAVEPOINT, COMMIT and ROLLBACK.
        self.entries: list[Query] = []

    @property
    def queries(self) -> list[Query]:
        """The statements, in a list."""
        return [entry for entry in self.entries if entry.kind is STATEMENT]

    def clear(self) -> None:
        """Forget what was recorded; queries handed out stay as they are."""
        self.entries = []
        _sending.set(None)  # whose parameters nobody else needs

    def __len__(self) -> int:
        return sum(entry.kind is STATEMENT for entry in self.entries)

    @overload
    def __getitem__(self, index: int) -> Query: ...
    @overload
    def __getitem__(self, index: slice) -> list[Query]: ...
    def __getitem__(self, index: int | slice) -> Query | list[Query]:
        return self.queries[index]

    def __iter__(self) -> Iterator[Query]:
        return iter(self.queries)


@contextmanager
def recording(accept: Callable[[Connection], bool] = lambda connection: True) -> Iterator[Recording]:
    """Record what all threads and tasks of the process send.

    :param accept: which connections count; asked with the first statement of each.
    """
    made = Recording(accept)
    _begin(made)
    try:
        yield made
    finally:
        _end(made)


@contextmanager
def harness_statements() -> Iterator[None]:
    """What this thread or task sends meanwhile is the harness's own: no recording has it."""
    token = _harness.set(True)
    try:
        yield
    finally:
        _harness.reset(token)


def site_of_statement(text: str, depth: int = 1) -> CallSite | None:
    """Where a statement comes from that is being sent; looked for only where no recording has done so.

    :param depth: how many frames to leave out; 1 begins with the caller.
    """
    query = _sending.get()
    if query is not None and query.running and query.statement == text:
        return query.origin
    return find_call_site(depth + 1)


_sending: ContextVar[Query | None] = ContextVar("dbtestcase_sending", default=None)
"""The last statement of this thread or task."""

_harness: ContextVar[bool] = ContextVar("dbtestcase_harness_statements", default=False)
_lock = threading.Lock()
_active: tuple[Recording, ...] = ()  # replaced, never changed: the listeners read it without the lock


def _begin(made: Recording) -> None:
    global _active
    with _lock:
        if not _active:
            _listen()
        _active += (made,)


def _listen() -> None:
    """Listen for good, to statements after everybody else who listens to all engines: others may rewrite them."""
    global _listening
    if _listening is None:
        for name, listener in _LISTENERS.items():
            event.listen(Engine, name, listener)
    elif list(_any_engine.dispatch.before_cursor_execute)[-1:] == [_listening]:
        return
    else:
        event.remove(Engine, "before_cursor_execute", _before)
    event.listen(Engine, "before_cursor_execute", _before)
    _listening = list(_any_engine.dispatch.before_cursor_execute)[-1]


_any_engine = Engine.__new__(Engine)
"""One that nobody listens to by itself."""
_listening: object = None
"""What SQLAlchemy has made of our listener."""


def _end(made: Recording) -> None:
    global _active
    with _lock:
        _active = tuple(other for other in _active if other is not made)


_ACCEPTED = "_dbtestcase_recorded"
_FRAMES = 5  # as many at least lie between find_call_site() and whoever asks SQLAlchemy for a statement


def _interested(connection: Connection) -> list[Recording]:
    """Who records what a connection sends: asked once, as long as the same recordings are there."""
    known = connection.__dict__.get(_ACCEPTED)
    if known is None or known[0] is not _active:
        known = connection.__dict__[_ACCEPTED] = (_active, [made for made in _active if made.accept(connection)])
    found: list[Recording] = known[1]
    return found


def _before(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    if not _active or _harness.get() or not (interested := _interested(connection)):
        return
    is_savepoint = statement[:1] in "SRsr" and statement[:22].upper().startswith(_SAVEPOINTS)
    kind = SAVEPOINT if is_savepoint else STATEMENT
    query = Query(connection, statement, parameters, executemany, kind, find_call_site(_FRAMES))
    _sending.set(query)
    for made in interested:
        made.entries.append(query)
    if context is not None:
        earlier = getattr(context, "_dbtestcase_query", None)
        query.later_batch = earlier is not None and earlier.statement == statement
        context._dbtestcase_query = query


def _after(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    query = getattr(context, "_dbtestcase_query", None)
    if query is not None:
        query.ended = perf_counter()


def _failed(context: Any) -> None:
    query = getattr(context.execution_context, "_dbtestcase_query", None)
    if query is not None:
        query.error = context.original_exception


def _mark(statement: str, connection: Connection) -> None:
    if not _active or _harness.get():
        return
    for made in _interested(connection):
        query = Query(connection, statement, (), False, TRANSACTION, find_call_site(2))
        query.ended = query.started  # told before it is sent: no time to show
        made.entries.append(query)


_LISTENERS: dict[str, Callable[..., None]] = {
    "after_cursor_execute": _after,
    "handle_error": _failed,
    "commit": partial(_mark, "COMMIT"),
    "rollback": partial(_mark, "ROLLBACK"),
}
