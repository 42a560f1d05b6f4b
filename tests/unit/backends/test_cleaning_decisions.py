"""The cleaning's decisions that need no database: who is in the way, what a statement leaves, the order of tables."""

import unittest
from unittest import mock

import psycopg

from dbtestcase.backends.cleaning_report import Opened, Report, Session, in_the_way, may_yet_finish
from dbtestcase.backends.foreign_keys import filling_order, with_referrers
from dbtestcase.backends.postgresql import cleaning_triggers
from dbtestcase.errors import CleaningError
from dbtestcase.isolation.pool_checkouts import Trait, traits


class InstallTest(unittest.TestCase):
    def test_a_full_disk_is_named(self) -> None:
        connection = mock.MagicMock()
        connection.transaction.return_value.__exit__.return_value = False
        connection.execute.side_effect = psycopg.errors.DiskFull("could not extend file: No space left on device")
        with self.assertRaisesRegex(CleaningError, "could not extend file[\\s\\S]*a file system is full"):
            cleaning_triggers.install(connection)


class InTheWayTest(unittest.TestCase):
    def test_one_that_waits_in_a_pool_may_stay(self) -> None:
        self.assertEqual(in_the_way([Session(pid=1)], expected=[1], lasting=[]), [])

    def test_one_that_nobody_expects_may_not(self) -> None:
        self.assertEqual(len(in_the_way([Session(pid=2)], expected=[1], lasting=[])), 1)

    def test_one_that_is_at_work_may_not_wherever_it_belongs(self) -> None:
        for state in ("active", "idle in transaction", "idle in transaction (aborted)"):
            with self.subTest(state):
                self.assertEqual(len(in_the_way([Session(pid=1, state=state)], expected=[1], lasting=[1])), 1)

    def test_an_advisory_lock_may_stay_only_from_before_the_test(self) -> None:
        session = Session(pid=1, advisory=True)
        self.assertEqual(in_the_way([session], expected=[1], lasting=[]), [session])
        self.assertEqual(in_the_way([session], expected=[], lasting=[1]), [])

    def test_what_this_thread_has_left_open_will_not_finish_by_itself(self) -> None:
        mine, other, unknown = (Session(pid=n, opened=o) for n, o in enumerate([Opened("a", 7), Opened("b", 8), None]))
        self.assertFalse(may_yet_finish([mine], thread=7))
        self.assertTrue(may_yet_finish([mine, other], thread=7))
        self.assertTrue(may_yet_finish([unknown], thread=7))
        self.assertFalse(may_yet_finish([], thread=7))

    def test_one_that_is_back_in_its_pool_may_look_busy_for_a_moment(self) -> None:
        pooled = Opened("a", None)
        self.assertTrue(may_yet_finish([Session(pid=1, state="active", opened=pooled)], thread=7))
        self.assertFalse(may_yet_finish([Session(pid=1, state="idle in transaction", opened=pooled)], thread=7))


class ReportTest(unittest.TestCase):
    def test_two_reports_become_one(self) -> None:
        ended = Session(pid=1, holds=True)
        joined = Report(restored=("a",), ended=(ended,)).joined(Report(restored=("a", "b"), recloned=True))
        self.assertEqual(joined, Report(restored=("a", "b"), ended=(ended,), recloned=True))
        self.assertEqual(joined.blocking, (ended,))

    def test_a_session_is_described_in_one_line(self) -> None:
        session = Session(pid=5, application="app", state="active", query="select\n  1", opened=Opened("x.py:3"))
        self.assertEqual(str(session), "connection 5 ('app', active; running: select 1), opened at x.py:3")


class TraitsTest(unittest.TestCase):
    def test_what_stays_in_the_servers_session(self) -> None:
        for statement in (
            "SET work_mem = '1MB'",
            "/* hint */ set role x",
            "-- first\nLISTEN news",
            "CREATE TEMP TABLE t (id int)",
            "create temporary view v as select 1",
            "SELECT 1 INTO TEMP t",
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_try_advisory_lock(1)",
            "select set_config('a.b', 'c', false)",
            "PREPARE p AS SELECT 1",
            "SELECT 1; SET search_path = x",
            "DO $$ begin end $$",
        ):
            with self.subTest(statement):
                self.assertIn(Trait.SESSION, traits(statement))

    def test_what_does_not(self) -> None:
        for statement in (
            "SET LOCAL work_mem = '1MB'",
            "SET TRANSACTION READ ONLY",
            "SET CONSTRAINTS ALL DEFERRED",
            "UPDATE t SET a = 1",
            "INSERT INTO settings VALUES (1)",
            "SELECT * FROM document",
            "SELECT * FROM reset_tokens",
        ):
            with self.subTest(statement):
                self.assertEqual(traits(statement), Trait.NONE)

    def test_what_may_change_the_server(self) -> None:
        for statement in (
            "CREATE ROLE bob",
            "COMMENT ON ROLE bob IS 'words'",
            "SECURITY LABEL FOR x ON TABLESPACE fast IS 'words'",
            "SET @a = 1, GLOBAL net_read_timeout = 7",
            "/*!50000 SET GLOBAL sql_mode = '' */",
            "INSERT INTO t VALUES ('--'); CREATE ROLE bob",
            "INSERT INTO `mysql`.`servers` VALUES (1)",
            "UPDATE pg_catalog.pg_database SET datallowconn = false",
        ):
            with self.subTest(statement):
                self.assertIn(Trait.SERVER, traits(statement))
        for statement in (
            "SELECT * FROM pg_database",
            "SELECT 1 FROM a JOIN b ON database.id = b.id",
        ):
            with self.subTest(statement):
                self.assertNotIn(Trait.SERVER, traits(statement))

    def test_sequences_that_are_moved_by_name(self) -> None:
        self.assertEqual(traits("SELECT nextval('s')"), Trait.NEXTVAL)
        self.assertEqual(traits("SELECT setval('s', 1)"), Trait.SETVAL)
        self.assertEqual(traits("INSERT INTO t (id) VALUES (nextval('another'))"), Trait.NEXTVAL)


class GraphTest(unittest.TestCase):
    REFERENCES = {2: {1}, 3: {2}, 4: {5}, 5: {4}, 6: {6}, 7: {3, 5}}

    def test_those_that_refer_to_a_table_go_with_it(self) -> None:
        self.assertEqual(with_referrers([1], self.REFERENCES), {1, 2, 3, 7})
        self.assertEqual(with_referrers([4], self.REFERENCES), {4, 5, 7})
        self.assertEqual(with_referrers([7], self.REFERENCES), {7})

    def test_tables_are_filled_after_those_they_refer_to(self) -> None:
        groups = filling_order({1, 2, 3, 4, 5, 6, 7}, self.REFERENCES)
        place = {table: number for number, group in enumerate(groups) for table in group}
        for table, targets in self.REFERENCES.items():
            for target in targets:
                self.assertLessEqual(place[target], place[table])

    def test_a_circle_is_one_group(self) -> None:
        self.assertIn([4, 5], filling_order({4, 5, 7}, self.REFERENCES))

    def test_a_long_chain(self) -> None:
        chain = {number: {number + 1} for number in range(600)}
        self.assertEqual(filling_order(set(range(601)), chain), [[number] for number in range(600, -1, -1)])
