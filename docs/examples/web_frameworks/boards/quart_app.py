"""Quart: Flask's shape, asynchronous."""

from quart import Quart, ResponseReturnValue, jsonify, request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from boards.models import Note

app = Quart(__name__)
engine = create_async_engine("postgresql+psycopg://boards@db.example.com/boards")
sessions = async_sessionmaker(engine)


@app.get("/notes")
async def notes() -> ResponseReturnValue:
    async with sessions() as session:
        return jsonify(list(await session.scalars(select(Note.text).order_by(Note.id))))


@app.post("/notes")
async def add() -> ResponseReturnValue:
    async with sessions() as session, session.begin():
        session.add(Note(text=(await request.get_json())["text"]))
    return {}, 201
