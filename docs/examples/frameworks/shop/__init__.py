"""A shop.

Examples of what it does; each runs in a test's life of its own:

>>> add("honey")
>>> names()
['honey', 'tea']
"""

from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("postgresql+psycopg://shop@db.example.com/shop")


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def add(name: str) -> None:
    with Session(engine) as session, session.begin():
        session.add(Article(name=name))


def names() -> list[str]:
    """The names of all articles.

    >>> names()
    ['tea']
    """
    with Session(engine) as session:
        return list(session.scalars(select(Article.name).order_by(Article.name)))
