"""What the cleaner does with schema changes, rows of a class, and connections that stand in its way."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any
from unittest import mock

import psycopg
from sqlalchemy import create_engine, inspect

from dbtestcase.backends.cleaning import Look, Opened, Standing, cleaner_for, install
from dbtestcase.backends.cleaning_report import may_yet_finish
from dbtestcase.backends.postgresql import cleaning_sql, connections
from dbtestcase.errors import CleaningError
from tests.integration.backends.test_cleaning_workloads import CleaningCase
from tests.support.samples import a_share
from tests.support.scratch import connect, dump

DDL = [
    "create table made_by_test (id serial)",
    "create table made_by_test as select * from author",
    "select * into made_by_test from author",
    "drop table review",
    "drop table book cascade",
    "alter table author add column age int",
    "alter table author drop column tags cascade",
    "alter table author rename column name to full_name",
    "alter table author alter column name set not null",
    "alter table author alter mood drop default",
    "alter table author disable trigger all; insert into author (name) values ('unseen');"
    " alter table author enable trigger all",
    "alter table measure detach partition measure_old; insert into measure_old (day) values ('2000-01-01')",
    'alter table author set schema "Odd Schema"',
    "create index on author (mood)",
    "drop index author_count_one_idx",
    "create type colour as enum ('red')",
    "alter type mood add value 'ugly'",
    "drop type mood cascade",
    "create domain tiny as int",
    "create schema another; create table another.t (id int)",
    "drop schema public cascade",
    "create function f() returns int language sql as 'select 1'",
    "drop function add_author",
    "create trigger again after insert on review execute function audit_it()",
    "drop trigger audit_author on author",
    "create view v as select 1",
    "create materialized view m as select 1",
    "create sequence s",
    "drop sequence shared_counter cascade",
    "alter sequence shared_counter increment 5",
    "alter sequence shared_counter rename to other",
    "grant select on author to public",
    "comment on table author is 'changed'",
    "create rule r as on insert to review do nothing",
    "cluster author using author_pkey",
    "comment on function lower(text) is 'changed'",
    "set event_triggers = off; create table made_by_test (a int); reset event_triggers",
    "update pg_class set reloptions = '{fillfactor=50}' where relname = 'author'",
    "drop schema _dbtestcase cascade",
    "truncate _dbtestcase.touched",
    "truncate _dbtestcase.tables",
    "drop function _dbtestcase.clean",
]
NO_DDL = [
    "create temporary table t (id serial primary key); alter table t add x int; create index on t (x); drop table t",
    "create temporary table t on commit drop as select 1; create temporary view v as select 1",
    "reindex table author",
    "vacuum author",
    "truncate author cascade",
    "vacuum full author",
    "alter sequence shared_counter restart with 9",
    "analyze",
    "select 1",
]


class SchemaChangeTest(CleaningCase):
    def test_a_changed_schema_is_noticed_and_the_database_cloned_anew(self) -> None:
        for statement in a_share(DDL, 5):
            with self.subTest(statement):
                with connect(self.scratch.url, autocommit=True) as connection:
                    for part in statement.split(";"):
                        connection.execute(part.encode())
                report = self.cleaner.clean()
                self.assertTrue(report.recloned)
                self.assertTrue(report.altered)
                self.assertAsBefore()

    def test_a_change_that_was_rolled_back_costs_nothing(self) -> None:
        for statement in a_share(DDL, 5):
            if "alter type mood add" in statement:
                continue
            with self.subTest(statement):
                with connect(self.scratch.url) as connection:
                    connection.execute(statement.encode(), prepare=False)
                    connection.rollback()
                self.assertEqual(self.cleaner.clean(look=Look.EXACT).altered, ())
                self.assertAsBefore()

    def test_what_is_no_change_of_the_schema_does_not_clone(self) -> None:
        for statement in NO_DDL:
            with self.subTest(statement):
                with connect(self.scratch.url, autocommit=True) as connection:
                    connection.execute(statement.encode(), prepare=False)
                self.assertEqual(self.cleaner.clean().altered, ())
                self.assertAsBefore()

    def test_the_changes_are_named(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("create table made_by_test (id int)")
            connection.execute("drop table review")
        self.assertEqual(self.cleaner.clean().altered, ("CREATE TABLE public.made_by_test", "DROP TABLE public.review"))

    def test_without_a_template_it_is_an_error_that_names_the_change(self) -> None:
        with cleaner_for(self.scratch.url) as cleaner:
            with connect(self.scratch.url, autocommit=True) as connection:
                connection.execute("create table made_by_test (id int)")
            with self.assertRaisesRegex(CleaningError, "CREATE TABLE public.made_by_test"):
                cleaner.clean()
        self.assertTrue(self.cleaner.clean().recloned)


class WithoutLibrariesTest(CleaningCase):
    """A server without the libraries that tell which pages of a catalog were written."""

    @classmethod
    def setUpClass(cls) -> None:
        without = cleaning_sql.CATALOG_FUNCTIONS.replace("$libdir/pg_visibility", "$libdir/not_there")
        with mock.patch.object(cleaning_sql, "CATALOG_FUNCTIONS", without):
            super().setUpClass()

    def test_a_change_is_noticed_all_the_same(self) -> None:
        with connect(self.scratch.url) as connection:
            row = connection.execute("select (_dbtestcase.visibility('pg_class')).all_visible").fetchone()
            self.assertEqual(row, (-1,))
        for statement in (
            "comment on database {} is 'x'",
            "comment on table author is 'x'",
            "alter table author cluster on author_pkey",
            "update pg_class set reloptions = '{{fillfactor=50}}' where relname = 'author'",
            "truncate cache",
        ):
            with self.subTest(statement):
                with connect(self.scratch.url, autocommit=True) as connection:
                    connection.execute(statement.format(connection.info.dbname).encode())
                self.assertEqual(self.cleaner.clean().recloned, statement != "truncate cache")
                self.assertAsBefore()


class BookkeepingTest(CleaningCase):
    def test_the_default_schema_and_the_search_path_do_not_show_it(self) -> None:
        engine = create_engine(self.scratch.url)
        self.addCleanup(engine.dispose)
        self.assertFalse([name for name in inspect(engine).get_table_names() if "dbtestcase" in name])
        with engine.connect() as connection:
            self.assertNotIn("_dbtestcase", str(connection.exec_driver_sql("select current_schemas(true)").scalar()))
            with self.assertRaises(Exception):  # noqa: B017
                connection.exec_driver_sql("select * from touched")

    def test_a_role_without_rights_on_it_is_seen(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("create role dbtestcase_writer; grant insert on alone to dbtestcase_writer")
            self.addCleanup(self.drop_role)
            self.cleaner.clean(Standing(expected=[connection.info.backend_pid]))
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("grant insert on alone to dbtestcase_writer; grant usage on alone_id_seq to public")
        install(self.scratch.url)
        with cleaner_for(self.scratch.url) as cleaner:
            before = dump(self.scratch.url)
            with connect(self.scratch.url) as connection:
                connection.execute("set role dbtestcase_writer")
                connection.execute("insert into alone default values")
                connection.commit()
            self.assertEqual(cleaner.clean().restored, ("public.alone",))
            self.assertEqual(dump(self.scratch.url), before)
        self.scratch.reclone()
        self.cleaner.clean()

    def drop_role(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("drop owned by dbtestcase_writer; drop role dbtestcase_writer")

    def test_a_copy_of_the_template_needs_no_installation(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            self.assertEqual(
                connection.execute(
                    "select count(*) from pg_event_trigger where evtname like '_dbtestcase%'"
                ).fetchone(),
                (2,),
            )


class ManySequencesTest(CleaningCase):
    """More sequences than are read after every test."""

    @classmethod
    def schema(cls) -> str:
        return "; ".join(f"create table t{n} (id serial primary key, x int unique)" for n in range(150))

    def test_a_rolled_back_insert_gives_its_number_back(self) -> None:
        with connect(self.scratch.url) as connection:
            connection.execute("insert into t7 (x) values (1)")
            connection.rollback()
        self.assertEqual(self.cleaner.clean().rewound, ("public.t7_id_seq",))
        self.assertAsBefore()

    def test_a_statement_that_failed_gives_its_number_back(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            with self.assertRaises(psycopg.errors.UniqueViolation):
                connection.execute("insert into t8 (x) values (1), (1)")
        self.assertEqual(self.cleaner.clean().rewound, ("public.t8_id_seq",))
        self.assertAsBefore()

    def test_a_sequence_moved_by_its_name_is_found_when_asked_to_look_at_all(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("select nextval('t9_id_seq')")
        self.assertEqual(self.cleaner.clean(look=Look.ALL).rewound, ("public.t9_id_seq",))
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("select setval('t9_id_seq', 70, false)")
        self.assertEqual(self.cleaner.clean(look=Look.EXACT).rewound, ("public.t9_id_seq",))
        self.assertAsBefore()


class ClassRowsTest(CleaningCase):
    def setUp(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute(
                "insert into author (name) values ('of the class'); delete from review; delete from cache;"
                "select nextval('shared_counter'); select lo_from_bytea(777, 'of the class');"
                "refresh materialized view author_count",
                prepare=False,
            )
        self.cleaner.keep()
        self.base, self.__class__.before = self.before, dump(self.scratch.url)

    def tearDown(self) -> None:
        self.cleaner.forget()
        self.cleaner.clean(look=Look.EXACT)
        self.__class__.before = self.base
        self.assertAsBefore()

    def dirty(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute(
                "delete from author; insert into cache values ('x'); insert into review values (null, 1);"
                "insert into alone default values; select nextval('shared_counter'); select lo_unlink(777);"
                "select lo_from_bytea(778, 'new'); refresh materialized view author_count",
                prepare=False,
            )

    def test_each_test_begins_with_them(self) -> None:
        for _ in range(2):
            self.dirty()
            self.cleaner.clean(look=Look.EXACT)
            self.assertAsBefore()

    def test_they_outlive_a_change_of_the_schema(self) -> None:
        for _ in range(2):
            self.dirty()
            with connect(self.scratch.url, autocommit=True) as connection:
                connection.execute("create table made_by_test ()")
            self.assertTrue(self.cleaner.clean().recloned)
            self.assertAsBefore()

    def test_a_schema_change_among_them_is_refused(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("create table made_by_class ()")
        with self.assertRaisesRegex(CleaningError, "CREATE TABLE public.made_by_class"):
            self.cleaner.keep()
        self.cleaner.clean()


class ConnectionsTest(CleaningCase):
    @classmethod
    def schema(cls) -> str:
        tables = "create table t (id serial primary key); insert into t default values; create table other ()"
        return f"{tables}; create sequence s"

    def tearDown(self) -> None:
        self.assertAsBefore()
        self.doCleanups()
        self.cleaner.clean()

    def connection(self, *, autocommit: bool = False, **options: Any) -> psycopg.Connection[Any]:
        connection = connect(self.scratch.url, autocommit=autocommit, **options)
        self.addCleanup(connection.close)
        return connection

    def pid(self, connection: psycopg.Connection[Any]) -> int:
        return connection.info.backend_pid

    def impatient(self) -> None:
        """Nothing that the test leaves is about to end by itself."""
        self.enterContext(mock.patch.object(connections, "GRACE", 0.05))

    def test_a_connection_that_waits_in_a_pool_is_left_alone(self) -> None:
        pooled = self.connection(autocommit=True)
        pooled.execute("insert into t default values")
        report = self.cleaner.clean(Standing(expected=[self.pid(pooled)]))
        self.assertEqual(report.ended, ())
        pooled.execute("select 1")

    def test_one_that_does_nothing_is_left_alone_whoever_opened_it(self) -> None:
        left = self.connection(autocommit=True)
        left.execute("select setval('t_id_seq', 500, false)")
        report = self.cleaner.clean()
        self.assertEqual((report.ended, report.rewound), ((), ("public.t_id_seq",)))
        left.execute("select 1")

    def test_what_one_did_that_has_gone_is_found_too(self) -> None:
        self.cleaner.clean()
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("select setval('t_id_seq', 500, false)")
        self.assertEqual(self.cleaner.clean().rewound, ("public.t_id_seq",))

    def test_what_one_did_that_has_gone_is_found_while_another_is_at_work(self) -> None:
        pooled = self.connection(autocommit=True)
        standing = Standing(expected=[self.pid(pooled)])
        self.cleaner.clean(standing)
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("select setval('s', 500, false)")

        def work() -> None:
            with self.assertRaises(psycopg.errors.QueryCanceled):
                pooled.execute("select pg_sleep(60)")

        at_work = threading.Thread(target=work)
        with connect(self.scratch.url.set(database="postgres"), autocommit=True) as judge:
            at_work.start()
            while not judge.execute(
                "select from pg_stat_activity where pid = %s and state = 'active'", standing.expected
            ).fetchall():
                pass

        def look(*arguments: Any) -> bool:
            may = may_yet_finish(*arguments)
            pooled.cancel()
            return may

        self.enterContext(mock.patch.object(connections, "may_yet_finish", look))
        self.enterContext(mock.patch.object(connections, "GRACE", 60.0))
        report = self.cleaner.clean(standing)
        at_work.join()
        self.assertEqual((report.ended, report.rewound), ((), ("public.s",)))

    def test_one_that_is_in_a_transaction_is_named_and_ended(self) -> None:
        left = self.connection(application_name="leaky")
        left.execute("select 'remember me'")
        (session,) = self.cleaner.clean(
            Standing(opened={self.pid(left): Opened("app.py:7 in work", threading.get_ident())})
        ).ended
        self.assertFalse(session.holds)
        for part in (str(self.pid(left)), "leaky", "idle in transaction", "remember me", "app.py:7 in work"):
            self.assertIn(part, str(session))
        with self.assertRaises(psycopg.OperationalError):
            left.execute("select 1")

    def test_one_that_takes_its_time_to_end_is_waited_for_and_named_once(self) -> None:
        left = self.connection()
        left.execute("select 1")
        pid = self.pid(left)
        os.kill(pid, signal.SIGSTOP)
        later = threading.Timer(0.3, os.kill, (pid, signal.SIGCONT))
        later.start()
        self.addCleanup(later.join)
        report = self.cleaner.clean(Standing(opened={pid: Opened("app.py:7 in work", threading.get_ident())}))
        self.assertEqual([session.pid for session in report.ended], [pid])

    def test_one_that_wrote_and_did_not_commit_is_named_as_blocking(self) -> None:
        self.impatient()
        left = self.connection()
        left.execute("delete from t")
        report = self.cleaner.clean(Standing(expected=[self.pid(left)]))
        self.assertEqual([session.pid for session in report.blocking], [self.pid(left)])
        self.assertEqual(report.blocking[0].state, "idle in transaction")

    def test_one_that_only_read_is_ended_but_does_not_block(self) -> None:
        self.impatient()
        left = self.connection()
        left.execute("select * from t")
        report = self.cleaner.clean(Standing(expected=[self.pid(left)]))
        self.assertEqual((len(report.ended), report.blocking), (1, ()))

    def test_row_locks_and_table_locks_block(self) -> None:
        self.impatient()
        for statement in ("select * from t for update", "lock table t in access exclusive mode"):
            with self.subTest(statement):
                left = self.connection()
                left.execute(statement.encode())
                self.assertEqual(len(self.cleaner.clean().blocking), 1)

    def test_a_connection_that_was_closed_in_time_is_not_blamed(self) -> None:
        for _ in range(50):
            left = self.connection()
            left.execute("insert into t default values")
            left.close()
            self.assertEqual(self.cleaner.clean().ended, ())

    def test_an_advisory_lock_in_a_pool_is_released(self) -> None:
        self.impatient()
        pooled = self.connection(autocommit=True)
        pooled.execute("select pg_advisory_lock(5)")
        (session,) = self.cleaner.clean(Standing(expected=[self.pid(pooled)]), Look.ALL).ended
        self.assertIn("advisory lock", str(session))
        with connect(self.scratch.url, autocommit=True) as other:
            self.assertEqual(other.execute("select pg_try_advisory_lock(5)").fetchone(), (True,))

    def test_one_that_was_there_before_the_test_may_stay_with_its_lock(self) -> None:
        lasting = self.connection(autocommit=True)
        lasting.execute("select pg_advisory_lock(6)")
        self.assertEqual(self.cleaner.clean(Standing(lasting=[self.pid(lasting)])).ended, ())
        lasting.execute("select 1")

    def test_a_thread_that_runs_a_statement_is_ended(self) -> None:
        self.impatient()
        running = self.connection(autocommit=True)
        errors: list[Exception] = []

        def run() -> None:
            try:
                running.execute("with gone as (delete from t returning id) select pg_sleep(60) from gone")
            except psycopg.Error as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while not any(session.busy for session in self.cleaner.others()):
            pass
        report = self.cleaner.clean()
        thread.join(60)
        self.assertEqual(len(report.ended), 1)
        self.assertEqual(len(errors), 1)

    def test_threads_that_write_on_and_on_are_caught(self) -> None:
        stop = threading.Event()
        self.addCleanup(stop.set)
        self.enterContext(self.assertNoLogs())

        def write() -> None:
            while not stop.is_set():
                try:
                    with connect(self.scratch.url) as connection:
                        for _ in range(1000):
                            connection.execute("insert into t default values")
                            connection.commit()
                except psycopg.OperationalError:
                    return

        def write_in_server() -> None:
            """Is never seen idle, as those may be that get no time to send their next statement."""
            loop = "for n in 1..5000 loop insert into t default values; commit; perform pg_sleep(0.001); end loop"
            with self.assertRaises(psycopg.OperationalError), connect(self.scratch.url, autocommit=True) as connection:
                connection.execute(f"do $$ begin {loop}; end $$".encode())

        threads = [threading.Thread(target=target) for target in (write, write, write_in_server)]
        for thread in threads:
            thread.start()
        while len(others := self.cleaner.others()) < 3 or not any(each.query.startswith("do") for each in others):
            pass
        ended = self.cleaner.clean().ended
        self.assertGreaterEqual(len(ended), 1)
        stop.set()
        for thread in threads:
            thread.join(60)
        self.cleaner.clean()

    def test_one_that_never_stops_is_an_error_and_no_hang(self) -> None:
        stop = threading.Event()
        self.addCleanup(stop.set)

        def write() -> None:
            while not stop.is_set():
                try:
                    with connect(self.scratch.url) as connection:
                        while not stop.is_set():
                            connection.execute("insert into t select generate_series(1, 200) + (select max(id) from t)")
                            connection.commit()
                except psycopg.Error:
                    continue

        threads = [threading.Thread(target=write) for _ in range(6)]
        for thread in threads:
            thread.start()
        try:
            self.cleaner.clean()
        except CleaningError as error:
            self.assertIn("go on working in it", str(error))
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        self.cleaner.clean()

    def test_the_cleaners_own_connection_may_be_ended_too(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("insert into t default values")
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", ("dbtestcase",)
            )
        self.assertEqual(self.cleaner.clean().restored, ("public.t",))


class CrashTest(CleaningCase):
    @classmethod
    def schema(cls) -> str:
        return "create table t (id serial primary key)"

    def crash(self, also: str = "") -> None:
        """What the server's recovery does, without taking it from the tests beside this one."""
        with connect(self.scratch.url, autocommit=True) as connection:
            connection.execute("insert into t default values")
            connection.execute("set _dbtestcase.cleaning = 'on'; set session_replication_role = replica", prepare=False)
            connection.execute(
                f"delete from _dbtestcase.alive; delete from _dbtestcase.touched; {also}".encode(), prepare=False
            )
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dbtestcase'"
            )

    def test_after_a_crash_of_the_server_the_database_is_made_anew_and_the_test_fails(self) -> None:
        self.crash()
        report = self.cleaner.clean()
        self.assertTrue(report.recloned)
        self.assertIn("recovered from a crash", report.broke)
        self.assertAsBefore()

    def test_the_rows_of_a_class_come_back_unless_the_crash_may_have_lost_them(self) -> None:
        lost = "delete from _dbtestcase.rows where for_class; update _dbtestcase.class_level set kept_at = now()"
        for also, is_lost in ("", False), (lost, True):
            with self.subTest(is_lost=is_lost), connect(self.scratch.url, autocommit=True) as connection:
                connection.execute("insert into t values (7)")
                self.cleaner.keep()
                for attempt in ("the first", "once more"):
                    self.crash(also if attempt == "once more" else "")
                    report = self.cleaner.clean()
                    self.assertEqual(report.lost, is_lost and attempt == "once more", attempt)
                with connect(self.scratch.url) as judge:
                    self.assertEqual(judge.execute("select id from t").fetchall(), [] if is_lost else [(7,)])
            self.cleaner.forget()
            self.cleaner.clean()

    def test_a_crash_before_the_rows_of_a_class_are_kept_is_an_error(self) -> None:
        self.crash()
        with self.assertRaisesRegex(CleaningError, "rows of a class are lost: The server has recovered from a crash"):
            self.cleaner.keep()
        self.cleaner.forget()
        self.assertTrue(self.cleaner.clean().recloned)
        self.cleaner.keep()
        self.cleaner.forget()


class ManyTestsTest(CleaningCase):
    """Rows that were deleted stay in a table's file until somebody removes them."""

    @classmethod
    def schema(cls) -> str:
        return "create table t (id serial primary key, x text); create table u (id int)"

    def test_files_do_not_grow_with_the_number_of_tests(self) -> None:
        with connect(self.scratch.url, autocommit=True) as connection:
            expected = [connection.info.backend_pid]
            for _ in range(40):
                connection.execute("insert into t (x) select repeat('x', 100) from generate_series(1, 300)")
                for _ in range(10):
                    connection.execute("insert into u values (1)")
                self.cleaner.clean(Standing(expected=expected))
            size = connection.execute(
                "select pg_relation_size('t') + pg_relation_size('_dbtestcase.touched')"
            ).fetchone()
        assert size is not None
        self.assertLess(size[0], 1_000_000)


class RoundTripsTest(CleaningCase):
    @classmethod
    def schema(cls) -> str:
        return "; ".join(f"create table t{number} (id serial primary key, x text)" for number in range(60))

    def test_a_cleaning_waits_for_the_server_once_whatever_was_touched(self) -> None:
        wait = psycopg.Connection.wait
        with connect(self.scratch.url, autocommit=True) as connection:
            expected = [connection.info.backend_pid]
            for touched in (3, 3, 0, 1, 60, 3):
                for number in range(touched):
                    connection.execute(f"insert into t{number} (x) values ('x')".encode())
                with mock.patch.object(psycopg.Connection, "wait", autospec=True, side_effect=wait) as waiting:
                    report = self.cleaner.clean(Standing(expected=expected))
                self.assertEqual(len(report.restored), touched)
                waits = waiting.call_count
        self.assertEqual(waits, 1)


class LeftoverTest(CleaningCase):
    def test_closing_leaves_no_connection(self) -> None:
        cleaner = cleaner_for(self.scratch.url)
        cleaner.close()
        cleaner.close()
        with connect(self.scratch.url, autocommit=True) as connection:
            count = (
                "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            )
            for _ in range(100):
                if connection.execute(count).fetchone() == (1,):
                    break
            self.assertEqual(connection.execute(count).fetchone(), (1,))  # the class's own cleaner
