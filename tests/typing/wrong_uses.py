"""Slips that an editor shows: each line marked ``# wrong`` is reported by every type checker, and no other is."""

from __future__ import annotations

from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
from sqlalchemy import MetaData, Table, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from dbtestcase import (
    AsyncDatabaseTest,
    DatabaseTest,
    Factories,
    FactoryManager,
    Life,
    MigratedDatabaseTest,
    TruncatingDatabaseTest,
)
from dbtestcase.pytest_plugin import database_fixture


class Base(DeclarativeBase):
    pass


class Post(Base):
    __tablename__ = "posts"


class PostMaker(SQLAlchemyFactory[Post]):
    pass


engine = create_engine("postgresql+psycopg://localhost/blog")
async_engine = create_async_engine("postgresql+psycopg://localhost/blog")
makes_sessions = sessionmaker(engine)
posts = Table("posts", MetaData())


def make_session() -> Session:
    return Session(engine)


class TheTables(DatabaseTest):
    metadata = posts  # wrong


class TheListOfTables(DatabaseTest):
    metadata = [posts]  # wrong


class TheNameOfTheTables(DatabaseTest):
    metadata = "Base.metadata"  # wrong


class TheEngineInTheTables(DatabaseTest):
    metadata = engine  # wrong


class TheUrlOfTheEngine(DatabaseTest):
    engines = ["postgresql+psycopg://localhost/blog"]  # wrong


class TheNameOfTheEngine(DatabaseTest):
    engines = "blog.db.engine"  # wrong


class TheSessions(DatabaseTest):
    engines = [makes_sessions]  # wrong


class TheFunctionOfASession(DatabaseTest):
    engines = [make_session]  # wrong


class TheSession(DatabaseTest):
    outside = [Session(engine)]  # wrong


class TheFlag(DatabaseTest):
    outside = True  # wrong


class TheInstance(DatabaseTest):
    factories = Factories(Post())  # wrong


class TheName(DatabaseTest):
    factories = Factories("PostMaker")  # wrong


class TheScope(DatabaseTest):
    transaction_scope = "function"  # wrong


class TheFactoryOfSessions(DatabaseTest):
    session_class = sessionmaker()  # wrong


class TheDatabase(DatabaseTest):
    database = "blog_test"  # wrong


class TheWord(DatabaseTest):
    reset_sequences = "yes"  # wrong


class TheEngineInTheUrl(DatabaseTest):
    url = engine  # wrong


class TheListOfFiles(MigratedDatabaseTest):
    migrations = ["alembic.ini"]  # wrong


class TheNumber(TruncatingDatabaseTest):
    migrations = 7  # wrong


class TheHook(DatabaseTest):
    @classmethod
    def load_base_data(cls, session: AsyncSession) -> None:  # wrong
        pass


class BlogTest(DatabaseTest):
    metadata = Base.metadata
    engines = [engine]
    factories = Factories(PostMaker)

    @classmethod
    def setUpTestData(cls) -> None:
        cls.connection.close()  # wrong

    async def test_a_sync_session_is_not_awaited(self) -> None:
        await self.session.commit()  # wrong

    def test_a_sync_session_only(self) -> None:
        self.session = AsyncSession(async_engine)  # wrong

    def test_sync_classes_have_no_sync_session(self) -> None:
        self.sync_session.commit()  # wrong

    def test_what_is_enlisted(self) -> None:
        self.enlist("postgresql+psycopg://localhost/blog")  # wrong
        self.enlist(Session(engine))  # wrong
        self.enlist(engine).sync_engine  # wrong

    def test_factories(self) -> None:
        self.factories[PostMaker].create_sync().heading  # wrong
        self.factories["PostMaker"]  # wrong

    def test_urls(self) -> None:
        self.database_url.render_as_string()  # wrong

    def test_assertions(self) -> None:
        self.assertRowCount(Post, "1")  # wrong
        self.assertNumQueries("3")  # wrong
        self.assertNumQueries(3, len, 5)  # wrong
        with self.captureQueries() as queries:
            queries[0].sql  # wrong

    def test_migrations_are_elsewhere(self) -> None:
        self.upgrade("head")  # wrong


class AsyncBlogTest(AsyncDatabaseTest):
    metadata = Base.metadata

    @classmethod
    def setUpTestData(cls) -> None:
        cls.session.run_sync(len)  # wrong

    async def test_an_async_session(self) -> None:
        self.session.query(Post)  # wrong
        self.session = Session(engine)  # wrong
        with self.session_scope():  # wrong
            pass

    async def test_a_sync_session(self) -> None:
        await self.sync_session.commit()  # wrong
        self.engine.raw_connection().cursor()  # wrong


def without_a_runner() -> None:
    with BlogTest.isolated() as test:
        test.published  # wrong
    with AsyncBlogTest.isolated():  # wrong
        pass
    Life(Base)  # wrong
    FactoryManager("session", [PostMaker])  # wrong


fixture = database_fixture(BlogTest)
fixture.session  # wrong
database_fixture(Base)  # wrong
database_fixture(BlogTest())  # wrong
