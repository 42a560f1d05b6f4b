"""Databases on a real MariaDB: made once, taken again, refused or made anew where they differ; guarded where lent."""

import multiprocessing
import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import DDL, URL, Column, ForeignKey, Integer, MetaData, String, Table, event, make_url
from sqlalchemy.orm import Session

from dbtestcase import backends as databases
from dbtestcase.backends.admin_connections import AdminConnection
from dbtestcase.backends.existing import MARK_TABLE
from dbtestcase.backends.interface import Database
from dbtestcase.backends.mysql import admin as mysql_admin
from dbtestcase.backends.mysql import existing as mysql_existing
from dbtestcase.backends.mysql import register as mysql_register
from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.errors import CannotCreateDatabase, DatabaseError, SchemaError, ServerUnreachable, UnsafeDatabase
from dbtestcase.settings import Settings
from tests.support.mariadb import MariaDBTestCase, connect
from tests.support.requirements import require_module

CONTEXT = multiprocessing.get_context("fork")
CACHE, NO_CACHE = Settings(cache=Path("unused")), Settings(cache=None)


def require_driver(driver: str) -> None:
    """mysqlclient is compiled against a system library, so not every environment has it."""
    if driver == "mysqldb":
        require_module("MySQLdb", "mysqlclient")


class CountingRecipe(MetadataRecipe):
    """One table of this name with two rows of base data; knows where it was built."""

    def __init__(self, name: str, engine: str = "InnoDB") -> None:
        self.built: list[URL] = []
        metadata = MetaData()
        self.table = Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True),
            Column("title", String(50)),
            mysql_engine=engine,
            mariadb_engine=engine,
        )
        super().__init__(metadata, self.load, dialect="mariadb")

    def load(self, session: Session) -> None:
        session.execute(self.table.insert(), [{"title": "first"}, {"title": "second"}])

    def build(self, url: URL) -> None:
        self.built.append(url)
        super().build(url)


class DatabasesTestCase(MariaDBTestCase):
    def make(self, made_from: MetadataRecipe, url: URL | None = None, **options: Any) -> Database:
        return databases.test_database(url or self.url, made_from, **{"base": "shop", "settings": CACHE} | options)

    def ours(self) -> set[str]:
        return {name for name in self.names() if not name.endswith("_dbtestcase")}

    def killed(self, name: str, statement: str) -> str:
        """The database of a process that ran ``statement`` in it and was killed."""
        reading, writing = CONTEXT.Pipe(duplex=False)

        def work() -> None:
            made = self.make(CountingRecipe(name))
            self.ask(statement, made.name)
            writing.send(made.name)
            signal.pause()

        process = CONTEXT.Process(target=work)
        process.start()
        left: str = reading.recv()
        process.kill()
        process.join()
        self.wait_until_unowned(left)
        return left


class CreateTest(DatabasesTestCase):
    def test_tables_and_base_data_are_there(self) -> None:
        for driver in ("pymysql", "mysqldb", "aiomysql", "asyncmy"):
            url = self.url.set(drivername=f"mariadb+{driver}")
            with self.subTest(driver=driver):
                require_driver(driver)
                with self.make(CountingRecipe("author"), url) as made:
                    self.assertEqual(made.url.drivername, url.drivername)
                    self.assertEqual(self.ask("SELECT count(*) FROM author", made.name), [(2,)])

    def test_the_second_run_creates_no_tables(self) -> None:
        first, second = CountingRecipe("author"), CountingRecipe("author")
        with self.make(first) as made:
            self.assertTrue(made.made_template)
        with self.make(second) as again:
            self.assertFalse(again.made_template)
            self.assertEqual(again.name, made.name)
        self.assertEqual((len(first.built), second.built), (1, []))

    def test_what_is_written_after_its_run_has_ended_is_noticed_by_the_next(self) -> None:
        with self.make(CountingRecipe("author")) as made:
            name = made.name
        self.ask("INSERT INTO author (title) VALUES ('late')", name)  # by a process that has outlived the run
        with self.make(CountingRecipe("author")) as again:
            self.assertEqual(self.ask("SELECT count(*) FROM author", again.name), [(2,)])

    def test_two_at_once_are_apart_and_another_model_has_its_own(self) -> None:
        with self.make(CountingRecipe("a")) as first, self.make(CountingRecipe("a")) as second:
            with self.make(CountingRecipe("b")) as third:
                self.assertEqual(len({first.name, second.name, third.name}), 3)

    def test_a_lease_that_is_lost_is_taken_again_and_nobody_drops_what_somebody_is_connected_to(self) -> None:
        with self.make(CountingRecipe("author")) as made, closing(connect(self.url, made.name)):
            lease = made._admin  # type: ignore[attr-defined]
            self.end_connection(lease)
            other = mysql_admin.Admin(self.url)  # another process
            try:
                register = mysql_register.Register(other, "shop")
                self.assertNotIn(made.name, [*register.drop_unused(all_of_them=True)])
                self.assertFalse(made.renew_lease())
                self.assertEqual(lease.renewals, 1)
                self.assertFalse(other.lock(made.name), "it is held again")
                self.end_connection(lease)
            finally:
                other.close()
        self.assertIn(made.name, self.ours(), "kept at the end, over a new connection")

    def end_connection(self, admin: mysql_admin.Admin) -> None:
        ((number,),) = admin.rows("SELECT CONNECTION_ID()")
        with closing(connect(self.url, None)) as judge, judge.cursor() as cursor:
            cursor.execute(f"KILL {number}")

    def test_without_a_cache_nothing_is_kept_or_taken(self) -> None:
        self.make(CountingRecipe("author")).close()
        kept = self.ours()
        counted = CountingRecipe("author")
        with self.make(counted, settings=NO_CACHE) as made:
            self.assertNotIn(made.name, kept)
        self.assertEqual(self.ours(), kept)
        self.assertEqual(len(counted.built), 1)

    def test_rolled_back_rows_leave_no_trace_in_the_ids(self) -> None:
        names = set()
        for _ in range(2):
            with self.make(CountingRecipe("author")) as made, closing(connect(self.url, made.name)) as connection:
                names.add(made.name)
                connection.begin()
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO author (title) VALUES ('third')")
                    self.assertEqual(cursor.lastrowid, 3)
                connection.rollback()
        self.assertEqual(len(names), 1, "made anew, although nothing but a counter had moved")

    def test_one_that_was_changed_for_good_is_made_anew(self) -> None:
        for statement in (
            "DELETE FROM author WHERE id = 1",
            "UPDATE author SET title = 'other'",
            "ALTER TABLE author ADD extra INTEGER",
            "CREATE TABLE extra (id INTEGER)",
            "CREATE VIEW extra AS SELECT * FROM author",
            "DROP TABLE author",
            "CREATE TRIGGER extra BEFORE INSERT ON author FOR EACH ROW SET NEW.title = 'x'",
            "CREATE FUNCTION extra() RETURNS INTEGER RETURN 1",
        ):
            with self.subTest(statement):
                with self.make(CountingRecipe("author")) as made:
                    self.ask(statement, made.name)
                counted = CountingRecipe("author")
                with self.make(counted) as again:
                    self.assertEqual(len(counted.built), 1)
                    self.assertEqual(len(self.ask("SELECT id, title FROM author", again.name)), 2)

    def test_reclone_puts_it_back_under_the_same_name(self) -> None:
        for settings in (CACHE, NO_CACHE):
            with self.subTest(cache=settings.cache), self.make(CountingRecipe("again"), settings=settings) as made:
                name = made.name
                self.ask("DROP TABLE again", name)
                made.reclone()
                self.assertEqual(made.name, name)
                self.assertEqual(self.ask("SELECT count(*) FROM again", name), [(2,)])

    def test_the_named_database_is_not_touched_and_gives_its_character_set(self) -> None:
        self.ask("CREATE DATABASE shop CHARACTER SET latin1 COLLATE latin1_german1_ci")
        self.ask("CREATE TABLE author AS SELECT 'kept' AS title", "shop")
        with self.make(CountingRecipe("author")) as made:
            self.assertEqual(self.ask("SELECT @@collation_database", made.name), [("latin1_german1_ci",)])
        self.assertEqual(self.ask("SELECT * FROM author", "shop"), [("kept",)])

    def test_the_base_may_hold_anything_and_be_of_any_length(self) -> None:
        for base in ("sh`op", "100%s", "größe", "o'hara; --", "x" * 80, ""):
            with self.subTest(base=base), self.make(CountingRecipe("named"), base=base) as made:
                self.assertLessEqual(len(made.name), 64)
                self.assertEqual(self.ask("SELECT count(*) FROM named", made.name), [(2,)])

    def test_tables_of_an_engine_without_transactions_are_refused_where_rows_are_rolled_back(self) -> None:
        with self.assertRaisesRegex(SchemaError, r"author \(MyISAM\)"):
            self.make(CountingRecipe("author", "MyISAM"), transactional=True)
        self.make(CountingRecipe("author", "MyISAM")).close()
        with self.assertRaisesRegex(SchemaError, r"author \(MyISAM\)"):
            self.make(CountingRecipe("author", "MyISAM"), transactional=True)


class LeaseTest(DatabasesTestCase):
    def test_what_a_killed_run_left_is_taken_again_if_it_is_unchanged(self) -> None:
        left = self.killed("author", "DO 1")
        with self.make(CountingRecipe("author")) as made:
            self.assertEqual(made.name, left)

    def test_what_a_killed_run_changed_is_dropped(self) -> None:
        left = self.killed("author", "DELETE FROM author")
        with self.make(CountingRecipe("author")) as made:
            self.assertNotEqual(made.name, left)
            self.assertEqual(self.ours(), {made.name})

    def test_a_build_that_was_killed_is_dropped_by_the_next_that_builds(self) -> None:
        reading, writing = CONTEXT.Pipe(duplex=False)

        class Dying(CountingRecipe):
            def build(self, url: URL) -> None:
                super().build(url)
                writing.send(url.database)
                signal.pause()

        process = CONTEXT.Process(target=lambda: self.make(Dying("author")))
        process.start()
        half = reading.recv()
        process.kill()
        process.join()
        self.wait_until_unowned(half)
        with self.make(CountingRecipe("author")) as made:
            self.assertEqual(self.ours(), {made.name})

    def test_eight_processes_at_once_have_one_each_and_share_them_afterwards(self) -> None:
        reading, writing = CONTEXT.Pipe(duplex=False)
        start = CONTEXT.Barrier(8)

        def work() -> None:
            counted = CountingRecipe("crowd")
            start.wait(60)
            with self.make(counted) as made:
                writing.send((made.name, len(counted.built), self.ask("SELECT count(*) FROM crowd", made.name)))
                start.wait(60)

        for built in (8, 0):
            processes = [CONTEXT.Process(target=work) for _ in range(8)]
            for process in processes:
                process.start()
            results = [reading.recv() for _ in processes]
            for process in processes:
                process.join()
            self.assertEqual(len({name for name, _, _ in results}), 8)
            self.assertEqual([rows for _, _, rows in results], [[(2,)]] * 8)
            self.assertEqual(sum(count for _, count, _ in results), built)

    def test_a_forked_process_neither_uses_nor_closes_the_connection(self) -> None:
        with self.make(CountingRecipe("forked")) as made:

            def child() -> None:
                with self.assertRaisesRegex(DatabaseError, "belongs to process"):
                    made.reclone()
                made.close()

            process = CONTEXT.Process(target=child)
            process.start()
            process.join()
            self.assertEqual(process.exitcode, 0)
            made.reclone()  # the connection still works
            self.assertEqual(databases.prune(self.url), [])

    def test_a_forked_process_holds_no_socket_of_its_parent_though_another_connection_is_closed(self) -> None:
        for driver in ("pymysql", "mysqldb"):
            with self.subTest(driver):
                require_driver(driver)
                admins = [mysql_admin.Admin(self.url.set(drivername=f"mariadb+{driver}")) for _ in range(3)]
                closed, *held = admins
                closed.close()
                sockets = [admin._descriptor() for admin in held]
                reading, writing = CONTEXT.Pipe(duplex=False)
                process = CONTEXT.Process(
                    target=lambda writing=writing, sockets=sockets: writing.send(
                        ([os.readlink(f"/proc/self/fd/{each}") for each in sockets], len(AdminConnection._all))
                    )
                )
                process.start()
                process.join()
                self.assertEqual(reading.recv(), ([os.devnull] * 2, 0))
                for admin in held:
                    admin.close()

    def test_prune_drops_what_nobody_uses(self) -> None:
        self.ask("CREATE DATABASE x_dbtestcase")
        self.make(CountingRecipe("kept")).close()
        (kept,) = self.ours()
        with self.make(CountingRecipe("used")) as used:
            self.assertEqual(databases.prune(self.url, templates=False), [])
            self.assertEqual(databases.prune(self.url, dry=True), [kept])
            self.assertEqual(databases.prune(self.url), [kept])
            self.assertEqual(self.ours(), {used.name})

    def test_only_those_that_were_used_last_are_kept(self) -> None:
        with mock.patch.object(mysql_register, "KEPT_IN_ALL", 1):
            for name in ("a", "b", "c"):
                self.make(CountingRecipe(name)).close()
        self.assertEqual(len(self.ours()), 2)  # the last one, and the one that was kept before it


class ErrorsTest(DatabasesTestCase):
    def test_nobody_answers(self) -> None:
        taken = self.enterContext(socket.socket())  # nobody else gets it, and it does not listen
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for driver in ("pymysql", "mysqldb", "aiomysql"):
            for mode in ("create", "existing"):
                url = make_url(f"mariadb+{driver}://ada:hunter2@127.0.0.1:{port}/shop_test")
                with self.subTest(driver=driver, mode=mode):
                    require_driver(driver)
                    with self.assertRaises(ServerUnreachable) as raised:
                        self.make(CountingRecipe("author"), url, mode=mode)
                    for part in ("127.0.0.1", str(port), "'shop_test'"):
                        self.assertIn(part, str(raised.exception))
                    self.assertNotIn("hunter2", str(raised.exception))

    def test_a_socket_that_is_not_there(self) -> None:
        for driver in ("pymysql", "mysqldb"):
            url = make_url(f"mariadb+{driver}://ada:hunter2@/shop?unix_socket=/nonexistent/socket")
            with self.subTest(driver=driver):
                require_driver(driver)
                with self.assertRaisesRegex(ServerUnreachable, "/nonexistent/socket"):
                    self.make(CountingRecipe("author"), url)

    def test_a_user_that_is_refused(self) -> None:
        with self.assertRaisesRegex(ServerUnreachable, "nobody_knows"):
            self.make(CountingRecipe("author"), self.url.set(username="nobody_knows"))

    def test_a_user_that_may_not_create_databases(self) -> None:
        with self.user("poor", "SELECT ON mysql.*") as url:
            with self.assertRaises(CannotCreateDatabase) as raised:
                self.make(CountingRecipe("author"), url)
        for part in ("poor", "GRANT ALL PRIVILEGES ON `shop\\_%`", 'database = "existing"'):
            self.assertIn(part, str(raised.exception))
        self.assertNotIn("secret", str(raised.exception))
        self.assertEqual(self.names(), set())

    def test_a_right_on_names_that_begin_with_the_base_is_enough(self) -> None:
        with self.user("modest", "ALL PRIVILEGES ON `shop\\_%`.*") as url:
            self.make(CountingRecipe("author"), url).close()
            self.assertEqual(len(self.ours()), 1)

    def test_a_table_in_another_database_is_refused_and_not_made(self) -> None:
        self.ask("CREATE DATABASE ledger")
        for name in ("ledger", "unknown"):
            metadata = MetaData()
            Table("entry", metadata, Column("id", Integer), schema=name)
            with self.subTest(name), self.assertRaisesRegex(SchemaError, f"'{name}'"):
                self.make(MetadataRecipe(metadata, dialect="mariadb"))
        self.assertEqual(self.ours(), {"ledger"})
        self.assertEqual(self.ask("SHOW TABLES", "ledger"), [])

    def test_a_model_that_cannot_be_made_leaves_nothing(self) -> None:
        flawed = CountingRecipe("flawed")
        event.listen(flawed.metadata[0], "after_create", DDL("SELECT no_such_function()"))
        for settings in (CACHE, NO_CACHE):
            with self.subTest(cache=settings.cache), self.assertRaises(SchemaError):
                self.make(flawed, settings=settings)
            self.assertEqual(self.ours(), set())


class ExistingTest(DatabasesTestCase):
    def use(self, name: str, made_from: MetadataRecipe | None = None, **options: Any) -> Database:
        url = self.url.set(database=name)
        return self.make(made_from or CountingRecipe("author"), url, mode="existing", **options)

    def everything(self, name: str) -> list[Any]:
        return [
            self.ask("SHOW FULL TABLES", name),
            self.ask("SHOW CREATE TABLE customer", name),
            self.ask("SELECT * FROM customer", name),
            self.ask("SELECT CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()", name),
        ]

    def test_a_database_with_rows_is_refused_and_not_changed(self) -> None:
        self.ask("CREATE DATABASE shop")
        self.ask("CREATE TABLE customer AS SELECT 'Ada' AS name", "shop")
        before = self.everything("shop")
        with self.assertRaisesRegex(UnsafeDatabase, "'shop'.*customer"):
            self.use("shop")
        self.assertEqual(self.everything("shop"), before)
        self.assertEqual(self.names(), {"shop"})

    def test_an_empty_a_marked_and_a_test_database_are_used_and_left_empty(self) -> None:
        for name, statement in (
            ("shop", "DO 1"),
            ("shop_test", "CREATE TABLE old (id INTEGER)"),
            ("marked", f"CREATE TABLE {MARK_TABLE} (id INTEGER)"),
        ):
            with self.subTest(name):
                self.ask(f"CREATE DATABASE {name}")
                self.ask(statement, name)
                with self.use(name) as made:
                    self.assertTrue(made.built)
                    self.assertEqual(self.ask("SELECT count(*) FROM author", name), [(2,)])
                    self.assertNotIn(("old",), self.ask("SHOW TABLES", name))
                self.assertEqual(self.ask("SHOW TABLES", name), [])

    def test_a_circular_model_that_has_changed_is_rebuilt(self) -> None:
        def circular(extra: str) -> MetadataRecipe:
            metadata = MetaData()
            for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
                key = ForeignKey(f"{other}.id", use_alter=name == "c", name=f"{name}_{other}")
                Table(
                    name,
                    metadata,
                    Column("id", Integer, primary_key=True),
                    Column(f"{other}_id", key),
                    Column(extra, Integer),
                )
            return MetadataRecipe(metadata, dialect="mariadb")

        self.ask("CREATE DATABASE ring")
        for extra in ("first", "second"):
            made = self.use("ring", circular(extra))
            self.assertEqual(self.ask(f"SELECT {extra} FROM a", "ring"), [])
            self.ask("CREATE VIEW over_a AS SELECT * FROM a", "ring")
            self.ask("CREATE FUNCTION f() RETURNS INTEGER RETURN 1", "ring")
            self.ask("CREATE SEQUENCE s", "ring")
            made._admin.close()  # type: ignore[attr-defined]  # as if the run had died
            self.wait_until_unowned("ring")
        self.use("ring", circular("third")).close()
        self.assertEqual(self.ask("SHOW TABLES", "ring"), [])
        self.assertEqual(self.ask("SHOW FUNCTION STATUS WHERE Db = 'ring'"), [])

    def test_a_second_run_waits_and_then_gives_up(self) -> None:
        self.ask("CREATE DATABASE shop")
        with self.use("shop"), mock.patch.object(mysql_existing, "PATIENCE", 1):
            with self.assertRaisesRegex(DatabaseError, "in use by another run"):
                self.use("shop")
            self.assertEqual(self.ask("SELECT count(*) FROM author", "shop"), [(2,)])

    def test_tables_of_an_engine_without_transactions_are_refused_where_rows_are_rolled_back(self) -> None:
        self.ask("CREATE DATABASE shop")
        with self.assertRaisesRegex(SchemaError, r"author \(Aria\)"):
            self.use("shop", CountingRecipe("author", "Aria"), transactional=True)
        self.assertEqual(self.ask("SHOW TABLES", "shop"), [])
