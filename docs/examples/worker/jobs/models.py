"""The table."""

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Job(Base):
    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    result: Mapped[int | None]
    error: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
