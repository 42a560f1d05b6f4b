"""An application that forgets to commit, in a file that is not a test's own."""

from __future__ import annotations

from typing import Any


def executes(session: Any, statement: Any) -> None:
    """Execute, and no more."""
    session.execute(statement)


async def adds_later(session: Any, instance: object) -> None:
    """Add and flush on an async session, and no more."""
    session.add(instance)
    await session.flush()
