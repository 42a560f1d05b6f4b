"""A library whose tables are written in SQL: the models say what is there, and make nothing."""

from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("postgresql+psycopg://library@db.example.com/library")


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    lent_to: Mapped[str | None]


class Shelf(Base):
    """A view."""

    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


def lend(title: str, reader: str) -> None:
    with Session(engine) as session, session.begin():
        session.scalars(select(Book).where(Book.title == title)).one().lent_to = reader


def on_the_shelf() -> list[str]:
    with Session(engine) as session:
        return list(session.scalars(select(Shelf.title).order_by(Shelf.title)))
