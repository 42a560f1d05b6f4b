"""What is used of SQLAlchemy beyond its public interface, in one place: each with the reason, checked at import.

It is the same from SQLAlchemy 2.0 to 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, finalize

import sqlalchemy
from sqlalchemy import Connection, Dialect, Engine, MetaData, Sequence, Table
from sqlalchemy.event.attr import _EmptyListener
from sqlalchemy.pool import NullPool, Pool, QueuePool, base
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord
from sqlalchemy.sql.ddl import SchemaGenerator

from ..reporting import require_internals


def creator_of(pool: Pool) -> Any:
    """What a pool connects with: two pools of one creator lead to one database; ours are known by theirs."""
    return pool._creator


def call_creator(pool: Pool, record: Any, led: Callable[[Any], Any]) -> Any:
    """Connect as the pool would: a creator takes the record of the connection, or nothing.

    :param led: gives what is to be called in the place of a driver's own function.
    """
    creator = led(pool._creator)
    return pool._invoke_creator(record) if creator is pool._creator else creator()


_originals: WeakKeyDictionary[Callable[..., Any], Pool] = WeakKeyDictionary()


def set_creator(pool: Pool, creator: Callable[..., Any], original: Pool) -> None:
    """Lead a pool elsewhere: a pool that was made anew would lose what others have asked of it.

    :param original: the engine's own pool, in whose place it is.
    """
    pool._creator = creator
    _originals[creator] = original


def original_of(pool: Pool) -> Pool:
    """The pool that an engine has when it is not led."""
    return _originals.get(creator_of(pool), pool)


def dialect_of(pool: Pool) -> Any:
    """The dialect of a pool, which only its engine would tell."""
    return pool._dialect


def is_asyncio(pool: Pool) -> bool:
    """Whether an async engine uses it, whose connections only its loop may touch."""
    return bool(pool._is_asyncio)


def forbid_overflow(pool: QueuePool) -> None:
    """Let a pool forget the connections that were handed out: they belong to another process or loop."""
    pool._overflow = -pool.size()


def pool_of(fairy: Any) -> Pool:
    """The pool that a connection was checked out of; events give the connection only."""
    pool: Pool = fairy._pool
    return pool


def record_of(fairy: Any) -> Any:
    """The record of a connection that is checked out, to detach it from."""
    return fairy._connection_record


def pool_of_record(record: Any) -> Pool:
    """The pool that a connection was made for."""
    pool: Pool = record._ConnectionRecord__pool
    return pool


def checked_out() -> list[Any]:
    """The connections that the pools of this process have handed out: a pool says how many, and nothing lists pools."""
    if _FINALIZERS:
        every, of_checkout = list(finalize._registry.values()), base._finalize_fairy  # type: ignore[attr-defined]
        references = [info.weakref for info in every if info.func is of_checkout]
    else:
        references = list(base._strong_ref_connection_records)  # type: ignore[attr-defined]
    found = [reference() for reference in references]
    return [each for each in found if type(each) is _ConnectionFairy and each.is_valid]


_FINALIZERS = "_finalizer" in _ConnectionFairy.__slots__
"""Whether SQLAlchemy (2.1) leaves it to the standard library to know them; 2.0 has a list of its own."""


def pool_with_events(creator: Callable[..., Any], like: Pool, dialect: Dialect) -> NullPool:
    """A pool that calls the listeners of another one."""
    return NullPool(creator, dialect=dialect, _dispatch=like.dispatch)


def has_events(dialect: Dialect) -> bool:
    """Whether anybody listens to ``do_connect``: asking costs less than the event does."""
    return bool(dialect._has_events)


def adapters_of(dialect: Dialect) -> Any:
    """The adapters that psycopg's connections of this dialect have; None of another dialect."""
    return getattr(dialect, "_psycopg_adapters_map", None)


def sequences_of(metadata: MetaData) -> Iterable[Sequence]:
    """The sequences of a ``MetaData`` that no column owns: nothing public lists them."""
    return metadata._sequences.values()


def constraints_of(table: Table) -> Iterable[Any]:
    """The constraints of a table in the order in which they are created."""
    return table._sorted_constraints


def creates_itself(table: Table) -> Any:
    """The statement that makes a table which is a view or made from a query (SQLAlchemy 2.1); else None."""
    return getattr(table, "_creator_ddl", None)


def schema_generator(connection: Connection) -> SchemaGenerator:
    """What ``create_all`` hands to listeners as ``_ddl_runner``; DDL elements of SQLAlchemy ask for it."""
    return SchemaGenerator(connection.dialect, connection, checkfirst=True)  # type: ignore[no-untyped-call]


def initialize(engine: Engine, connection: Any, record: Any) -> None:
    """Do what ``create_engine()`` arranges for an engine's first connection, which nothing public does once more."""
    adhoc = base._AdhocProxiedConnection(connection, record)
    options = {"_has_events": False, "_allow_revalidate": False, "_allow_autobegin": False}
    asking = Connection(engine, connection=adhoc, **options)
    engine.dialect.initialize(asking)
    if not asking.invalidated and not asking.closed:
        engine.dialect.do_rollback(adhoc)


def in_greenlet() -> bool:
    """Whether SQLAlchemy runs this in a greenlet of its own, so that it may await."""
    import greenlet

    current = greenlet.getcurrent()
    return bool(
        getattr(current, "__sqlalchemy_greenlet_provider__", False)
        or getattr(current, "_sqlalchemy_greenlet_provider", False)
        or type(current).__name__ == "_AsyncIoGreenlet"
    )


def _no_connection() -> Any:
    return None


require_internals(
    f"SQLAlchemy {sqlalchemy.__version__}",
    [
        (QueuePool(_no_connection), ("_creator", "_dialect", "_invoke_creator", "_is_asyncio", "_overflow")),
        (_ConnectionFairy, ("_pool", "_connection_record")),
        (_ConnectionRecord(QueuePool(_no_connection), connect=False), ("_ConnectionRecord__pool",)),
        (finalize, ("_registry",)) if _FINALIZERS else (base, ("_strong_ref_connection_records",)),
        (base, ("_finalize_fairy", "_AdhocProxiedConnection")),
        (Dialect, ("_has_events",)),
        (Connection, ("_commit_impl", "_rollback_impl")),  # of reporting/queries, as _allow_autobegin and
        (_EmptyListener, ("parent_listeners",)),  # this
        (MetaData(), ("_sequences",)),
        (Table, ("_sorted_constraints",)),
    ],
    "pip install 'sqlalchemy>=2.0.24,<2.2'",
)
