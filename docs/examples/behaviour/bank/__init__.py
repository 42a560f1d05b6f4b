"""A bank."""

from sqlalchemy import CheckConstraint, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

engine = create_engine("postgresql+psycopg://bank@db.example.com/bank")
sessions = sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    __table_args__ = (CheckConstraint("balance >= 0"),)
    owner: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


def balance_of(owner: str) -> int:
    with sessions() as session:
        return session.get_one(Account, owner).balance


def transfer(amount: int, giver: str, taker: str) -> None:
    with sessions.begin() as session:
        session.get_one(Account, taker).balance += amount
        session.get_one(Account, giver).balance -= amount
