"""An application that forgets to commit: what the test's own file flushes would be the test's own business."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import Session

from tests.support.blog_models import Author


def executes(session: Any, statement: Any) -> None:
    """Execute, and no more."""
    session.execute(statement)


async def adds_later(session: Any, instance: object) -> None:
    """Add and flush on an async session, and no more."""
    session.add(instance)
    await session.flush()


def unfinished_session(engine: Engine, name: str) -> Session:
    """A session with an author that is flushed and not committed."""
    session = Session(engine)
    session.add(Author(name=name))
    session.flush()
    return session


async def unfinished_connection(engine: AsyncEngine, name: str) -> AsyncConnection:
    """A connection with an author that is inserted and not committed."""
    connection = await engine.connect()
    await connection.execute(insert(Author).values(name=name, version=1))
    return connection
