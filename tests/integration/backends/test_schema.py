"""Tables made from MetaData on a real PostgreSQL: schemas, listeners, several MetaData, circles, base data."""

from typing import Any

from sqlalchemy import (
    DDL,
    URL,
    Column,
    Connection,
    Enum,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from dbtestcase.backends.schema import MetadataRecipe
from tests.support.postgresql import PostgreSQLTestCase


class BuildTestCase(PostgreSQLTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.place: URL = self.enterContext(self.database("made_here"))

    def tables(self) -> set[str]:
        rows = self.ask(
            "SELECT schemaname || '.' || tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
            self.place,
        )
        return {name for (name,) in rows}


class BuildTest(BuildTestCase):
    def test_schemas_of_tables_enums_and_sequences_are_made_where_they_are_missing(self) -> None:
        metadata = MetaData()
        Table("a", metadata, Column("id", Integer), schema="First")
        Table("b", metadata, Column("kind", Enum("x", "y", name="kind", schema="second")))
        Sequence("numbers", metadata=metadata, schema="third")
        Table("c", metadata, Column("id", Integer), schema="there")
        self.ask("CREATE SCHEMA there", self.place)
        MetadataRecipe(metadata).build(self.place)
        self.assertEqual(self.tables(), {"First.a", "public.b", "there.c"})

    def test_a_listener_that_makes_the_schema_itself_is_not_in_the_way(self) -> None:
        metadata = MetaData(schema="own")
        Table("a", metadata, Column("id", Integer))
        event.listen(metadata, "before_create", DDL("CREATE SCHEMA own"))
        MetadataRecipe(metadata).build(self.place)
        self.assertEqual(self.tables(), {"own.a"})
        self.assertEqual(len(list(metadata.dispatch.before_create)), 1)

    def test_the_same_with_an_enum_of_the_schema(self) -> None:
        metadata = MetaData(schema="own")
        event.listen(metadata, "before_create", DDL("CREATE SCHEMA own"))
        Table("a", metadata, Column("kind", Enum("x", name="kind", metadata=metadata)))
        MetadataRecipe(metadata).build(self.place)
        self.assertEqual(self.tables(), {"own.a"})

    def test_listeners_are_honoured(self) -> None:
        metadata = MetaData()
        table = Table("a", metadata, Column("id", Integer))
        event.listen(table, "after_create", DDL("CREATE INDEX by_id ON %(fullname)s (id)"))
        event.listen(metadata, "after_create", DDL("CREATE TABLE never (id int)").execute_if(dialect="mysql"))

        @event.listens_for(metadata, "after_create")
        def fill(target: MetaData, connection: Connection, **_: Any) -> None:
            connection.execute(table.insert(), [{"id": 7}])

        MetadataRecipe(metadata).build(self.place)
        self.assertEqual(self.ask("SELECT * FROM a", self.place), [(7,)])
        self.assertEqual(self.ask("SELECT count(*) FROM pg_indexes WHERE indexname = 'by_id'", self.place), [(1,)])
        self.assertEqual(self.tables(), {"public.a"})

    def test_several_metadata_are_made_in_their_order_and_may_share_an_enum(self) -> None:
        kind = Enum("x", "y", name="kind")
        first, second = MetaData(), MetaData()
        parent = Table("parent", first, Column("id", Integer, primary_key=True), Column("kind", kind))
        Table("child", second, Column("parent_id", ForeignKey(parent.c.id)), Column("kind", kind.copy()))
        MetadataRecipe([first, second]).build(self.place)
        self.assertEqual(self.tables(), {"public.parent", "public.child"})

    def test_circular_foreign_keys(self) -> None:
        metadata = MetaData()
        for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
            key = ForeignKey(f"{other}.id", name=f"{name}_{other}")
            Table(name, metadata, Column("id", Integer, primary_key=True), Column(f"{other}_id", key))
        MetadataRecipe(metadata).build(self.place)
        self.assertEqual(self.ask("SELECT count(*) FROM pg_constraint WHERE contype = 'f'", self.place), [(3,)])

    def test_base_data_are_committed_whether_or_not_the_hook_commits(self) -> None:
        class Base(DeclarativeBase):
            pass

        class Country(Base):
            __tablename__ = "country"
            code: Mapped[str] = mapped_column(primary_key=True)

        def load(session: Session) -> None:
            session.add(Country(code="de"))
            session.commit()
            session.add(Country(code="fr"))

        MetadataRecipe(Base.metadata, load).build(self.place)
        self.assertEqual(self.ask("SELECT code FROM country ORDER BY code", self.place), [("de",), ("fr",)])

    def test_nothing_stays_connected(self) -> None:
        metadata = MetaData()
        Table("a", metadata, Column("id", Integer))
        MetadataRecipe(metadata, lambda session: session.execute(text("SELECT 1"))).build(self.place)
        self.ask("ALTER DATABASE made_here RENAME TO renamed")  # refused while anybody is connected
        self.ask("ALTER DATABASE renamed RENAME TO made_here")


class InTransactionTest(BuildTestCase):
    def test_tables_and_base_data_go_with_the_transaction(self) -> None:
        metadata = MetaData(schema="own")
        table = Table("a", metadata, Column("id", Integer, Identity(), primary_key=True), Column("title", Text))

        def load(session: Session) -> None:
            session.execute(table.insert(), [{"title": "one"}])
            session.commit()
            session.execute(table.insert(), [{"title": "two"}])

        engine = create_engine(self.place, poolclass=NullPool)
        with engine.connect() as connection, connection.begin() as transaction:
            MetadataRecipe(metadata, load).create_in(connection)
            self.assertEqual(connection.exec_driver_sql("SELECT count(*) FROM own.a").scalar_one(), 2)
            self.assertTrue(transaction.is_active)
            transaction.rollback()
        self.assertEqual(self.tables(), set())
        self.assertEqual(self.ask("SELECT FROM pg_namespace WHERE nspname = 'own'", self.place), [])
