from sqlalchemy import Engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Articles:
    """The articles of a database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, name: str) -> None:
        with Session(self._engine) as session, session.begin():
            session.add(Article(name=name))

    def names(self) -> list[str]:
        with Session(self._engine) as session:
            return list(session.scalars(select(Article.name).order_by(Article.name)))
