"""The fingerprint of a model: what changes it, and that every process agrees."""

import unittest
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ARRAY,
    DDL,
    CheckConstraint,
    Column,
    Computed,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    Sequence,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
    func,
)
from sqlalchemy.dialects.postgresql import DOMAIN, JSONB
from sqlalchemy.orm import Session

from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.errors import SchemaError
from tests.support.runners import ROOT, run_python

Change = Callable[[MetaData, Table], object]


def model(change: Change | None = None) -> MetaData:
    metadata = MetaData()
    table = Table("author", metadata, Column("id", Integer, primary_key=True), Column("name", String(50)))
    if change is not None:
        change(metadata, table)
    return metadata


def fingerprint(change: Change | None = None, **options: Any) -> str:
    return MetadataRecipe(model(change), **options).fingerprint()


class Wrapped(TypeDecorator[Any]):
    impl = Enum("a", "b", name="wrapped")
    cache_ok = True


class FingerprintTest(unittest.TestCase):
    def test_the_same_model_has_the_same_fingerprint(self) -> None:
        self.assertEqual(fingerprint(), fingerprint())

    def test_everything_that_create_all_makes_counts(self) -> None:
        def column(*arguments: Any, **options: Any) -> Change:
            return lambda metadata, table: table.append_column(Column("added", *arguments, **options))

        def listener(name: str, text: str) -> Change:
            return lambda metadata, table: event.listen(metadata, name, DDL(text))

        changes: dict[str, Change] = {
            "a column": column(Integer),
            "its type": column(Numeric(10, 2)),
            "its length": column(Numeric(10, 3)),
            "a default of the server": column(Integer, server_default="1"),
            "another default": column(Integer, server_default="2"),
            "NOT NULL": column(Integer, nullable=False),
            "a comment": column(Integer, comment="one"),
            "another comment": column(Integer, comment="two"),
            "identity": column(Integer, Identity(start=5)),
            "computed": column(Integer, Computed("id * 2")),
            "a foreign key": column(Integer, ForeignKey("author.id")),
            "what it does": column(Integer, ForeignKey("author.id", ondelete="CASCADE")),
            "added later": column(Integer, ForeignKey("author.id", use_alter=True, name="later")),
            "deferred": column(Integer, ForeignKey("author.id", deferrable=True, initially="DEFERRED")),
            "an enum": column(Enum("a", "b", name="kind")),
            "its values": column(Enum("a", "c", name="kind")),
            "their order": column(Enum("b", "a", name="kind")),
            "its schema": column(Enum("a", "b", name="kind", schema="other")),
            "an enum in an array": column(ARRAY(Enum("a", "b", name="kind"))),
            "its values there": column(ARRAY(Enum("a", "c", name="kind"))),
            "an enum in a decorator": column(Wrapped()),
            "a domain": column(DOMAIN("positive", Integer, check="VALUE > 0")),
            "its check": column(DOMAIN("positive", Integer, check="VALUE > 1")),
            "its base": column(DOMAIN("positive", Numeric, check="VALUE > 0")),
            "a type of the dialect": column(JSONB),
            "a check": lambda metadata, table: table.append_constraint(CheckConstraint("id > 0", name="positive")),
            "a unique constraint": lambda metadata, table: table.append_constraint(UniqueConstraint("name")),
            "an index": lambda metadata, table: Index("by_name", table.c.name),
            "how it is made": lambda metadata, table: Index("by_name", table.c.name, postgresql_using="hash"),
            "over an expression": lambda metadata, table: Index("by_name", func.lower(table.c.name)),
            "a comment on the table": lambda metadata, table: setattr(table, "comment", "authors"),
            "a sequence": lambda metadata, table: Sequence("numbers", metadata=metadata),
            "its start": lambda metadata, table: Sequence("numbers", metadata=metadata, start=5),
            "a table": lambda metadata, table: Table("book", metadata, Column("id", Integer)),
            "in a schema": lambda metadata, table: Table("book", metadata, Column("id", Integer), schema="other"),
            "a statement before": listener("before_create", "CREATE EXTENSION citext"),
            "another": listener("before_create", "CREATE EXTENSION hstore"),
            "a statement after": listener("after_create", "CREATE EXTENSION citext"),
            "for a dialect": lambda metadata, table: event.listen(
                metadata, "after_create", DDL("CREATE EXTENSION citext").execute_if(dialect="postgresql")
            ),
            "on a table": lambda metadata, table: event.listen(table, "after_create", DDL("SELECT 1")),
            "a function": lambda metadata, table: event.listen(table, "after_create", one),
            "another function": lambda metadata, table: event.listen(table, "after_create", two),
        }
        seen = {fingerprint(): "nothing"}
        for name, change in changes.items():
            found = fingerprint(change)
            self.assertNotIn(found, seen, f"{name} has the fingerprint of {seen.get(found)}")
            seen[found] = name

    def test_base_data_count_and_with_them_the_defaults_that_python_fills_in(self) -> None:
        def first(session: Session) -> None:
            session.add("first")

        def second(session: Session) -> None:
            session.add("second")

        def default(value: object) -> Change:
            return lambda metadata, table: table.append_column(Column("added", Text, default=value))

        found = [fingerprint(), fingerprint(base_data=first), fingerprint(base_data=second)]
        self.assertEqual(len(set(found)), 3)
        self.assertEqual(fingerprint(default("a")), fingerprint(default("b")))
        self.assertNotEqual(fingerprint(default("a"), base_data=first), fingerprint(default("b"), base_data=first))

    def test_a_model_that_is_changed_in_a_running_process_is_described_anew(self) -> None:
        metadata = model()
        before = MetadataRecipe(metadata).fingerprint()
        metadata.tables["author"].append_column(Column("added", Integer))
        self.assertNotEqual(MetadataRecipe(metadata).fingerprint(), before)

    def test_several_metadata_count_in_their_order(self) -> None:
        first, second = model(), MetaData()
        Table("book", second, Column("id", Integer))
        found = [MetadataRecipe(given).fingerprint() for given in (first, [first, second], [second, first])]
        self.assertEqual(len(set(found)), 3)

    def test_circular_foreign_keys(self) -> None:
        def circle(metadata: MetaData, table: Table) -> None:
            Table(
                "book", metadata, Column("id", Integer, primary_key=True), Column("author_id", ForeignKey("author.id"))
            )
            table.append_column(Column("book_id", ForeignKey("book.id")))

        self.assertEqual(fingerprint(circle), fingerprint(circle))

    def test_a_model_that_cannot_be_written_is_named(self) -> None:
        with self.assertRaisesRegex(SchemaError, "author"):
            fingerprint(lambda metadata, table: table.append_column(Column("added")))

    def test_every_process_agrees(self) -> None:
        program = (
            "from tests.unit.backends.test_descriptions import *\n"
            "def change(metadata, table):\n"
            "    for name in 'hgfedcba': Index(name, table.c.name)\n"
            "    table.append_constraint(UniqueConstraint('name'))\n"
            "    table.append_column(Column('kind', Enum('a', 'b', name='kind')))\n"
            "    for name in 'zyx': Table(name, metadata, Column('a', ForeignKey('author.id')), schema=name)\n"
            "    event.listen(metadata, 'after_create', one); event.listen(table, 'after_create', DDL('SELECT 1'))\n"
            "print(fingerprint(change, base_data=two))"
        )
        found = set()
        for seed in ({"PYTHONHASHSEED": "0"}, {}):  # by default there is another for each process
            done = run_python(["-c", program], cwd=ROOT, env=seed)
            done.check_returncode()
            found.add(done.stdout)
        self.assertEqual(len(found), 1)


def one(target: object, connection: Any, **_: object) -> None:
    connection.exec_driver_sql("SELECT 1")


def two(target: object, connection: Any = None, **_: object) -> None:
    connection.exec_driver_sql("SELECT 2")
