"""Sessions that end as they should, and what they hold when a part of a test is undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, make_transient, make_transient_to_detached, object_session
from sqlalchemy.orm.attributes import instance_state

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession


def engine_of(session: Any) -> Engine | None:
    """The engine of a session, a ``scoped_session`` or a ``sessionmaker``; ``None`` if that is not known."""
    maker = getattr(session, "session_factory", session)  # of a scoped_session
    bind = getattr(maker, "kw", {}).get("bind") if not isinstance(session, Session) else session.bind
    return getattr(bind, "engine", None)


@contextmanager
def session_scope(bind_or_factory: Engine | Connection | Callable[[], Session]) -> Iterator[Session]:
    """A new session: commit at the end, rollback on an error, always closed.

    >>> with session_scope(engine) as session:                          # doctest: +SKIP
    ...     session.add(Post(title="Hello"))

    :param bind_or_factory: an engine or connection, or what gives a session when it is called: a ``sessionmaker``, a
        function, a ``scoped_session`` (its session is removed from the registry at the end).
    :raises: what the block raises, and what the commit raises.
    """
    if isinstance(bind_or_factory, Engine | Connection):
        session = Session(bind_or_factory)
        close: Callable[[], None] = session.close
    else:
        session = bind_or_factory()
        close = getattr(bind_or_factory, "remove", session.close)
    try:
        yield session
        session.commit()
    except BaseException:  # also KeyboardInterrupt: half of the work must not be committed by whoever comes next
        session.rollback()
        raise
    finally:
        close()


@asynccontextmanager
async def async_session_scope(
    bind_or_factory: AsyncEngine | AsyncConnection | Callable[[], AsyncSession],
) -> AsyncIterator[AsyncSession]:
    """:func:`session_scope` for async engines, and for what gives an ``AsyncSession``.

    Instances stay usable after the commit: the session is made with ``expire_on_commit=False``, unless a factory makes
    it.

    :raises ImportError: greenlet is not installed (``pip install 'dbtestcase[asyncio]'``).
    """
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

    if isinstance(bind_or_factory, AsyncEngine | AsyncConnection):
        session = AsyncSession(bind_or_factory, expire_on_commit=False)
        close: Callable[[], Any] = session.close
    else:
        session = bind_or_factory()
        close = getattr(bind_or_factory, "remove", session.close)
    try:
        yield session
        await session.commit()
    except BaseException:  # also CancelledError
        await session.rollback()
        raise
    finally:
        await close()


def settle(session: Session) -> list[object]:
    """Commit what the session holds, to outlive a rollback of what comes next; its instances, for :func:`restore`."""
    expires, session.expire_on_commit = session.expire_on_commit, False
    try:
        session.commit()
    finally:
        session.expire_on_commit = expires
    return list(session.identity_map.values())


def restore(session: Session, instances: list[object]) -> None:
    """After the rollback: the session holds what it held, and reads it again; what has come since is let go."""
    session.rollback()
    held = {id(instance) for instance in instances}
    for instance in list(session.identity_map.values()):
        if id(instance) not in held:
            session.expunge(instance)
    for instance in instances:
        if object_session(instance) is not None:
            continue
        if instance_state(instance).was_deleted:  # and committed, which was rolled back
            make_transient(instance)
            make_transient_to_detached(instance)
        session.add(instance)
    session.expire_all()
