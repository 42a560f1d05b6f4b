"""DatabaseTest on a disposable MariaDB, by each driver: every door, judged by a second connection and the next test."""

import importlib
from contextlib import closing
from typing import Any, ClassVar

import pymysql
import sqlalchemy as sa
from sqlalchemy import event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from dbtestcase import SandboxEscape
from tests.support import sandbox_contract
from tests.support.mariadb import connect, require_mariadb
from tests.support.requirements import require_module
from tests.support.sandbox_contract import ADD


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id", ondelete="CASCADE"))


for statement in (
    "CREATE PROCEDURE commits() BEGIN INSERT INTO author (name) VALUES ('proc'); COMMIT; END",
    "CREATE PROCEDURE adds() BEGIN INSERT INTO author (name) VALUES ('proc'); SELECT 1; SELECT 2; END",
):
    event.listen(Base.metadata, "after_create", sa.DDL(statement))


class Judged(sandbox_contract.Judged):
    metadata = Base.metadata

    def committed(self) -> list[str]:
        """What a second connection sees."""
        url = sa.make_url(self.database_url)
        with closing(connect(url, url.database)) as judge, judge.cursor() as cursor:
            cursor.execute("SELECT name FROM author")
            return [name for (name,) in cursor.fetchall()]


class _MariaDB(sandbox_contract.SandboxContract):
    """The contract, for each driver."""

    driver: ClassVar[str]
    module: ClassVar[str]
    judged, author, last = Judged, Author, "LAST_INSERT_ID"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_module(cls.module)
        require_mariadb()

    def url(self) -> str:
        return f"mariadb+{self.driver}://"

    def engine(self, **options: Any) -> sa.Engine:
        """An application's engine: nobody answers where its URL leads."""
        engine = sa.create_engine(f"mariadb+{self.driver}://nobody@localhost:1/shop", **options)
        self.addCleanup(engine.dispose)
        return engine

    # -- doors

    def test_scoped_sessions_and_savepoints_are_contained(self) -> None:
        def do(test: Any) -> None:
            sessions = scoped_session(sessionmaker(test.app))
            sessions.add(Author(name="Ada"))
            sessions.flush()
            with test.assertRaises(sa.exc.IntegrityError), sessions.begin_nested():
                sessions.add(Author(name="Ada"))
                sessions.flush()
            sessions.commit()
            sessions.remove()

        self.assertContained(do, rows=1)

    def test_autocommit_by_option_by_engine_and_by_driver_is_contained(self) -> None:
        def do(test: Any) -> None:
            sandbox_contract.autocommit(test)
            with closing(test.app.raw_connection()) as raw:
                raw.autocommit(True)
                test.assertTrue(raw.get_autocommit())
                raw.cursor().execute("INSERT INTO author (name) VALUES ('Cid')")
                raw.rollback()
                raw.autocommit(False)

        self.assertContained(do, rows=3)

    def test_isolation_levels_are_accepted(self) -> None:
        def do(test: Any) -> None:
            with test.app.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
                connection.execute(ADD)
                connection.commit()

        self.assertContained(do, rows=1, app=self.engine(isolation_level="READ COMMITTED"))

    def test_raw_cursors_executemany_and_parameters_are_contained(self) -> None:
        def do(test: Any) -> None:
            with closing(test.app.raw_connection()) as raw:
                cursor = raw.cursor()
                cursor.executemany("INSERT INTO author (name) VALUES (%s)", [("Ada",), ("it's; DROP TABLE author",)])
                test.assertEqual(cursor.rowcount, 2)
                raw.commit()
                cursor.execute("INSERT INTO author (name) VALUES (%s)", ("Bob",))
                raw.rollback()
                cursor.execute("SELECT name FROM author ORDER BY id")
                test.assertEqual([row[0] for row in cursor], ["Ada", "it's; DROP TABLE author"])
                cursor.close()

        self.assertContained(do, rows=2)

    def test_a_stream_goes_on_while_another_session_commits(self) -> None:
        def do(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('a'), ('b'), ('c')"))
            with test.app.connect().execution_options(stream_results=True, yield_per=1) as connection:
                names = connection.scalars(text("SELECT name FROM author ORDER BY id"))
                test.assertEqual(next(names), "a")
                with test.engine.begin() as other:
                    other.execute(ADD)
                test.assertEqual(list(names), ["b", "c"])

        self.assertContained(do, rows=4)

    def test_an_error_undoes_its_statement_only(self) -> None:
        def do(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(ADD)
                with test.assertRaises(sa.exc.IntegrityError):
                    connection.execute(text("INSERT INTO author (name) VALUES ('Bob'), ('Ada')"))
                connection.execute(text("INSERT INTO author (name) VALUES ('Cid')"))

        self.assertContained(do, rows=2)

    def test_procedures_that_do_not_commit_are_contained(self) -> None:
        def do(test: Any) -> None:
            with test.app.begin() as connection:
                connection.exec_driver_sql("CALL adds()")
            with closing(test.app.raw_connection()) as raw:
                cursor = raw.cursor()
                raw.rollback()
                cursor.close()

        self.assertContained(do, rows=1)

    # -- what commits by itself

    def test_what_would_commit_is_refused_before_it_is_sent(self) -> None:
        refused = [
            "CREATE TABLE extra (id INT)",
            "/*!50001 CREATE TABLE extra (id INT) */",
            "/*M!100100 DROP TABLE author */",
            "SELECT 1; DROP TABLE author",
            "SELECT 1--1; DROP TABLE author",
            "ALTER TABLE author ADD born INT",
            "TRUNCATE TABLE author",
            "RENAME TABLE author TO writer",
            "CREATE INDEX i ON author (name)",
            "GRANT SELECT ON *.* TO x",
            "ANALYZE TABLE author",
            "OPTIMIZE TABLE author",
            "LOCK TABLES author WRITE",
            "FLUSH TABLES",
            "LOAD INDEX INTO CACHE author",
            "SET autocommit = 1",
            "SET GLOBAL max_connections = 10",
            "PREPARE s FROM 'DROP TABLE author'",
            "EXECUTE IMMEDIATE 'DROP TABLE author'",
            "CREATE PROCEDURE p() SELECT 1",
            "USE mysql",
            "START TRANSACTION",
            "BEGIN",
            "COMMIT",
            "XA START 'x'",
        ]

        def test_1(test: Any) -> None:
            with test.app.connect() as connection:
                connection.execute(ADD)
                for sql in refused:
                    with test.subTest(sql), test.assertRaisesRegex(SandboxEscape, "was not sent"):
                        connection.exec_driver_sql(sql)
                test.assertEqual(connection.scalars(text("SELECT name FROM author")).all(), ["Ada"])
                test.assertEqual(
                    connection.scalar(
                        text("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()")
                    ),
                    2,
                )

        self.assertPassed(self.case(test_1=test_1), tests=1)

    def test_the_error_names_the_statement_and_the_way_out(self) -> None:
        def test_1(test: Any) -> None:
            with test.app.connect() as connection:
                connection.exec_driver_sql("ALTER TABLE author ADD born INT")

        self.assertFailed(
            self.case(test_1=test_1),
            pattern=r"(?s)'ALTER TABLE author ADD born INT' would commit.*TruncatingDatabaseTest",
        )

    def test_a_procedure_that_commits_is_named_and_the_database_made_again(self) -> None:
        def test_1(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(ADD)
                connection.exec_driver_sql("CALL commits()")
                connection.execute(text("INSERT INTO author (name) VALUES ('late')"))

        def test_2(test: Any) -> None:
            test.assertEqual(test.names(), ["data"])
            test.assertEqual(test.committed(), [])

        def data(cls: Any) -> None:
            cls.session.add(Author(name="data"))

        self.assertFailed(
            self.case(test_1=test_1, test_2=test_2, test_3=test_2, setUpTestData=classmethod(data)),
            pattern=r"ended the outer transaction by 'CALL commits\(\)'",
            tests=3,
        )

    def test_temporary_tables_end_with_the_test(self) -> None:
        def test_1(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("CREATE TEMPORARY TABLE scratch (id INT)"))
                connection.execute(text("INSERT INTO scratch VALUES (1)"))

        def test_2(test: Any) -> None:
            test_1(test)
            with test.app.begin() as connection:
                test.assertEqual(connection.scalar(text("SELECT COUNT(*) FROM scratch")), 1)

        self.assertPassed(self.case(test_1=test_1, test_2=test_2), tests=2)

    # -- what belongs to a connection

    def test_variables_belong_to_their_connection_and_end_with_the_test(self) -> None:
        def test_1(test: Any) -> None:
            ask = text("SELECT @@time_zone, @@foreign_key_checks, @x")
            with test.app.connect() as one, test.engine.connect() as two:
                before = two.execute(ask).one()
                one.execute(text("SET time_zone = '+03:00', foreign_key_checks = 0"))
                one.execute(text("SELECT 7 INTO @x"))
                test.assertEqual(one.execute(ask).one(), ("+03:00", 0, 7))
                test.assertEqual(two.execute(ask).one(), before)
                one.rollback()
                test.assertEqual(one.execute(ask).one(), ("+03:00", 0, 7))

        def test_2(test: Any) -> None:
            with test.app.connect() as one:
                zone, checks, x = one.execute(text("SELECT @@time_zone, @@foreign_key_checks, @x")).one()
                test.assertEqual((checks, x), (1, None))
                test.assertNotEqual(zone, "+03:00")

        self.assertPassed(self.case(test_1=test_1, test_2=test_2), tests=2)

    def test_what_connect_events_and_init_command_set_is_there(self) -> None:
        app = self.engine(connect_args={"init_command": "SET time_zone = '+05:00'"})

        @event.listens_for(app, "connect")
        def connected(connection: Any, record: Any) -> None:
            with closing(connection.cursor()) as cursor:
                cursor.execute("SET SESSION sql_mode = 'ANSI_QUOTES'")

        def test_1(test: Any) -> None:
            with test.app.connect() as connection:
                test.assertEqual(
                    connection.execute(text("SELECT @@time_zone, @@sql_mode")).one(), ("+05:00", "ANSI_QUOTES")
                )

        self.assertPassed(self.case(test_1=test_1, test_2=test_1, app=app), tests=2)

    def test_named_locks_end_with_the_test(self) -> None:
        def test_1(test: Any) -> None:
            with test.app.connect() as connection:
                test.assertEqual(connection.scalar(text("SELECT GET_LOCK('dbtestcase-test', 0)")), 1)

        def test_2(test: Any) -> None:
            url = sa.make_url(test.database_url)
            with closing(connect(url, None)) as judge, judge.cursor() as cursor:
                cursor.execute("SELECT GET_LOCK('dbtestcase-test', 0)")
                test.assertEqual(cursor.fetchone(), (1,))

        self.assertPassed(self.case(test_1=test_1, test_2=test_2), tests=2)

    def test_two_phase_transactions_are_refused(self) -> None:
        def test_1(test: Any) -> None:
            with test.app.connect() as connection, test.assertRaises(SandboxEscape):
                with connection.begin_twophase():
                    connection.execute(ADD)

        self.assertPassed(self.case(test_1=test_1), tests=1)

    def test_methods_of_the_driver_that_go_past_the_sandbox_are_refused_and_its_cursor_class_holds(self) -> None:
        names = {"pymysql": ("connect", "kill"), "mysqldb": ("kill", "send_query", "set_server_option", "shutdown")}

        def test_1(test: Any) -> None:
            with closing(test.app.raw_connection()) as raw:
                for name in names[self.driver]:
                    with (
                        test.subTest(name),
                        test.assertRaisesRegex(SandboxEscape, rf"{name}\(\).* would bypass"),
                    ):
                        getattr(raw, name)(b"COMMIT")
                cursor = raw.cursor()
                for mode in (False, True, False):
                    raw.driver_connection.autocommit(mode)
                    for asked in ("SELECT @@autocommit", "SELECT @@SESSION.autocommit"):
                        cursor.execute(asked)
                        test.assertEqual(cursor.fetchall(), ((int(mode),),))
                with test.assertRaises(TypeError):
                    raw.driver_connection.encoders[complex] = str
                raw.driver_connection.cursorclass = importlib.import_module(f"{self.module}.cursors").DictCursor
                cursor = raw.cursor()
                cursor.execute("SELECT 1 AS one")
                test.assertEqual(cursor.fetchone(), {"one": 1})
                test.assertTrue(raw.character_set_name() and raw.thread_id() and raw.get_server_info())

        def test_2(test: Any) -> None:
            with closing(test.app.raw_connection()) as raw, raw.cursor() as cursor:
                cursor.execute("SELECT 1 AS one")
                test.assertEqual(cursor.fetchone(), (1,))

        self.assertPassed(self.case(test_1=test_1, test_2=test_2), tests=2)

    def test_ids_that_start_from_the_same_number_are_refused_rather_than_forgotten(self) -> None:
        self.assertFailed(
            self.case(test_1=lambda test: None, reset_sequences=True), pattern="reset_sequences cannot be had", tests=0
        )

    def test_tables_without_transactions_are_refused_at_the_start(self) -> None:
        metadata = sa.MetaData()
        sa.Table(
            "plain",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            mysql_engine="MyISAM",
            mariadb_engine="MyISAM",
        )

        def test_1(test: Any) -> None:
            raise AssertionError("it ran")

        self.assertFailed(self.case(test_1=test_1, metadata=metadata), pattern=r"plain \(MyISAM\)", tests=0)

    def test_a_lock_that_is_held_outside_is_an_error_that_names_the_holder(self) -> None:
        def base(cls: Any, session: Session) -> None:
            session.add(Author(name="base"))

        def test_1(test: Any) -> None:
            url = sa.make_url(test.database_url)
            with closing(connect(url, url.database)) as judge, judge.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("UPDATE author SET name = 'locked' WHERE name = 'base'")
                try:
                    with test.app.begin() as connection:
                        connection.execute(text("SET innodb_lock_wait_timeout = 1"))
                        connection.execute(text("UPDATE author SET name = 'mine'"))
                finally:
                    cursor.execute("ROLLBACK")

        self.assertFailed(
            self.case(test_1=test_1, load_base_data=classmethod(base)), pattern="(?s)SandboxTimeout.*Held by connection"
        )


class PyMySQLTest(_MariaDB):
    __test__ = True
    driver, module = "pymysql", "pymysql"

    def test_the_connections_of_pymysql_look_like_them(self) -> None:
        def test_1(test: Any) -> None:
            with closing(test.app.raw_connection()) as raw:
                test.assertIsInstance(raw.driver_connection, pymysql.connections.Connection)
                raw.ping(reconnect=True)
                with raw.cursor(pymysql.cursors.DictCursor) as cursor:
                    cursor.execute("SELECT 1 AS one")
                    test.assertEqual(cursor.fetchone(), {"one": 1})
                raw.begin()
                test.assertEqual(raw.query("INSERT INTO author (name) VALUES ('Ada')"), 1)
                raw.rollback()
            test.assertEqual(test.names(), [])

        self.assertPassed(self.case(test_1=test_1), tests=1)


class MySQLClientTest(_MariaDB):
    __test__ = True
    driver, module = "mysqldb", "MySQLdb"


del _MariaDB
