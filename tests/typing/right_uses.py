"""How the library is used in typed code: clean for every type checker, and what is revealed is never ``Any``.

``reveal_type(x)  # is: T`` says what both checkers must reveal, without the names of modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import reveal_type

import pytest
from factory.alchemy import SQLAlchemyModelFactory
from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
from sqlalchemy import Connection, Engine, MetaData, create_engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, registry

from dbtestcase import (
    AsyncDatabaseTest,
    AsyncLife,
    AsyncMigratedDatabaseTest,
    AsyncTruncatingDatabaseTest,
    DatabaseTest,
    Factories,
    Life,
    MigratedDatabaseTest,
    MigrationChecks,
    TruncatingDatabaseTest,
    session_scope,
)
from dbtestcase.pytest_plugin import database_fixture


class Base(DeclarativeBase):
    pass


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    is_published: Mapped[bool]


class PostFactory(SQLAlchemyModelFactory):
    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride]  # that is how FactoryBoy works
        model = Post


class PostMaker(SQLAlchemyFactory[Post]):
    pass


engine = create_engine("postgresql+psycopg://localhost/blog")
async_engine = create_async_engine("postgresql+psycopg://localhost/blog")


def make_engine() -> Engine:
    return engine


def make_engines() -> dict[str, Engine]:
    return {"default": engine}


class BlogTest(DatabaseTest):
    url = "postgresql+psycopg://"
    database = "existing"
    metadata = Base.metadata
    engines = [engine, async_engine, make_engine, lambda: engine]
    outside = [make_engine]
    factories = Factories(PostFactory, PostMaker)
    transaction_scope = "module"
    reset_sequences = True
    post: Post

    @classmethod
    def load_initial_schema(cls, connection: Connection) -> None:
        reveal_type(connection)  # is: Connection

    @classmethod
    def load_base_data(cls, session: Session) -> None:
        session.add(Post(title="first"))

    @classmethod
    def setUpTestData(cls) -> None:
        reveal_type(cls.session)  # is: Session
        cls.post = Post(title="Hello")
        cls.session.add(cls.post)

    def setUp(self) -> None:
        reveal_type(self.enlist(create_engine("sqlite://")))  # is: Engine
        reveal_type(self.enlist(async_engine))  # is: AsyncEngine
        self.session = Session(self.engine)

    def test_what_a_test_is_given(self) -> None:
        reveal_type(self.session)  # is: Session
        reveal_type(self.connection)  # is: Connection
        reveal_type(self.engine)  # is: Engine
        reveal_type(self.database_url)  # is: str
        reveal_type(self.post)  # is: Post
        with self.session_scope() as session:
            reveal_type(session)  # is: Session

    def test_factories(self) -> None:
        reveal_type(self.factories)  # is: FactoryManager
        reveal_type(self.factories.PostFactory)  # is: ManagedFactory
        self.factories.PostFactory.create(title="Hello")
        self.factories.PostFactory(title="Hello")
        reveal_type(self.factories[PostFactory])  # is: type[PostFactory]
        reveal_type(self.factories[PostMaker].create_sync(title="Hello"))  # is: Post

    def test_assertions(self) -> None:
        self.assertRowCount(Post, 1)
        self.assertRowCount(Post.__table__, 1, Post.title == "Hello", Post.is_published, msg="published")
        with self.captureQueries() as queries:
            self.session.scalars(select(Post)).all()
        reveal_type(queries)  # is: Recording
        reveal_type(queries[0].milliseconds)  # is: float | None
        with self.assertNumQueries(1) as counted:
            self.session.scalars(select(Post)).all()
        reveal_type(counted)  # is: Recording
        reveal_type(self.assertMaxQueries(3, len, "abc"))  # is: int
        reveal_type(self.assertNoRepeatedQueries(make_engine, allowed=2))  # is: Engine
        with self.assertNoRepeatedQueries(allowed=2):
            self.session.scalars(select(Post)).all()


class SeveralTables(DatabaseTest):
    metadata = [Base.metadata, Base, registry(), MetaData()]
    engines = make_engines


class OfOneBase(DatabaseTest):
    metadata = Base
    engines = {"default": engine}


class AsyncBlogTest(AsyncDatabaseTest):
    metadata = Base.metadata
    engines = [async_engine]
    factories = Factories(PostFactory, PostMaker)

    @classmethod
    def setUpTestData(cls) -> None:
        reveal_type(cls.session)  # is: Session

    async def test_what_a_test_is_given(self) -> None:
        reveal_type(self.session)  # is: AsyncSession
        reveal_type(self.sync_session)  # is: Session
        reveal_type(self.engine)  # is: AsyncEngine
        reveal_type(self.sync_engine)  # is: Engine
        reveal_type(self.database_url)  # is: str
        async with self.session_scope() as session:
            reveal_type(session)  # is: AsyncSession
        with self.sync_session_scope() as sync_session:
            reveal_type(sync_session)  # is: Session
        reveal_type(self.factories[PostMaker].create_sync())  # is: Post


class MigrationsTest(MigrationChecks, MigratedDatabaseTest):
    migrations = "alembic.ini"
    x_arguments = {"tenant": "acme"}
    exclude_from_comparison = ["legacy_*"]

    def test_a_revision(self) -> None:
        self.downgrade("0008")
        self.upgrade()
        reveal_type(self.current_revision())  # is: str | None
        reveal_type(self.current_revisions())  # is: tuple[str, ...]
        self.assertModelsMatchMigrations(exclude=["legacy_*"])


class AsyncMigrationsTest(AsyncMigratedDatabaseTest):
    async def test_a_revision(self) -> None:
        self.upgrade("head")
        reveal_type(self.session)  # is: AsyncSession


class QueueTest(TruncatingDatabaseTest):
    metadata = Base.metadata
    migrations = None

    def test_it(self) -> None:
        reveal_type(self.session)  # is: Session


class AsyncQueueTest(AsyncTruncatingDatabaseTest):
    metadata = Base.metadata

    async def test_it(self) -> None:
        reveal_type(self.session)  # is: AsyncSession
        reveal_type(self.engine)  # is: AsyncEngine


def setUpModule() -> None:
    reveal_type(BlogTest.enterModule())  # is: Session


def without_a_runner() -> None:
    with BlogTest.isolated("a script") as test:
        reveal_type(test)  # is: BlogTest
        reveal_type(test.session)  # is: Session
    life = Life(BlogTest)
    life.begin_class()
    reveal_type(life.begin_test())  # is: BlogTest
    life.end_test()
    life.end_class()


async def without_a_runner_in_a_loop() -> None:
    async with AsyncBlogTest.isolated() as test:
        reveal_type(test)  # is: AsyncBlogTest
        reveal_type(test.session)  # is: AsyncSession
    reveal_type(await AsyncLife(AsyncBlogTest).begin_test())  # is: AsyncBlogTest


blog = database_fixture(BlogTest)
reveal_type(blog)  # is: DatabaseFixture[BlogTest]
async_blog = database_fixture(AsyncBlogTest, name="ablog", autouse=True)


@pytest.fixture
def a_post(blog: BlogTest) -> Post:
    return blog.post


def a_session() -> Iterator[Session]:
    with session_scope(engine) as session:
        reveal_type(session)  # is: Session
        yield session


def of_the_class(case: type[BlogTest]) -> tuple[Engine, str]:
    return case.engine, case.database_url


def of_the_async_class(case: type[AsyncBlogTest]) -> tuple[AsyncEngine, Engine]:
    return case.engine, case.sync_engine


async def own_session(test: AsyncBlogTest) -> None:
    test.session = AsyncSession(async_engine)
