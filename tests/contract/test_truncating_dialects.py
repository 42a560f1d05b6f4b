"""TruncatingDatabaseTest on SQLite and MariaDB: real commits, put back exactly; judged by a connection of its own."""

import gc
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from dbtestcase import AsyncTruncatingDatabaseTest, DatabaseTest, TruncatingDatabaseTest
from tests.support.inner import InnerRuns
from tests.support.mariadb import connect, require_mariadb
from tests.support.requirements import require_module


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    initial: Mapped[str] = mapped_column(sa.String(1), sa.Computed("substr(name, 1, 1)"))


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id", ondelete="CASCADE"))
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("book.id"))
    price: Mapped[float] = mapped_column(sa.Float, default=0.1)


class Judged(TruncatingDatabaseTest):
    metadata = Base.metadata
    app: ClassVar[sa.Engine]
    contents: ClassVar[list[Any]]

    @classmethod
    def load_base_data(cls, session: Session) -> None:
        session.add(Author(id=1, name="base"))
        session.flush()
        session.add(Book(id=1, author_id=1, price=16777217.123))

    def setUp(self) -> None:
        self.contents.append(self.dump())

    def names(self) -> list[str]:
        with self.app.connect() as connection:
            return list(connection.scalars(text("SELECT name FROM author ORDER BY id")))

    @contextmanager
    def judge(self) -> Iterator[Any]:
        url = sa.make_url(self.database_url)
        if url.get_backend_name() == "sqlite":
            uri = url.database if not url.query.get("vfs") else f"{url.database}?vfs={url.query['vfs']}"
            with closing(sqlite3.connect(str(uri), uri=True)) as connection:
                yield connection.cursor()
        else:
            with closing(connect(url, url.database)) as mariadb, mariadb.cursor() as cursor:
                yield cursor

    def dump(self) -> Any:
        """Everything that is in the database, as a second connection sees it."""
        with self.judge() as cursor:
            sqlite = sa.make_url(self.database_url).get_backend_name() == "sqlite"
            cursor.execute("SELECT name FROM sqlite_master ORDER BY name" if sqlite else "SHOW TABLES")
            found: dict[str, Any] = {}
            for (name,) in cursor.fetchall():
                if name.startswith("sqlite_autoindex"):
                    continue
                cursor.execute(f"SELECT * FROM {name} ORDER BY 1")
                found[name] = cursor.fetchall()
                if not sqlite:
                    cursor.execute(f"SHOW CREATE TABLE {name}")
                    found[name] = (found[name], cursor.fetchall())
            return found


class _Truncating(InnerRuns):
    __test__ = False

    def url(self) -> str:
        raise NotImplementedError

    def engine(self, **options: Any) -> sa.Engine:
        engine = sa.create_engine(self.url(), **options)
        self.addCleanup(engine.dispose)
        return engine

    def case(self, **attributes: Any) -> type[Judged]:
        app = attributes.setdefault("app", self.engine())
        attributes.setdefault("engines", [app])
        return type("Case", (Judged,), {"url": self.url(), "__module__": __name__, "contents": [], **attributes})

    def assertPutBack(self, *changes: Any, **attributes: Any) -> None:
        """Before every test the database is as before the first."""
        tests = {f"test_{number}": change for number, change in enumerate(changes)}
        case = self.case(**tests, test_last=lambda test: None, **attributes)
        self.assertPassed(case, tests=len(changes) + 1)
        for content in case.contents[1:]:
            self.assertEqual(content, case.contents[0])

    def test_rows_are_really_committed_and_put_back(self) -> None:
        def adds(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))
            with test.judge() as cursor:
                cursor.execute("SELECT COUNT(*) FROM author")
                test.assertEqual(cursor.fetchone(), (2,))

        def changes(test: Any) -> None:
            with Session(test.app) as session:
                session.get_one(Author, 1).name = "changed"
                session.get_one(Book, 1).price = 2
                session.commit()

        def deletes(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("DELETE FROM book"))
                connection.execute(text("DELETE FROM author"))

        self.assertPutBack(adds, changes, deletes, adds)

    def test_the_tests_own_session_sees_what_is_committed_after_its_first_statement(self) -> None:
        def test_it(test: Any) -> None:
            test.assertRowCount(Author, 1)
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))
            test.assertRowCount(Author, 2)
            test.assertEqual(test.session.scalar(sa.select(sa.func.max(Author.name))), "base")
            test.session.add(Author(name="not yet committed"))
            test.assertRowCount(Author, 3)
            test.session.rollback()
            with test.app.begin() as connection:
                connection.execute(text("DELETE FROM author WHERE name = 'Ada'"))
            test.assertRowCount(Author, 1)

        self.assertPassed(self.case(test_it=test_it), tests=1)

    def test_counting_rows_leaves_no_transaction_that_the_application_would_wait_for(self) -> None:
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

        def counts(test: Any) -> None:
            test.assertRowCount(Author, 1)
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))
            test.assertRowCount(Author, 2)
            test.assertFalse(test.session.in_transaction())
            author = test.session.scalars(sa.select(Author).limit(1)).one()
            test.session.expire_on_commit = False
            test.session.commit()
            test.assertRowCount(Author, 2)
            test.assertFalse(sa.inspect(author).expired)
            test.session.add(Author(name="not yet committed"))
            test.assertRowCount(Author, 3)

        event.listen(sa.Engine, "begin", begin)  # as SQLAlchemy's page on SQLite says: a SELECT takes a lock then
        self.addCleanup(event.remove, sa.Engine, "begin", begin)
        self.assertPassed(self.case(test_it=counts), tests=1)

    def test_counting_rows_by_the_applications_own_registry(self) -> None:
        app = self.engine()
        sessions = scoped_session(sessionmaker(app))

        def counts(test: Any) -> None:
            test.session = sessions
            test.session.add(Author(name="Ada"))
            test.assertRowCount(Author, 2)
            test.session.remove()

        self.assertPassed(self.case(test_1=counts, test_2=counts, app=app), tests=2)

    def test_counters_start_from_the_same_number_also_after_a_rollback(self) -> None:
        def check(test: Any) -> None:
            with Session(test.app) as session:
                lost = Author(name="lost")
                session.add(lost)
                session.flush()
                test.assertEqual(lost.id, 2)
                session.rollback()

        self.assertPutBack(check, check, check)

    def test_rows_of_a_class_are_there_in_each_test_and_gone_after_it(self) -> None:
        def data(cls: Any) -> None:
            cls.session.add(Author(name="of the class"))

        def check(test: Any) -> None:
            test.assertEqual(test.names(), ["base", "of the class"])
            with test.app.begin() as connection:
                connection.execute(text("DELETE FROM author WHERE name = 'of the class'"))

        def plain(test: Any) -> None:
            test.assertEqual(test.names(), ["base"])

        first = self.case(test_1=check, test_2=check, setUpTestData=classmethod(data))
        second = self.case(test_1=plain)
        self.assertPassed(first, second, tests=3)

    def test_a_changed_schema_is_put_back(self) -> None:
        def creates(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("CREATE TABLE extra (id INTEGER)"))
                connection.execute(text("INSERT INTO extra VALUES (1)"))

        def drops(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("DROP TABLE book"))

        def alters(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("ALTER TABLE author ADD COLUMN born INTEGER"))

        self.assertPutBack(creates, drops, alters)

    def test_a_connection_that_was_left_in_a_transaction_is_named_and_ended(self) -> None:
        def leaves(test: Any) -> None:
            test.__class__.left = test.app.connect()
            test.left.execute(text("INSERT INTO author (name) VALUES ('Ada')"))

        def check(test: Any) -> None:
            test.assertEqual(test.names(), ["base"])

        self.assertFailed(
            self.case(test_1=leaves, test_2=check, test_3=check), pattern="left behind a connection", tests=3
        )

    def test_threads_with_connections_of_their_own_see_each_others_commits(self) -> None:
        def check(test: Any) -> None:
            seen: list[int] = []

            def work(number: int) -> None:
                with Session(test.app) as session:
                    session.add(Author(name=f"author {number}"))
                    session.commit()
                    seen.append(len(session.scalars(sa.select(Author)).all()))

            for number in range(3):
                thread = threading.Thread(target=work, args=(number,))
                thread.start()
                thread.join()
            test.assertEqual(seen, [2, 3, 4])

        self.assertPutBack(check, check)

    def test_sandboxed_and_committing_classes_may_be_mixed(self) -> None:
        def commits(test: Any) -> None:
            test.assertEqual(test.names(), ["base"])
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))

        app = self.engine()
        committing = self.case(test_1=commits, test_2=commits, app=app)
        namespace = {
            **{name: Judged.__dict__[name] for name in ("metadata", "load_base_data", "names")},
            **{"url": self.url(), "app": app, "engines": [app], "test_1": commits, "test_2": commits},
        }
        sandboxed = type("Sandboxed", (DatabaseTest,), {"__module__": __name__, **namespace})
        self.assertPassed(sandboxed, committing, sandboxed, committing, tests=8)


@contextmanager
def uncollected() -> Iterator[None]:
    """What is in a cycle stays until somebody asks for its collection."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class MemoryTest(_Truncating):
    __test__ = True

    def url(self) -> str:
        return "sqlite://"

    def test_a_lock_that_no_pool_knows_is_ended_and_named(self) -> None:
        def locks(test: Any) -> None:
            url = sa.make_url(test.database_url)
            test.__class__.left = sqlite3.connect(f"{url.database}?vfs={url.query['vfs']}", uri=True)
            test.left.execute("INSERT INTO author (name) VALUES ('Ada')")

        def check(test: Any) -> None:
            test.assertEqual(test.names(), ["base"])
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))

        for url in ("sqlite://", "sqlite:///:memory:"):
            with self.subTest(url):
                self.assertFailed(self.case(test_1=locks, test_2=check, url=url), pattern="that no pool knows", tests=2)


class FileTest(_Truncating):
    __test__ = True

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def url(self) -> str:
        return f"sqlite:///{self.folder}/shop.db"

    def test_a_file_that_was_deleted_is_there_again(self) -> None:
        def deletes(test: Any) -> None:
            test.app.dispose()
            Path(str(sa.make_url(test.database_url).database)).unlink()

        self.assertPutBack(deletes, deletes)

    def test_a_file_that_was_spoilt_is_there_again(self) -> None:
        def spoils(test: Any) -> None:
            Path(str(sa.make_url(test.database_url).database)).write_bytes(b"no database" * 999)

        def empties(test: Any) -> None:
            Path(str(sa.make_url(test.database_url).database)).write_bytes(b"")

        self.assertPutBack(spoils, empties, spoils)

    def test_the_journal_and_the_layout_of_the_file_are_put_back(self) -> None:
        def journal(test: Any) -> Any:
            with test.judge() as cursor:
                names = ("journal_mode", "page_size", "auto_vacuum", "user_version", "application_id")
                return [cursor.execute(f"PRAGMA {name}").fetchone() for name in names]

        def changes(test: Any) -> None:
            test.__class__.made = journal(test)
            with test.judge() as cursor:
                cursor.execute("PRAGMA page_size = 8192")
                cursor.execute("PRAGMA auto_vacuum = 1")
                cursor.execute("VACUUM")
                cursor.execute("PRAGMA journal_mode = WAL")
                cursor.execute("PRAGMA user_version = 7")
                cursor.execute("PRAGMA application_id = 7")

        def check(test: Any) -> None:
            test.assertEqual(journal(test), test.made)

        self.assertPassed(self.case(test_1=changes, test_2=check, test_3=changes, test_4=check), tests=4)

    def test_rows_half_read_that_nothing_but_a_cycle_holds_keep_no_lock(self) -> None:
        """As a cancelled task leaves them, in the traceback of its exception."""

        def half_reads(test: Any) -> None:
            with closing(sqlite3.connect(str(sa.make_url(test.database_url).database))) as connection:
                cycle: list[Any] = [connection.execute("SELECT name FROM author UNION ALL SELECT name FROM author")]
                cycle += [cycle, cycle[0].fetchone()]

        def check(test: Any) -> None:
            test.assertEqual(test.names(), ["base"])

        self.enterContext(uncollected())
        self.assertPassed(self.case(test_1=half_reads, test_2=check), tests=2)

    def test_a_lock_that_no_pool_knows_is_ended_and_named(self) -> None:
        class Lazy:
            """Like Django's settings that nobody has configured."""

            @property
            def __class__(self) -> Any:
                raise RuntimeError("asked for its class")

        lazy = Lazy()
        self.addCleanup(vars(lazy).clear)  # it lives until then

        def locks(test: Any) -> None:
            test.__class__.left = sqlite3.connect(str(sa.make_url(test.database_url).database))
            test.left.execute("INSERT INTO author (name) VALUES ('Ada')")

        def check(test: Any) -> None:
            test.assertEqual(test.names(), ["base"])
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))

        self.assertFailed(self.case(test_1=locks, test_2=check), pattern="that no pool knows", tests=2)

    def test_a_lock_of_another_process_is_named_with_it(self) -> None:
        program = (
            "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "c.execute('BEGIN IMMEDIATE')\nprint('locked', flush=True)\nsys.stdin.read()\n"
        )

        def locks(test: Any) -> None:
            path = str(sa.make_url(test.database_url).database)
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))
            command = [sys.executable, "-c", program, path]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            test.__class__.addClassCleanup(process.communicate)

        self.assertFailed(self.case(test_1=locks), pattern=r"locked for 2 s.*held by process \d+ \(", tests=1)


class MariaDBTest(_Truncating):
    __test__ = True

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_mariadb()

    def url(self) -> str:
        return "mariadb+pymysql://"

    def test_mysql_and_mariadb_are_one_kind(self) -> None:
        def check(test: Any) -> None:
            test.assertEqual(test.names(), ["base"])
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO author (name) VALUES ('Ada')"))

        for driver, module in (("pymysql", "pymysql"), ("mysqldb", "MySQLdb")):
            with self.subTest(driver):
                require_module(module)
                app = sa.create_engine(f"mysql+{driver}://nowhere/shop")
                self.addCleanup(app.dispose)
                committing = self.case(app=app, test_1=check, test_2=check)
                names = {name: Judged.__dict__[name] for name in ("metadata", "load_base_data", "names")}
                names |= {"url": self.url(), "app": app, "engines": [app], "__module__": __name__}
                sandboxed = type("Sandboxed", (DatabaseTest,), {**names, "test_1": check, "test_2": check})
                self.assertPassed(committing, sandboxed, tests=4)

    def test_what_no_trigger_hears_of_is_put_back(self) -> None:
        def truncates(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("SET foreign_key_checks = 0"))
                connection.execute(text("TRUNCATE TABLE book"))

        def cascades(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("DELETE FROM author"))

        self.assertPutBack(truncates, cascades, truncates)

    def test_tables_with_triggers_are_put_back(self) -> None:
        metadata = sa.MetaData()
        sa.Table("log", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("what", sa.String(20)))
        sa.Table("job", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(20)))
        for moment in ("INSERT", "DELETE"):
            event.listen(
                metadata,
                "after_create",
                sa.DDL(
                    f"CREATE TRIGGER job_{moment} AFTER {moment} ON job FOR EACH ROW "
                    f"INSERT INTO log (what) VALUES ('{moment}')"
                ),
            )

        def base(cls: Any, session: Session) -> None:
            session.execute(text("INSERT INTO log (what) VALUES ('base')"))

        def adds(test: Any) -> None:
            with test.app.begin() as connection:
                connection.execute(text("INSERT INTO job (name) VALUES ('a'), ('b')"))

        def base_with_jobs(cls: Any, session: Session) -> None:
            session.execute(text("INSERT INTO job (name) VALUES ('base')"))

        self.assertPutBack(adds, adds, metadata=metadata, load_base_data=classmethod(base))
        self.assertPutBack(adds, adds, metadata=metadata, load_base_data=classmethod(base_with_jobs))


class AsyncTest(InnerRuns):
    """AsyncTruncatingDatabaseTest with each async driver."""

    def run_with(self, module: str, test_url: str, app_url: str) -> None:
        require_module(module)

        class Case(AsyncTruncatingDatabaseTest):
            url = test_url
            app = create_async_engine(app_url)
            engines = [app]

            async def check(self) -> None:
                async with self.app.begin() as connection:
                    self.assertEqual(await connection.scalar(text("SELECT COUNT(*) FROM author")), 0)
                    added = await connection.execute(sa.insert(Author).values(name="Ada"))
                    self.assertEqual(added.inserted_primary_key, (1,))
                self.session.add(Author(name="Bob"))
                await self.session.commit()
                async with self.app.connect() as connection:
                    self.assertEqual(await connection.scalar(text("SELECT COUNT(*) FROM author")), 2)

            async def test_its_own_session(self) -> None:
                for number in range(2):
                    self.assertEqual(await self.session.scalar(text("SELECT COUNT(*) FROM author")), number)
                    async with self.app.begin() as connection:
                        await connection.execute(sa.insert(Author).values(name=f"Ada {number}"))

            test_1 = test_2 = test_3 = check

        Case.metadata = Base.metadata
        self.assertPassed(Case, tests=4)

    def test_aiosqlite(self) -> None:
        self.run_with("aiosqlite", "sqlite+aiosqlite://", "sqlite+aiosqlite://")

    def test_aiomysql(self) -> None:
        require_mariadb()
        self.run_with("aiomysql", "mariadb+aiomysql://", "mariadb+aiomysql://nobody@localhost:1/shop")

    def test_asyncmy(self) -> None:
        require_mariadb()
        self.run_with("asyncmy", "mariadb+asyncmy://", "mariadb+asyncmy://nobody@localhost:1/shop")


del _Truncating
