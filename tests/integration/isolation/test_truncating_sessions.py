"""What a committing test leaves in sessions of MariaDB, and what other connections do meanwhile."""

import contextlib
import subprocess
import sys
import warnings
from typing import Any

import pymysql
import sqlalchemy as sa
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dbtestcase import AsyncTruncatingDatabaseTest, LeftoverConnectionWarning, TruncatingDatabaseTest
from dbtestcase.cases import scopes
from tests.support.inner import InnerRuns, run_inner
from tests.support.mariadb import connect, mariadb_url, require_mariadb
from tests.support.requirements import require_module


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column(sa.String(50))


ADD = text("INSERT INTO note (text) VALUES ('of the test')")


class Case(TruncatingDatabaseTest):
    metadata = Base.metadata
    app: Any

    @classmethod
    def setUpTestData(cls) -> None:
        cls.session.add(Note(text="of the class"))

    def add(self) -> None:
        with self.app.begin() as connection:
            self.assertEqual(connection.scalars(text("SELECT text FROM note")).all(), ["of the class"])
            connection.execute(ADD)

    def connection_without_a_database(self) -> "pymysql.Connection[Any]":
        connection = connect(sa.make_url(self.database_url), None)
        connection.autocommit(False)
        return connection

    @property
    def note(self) -> str:
        return f"`{sa.make_url(self.database_url).database}`.note"


class SessionsTest(InnerRuns):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_mariadb()

    def case(self, driver: str = "pymysql", **attributes: Any) -> type[Case]:
        app = sa.create_engine(f"mariadb+{driver}://nowhere/app")
        self.addCleanup(app.dispose)
        facts = {"url": f"mariadb+{driver}://", "app": app, "engines": [app], "__module__": __name__}
        return type("Inner", (Case,), facts | attributes)

    def test_the_session_of_a_pooled_connection_ends_with_the_test_that_changed_it(self) -> None:
        statements = (
            "SET @chosen = 7",
            "SELECT @chosen := 7",
            "SELECT 7 INTO @chosen",
            "SELECT GET_LOCK('nightly', 0)",
            "USE information_schema",
            "SET SESSION sql_mode = ''",
            "SET NAMES latin1",
            "CREATE TEMPORARY TABLE mine (id INT)",
            "PREPARE mine FROM 'SELECT 1'",
            "LOCK TABLES note WRITE",
            "CALL change_session()",
            "DO changing()",
            "SELECT changing()",
        )
        facts = "SELECT DATABASE(), @chosen, IS_FREE_LOCK('nightly'), @@sql_mode, @@character_set_client, @@autocommit"
        asked: list[Any] = []

        def look(test: Any) -> None:
            with test.app.connect() as connection:
                asked.append(connection.exec_driver_sql(facts).one())
                with test.assertRaises(sa.exc.DBAPIError):
                    connection.exec_driver_sql("SELECT * FROM mine")
                with test.assertRaises(sa.exc.DBAPIError):
                    connection.exec_driver_sql("EXECUTE mine")

        def change(test: Any, statement: str, door: str) -> None:
            with test.app.connect() as connection:
                if door == "engine":
                    connection.exec_driver_sql(statement)
                    return
                raw = connection.connection.driver_connection
                if door == "driver":
                    raw.cursor().execute(statement)
                elif door == "select_db":
                    raw.select_db("information_schema")
                else:
                    raw.autocommit(True)

        def base(cls: Any, session: Any) -> None:
            for statement in (
                "CREATE PROCEDURE change_session() SET @chosen = 7",
                "CREATE FUNCTION changing() RETURNS INT BEGIN SET @chosen = 7; RETURN 1; END",
            ):
                session.connection().exec_driver_sql(statement)

        for driver in ("pymysql", "mysqldb"):
            asked.clear()
            tests: dict[str, Any] = {"test_00": look}
            acts = [(statement, door) for statement in statements for door in ("engine", "driver")]
            for number, act in enumerate([*acts, ("", "select_db"), ("", "autocommit")], 1):
                tests[f"test_{number:02}_a"] = lambda test, act=act: change(test, *act)
                tests[f"test_{number:02}_b"] = look
            with self.subTest(driver):
                require_module({"mysqldb": "MySQLdb"}.get(driver, driver))
                self.assertPassed(self.case(driver, load_base_data=classmethod(base), **tests), tests=len(tests))
                self.assertEqual(set(asked), {asked[0]})

    def test_a_lock_of_a_connection_without_a_database_is_ended_and_named(self) -> None:
        def locks(test: Any) -> None:
            test.__class__.held = test.connection_without_a_database()
            test.held.cursor().execute(f"INSERT INTO {test.note} (text) VALUES ('held')")
            test.add()

        tests = {"test_1": locks, "test_2": Case.add, "test_3": Case.add}
        self.assertFailed(self.case(**tests), pattern=r"LeakError: .*test_1 left behind a connection \d+", tests=3)

    def test_a_prepared_transaction_is_rolled_back_and_named(self) -> None:
        def prepares(test: Any) -> None:
            test.add()
            connection = test.connection_without_a_database()
            cursor = connection.cursor()
            for statement in ("START 'x'", "END 'x'", "PREPARE 'x'"):
                cursor.execute(f"XA {statement}")
                if statement.startswith("START"):
                    cursor.execute(f"INSERT INTO {test.note} (text) VALUES ('prepared')")
            connection.close()

        tests = {"test_1": prepares, "test_2": Case.add, "test_3": Case.add}
        pattern = r"LeakError: .*test_1 left behind a prepared transaction .*XA PREPARE X'78'"
        self.assertFailed(self.case(**tests), pattern=pattern, tests=3)

    def test_a_table_lock_of_a_connection_without_a_database_is_named(self) -> None:
        held: list[Any] = []

        def locks(test: Any) -> None:
            test.add()
            held.append(test.connection_without_a_database())
            held[0].cursor().execute(f"LOCK TABLES {test.note} READ")

        def run(test: Any, result: Any = None) -> Any:
            if test.id().endswith("test_3"):
                held[0].close()
            return Case.run(test, result)

        # no test runs on what could not be put back
        tests = {"test_1": locks, "test_2": self.fail, "test_3": Case.add, "test_4": Case.add, "run": run}
        result = run_inner(self.case(**tests))
        self.assertEqual([test.id()[-6:] for test, _ in result.errors], ["test_1", "test_2"])
        for _, told in result.errors:
            self.assertRegex(told, "(?s)somebody holds a lock.*has locked a table")

    def test_who_ends_every_connection_fails_and_the_next_test_begins_anew(self) -> None:
        def kills(test: Any) -> None:
            test.add()
            with test.app.connect() as connection:
                query = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()"
                for number in connection.exec_driver_sql(query).scalars().all():
                    connection.exec_driver_sql(f"KILL {number}")

        tests = {"test_1": kills, "test_2": Case.add, "test_3": Case.add}
        self.assertFailed(self.case(**tests), pattern="test_1 ended the connection of dbtestcase's own", tests=3)

    def test_what_others_do_on_the_server_is_none_of_its_business(self) -> None:
        program = (
            "import pymysql, sys\n"
            "c = pymysql.connect(unix_socket=sys.argv[1], user=sys.argv[2], ssl_disabled=True).cursor()\n"
            "c.execute('CREATE DATABASE IF NOT EXISTS of_another_process')\nprint('begun', flush=True)\n"
            "while True: c.execute('CREATE OR REPLACE TABLE of_another_process.t (a INT)')\n"
        )

        def begin(cls: Any) -> None:
            super(cls, cls).setUpClass()
            url = sa.make_url(cls.database_url)
            command = [sys.executable, "-c", program, str(url.query["unix_socket"]), str(url.username)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            cls.addClassCleanup(process.communicate)
            cls.addClassCleanup(process.kill)
            assert process.stdout is not None
            process.stdout.readline()

        tests = {f"test_{number}": Case.add for number in range(20)}
        self.assertPassed(self.case(setUpClass=classmethod(begin), **tests), tests=20)

    def test_a_read_transaction_that_is_left_open_is_rolled_back_and_told(self) -> None:
        def reads(test: Any) -> None:
            connection = test.app.connect()
            test.__class__.left = [*getattr(test, "left", []), connection]
            test.assertEqual(connection.scalars(text("SELECT text FROM note")).all(), ["of the class"])

        tests = {f"test_{number:02}": reads for number in range(20)}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.assertPassed(self.case(**tests), tests=20)
        left = [each for each in told if issubclass(each.category, LeftoverConnectionWarning)]
        self.assertEqual(len(left), 20)
        self.assertEqual({each.filename for each in left}, {__file__})

    def test_an_idle_connection_of_another_engine_outlives_the_test(self) -> None:
        def uses(test: Any) -> None:
            if not hasattr(test.__class__, "other"):
                test.__class__.other = sa.create_engine(test.database_url)
                test.__class__.numbers = set()
                test.addClassCleanup(test.other.dispose)
            with test.other.begin() as connection:
                test.numbers.add(connection.scalar(text("SELECT CONNECTION_ID()")))
                test.assertEqual(connection.scalars(text("SELECT text FROM note")).all(), ["of the class"])
                connection.execute(ADD)

        def look(test: Any) -> None:
            test.assertEqual(len(test.numbers), 1)

        self.assertPassed(self.case(test_1=uses, test_2=uses, test_3=uses, test_4=look), tests=4)

    def test_an_open_write_of_an_async_driver_fails_its_test_and_no_other(self) -> None:
        for driver in ("aiomysql", "asyncmy"):
            require_module(driver)
            app = create_async_engine(f"mariadb+{driver}://nowhere/app")

            async def leaves(test: Any, app: Any = app) -> None:
                test.__class__.left = await app.connect()
                await test.left.execute(ADD)

            async def check(test: Any, app: Any = app) -> None:
                async with app.begin() as connection:
                    test.assertEqual((await connection.execute(text("SELECT count(*) FROM note"))).scalar(), 0)
                    await connection.execute(ADD)

            facts = {"url": f"mariadb+{driver}://", "metadata": Base.metadata, "engines": [app], "__module__": __name__}
            case = type("Inner", (AsyncTruncatingDatabaseTest,), {**facts, "test_1": leaves, "test_2": check})
            with self.subTest(driver):
                self.assertFailed(case, pattern="test_1 left behind a connection", tests=2)

    def test_an_existing_database_is_left_empty(self) -> None:
        url = mariadb_url().set(database="existing_test")
        with contextlib.closing(connect(url, None)) as judge, judge.cursor() as cursor:
            cursor.execute("CREATE DATABASE IF NOT EXISTS existing_test CHARACTER SET latin1")

            def changes(test: Any) -> None:
                test.add()
                with test.app.connect() as connection:
                    for statement in (
                        "ALTER DATABASE existing_test CHARACTER SET utf8mb4",
                        "CREATE PROCEDURE p() SELECT 1",
                        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
                        "CREATE SEQUENCE s",
                        "CREATE VIEW v AS SELECT 1",
                        "CREATE TABLE h (id INT) WITH SYSTEM VERSIONING",
                    ):
                        connection.exec_driver_sql(statement)

            tests = {"test_1": changes, "test_2": changes}
            case = self.case(**tests, url=url.render_as_string(hide_password=False), database="existing")
            self.assertPassed(case, tests=2)
            scopes.close_all()  # the end of the run
            cursor.execute("SHOW CREATE DATABASE existing_test")
            self.assertIn("latin1", str(cursor.fetchall()))
            for query in (
                "SHOW FULL TABLES FROM existing_test",
                "SELECT * FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'existing_test'",
                "SELECT * FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'existing_test'",
            ):
                cursor.execute(query)
                self.assertEqual(cursor.fetchall(), ())
