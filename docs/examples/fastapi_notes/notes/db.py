"""The application's engines, and the dependencies that hand out sessions."""

import os
from collections.abc import AsyncIterator, Iterator

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

URL = os.environ.get("NOTES_DATABASE_URL", "postgresql+psycopg://localhost/notes")

async_engine = create_async_engine(URL)
engine = create_engine(URL)
AsyncSessionLocal = async_sessionmaker(async_engine, expire_on_commit=False)
SessionLocal = sessionmaker(engine)


async def async_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSessionLocal() as session:
        yield session


def sync_session() -> Iterator[Session]:
    with SessionLocal() as session:
        yield session
