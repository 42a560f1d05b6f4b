"""Litestar: a session for each request, by dependency injection; committed where the handler succeeds."""

from collections.abc import AsyncIterator

from litestar import Litestar, get, post
from litestar.di import Provide
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from boards.models import Note

engine = create_async_engine("postgresql+psycopg://boards@db.example.com/boards")


async def session_of_request() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session, session.begin():
        yield session


@get("/notes")
async def notes(session: AsyncSession) -> list[str]:
    return list(await session.scalars(select(Note.text).order_by(Note.id)))


@post("/notes")
async def add(session: AsyncSession, data: dict[str, str]) -> None:
    session.add(Note(text=data["text"]))


app = Litestar([notes, add], dependencies={"session": Provide(session_of_request)})
