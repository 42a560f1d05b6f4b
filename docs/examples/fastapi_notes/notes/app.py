"""Async endpoints run on the event loop, sync ones in FastAPI's pool of threads."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .db import async_session, sync_session
from .models import Note

app = FastAPI()
AsyncDatabase = Annotated[AsyncSession, Depends(async_session)]
Database = Annotated[Session, Depends(sync_session)]


class NewNote(BaseModel):
    title: str


@app.post("/notes", status_code=201)
async def add(new: NewNote, session: AsyncDatabase) -> dict[str, int]:
    note = Note(title=new.title)
    session.add(note)
    try:
        await session.commit()
    except IntegrityError:
        await session.rollback()
        raise HTTPException(409, "There is a note of this title.") from None
    return {"id": note.id}


@app.get("/notes")
async def titles(session: AsyncDatabase) -> list[str]:
    return [*await session.scalars(select(Note.title).order_by(Note.id))]


@app.post("/notes/{note_id}/done")
async def finish(note_id: int, session: AsyncDatabase) -> None:
    note = await session.get(Note, note_id)
    if note is None:
        raise HTTPException(404)
    note.done = True
    await session.commit()


@app.get("/admin/statistics")
def statistics(session: Database) -> dict[str, int]:
    done, count = session.execute(select(func.count().filter(Note.done), func.count(Note.id))).one()
    return {"notes": count, "done": done}


@app.delete("/admin/done")
def delete_done(session: Database) -> int:
    deleted = session.scalars(delete(Note).where(Note.done).returning(Note.id)).all()
    session.commit()
    return len(deleted)
