"""Ids that start from the same number, and classes of one module that share a transaction or do not."""

from __future__ import annotations

import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

from sqlalchemy import MetaData, create_engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbtestcase import DatabaseTest
from tests.support.inner import InnerRuns


class Base(DeclarativeBase):
    pass


class Counted(Base):
    __tablename__ = "counted"

    id: Mapped[int] = mapped_column(primary_key=True)


class OtherBase(DeclarativeBase):
    metadata = MetaData()


class Elsewhere(OtherBase):
    __tablename__ = "elsewhere"

    id: Mapped[int] = mapped_column(primary_key=True)


def new(test: DatabaseTest, entity: Any = Counted) -> int:
    """The id of a new row, put in by the application."""
    with Session(test.engine) as session:
        row = entity()
        session.add(row)
        session.commit()
        return int(row.id)


class Careless(DatabaseTest):
    metadata = Base.metadata

    def test_ids_do_not_matter(self) -> None:
        for _ in range(5):
            new(self)


class ResetSequencesTest(InnerRuns):
    def counting(self, first: int, **attributes: Any) -> type[DatabaseTest]:
        """A class whose tests expect their first row to have the id ``first``."""

        def test(test: DatabaseTest) -> None:
            self.assertEqual([new(test), new(test)], [first, first + 1])

        names = {"metadata": Base.metadata, "reset_sequences": True, "test_1": test, "test_2": test, **attributes}
        return type("Counting", (DatabaseTest,), names)

    def test_ids_start_from_the_same_number_whatever_classes_ran_before(self) -> None:
        self.assertPassed(Careless, self.counting(1), Careless, self.counting(1), tests=6)

    def test_ids_start_from_the_same_number_in_a_transaction_for_each_test(self) -> None:
        self.assertPassed(Careless, self.counting(1, transaction_scope="test"), Careless, tests=4)

    def test_class_data_get_the_same_ids_in_each_class(self) -> None:
        def data(cls: Any) -> None:
            cls.first = Counted()
            cls.session.add(cls.first)
            cls.session.flush()
            self.assertEqual(cls.first.id, 1)

        classes = [self.counting(2, setUpTestData=classmethod(data)) for _ in range(2)]
        self.assertPassed(classes[0], Careless, classes[1], tests=5)

    def test_base_data_keep_their_ids(self) -> None:
        def load(cls: Any, session: Session) -> None:
            session.execute(insert(Counted).values([{"id": 1}]))
            session.connection().exec_driver_sql("ALTER SEQUENCE counted_id_seq RESTART WITH 1000")

        base = {"load_base_data": classmethod(load)}
        self.assertPassed(self.counting(1000, **base), self.counting(1000, **base), tests=4)


class ModuleTest(InnerRuns):
    def module(self, set_up: Callable[[], None] | None = None) -> str:
        """The name of a module of test classes."""
        module = types.ModuleType(f"inner_module_{id(self)}")
        if set_up is not None:
            module.setUpModule = set_up  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        self.addCleanup(sys.modules.pop, module.__name__)
        return module.__name__

    def test_a_class_on_another_database_stands_beside_the_transaction_of_its_module(self) -> None:
        class First(DatabaseTest):
            __module__ = self.module()
            metadata = Base.metadata
            transaction_scope = "module"

            def test_1(self) -> None:
                new(self)
                self.assertRowCount(Counted, 1)

            test_2 = test_1

        class Other(DatabaseTest):
            __module__ = First.__module__
            metadata = OtherBase.metadata
            transaction_scope = "module"

            def test_1(self) -> None:
                new(self, Elsewhere)
                self.assertRowCount(Elsewhere, 1)

            test_2 = test_1

        class Again(First):
            __module__ = First.__module__

        self.assertPassed(First, Other, Again, tests=6)

    def test_a_class_with_another_driver_is_told_that_it_would_not_see_the_rows(self) -> None:
        class First(DatabaseTest):
            __module__ = self.module()
            metadata = Base.metadata
            transaction_scope = "module"

            def test_1(self) -> None: ...

        class Other(First):
            __module__ = First.__module__
            engines = [create_engine("postgresql+psycopg2://nobody@db.invalid/shop")]

        result = self.assertFailed(
            First, Other, pattern="Other uses another server or driver than the rest of its module"
        )
        self.assertEqual(len(result), 1)

    def test_a_class_in_a_module_resets_sequences_though_the_module_does_not(self) -> None:
        class First(DatabaseTest):
            __module__ = self.module()
            metadata = Base.metadata
            transaction_scope = "module"

            def test_1(self) -> None:
                new(self)

        class Resetting(First):
            __module__ = First.__module__
            reset_sequences = True
            ids: list[int] = []

            def test_1(self) -> None:
                self.ids.append(new(self))
                self.assertEqual(len(set(self.ids)), 1)

            test_2 = test_1

        self.assertPassed(First, Resetting, tests=3)


if __name__ == "__main__":
    unittest.main()
