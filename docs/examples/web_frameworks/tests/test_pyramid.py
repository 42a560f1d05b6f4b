from boards.models import Base, Note
from boards.pyramid_app import create_app, engine
from webtest import TestApp

from dbtestcase import DatabaseTest


class BoardTest(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]

    def setUp(self) -> None:
        self.client = TestApp(create_app())

    def test_add(self) -> None:
        self.client.post_json("/notes", {"text": "hello"})
        self.assertEqual(self.client.get("/notes").json, ["hello"])

    def test_a_view_that_raises_is_rolled_back(self) -> None:
        with self.assertRaises(ValueError):
            self.client.post_json("/notes", {"text": ""})
        self.assertRowCount(Note, 0)
