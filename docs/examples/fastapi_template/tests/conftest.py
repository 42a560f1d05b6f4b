from collections.abc import Generator

import pytest
from app.db import engine, init_db
from app.main import app
from fastapi.testclient import TestClient
from sqlmodel import Session, SQLModel

from dbtestcase import DatabaseTest
from dbtestcase.pytest_plugin import database_fixture


class App(DatabaseTest):
    metadata = SQLModel.metadata
    engines = [engine]


database = database_fixture(App)


@pytest.fixture(autouse=True)
def db(database: App) -> Generator[Session, None, None]:
    with Session(engine) as session:
        init_db(session)
        yield session


@pytest.fixture(scope="module")
def client() -> Generator[TestClient, None, None]:
    with TestClient(app) as c:
        yield c


@pytest.fixture
def superuser_token_headers(client: TestClient) -> dict[str, str]:
    token = client.post("/login", params={"email": "admin@example.com"}).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}
