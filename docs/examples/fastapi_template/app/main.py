from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from sqlmodel import Session, col, select

from app import crud
from app.db import engine
from app.models import Item, User

app = FastAPI()


def get_db() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_db)]


def get_current_user(session: SessionDep, authorization: Annotated[str, Header()]) -> User:
    user = crud.user_by_email(session=session, email=authorization.removeprefix("Bearer "))
    if user is None:
        raise HTTPException(status_code=403, detail="Could not validate credentials")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]


@app.post("/login")
def login(session: SessionDep, email: str) -> dict[str, str]:
    if crud.user_by_email(session=session, email=email) is None:
        raise HTTPException(status_code=400, detail="Incorrect email")
    return {"access_token": email}


@app.get("/users")
def read_users(session: SessionDep, current_user: CurrentUser) -> list[User]:
    if not current_user.is_superuser:
        raise HTTPException(status_code=403, detail="The user doesn't have enough privileges")
    return list(session.exec(select(User).order_by(col(User.id))))


@app.post("/users")
def create_user(session: SessionDep, email: str) -> User:
    if crud.user_by_email(session=session, email=email) is not None:
        raise HTTPException(status_code=400, detail="The user with this email already exists")
    return crud.create_user(session=session, email=email)


@app.get("/items")
def read_items(session: SessionDep, current_user: CurrentUser) -> list[Item]:
    return list(session.exec(select(Item).where(Item.owner_id == current_user.id)))


@app.post("/items")
def create_item(session: SessionDep, current_user: CurrentUser, title: str) -> Item:
    return crud.create_item(session=session, title=title, owner=current_user)


@app.delete("/items/{id}")
def delete_item(session: SessionDep, current_user: CurrentUser, id: int) -> dict[str, str]:
    item = session.get(Item, id)
    if item is None or item.owner_id != current_user.id:
        raise HTTPException(status_code=404, detail="Item not found")
    session.delete(item)
    session.commit()
    return {"message": "Item deleted successfully"}
