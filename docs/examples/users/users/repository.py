"""The repository: every change is committed here."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from .models import User


class UserNotFound(LookupError):
    """No user has this id."""


class UserRepository:
    """The users in the database of ``session``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self) -> list[User]:
        return [*self._session.scalars(select(User).order_by(User.email))]

    def get(self, user_id: int) -> User:
        user = self._session.get(User, user_id)
        if user is None:
            raise UserNotFound(user_id)
        return user

    def create(self, email: str, name: str) -> User:
        user = User(email=email, name=name)
        self._session.add(user)
        self._session.commit()
        return user

    def update(self, user_id: int, *, email: str, name: str, active: bool) -> User:
        """Replace every field."""
        return self.patch(user_id, email=email, name=name, active=active)

    def patch(self, user_id: int, **changes: Any) -> User:
        """Replace the fields that are named."""
        user = self.get(user_id)
        for name, value in changes.items():
            setattr(user, name, value)
        self._session.commit()
        return user

    def delete(self, user_id: int) -> None:
        self._session.delete(self.get(user_id))
        self._session.commit()
