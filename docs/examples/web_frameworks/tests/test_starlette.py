from boards.models import Base, Note
from boards.starlette_app import create_app
from starlette.testclient import TestClient

from dbtestcase import DatabaseTest


class BoardTest(DatabaseTest):
    metadata = Base.metadata

    def setUp(self) -> None:
        self.client = self.enterContext(TestClient(create_app(self.database_url)))  # begins and ends the lifespan

    def test_add(self) -> None:
        self.client.post("/notes", json={"text": "hello"})
        self.assertEqual(self.client.get("/notes").json(), ["hello"])
        self.assertRowCount(Note, 1)

    def test_nothing_is_left(self) -> None:
        self.assertEqual(self.client.get("/notes").json(), [])
