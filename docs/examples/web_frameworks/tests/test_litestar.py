from boards.litestar_app import app, engine
from boards.models import Base, Note
from litestar.testing import AsyncTestClient

from dbtestcase import AsyncDatabaseTest


class BoardTest(AsyncDatabaseTest):
    metadata = Base.metadata
    engines = [engine]

    async def asyncSetUp(self) -> None:
        self.client = await self.enterAsyncContext(AsyncTestClient(app))

    async def test_add(self) -> None:
        await self.client.post("/notes", json={"text": "hello"})
        self.assertEqual((await self.client.get("/notes")).json(), ["hello"])
        self.assertRowCount(Note, 1)

    async def test_nothing_is_left(self) -> None:
        self.assertEqual((await self.client.get("/notes")).json(), [])
