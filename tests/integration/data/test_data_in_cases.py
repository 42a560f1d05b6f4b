"""Class data, factories and assertions as the cases compose them, on PostgreSQL, sync and async."""

import unittest
from typing import Any

import factory
from factory.alchemy import SQLAlchemyModelFactory
from sqlalchemy import create_engine, func, inspect, select, text
from sqlalchemy.exc import MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dbtestcase import AsyncDatabaseTest, DatabaseTest
from tests.support.blog_models import Author, Base, Post, Tag
from tests.support.requirements import require_module

application = create_engine("postgresql+psycopg://nobody@localhost/blog")
ApplicationSession = scoped_session(sessionmaker(application))


class AuthorFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Author
        sqlalchemy_session_persistence = "flush"

    name = "Ada"


class TagFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Tag
        sqlalchemy_session = ApplicationSession
        sqlalchemy_get_or_create = ("name",)

    name = "sql"


class PostFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Post
        sqlalchemy_session_factory = ApplicationSession
        sqlalchemy_session_persistence = "commit"

    title = "Hello"
    author = factory.SubFactory(AuthorFactory)

    @factory.post_generation
    def tags(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        if create and extracted:
            self.tags.extend(TagFactory(name=name) for name in extracted)


class Blog:
    """What each case stores on its class."""

    metadata = Base.metadata
    factories = [PostFactory]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.author = AuthorFactory()  # type: ignore[attr-defined]
        cls.posts = PostFactory.create_batch(3, author=cls.author)  # type: ignore[attr-defined]
        cls.by_title = {"first": cls.posts[0]}  # type: ignore[attr-defined]


class SyncTest(Blog, DatabaseTest):
    engines = [application]
    author: Author
    posts: list[Post]
    by_title: dict[str, Post]

    def check(self) -> None:
        self.assertIn(self.author, self.session)
        self.assertEqual([post.author is self.author for post in self.posts], [True] * 3)
        self.assertIs(self.by_title["first"], self.posts[0])
        self.assertEqual((self.author.name, self.posts[1].title), ("Ada", "Hello"))
        self.assertRowCount(Post, 3)

    def test_a(self) -> None:
        """Harms everything that the other one looks at, whichever comes first."""
        self.check()
        self.author.name = "Changed"
        self.session.commit()
        self.session.delete(self.posts.pop())
        self.session.flush()
        self.session.expunge(self.posts[0])
        self.by_title.clear()

    def test_b(self) -> None:
        self.test_a()

    def test_rows_that_the_application_changes_are_seen(self) -> None:
        with Session(application) as session:
            session.get_one(Author, self.author.id).name = "Changed"
            session.commit()
        self.session.refresh(self.author)
        self.assertEqual(self.author.name, "Changed")

    def test_factories_of_all_styles(self) -> None:
        post = PostFactory(author=self.author, tags=["a", "b"])
        self.assertIn(post, self.session)
        self.assertEqual(len(self.factories.PostFactory.create_batch(2, tags=["a"])), 2)
        self.assertRowCount(Post, 6)
        self.assertRowCount(Tag, 2)
        self.assertRowCount(Author, 3)

    def test_only_the_applications_and_the_tests_queries_count(self) -> None:
        with self.assertNumQueries(2):
            self.session.scalars(select(Tag)).all()
            with Session(application) as session, session.begin_nested():
                session.scalars(select(Tag)).all()
            self.assertEqual(self.author.name, "Ada")
            self.assertRowCount(Post, 3)

    def test_an_n_plus_one_of_the_application_is_found(self) -> None:
        PostFactory.create_batch(2)
        self.session.commit()
        with self.assertRaisesRegex(self.failureException, r"3 times, with .*(?s:.*)selectinload"):
            with self.assertNoRepeatedQueries(), Session(application) as session:
                [post.author.name for post in session.scalars(select(Post))]


class AsyncTest(Blog, AsyncDatabaseTest):
    author: Author
    posts: list[Post]
    by_title: dict[str, Post]

    def check(self) -> None:
        self.assertIn(self.author, self.session)
        self.assertEqual([post.author is self.author for post in self.posts], [True] * 3)
        self.assertEqual((self.author.name, self.posts[1].title), ("Ada", "Hello"))
        self.assertRowCount(Post, 3)

    async def test_a(self) -> None:
        self.check()
        self.author.name = "Changed"
        await self.session.commit()
        await self.session.delete(self.posts.pop())
        await self.session.flush()
        self.assertRowCount(Post, 2)
        self.session.expunge(self.posts[0])

    async def test_b(self) -> None:
        await self.test_a()

    async def test_sync_factories_work_as_they_are(self) -> None:
        post = PostFactory(author=self.author, tags=["a", "b"])
        self.assertIn(post, self.session)
        self.assertEqual(len(self.factories.PostFactory.create_batch(2, tags=["a"])), 2)
        self.assertEqual(await self.session.scalar(select(func.count()).select_from(Post)), 6)
        self.assertRowCount(Tag, 2)

    async def test_pending_rows_of_the_async_session_are_counted(self) -> None:
        self.session.add(Tag(name="pending"))
        self.assertRowCount(Tag, 1, Tag.name == "pending")

    async def test_awaited_queries_count(self) -> None:
        with self.assertNumQueries(1):
            await self.session.execute(text("SELECT 1"))
        await self.session.run_sync(lambda _: PostFactory())
        self.assertRowCount(Post, 4)


class LazyLoadTest(Blog, AsyncDatabaseTest):
    author: Author

    async def test_an_attribute_that_would_load_still_raises_as_in_production(self) -> None:
        await self.session.execute(text("SELECT 1"))
        self.assertNotIn("links", inspect(self.author).dict)
        with self.assertRaisesRegex((StatementError, MissingGreenlet), "greenlet_spawn has not been called"):
            self.author.links  # noqa: B018


class AsyncpgTest(AsyncTest):
    engines = [lambda: create_async_engine("postgresql+asyncpg://nobody@localhost/blog")]

    @classmethod
    def setUpClass(cls) -> None:
        require_module("asyncpg")
        super().setUpClass()


class AfterwardsTest(unittest.TestCase):
    def test_the_factories_are_as_they_were(self) -> None:
        self.assertIsNone(AuthorFactory._meta.sqlalchemy_session)
        self.assertIs(TagFactory._meta.sqlalchemy_session, ApplicationSession)
        self.assertIs(PostFactory._meta.sqlalchemy_session_factory, ApplicationSession)
        self.assertNotIn("_generate", vars(PostFactory))
        self.assertIsInstance(AsyncSession, type)


if __name__ == "__main__":
    unittest.main()
