from app import crud
from app.models import User
from fastapi.testclient import TestClient
from sqlmodel import Session, select


def headers(email: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {email}"}


def test_the_superuser_is_there(db: Session) -> None:
    user = crud.user_by_email(session=db, email="admin@example.com")
    assert user
    assert user.is_superuser


def test_create_user(client: TestClient, superuser_token_headers: dict[str, str], db: Session) -> None:
    assert client.post("/users", params={"email": "ada@example.com"}).status_code == 200
    assert crud.user_by_email(session=db, email="ada@example.com")
    users = client.get("/users", headers=superuser_token_headers).json()
    assert "ada@example.com" in [user["email"] for user in users]


def test_create_user_who_exists(client: TestClient, db: Session) -> None:
    crud.create_user(session=db, email="grace@example.com")
    assert client.post("/users", params={"email": "grace@example.com"}).status_code == 400
    found = db.exec(select(User).where(User.email == "grace@example.com")).all()
    assert len(found) == 1


def test_read_users_as_a_normal_user(client: TestClient, db: Session) -> None:
    crud.create_user(session=db, email="radia@example.com")
    assert client.get("/users", headers=headers("radia@example.com")).status_code == 403
