"""A wait for a lock is described on both sides, while it lasts and on the error that ends it."""

import threading
from typing import Any
from unittest import mock

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from dbtestcase.reporting import lock_waits
from dbtestcase.reporting.lock_waits import LockWatch, who_blocks
from dbtestcase.reporting.queries import recording
from tests.support.postgresql import PostgreSQLTestCase

CREATE = "CREATE TABLE IF NOT EXISTS posts (id int PRIMARY KEY, title text)"


def seen(errors: list[OperationalError]) -> bool:
    """Whether the watch has looked while the last one waited; on a busy machine the server may be faster."""
    return bool(errors) and (hasattr(errors[-1], "__notes__") or len(errors) > 20)


class LockTest(PostgreSQLTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(self.database("locks"))
        self.target = self.url.set(database="locks")
        self.ask(f"{CREATE}; INSERT INTO posts VALUES (1, 'a'), (2, 'b')", self.target)

    def engine(self, name: str, options: str = "", driver: str = "psycopg") -> Engine:
        engine = create_engine(
            self.target.set(drivername=f"postgresql+{driver}"),
            poolclass=NullPool,
            connect_args={"application_name": name, "options": options},
        )
        self.addCleanup(engine.dispose)
        return engine

    def wait_until(self, described: Any) -> str:
        with self.connection(self.target) as connection:
            for _ in range(1200):
                text_ = described()
                if text_:
                    return str(text_)
                connection.execute("SELECT pg_sleep(0.05)")
        self.fail("it never came")

    def test_nobody_waits(self) -> None:
        self.assertEqual(who_blocks(self.target), "")

    def test_both_sides_are_named(self) -> None:
        holder, waiter = self.engine("the test"), self.engine("the worker")

        def work() -> None:
            with waiter.begin() as connection:
                connection.execute(text("UPDATE posts SET title = 'theirs' WHERE id = 1"))

        with holder.begin() as connection:
            connection.execute(text("UPDATE posts SET title = 'mine'  WHERE id = 1"))
            thread = threading.Thread(target=work)
            thread.start()
            described = self.wait_until(lambda: who_blocks(self.target))
        thread.join()
        self.assertRegex(
            described,
            r"^backend \d+ \(the worker\) has waited \d+\.\d s for a ShareLock on a row of posts:\n"
            r"    UPDATE posts SET title = 'theirs' WHERE id = 1\n"
            r"  backend \d+ \(the test\) holds it, idle in transaction for \d+\.\d s; its last statement:\n"
            r"    UPDATE posts SET title = 'mine' WHERE id = 1$",
        )

    def test_a_wait_for_a_table_names_the_table(self) -> None:
        with self.engine("the test").begin() as connection:
            connection.execute(text("LOCK TABLE posts"))
            thread = threading.Thread(target=lambda: self.ask("SELECT * FROM posts", self.target))
            thread.start()
            described = self.wait_until(lambda: who_blocks(self.target))
        thread.join()
        self.assertIn("for a AccessShareLock on relation posts:", described)

    def test_a_lock_timeout_names_both_sides_and_their_lines(self) -> None:
        holder, waiter = self.engine("the test"), self.engine("the worker", "-c lock_timeout=1500ms")
        errors: list[OperationalError] = []

        def work() -> None:
            try:
                with waiter.begin() as connection:
                    connection.execute(text("UPDATE posts SET title = 'theirs' WHERE id = 1"))
            except OperationalError as error:
                errors.append(error)

        with recording() as queries, LockWatch(self.target, queries, after=0.1) as watch:
            while not seen(errors):
                with holder.begin() as connection:
                    connection.execute(text("UPDATE posts SET title = 'mine' WHERE id = 1"))
                    thread = threading.Thread(target=work, name="worker")
                    thread.start()
                    thread.join()  # a deadlock that the server cannot see
            self.assertEqual(watch.report, "", "a report belongs to one error")
        (note,) = errors[-1].__notes__
        self.assertRegex(note, r"test_locks.py:\d+ in work, thread worker\n")
        self.assertRegex(
            note, r"test_locks.py:\d+ in test_a_lock_timeout_names_both_sides_and_their_lines, thread Main"
        )
        self.assertEqual(len([query for query in queries if "pg_blocking_pids" in query.statement]), 0)

    def test_a_wait_for_who_does_nothing_is_ended_and_names_both_sides(self) -> None:
        self.enterContext(mock.patch.object(lock_waits, "PATIENCE", 0.3))
        for driver in ("psycopg", "psycopg2"):  # which say what kind of error it is in two ways
            holder, waiter = self.engine("the test"), self.engine("the application", driver=driver)
            with self.subTest(driver), recording() as queries, LockWatch(self.target, queries, after=0.1):
                with holder.begin() as connection:
                    connection.execute(text("SELECT * FROM posts"))
                    with self.assertRaisesRegex(OperationalError, "canceling statement") as raised:
                        with waiter.begin() as second:
                            second.execute(text("DROP TABLE posts"))  # in the same thread: it would wait for ever
                (note,) = raised.exception.__notes__
                self.assertRegex(note, r"for a AccessExclusiveLock on relation posts:[^$]*idle in transaction for")

    def test_a_deadlock_names_both_sides(self) -> None:
        first, second = (self.engine(name, "-c deadlock_timeout=1s") for name in ("first", "second"))
        ready, errors = threading.Barrier(2), list[OperationalError]()

        def work(engine: Engine, mine: int, theirs: int) -> None:
            try:
                with engine.begin() as connection:
                    connection.execute(text("UPDATE posts SET title = '' WHERE id = :id"), {"id": mine})
                    ready.wait()
                    connection.execute(text("UPDATE posts SET title = '' WHERE id = :id"), {"id": theirs})
            except OperationalError as error:
                errors.append(error)

        with recording() as queries, LockWatch(self.target, queries, after=0.1):
            while not seen(errors):
                threads = [threading.Thread(target=work, args=each) for each in ((first, 1, 2), (second, 2, 1))]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        (note,) = errors[-1].__notes__
        self.assertRegex(note, r"\(first\) has waited")
        self.assertRegex(note, r"\(second\) has waited")

    def test_other_errors_get_no_note(self) -> None:
        with recording() as queries, LockWatch(self.target, queries):
            with self.engine("test").begin() as connection, self.assertRaises(Exception) as raised:
                connection.execute(text("SELECT nonsense"))
        self.assertFalse(hasattr(raised.exception, "__notes__"))

    def test_a_password_is_not_shown_and_nothing_is_left_behind(self) -> None:
        with recording() as queries, LockWatch(self.target, queries, after=0.01):
            with self.engine("test").begin() as connection:
                connection.execute(text("SELECT pg_sleep(0.3)"))
        for thread in threading.enumerate():
            if thread.name == "dbtestcase-lock-watch":
                thread.join(timeout=60)  # it sees at its next look that nobody watches any more
        self.assertNotIn("dbtestcase-lock-watch", [thread.name for thread in threading.enumerate()])
        left = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'dbtestcase lock%'"
        self.wait_until(lambda: "gone" if not self.ask(left) else "")  # a closed connection's backend ends by itself
