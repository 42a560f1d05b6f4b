from sqlmodel import Session, select

from app.models import Item, User


def create_user(*, session: Session, email: str) -> User:
    user = User(email=email)
    session.add(user)
    session.commit()
    session.refresh(user)
    return user


def create_item(*, session: Session, title: str, owner: User) -> Item:
    assert owner.id is not None
    item = Item(title=title, owner_id=owner.id)
    session.add(item)
    session.commit()
    session.refresh(item)
    return item


def user_by_email(*, session: Session, email: str) -> User | None:
    return session.exec(select(User).where(User.email == email)).first()
