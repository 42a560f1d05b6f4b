"""What a DatabaseTest does with every door of SQLAlchemy, whatever the dialect; judged by the next test and others."""

import contextlib
import threading
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dbtestcase import DatabaseTest
from tests.support.inner import InnerRuns

ADD = text("INSERT INTO author (name) VALUES ('Ada')")


def autocommit(test: Any) -> None:
    """Two rows, by an option of a connection and of an engine."""
    with test.app.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(ADD)
        connection.rollback()
    with test.app.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("INSERT INTO author (name) VALUES ('Bob')"))


class Judged(DatabaseTest):
    """Each test is followed by one that looks at what it left."""

    app: ClassVar[sa.Engine]

    def names(self) -> list[str]:
        with self.app.connect() as connection:
            return list(connection.scalars(text("SELECT name FROM author ORDER BY id")))

    def committed(self) -> list[str]:
        """What a second connection sees, where there can be one."""
        return []


class SandboxContract(InnerRuns):
    """For models with authors, who have an id and a name of their own."""

    __test__ = False
    judged: ClassVar[type[Judged]]
    author: ClassVar[Any]
    last: ClassVar[str]  #: the function that tells what the session has numbered last

    def url(self) -> str:
        """Of the test class."""
        raise NotImplementedError

    def engine(self, **options: Any) -> sa.Engine:
        """An application's engine, to a database that must stay untouched."""
        raise NotImplementedError

    def case(self, **attributes: Any) -> type[Judged]:
        app = attributes.setdefault("app", self.engine())
        attributes.setdefault("engines", [app])
        return type("Case", (self.judged,), {"url": self.url(), "__module__": self.__module__, **attributes})

    def assertContained(self, do: Any, *, rows: int, **attributes: Any) -> None:
        """``do`` is a test after which so many authors are there, and none for others or in the next one."""

        def test_1(test: Any) -> None:
            do(test)
            test.assertEqual(len(test.names()), rows)
            test.assertEqual(test.committed(), [])

        def test_2(test: Any) -> None:
            test.assertEqual(test.names(), [])

        self.assertPassed(self.case(test_1=test_1, test_2=test_2, test_3=test_2, **attributes), tests=3)

    def test_a_committed_session_is_seen_by_other_sessions_and_gone_in_the_next_test(self) -> None:
        def do(test: Any) -> None:
            with Session(test.app) as session:
                session.add(self.author(name="Ada"))
                session.commit()

        self.assertContained(do, rows=1)

    def test_a_session_that_is_closed_without_commit_leaves_nothing(self) -> None:
        def do(test: Any) -> None:
            with Session(test.app) as session:
                session.add(self.author(name="Ada"))
                session.flush()

        self.assertContained(do, rows=0)

    def test_engine_begin_commits_and_rolls_back_as_in_production(self) -> None:
        def do(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(ADD)
            with test.assertRaises(ZeroDivisionError), test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Bob')"))
                raise ZeroDivisionError

        self.assertContained(do, rows=1)

    def test_scoped_sessions_are_contained(self) -> None:
        def do(test: Any) -> None:
            sessions = scoped_session(sessionmaker(test.app))
            sessions.add(self.author(name="Ada"))
            sessions.commit()
            sessions.remove()

        self.assertContained(do, rows=1)

    def test_autocommit_by_option_and_by_engine_is_contained(self) -> None:
        self.assertContained(autocommit, rows=2)

    def test_threads_are_contained(self) -> None:
        def do(test: Any) -> None:
            def work(number: int) -> None:
                with Session(test.app) as session:
                    session.add(self.author(name=f"author {number}"))
                    session.commit()

            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        self.assertContained(do, rows=4)

    def test_an_engine_made_in_the_middle_of_a_test_is_led_by_its_url(self) -> None:
        def do(test: Any) -> None:
            engine = sa.create_engine(test.database_url)
            with engine.begin() as connection:
                connection.execute(ADD)
            engine.dispose()

        self.assertContained(do, rows=1)

    def test_a_savepoint_leaves_no_rows_of_the_statement_before_it(self) -> None:
        def do(test: Any) -> None:
            with test.app.connect() as connection, contextlib.closing(connection.connection.cursor()) as cursor:
                connection.execute(ADD)
                for command in ("SAVEPOINT one", "ROLLBACK TO SAVEPOINT one", "RELEASE SAVEPOINT one"):
                    cursor.execute("SELECT 1")
                    cursor.execute(command)
                    test.assertIsNone(cursor.description, command)
                connection.commit()

        self.assertContained(do, rows=1)

    def test_what_a_session_has_numbered_last_is_known_to_itself_alone(self) -> None:
        asked = text(f"SELECT {self.last}()")

        def test_itself(test: Any) -> None:
            with test.app.connect() as mine, test.app.connect():
                number = mine.execute(ADD).lastrowid
                test.assertEqual(mine.scalar(asked), number)

        def test_another(test: Any) -> None:
            with test.app.connect() as mine, test.app.connect() as other:
                mine.execute(ADD)
                mine.commit()
                other.scalar(asked)

        self.assertPassed(self.case(test_itself=test_itself), tests=1)
        two = self.engine(poolclass=sa.NullPool)  # in the memory of SQLite there is one connection by default
        self.assertFailed(
            self.case(app=two, test_another=test_another), pattern=rf"asks {self.last}\(\) .* has written since"
        )
