from boards.models import Base, Note
from boards.quart_app import app, engine

from dbtestcase import AsyncDatabaseTest


class BoardTest(AsyncDatabaseTest):
    metadata = Base.metadata
    engines = [engine]

    async def asyncSetUp(self) -> None:
        self.session.add(Note(text="before"))
        await self.session.flush()
        self.client = app.test_client()

    async def test_add(self) -> None:
        await self.client.post("/notes", json={"text": "hello"})
        response = await self.client.get("/notes")
        self.assertEqual(await response.get_json(), ["before", "hello"])

    async def test_nothing_is_left(self) -> None:
        response = await self.client.get("/notes")
        self.assertEqual(await response.get_json(), ["before"])
