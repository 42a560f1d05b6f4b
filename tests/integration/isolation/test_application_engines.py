"""Habits of applications with their engines, pools and connections, which the sandbox must bear unnoticed."""

from __future__ import annotations

import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from dbtestcase import DatabaseTest, SandboxClosed
from tests.support.inner import InnerRuns

DRIVERS = ("psycopg", "psycopg2")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "habit_item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def unreachable(driver: str, **options: Any) -> Engine:
    """An application's engine, whose own server does not exist: whatever it does must happen in the sandbox."""
    return create_engine(f"postgresql+{driver}://nobody:secret@db.invalid/shop", **options)


def add(engine: Engine, name: str = "one") -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(Item).values(name=name))


class SkippingTest(InnerRuns):
    def test_a_function_among_engines_skips_no_class(self) -> None:
        def give_up() -> Engine:
            raise skip("no driver")

        class Inner(DatabaseTest):
            engines = [give_up]

            def test_it(self) -> None:
                self.fail("not reached")

        for skip in (unittest.SkipTest, pytest.skip.Exception):
            with self.subTest(skip):
                self.assertFailed(
                    Inner, pattern=r"give_up\(\) raised Skip\w+ \(no driver\): no test .* would run", tests=0
                )


class PoolsOfClassesTest(InnerRuns):
    def test_a_class_gets_the_pool_of_the_class_before_unless_something_has_changed(self) -> None:
        for driver in DRIVERS:
            engine = unreachable(driver)
            own, pools, heard = engine.pool, list[sa.Pool](), list[str]()

            class Inner(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

                def test_1(self) -> None:
                    add(engine)  # noqa: B023
                    self.assertRowCount(Item, 1)
                    pools.append(engine.pool)  # noqa: B023

            class Listening(Inner):
                def test_1(self) -> None:
                    sa.event.listen(engine, "checkout", lambda *_: heard.append("a test's"))  # noqa: B023
                    super().test_1()

            with self.subTest(driver=driver):
                self.assertPassed(Inner, tests=1)
                self.assertIs(engine.pool, own)
                self.assertPassed(Inner, Listening, tests=2)
                self.assertIs(pools[1], pools[0])
                self.assertTrue(heard)
                heard.clear()
                self.assertPassed(Inner, tests=1)
                self.assertEqual(heard, [], "what a test had listen to the pool has ended with its class")
                sa.event.listen(engine, "checkout", lambda *_: heard.append("the application's"))  # noqa: B023
                self.assertPassed(Inner, tests=1)
                self.assertIsNot(pools[-1], pools[-2])
                self.assertTrue(heard)


class PingTest(InnerRuns):
    def test_a_pool_that_pings_hands_its_connections_from_test_to_test(self) -> None:
        for driver in DRIVERS:
            engine = unreachable(driver, pool_pre_ping=True)

            class Inner(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

                def test_1(self) -> None:
                    add(engine)  # noqa: B023
                    self.assertRowCount(Item, 1)

                test_2 = test_3 = test_1

            with self.subTest(driver=driver):
                self.assertPassed(Inner, Inner, tests=6)

    def test_a_pool_that_pings_and_sets_something_on_connect(self) -> None:
        for driver in DRIVERS:
            engine = unreachable(driver, pool_pre_ping=True)

            @sa.event.listens_for(engine, "connect")
            def configure(connection: Any, record: Any) -> None:
                with connection.cursor() as cursor:
                    cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
                connection.commit()

            class Inner(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

                def test_1(self) -> None:
                    with engine.connect() as connection:  # noqa: B023
                        self.assertEqual(connection.scalar(text("SHOW timezone")), "Asia/Tokyo")

                test_2 = test_1

            with self.subTest(driver=driver):
                self.assertPassed(Inner, Inner, tests=4)

    def test_a_connection_that_is_kept_beyond_its_test_is_still_refused(self) -> None:
        engine = unreachable("psycopg", pool_pre_ping=True)
        kept = []

        class Inner(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]

            def test_1(self) -> None:
                kept.append(engine.connect())

            def test_2(self) -> None:
                kept.pop().execute(text("SELECT 1"))

        self.assertFailed(Inner, pattern="belongs to .*test_1, which has ended", tests=2)


class InvalidatedTest(InnerRuns):
    def test_an_invalidated_connection_is_rolled_back_and_connects_again_as_in_production(self) -> None:
        for driver in DRIVERS:
            engine = unreachable(driver)

            class Inner(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

                def test_1(self) -> None:
                    with engine.connect() as connection:  # noqa: B023
                        connection.execute(sa.insert(Item).values(name="lost"))
                        connection.invalidate()
                        with self.assertRaises(sa.exc.PendingRollbackError):
                            connection.execute(text("SELECT 1"))
                        connection.rollback()
                        connection.execute(sa.insert(Item).values(name="kept"))
                        connection.commit()
                    self.assertEqual(self.session.scalars(sa.select(Item.name)).all(), ["kept"])

            with self.subTest(driver=driver):
                self.assertPassed(Inner, tests=1)


class LeftOpenTest(InnerRuns):
    def test_a_connection_that_one_test_leaves_open_is_not_missing_in_the_pool_of_the_next(self) -> None:
        for driver in DRIVERS:
            engine = unreachable(driver, pool_size=1, max_overflow=0, pool_timeout=1)
            left = []

            class Inner(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

                def test_1(self) -> None:
                    add(engine)  # noqa: B023
                    connection = engine.connect()  # noqa: B023
                    self.assertEqual(connection.execute(sa.select(Item.name)).scalars().all(), ["one"])
                    left.append(connection)  # noqa: B023

                test_2 = test_3 = test_1

            with self.subTest(driver=driver):
                self.assertPassed(Inner, Inner, tests=6)
                for connection in left:
                    connection.close()  # whatever it is worth by now, it is no error
                self.assertEqual(engine.pool.checkedout(), 0)

    def test_a_connection_of_the_whole_class_stays_checked_out_and_usable(self) -> None:
        engine = unreachable("psycopg", pool_size=1, max_overflow=0, pool_timeout=1)

        class Inner(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                cls.shared = engine.connect()
                cls.addClassCleanup(cls.shared.close)

            def test_1(self) -> None:
                self.shared.execute(sa.insert(Item).values(name="one"))
                self.shared.commit()
                self.assertRowCount(Item, 1)

            test_2 = test_1

        self.assertPassed(Inner, tests=2)

    def test_a_session_that_nobody_removes_is_as_new_in_the_next_test(self) -> None:
        for driver in DRIVERS:
            engine = unreachable(driver)
            registry = scoped_session(sessionmaker(engine, expire_on_commit=False))
            seen: list[tuple[int, Item]] = []

            class Inner(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

                def test_1(self) -> None:
                    self.assertEqual([registry.get(Item, key) for key, _ in seen], [None] * len(seen))  # noqa: B023
                    self.assertEqual(registry.scalars(sa.select(Item.name)).all(), [])  # noqa: B023
                    item = Item(name="one")
                    registry.add(item)  # noqa: B023
                    registry.commit()  # noqa: B023
                    self.assertEqual(registry.get(Item, item.id).name, "one")  # noqa: B023
                    self.assertEqual(registry.scalars(sa.select(Item.name)).all(), ["one"])  # noqa: B023
                    seen.append((item.id, item))  # noqa: B023

                test_2 = test_3 = test_1

            with self.subTest(driver=driver):
                self.assertPassed(Inner, Inner, tests=6)
                registry.remove()

    def test_a_session_of_the_whole_class_keeps_its_objects(self) -> None:
        engine = unreachable("psycopg")

        class Inner(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                cls.shared = Session(engine)
                cls.addClassCleanup(cls.shared.close)
                cls.item = Item(name="shared")
                cls.shared.add(cls.item)
                cls.shared.commit()

            def test_1(self) -> None:
                self.assertEqual(self.item.name, "shared")
                self.item.name = "changed"
                self.shared.commit()
                self.assertEqual(self.item.name, "changed")

            test_2 = test_1

        self.assertPassed(Inner, tests=2)

    def test_a_session_that_a_pools_thread_keeps_is_as_new_in_the_next_test(self) -> None:
        engine = unreachable("psycopg")
        registry = scoped_session(sessionmaker(engine))
        executor = ThreadPoolExecutor(1)
        self.addCleanup(executor.shutdown)

        def names() -> list[str]:
            registry.add(Item(name=f"item {registry.query(Item).count()}"))
            registry.commit()
            return [*registry.scalars(sa.select(Item.name))]  # and keeps its transaction

        class Inner(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]

            def test_1(self) -> None:
                self.assertEqual(executor.submit(names).result(), ["item 0"])
                self.assertEqual(executor.submit(names).result(), ["item 0", "item 1"])

            test_2 = test_3 = test_1

        self.assertPassed(Inner, Inner, tests=6)
        executor.submit(registry.remove).result()

    def test_a_thread_that_goes_on_with_its_session_is_refused(self) -> None:
        engine = unreachable("psycopg")
        begin, ready = threading.Event(), threading.Event()
        caught: list[Exception] = []

        def work() -> None:
            with Session(engine) as session:
                session.scalars(sa.select(Item)).all()
                ready.set()
                begin.wait(60)
                try:
                    session.scalars(sa.select(Item)).all()
                except SandboxClosed as error:
                    caught.append(error)

        thread = threading.Thread(target=work, daemon=True)

        class Inner(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]

            def test_1(self) -> None:
                thread.start()
                ready.wait(60)

            def test_2(self) -> None:
                begin.set()
                thread.join()

        self.assertPassed(Inner, tests=2)
        self.assertEqual(len(caught), 1)


if __name__ == "__main__":
    unittest.main()
