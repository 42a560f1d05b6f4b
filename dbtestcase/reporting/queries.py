"""Which statements the process sends: recorded by SQLAlchemy's events, and only while somebody wants to know.

Listeners on :class:`sqlalchemy.Engine` itself see every engine of the process, present and future, sync
and async, in every thread.  Not seen: what is sent by a DBAPI cursor behind SQLAlchemy's back.

>>> with recording() as queries:                                    # doctest: +SKIP
...     session.scalars(select(Post)).all()
>>> len(queries), queries[0].statement, str(queries[0].origin)      # doctest: +SKIP
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from sys import _getframe
from threading import get_ident
from time import perf_counter
from typing import Any, overload
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.event.attr import _EmptyListener

from .call_sites import CallSite, call_site_above, find_call_site

STATEMENT, SAVEPOINT, TRANSACTION = "statement", "savepoint", "transaction"
_SAVEPOINTS = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")
_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE")


class Query:
    """One statement as it was sent.

    :ivar str statement: the SQL, with the driver's placeholders.
    :ivar parameters: as given to the driver: a tuple or dict, or a list of them if ``executemany``.
    :ivar bool executemany: whether it was sent once for many rows.
    :ivar bool ends: whether it is the end of a transaction, COMMIT or ROLLBACK, as SQLAlchemy asks for it.
    :ivar origin: the application's line (as ``str()``: with its file), or ``None`` where the stack is libraries only.
    :ivar int thread: identifier of the thread that sent it.
    :ivar error: the driver's exception if the statement failed, without its traceback; else ``None``.
    :ivar bool later_batch: whether it goes on where the statement before it ended: many rows go in several batches.
    :ivar float started: when it was sent, in seconds of :func:`time.perf_counter`.
    :ivar ended: when the server had answered, in seconds of the same clock; ``None`` if it failed or is still running.
    :ivar connection: a weak reference to the ``Connection`` that sent it.
    """

    connection: ref[Connection]
    ended: float | None
    ends: bool
    error: BaseException | None
    executemany: bool
    later_batch: bool
    origin: CallSite | None
    parameters: Any
    started: float
    statement: str
    thread: int

    __slots__ = (
        "connection",
        "ended",
        "ends",
        "error",
        "executemany",
        "later_batch",
        "origin",
        "parameters",
        "started",
        "statement",
        "thread",
    )

    @property
    def kind(self) -> str:
        """``"statement"``, ``"savepoint"``, or ``"transaction"`` for COMMIT and ROLLBACK."""
        if self.ends:
            return TRANSACTION
        return SAVEPOINT if self.statement[:22].upper().startswith(_SAVEPOINTS) else STATEMENT

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


def _query(
    connection: Connection, statement: str, parameters: Any, executemany: bool, ends: bool, origin: CallSite | None
) -> Query:
    query = _new(Query)  # an __init__() of its own would take twice as long
    query.statement = statement
    query.parameters = parameters
    query.executemany = executemany
    query.ends = ends
    query.origin = origin
    query.later_batch = False
    query.thread = get_ident()
    query.connection = ref(connection)
    query.ended = query.error = None
    query.started = perf_counter()
    return query


_new = object.__new__


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
    if not _in_greenlet():  # in which one task may have begun a statement and another one goes on
        thread = get_ident()
        for made in _active:
            entries = made.entries  # which another thread may clear meanwhile
            query = entries[-1] if entries else None
            if query is not None and query.running and query.thread == thread and query.statement == text:
                return query.origin
    return find_call_site(depth + 1)


def _in_greenlet() -> bool:
    greenlet = sys.modules.get("greenlet")
    return greenlet is not None and greenlet.getcurrent().parent is not None


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
    """Listen for good, where statements are as everybody else who listens has left them.

    Listeners to ``before_cursor_execute`` and its kind, which are the usual way, cost every statement of every engine
    some twenty calls more, recorded or not: as soon as there is one, SQLAlchemy asks for the listeners of five events.
    """
    global _listening
    if not _listening:
        _listening = True
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            event.listen(Engine, name, _instead_of(name), insert=True)
        setattr(Connection, _ACCEPTED, None)
        for name, text in (("_commit_impl", "COMMIT"), ("_rollback_impl", "ROLLBACK")):
            setattr(Connection, name, _marking(getattr(Connection, name), text))


_listening = False


def _end(made: Recording) -> None:
    global _active
    with _lock:
        _active = tuple(other for other in _active if other is not made)


_ACCEPTED = "_dbtestcase_recorded"
_EXECUTE = Connection.execute.__code__


def _interest(connection: Connection) -> tuple[Any, ...]:
    """All recordings, those that record a connection, and :func:`_look`: once, as long as the same recordings last."""
    known: tuple[Any, ...] | None = getattr(connection, _ACCEPTED)
    if known is None or known[0] is not _active:
        is_dialects = not connection._allow_autobegin  # on which it asks a server for its version and the like
        interested = [made for made in _active if not is_dialects and made.accept(connection)]
        known = (_active, interested, *(_looks.get(connection.dialect) or _look(connection.dialect)))
        setattr(connection, _ACCEPTED, known)  # not by __dict__, which once made slows all attributes of an object
    return known


def _look(dialect: Any) -> tuple[Any, ...]:
    """How to see that nobody else listens for what a dialect executes.

    A way to look at its listeners, at what, what is seen while it has none of its own, and those of all engines.  To
    ask SQLAlchemy's objects for their attributes with each statement takes as long as all the rest.
    """
    dispatch = dialect.dispatch
    listeners = dispatch.do_execute
    nobodys = listeners if type(listeners) is _EmptyListener else None
    _looks[dialect] = found = (type(dispatch).do_execute.__get__, dispatch, nobodys, listeners.parent_listeners)
    return found


_looks: WeakKeyDictionary[Any, tuple[Any, ...]] = WeakKeyDictionary()


def _asking_site() -> CallSite | None:
    """The application's line that asks for the statement of the listener which asks for this."""
    try:
        frame = _getframe(6)
        if frame.f_code is _EXECUTE:  # which calls nobody else's code until there
            return call_site_above(frame)
    except ValueError:  # a greenlet's stack
        pass
    return call_site_above(_getframe(4))


def _instead_of(method: str) -> Callable[..., bool]:
    """A listener that notes a statement and lets a method of the dialect send it, to know when it has ended."""
    is_usual, is_many, is_bare = (method == name for name in ("do_execute", "do_executemany", "do_execute_no_params"))

    def listener(cursor: Any, statement: str, parameters: Any, context: Any = None) -> bool:
        if not _active:
            return False
        if is_bare:
            context, parameters = parameters, parameters.parameters[0]
        connection = context.root_connection
        known = connection._dbtestcase_recorded
        if known is None or known[0] is not _active:
            known = _interest(connection)
        _, interested, look, dispatch, nobodys, of_engines = known
        if not interested or _harness.get():
            return False
        is_batch = context.execute_style is _IN_BATCHES
        query = _query(connection, statement, parameters, is_batch or is_many, False, _asking_site())
        if is_batch:
            query.later_batch = getattr(context, _BATCH, None) == statement
            setattr(context, _BATCH, statement)
        for made in interested:
            made.entries.append(query)
        dialect = context.dialect
        try:
            if is_usual and look(dispatch) is nobodys and len(of_engines) == 1:  # which is this one
                dialect.do_execute(cursor, statement, parameters, context)
            else:
                given = (cursor, statement, context) if is_bare else (cursor, statement, parameters, context)
                if not _handled(getattr(dispatch, method), listener, given):
                    getattr(dialect, method)(*given)
        except BaseException as error:
            query.error = _bare(error)
            raise
        query.ended = perf_counter()
        return True

    return listener


def _handled(listeners: Any, ours: Any, given: tuple[Any, ...]) -> bool:
    """Whether one of those after ours has sent the statement: they have a say."""
    passed = False
    for other in listeners:
        if passed and other(*given):
            return True
        passed = passed or other is ours
    return False


def _bare(error: BaseException) -> BaseException:
    """The exception without its traceback, whose frames keep what production lets go: sessions, cursors, locks."""
    kind = type(error)
    try:
        bare = kind.__new__(kind, *error.args)
    except TypeError:  # a constructor of its own
        return Exception(f"{kind.__name__}: {error}")
    for name, value in vars(error).items():
        if value is None or isinstance(value, (str, bytes, int, float)):
            setattr(bare, name, value)
    return bare


_IN_BATCHES, _BATCH = ExecuteStyle.INSERTMANYVALUES, "_dbtestcase_batch"


def _marking(original: Callable[[Connection], None], statement: str) -> Callable[[Connection], None]:
    """What ends a transaction, told before it is sent."""

    @wraps(original)
    def method(connection: Connection) -> None:
        for made in _interest(connection)[1] if _active and not _harness.get() else ():
            query = _query(connection, statement, (), False, True, find_call_site(2))
            query.ended = query.started  # told before it is sent: no time to show
            made.entries.append(query)
        original(connection)

    return method
