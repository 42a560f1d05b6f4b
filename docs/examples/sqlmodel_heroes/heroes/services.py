"""What the application does, each function with a session of its own."""

import os

from sqlmodel import Session, create_engine, select

from .models import Hero, Team

engine = create_engine(os.environ.get("HEROES_DATABASE_URL", "postgresql+psycopg://localhost/heroes"))


def recruit(name: str, team: str, age: int | None = None) -> Hero:
    """Add a hero to a team, which is made where it is new."""
    with Session(engine) as session:
        found = session.exec(select(Team).where(Team.name == team)).first() or Team(name=team)
        hero = Hero(name=name, age=age, team=found)
        session.add(hero)
        session.commit()
        session.refresh(hero)
        return hero


def members(team: str) -> list[str]:
    """The names of a team's heroes."""
    with Session(engine) as session:
        return [*session.exec(select(Hero.name).join(Team).where(Team.name == team).order_by(Hero.name))]


def dissolve(team: str) -> None:
    """Delete a team; its heroes stay."""
    with Session(engine) as session:
        session.delete(session.exec(select(Team).where(Team.name == team)).one())
        session.commit()
