"""A stock of articles: goods come in and go out, and there is never less than nothing."""

from sqlalchemy import CheckConstraint, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("postgresql+psycopg://stock@db.example.com/stock")


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "article"
    __table_args__ = (CheckConstraint("amount >= 0"),)
    name: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int] = mapped_column(default=0)


class OutOfStock(Exception):
    pass


def move(name: str, amount: int) -> int:
    """Take in (or out, where it is negative), and say what is there then."""
    with Session(engine) as session, session.begin():
        article = session.scalars(select(Article).where(Article.name == name).with_for_update()).one_or_none()
        if article is None:
            article = Article(name=name, amount=0)
            session.add(article)
        if article.amount + amount < 0:
            raise OutOfStock(name)
        article.amount += amount
        return article.amount
