"""Starlette: the engine is made when the application starts, and disposed of when it stops."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from boards.models import Note


class State(TypedDict):
    sessions: async_sessionmaker[AsyncSession]


async def notes(request: Request) -> JSONResponse:
    async with request.state.sessions() as session:
        return JSONResponse(list(await session.scalars(select(Note.text).order_by(Note.id))))


async def add(request: Request) -> JSONResponse:
    async with request.state.sessions() as session, session.begin():
        session.add(Note(text=(await request.json())["text"]))
    return JSONResponse({}, status_code=201)


def create_app(database_url: str) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[State]:
        engine = create_async_engine(database_url)
        yield {"sessions": async_sessionmaker(engine)}
        await engine.dispose()

    routes = [Route("/notes", notes), Route("/notes", add, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)
