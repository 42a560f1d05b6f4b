from boards.flask_app import app, db
from boards.models import Base, Note
from sqlalchemy import Engine

from dbtestcase import DatabaseTest


def engine() -> Engine:
    with app.app_context():
        return db.engine


class BoardTest(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]  # a function, since the engine needs an application context

    def setUp(self) -> None:
        self.client = app.test_client()

    def test_add(self) -> None:
        self.client.post("/notes", json={"text": "hello"})
        self.assertEqual(self.client.get("/notes").get_json(), ["hello"])
        self.assertRowCount(Note, 1)

    def test_nothing_is_left(self) -> None:
        self.assertEqual(self.client.get("/notes").get_json(), [])
