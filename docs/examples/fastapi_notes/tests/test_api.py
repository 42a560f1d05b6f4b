"""Async and sync endpoints in one test class: both engines are led into the same transaction."""

import asyncio

import httpx
from notes import db
from notes.app import app
from notes.models import Base, Note
from sqlalchemy import select

from dbtestcase import AsyncDatabaseTest


class NotesTest(AsyncDatabaseTest):
    metadata = Base.metadata
    engines = [db.async_engine, db.engine]
    tea: Note

    @classmethod
    def setUpTestData(cls) -> None:
        cls.tea = Note(title="Buy tea")
        cls.session.add(cls.tea)

    async def asyncSetUp(self) -> None:
        transport = httpx.ASGITransport(app=app)
        self.client = await self.enterAsyncContext(httpx.AsyncClient(transport=transport, base_url="http://notes"))

    async def test_a_note_is_added(self) -> None:
        answer = await self.client.post("/notes", json={"title": "Drink it"})
        self.assertEqual(answer.status_code, 201)
        self.assertEqual((await self.client.get("/notes")).json(), ["Buy tea", "Drink it"])

    async def test_a_title_is_used_once(self) -> None:
        answer = await self.client.post("/notes", json={"title": "Buy tea"})
        self.assertEqual(answer.status_code, 409)
        self.assertEqual((await self.client.get("/notes")).json(), ["Buy tea"])

    async def test_sync_endpoints_see_what_async_ones_committed(self) -> None:
        await self.client.post(f"/notes/{self.tea.id}/done")
        self.assertEqual((await self.client.get("/admin/statistics")).json(), {"notes": 1, "done": 1})

    async def test_async_endpoints_see_what_sync_ones_committed(self) -> None:
        await self.client.post(f"/notes/{self.tea.id}/done")
        self.assertEqual((await self.client.delete("/admin/done")).json(), 1)
        self.assertEqual((await self.client.get("/notes")).json(), [])

    async def test_requests_at_the_same_time(self) -> None:
        answers = await asyncio.gather(
            *(self.client.post("/notes", json={"title": f"No. {number}"}) for number in range(8)),
            *(self.client.get("/admin/statistics") for _ in range(4)),
        )
        self.assertEqual({answer.status_code for answer in answers}, {200, 201})
        self.assertEqual(len((await self.client.get("/notes")).json()), 9)

    async def test_the_tests_own_session_sees_what_the_application_committed(self) -> None:
        await self.client.post(f"/notes/{self.tea.id}/done")
        self.assertEqual([*await self.session.scalars(select(Note.title).where(Note.done))], ["Buy tea"])

    async def test_no_test_sees_the_changes_of_another(self) -> None:
        self.assertEqual((await self.client.get("/admin/statistics")).json(), {"notes": 1, "done": 0})
