from app import crud
from app.models import Item
from fastapi.testclient import TestClient
from sqlmodel import Session


def test_create_item(client: TestClient, superuser_token_headers: dict[str, str], db: Session) -> None:
    item = client.post("/items", headers=superuser_token_headers, params={"title": "tea"}).json()
    found = db.get(Item, item["id"])
    assert found
    assert found.title == "tea"


def test_items_of_somebody_else(client: TestClient, superuser_token_headers: dict[str, str], db: Session) -> None:
    owner = crud.create_user(session=db, email="barbara@example.com")
    item = crud.create_item(session=db, title="milk", owner=owner)
    response = client.delete(f"/items/{item.id}", headers=superuser_token_headers)
    assert response.status_code == 404


def test_delete_item(client: TestClient, superuser_token_headers: dict[str, str], db: Session) -> None:
    item = client.post("/items", headers=superuser_token_headers, params={"title": "honey"}).json()
    assert client.delete(f"/items/{item['id']}", headers=superuser_token_headers).status_code == 200
    assert db.get(Item, item["id"]) is None
