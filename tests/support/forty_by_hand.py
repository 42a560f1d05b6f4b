"""A ``conftest.py`` for the forty tests as one writes it without the library: a connection in an outer transaction."""

__all__ = ["BY_HAND"]

BY_HAND = """
import contextlib, functools, os
from types import SimpleNamespace
import psycopg
import pytest
from blog import db, services
from blog.models import Author, Base, Post
from sqlalchemy import create_engine, func, make_url, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

class Test:
    def __init__(self, connection):
        self.session = Session(connection, join_transaction_mode="create_savepoint")
        self.author = self.session.get(Author, 1)

    def assertRowCount(self, entity, n, *criteria):
        self.session.flush()
        rows = select(entity).where(*criteria).subquery()
        assert self.session.scalar(select(func.count()).select_from(rows)) == n

class Lent:                                     # the engine of the application, in the outer transaction
    def __init__(self, connection):
        self.connection = connection

    def connect(self):
        return contextlib.nullcontext(self.connection)

    def raw_connection(self):
        raw = self.connection.connection
        return Raw(AsyncCursor if self.connection.dialect.is_async else psycopg.Cursor, raw.driver_connection)

class Raw:
    def __init__(self, cursor, driver_connection):
        self.cursor = functools.partial(cursor, driver_connection)

    def commit(self):
        pass

    def close(self):
        pass

class AsyncCursor(contextlib.nullcontext):      # COPY from plain code in a greenlet
    def __init__(self, driver_connection):
        super().__init__(self)
        self.real = driver_connection.cursor()

    @contextlib.contextmanager
    def copy(self, text):
        copying = self.real.copy(text)
        copy = await_only(copying.__aenter__())
        yield SimpleNamespace(write_row=lambda row: await_only(copy.write_row(row)))
        await_only(copying.__aexit__(None, None, None))

@contextlib.contextmanager
def led(connection):
    db.Session.configure(bind=connection, join_transaction_mode="create_savepoint")
    services.engine = Lent(connection)
    test = Test(connection)
    yield test
    test.session.close()

url = make_url(os.environ["SCRATCH"])
engine, async_engine = create_engine(url), create_async_engine(url)

@pytest.fixture(scope="session", autouse=True)
def tables():
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        author = Author(name="somebody")
        session.add_all([author, Post(author=author, title="Notes", slug="notes")])
        session.commit()

@pytest.fixture(name="t")
def by_hand():
    with engine.connect() as connection:
        transaction = connection.begin()
        with led(connection) as test:
            yield test
        transaction.rollback()

@pytest.fixture(name="at")
def in_a_loop(t):
    return t

@pytest.fixture(name="on")
async def by_hand_async(anyio_backend):
    async with async_engine.connect() as connection:
        transaction = await connection.begin()
        with contextlib.ExitStack() as stack:
            test = await connection.run_sync(lambda sync: stack.enter_context(led(sync)))
            yield lambda body: connection.run_sync(lambda sync: body(test))
            await connection.run_sync(lambda sync: stack.close())
        await transaction.rollback()
    await async_engine.dispose()                # the next test has a loop of its own

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
