"""What a dialect asks at its engine's first connection is of the database at hand, whichever class is the first."""

from __future__ import annotations

import itertools
import tempfile
import unittest
from typing import Any, ClassVar
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import create_engine, select
from sqlalchemy.dialects.postgresql import HSTORE
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbtestcase import AsyncDatabaseTest, AsyncTruncatingDatabaseTest, DatabaseTest, TruncatingDatabaseTest
from dbtestcase.drivers import first_connections
from tests.support.inner import InnerRuns
from tests.support.mariadb import mariadb_url, require_mariadb
from tests.support.production import PostgreSQLProduction
from tests.support.requirements import require_module
from tests.support.runners import run_suite, write_suite

ATTRIBUTES = {"colour": "red"}


class Base(DeclarativeBase):
    pass


class Bag(Base):
    __tablename__ = "bag"

    id: Mapped[int] = mapped_column(primary_key=True)
    attributes: Mapped[dict[str, str]] = mapped_column(HSTORE)


class Extended:
    """A class whose database has the type under another number than those of other classes."""

    metadata = Base.metadata
    tables_before: ClassVar[int]
    app: ClassVar[Any]

    @classmethod
    def load_initial_schema(cls, connection: Any) -> None:
        for number in range(cls.tables_before):
            connection.exec_driver_sql(f"CREATE TABLE before_{number} (a int)")
        connection.exec_driver_sql("CREATE EXTENSION hstore")


class Blocking(Extended):
    def test_it(self: Any) -> None:
        with Session(self.app) as session:
            session.add(Bag(attributes=ATTRIBUTES))
            session.commit()
            self.assertEqual(session.scalar(select(Bag.attributes)), ATTRIBUTES)


class Awaiting(Extended):
    async def test_it(self: Any) -> None:
        async with AsyncSession(self.app) as session:
            session.add(Bag(attributes=ATTRIBUTES))
            await session.commit()
            self.assertEqual(await session.scalar(select(Bag.attributes)), ATTRIBUTES)


def made(base: Any, test: Any, tables_before: int, engine: Any) -> Any:
    words = {"__module__": __name__, "tables_before": tables_before, "app": engine, "engines": [engine]}
    return type(f"{base.__name__}With{tables_before}", (test, base), words)


class TypesOfExtensionsTest(InnerRuns):
    def test_in_one_class_after_another(self) -> None:
        for driver in ("psycopg", "psycopg2"):
            require_module(driver)
            engine = create_engine(f"postgresql+{driver}://app@db.invalid/shop")
            for base, tables_before in itertools.product((DatabaseTest, TruncatingDatabaseTest), (2, 0, 2)):
                with self.subTest(driver=driver, base=base.__name__, tables_before=tables_before):
                    self.assertPassed(made(base, Blocking, tables_before, engine), tests=1)

    def test_what_is_known_of_a_database_is_not_asked_again(self) -> None:
        engine = create_engine("postgresql+psycopg://app@db.invalid/shop")

        def test_it(test: Any) -> None:
            engine.connect().close()

        words = {"__module__": __name__, "engines": [engine], "test_it": test_it}
        kinds = [type(f"{base.__name__}Asks", (base,), words) for base in (DatabaseTest, TruncatingDatabaseTest)]
        with mock.patch.object(first_connections, "initialize", wraps=first_connections.initialize) as asks:
            for cls in kinds * 3:
                self.assertPassed(cls, tests=1)
        self.assertEqual(asks.call_count, 1, "the first asks by itself, the second anew")

    def test_of_an_async_engine(self) -> None:
        engine = create_async_engine("postgresql+psycopg://app@db.invalid/shop")
        for base, tables_before in itertools.product((AsyncDatabaseTest, AsyncTruncatingDatabaseTest), (2, 0, 2)):
            with self.subTest(base=base.__name__, tables_before=tables_before):
                self.assertPassed(made(base, Awaiting, tables_before, engine), tests=1)

    def test_of_the_applications_own_database_before_and_after(self) -> None:
        production = PostgreSQLProduction("first_connections")
        self.addCleanup(production.close)
        with create_engine(production.url("psycopg"), poolclass=sa.NullPool).begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION hstore")
        for driver, is_early in itertools.product(("psycopg", "psycopg2"), (True, False)):
            with self.subTest(driver=driver, is_early=is_early):
                engine = create_engine(production.url(driver))
                self.addCleanup(engine.dispose)
                before = self.stored(engine) if is_early else ATTRIBUTES
                self.assertPassed(made(DatabaseTest, Blocking, 0, engine), tests=1)
                after = self.stored(engine)  # on the connection from before, if there is one
                engine.dispose()
                self.assertEqual([before, after, self.stored(engine)], [ATTRIBUTES] * 3)

    def stored(self, engine: sa.Engine) -> Any:
        with engine.connect() as connection:
            value = sa.literal(ATTRIBUTES, HSTORE())
            return connection.scalar(select(sa.cast(value, HSTORE())))


ENV = """
    from alembic import context
    from shop import engine, metadata

    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=metadata)
        with context.begin_transaction():
            context.run_migrations()
"""
REVISION = """
    import sqlalchemy as sa
    from alembic import op

    revision, down_revision = "one", None

    def upgrade():
        if not sa.inspect(op.get_bind()).has_table("note"):
            op.create_table("note", sa.Column("id", sa.Integer, primary_key=True))

    def downgrade():
        op.drop_table("note")
"""


class DefaultSchemaTest(unittest.TestCase):
    def test_an_env_py_on_mysql_migrates_one_database_after_another_with_the_applications_engine(self) -> None:
        require_mariadb()
        suite = {
            "shop.py": """
                import sqlalchemy as sa

                engine = sa.create_engine("mysql+pymysql://shop@db.invalid/shop")
                metadata = sa.MetaData()
                note = sa.Table("note", metadata, sa.Column("id", sa.Integer, primary_key=True))
            """,
            "test_shop.py": """
                import os
                from dbtestcase import MigratedDatabaseTest, TruncatingDatabaseTest
                from shop import engine, note

                class Migrated:
                    url, engines = os.environ["SHOPS_SERVER"], [engine]

                    def test_a_row(self):
                        with engine.begin() as connection:
                            connection.execute(note.insert())
                        self.assertRowCount(note, 1)

                class FirstTest(Migrated, MigratedDatabaseTest):
                    migrations = "first.ini"
                class SecondTest(Migrated, MigratedDatabaseTest):
                    migrations = "second.ini"
                class ThirdTest(Migrated, TruncatingDatabaseTest):
                    migrations = "first.ini"
            """,
        }
        for name in ("first", "second"):
            suite[f"{name}.ini"] = f"[alembic]\nscript_location = %(here)s/{name}\n"
            suite[f"{name}/env.py"] = ENV
            suite[f"{name}/versions/one.py"] = REVISION
        server = mariadb_url().set(drivername="mysql+pymysql", database="beside").render_as_string(False)
        folder = write_suite(self.enterContext(tempfile.TemporaryDirectory()), suite)
        run_suite(folder, "unittest", env={"SHOPS_SERVER": server}).expect(passed=3)


if __name__ == "__main__":
    unittest.main()
