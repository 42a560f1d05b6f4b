import os

from sqlmodel import Session, create_engine, select

from app.models import User

engine = create_engine(os.environ.get("APP_DATABASE_URL", "postgresql+psycopg://app@db.example.com/app"))


def init_db(session: Session) -> None:
    """The first superuser, if there is none."""
    if session.exec(select(User).where(User.email == "admin@example.com")).first() is None:
        session.add(User(email="admin@example.com", is_superuser=True))
        session.commit()
