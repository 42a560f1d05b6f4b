"""After any workload the database is as it was: rows, sequences, views, large objects, catalog; judged by a dump."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dbtestcase.backends.cleaning import Cleaner, Look, cleaner_for, install
from tests.support.samples import LONG, a_share
from tests.support.scratch import Scratch, connect, dump
from tests.support.servers import postgresql_url

SCHEMA = (Path(__file__).parents[2] / "support" / "hostile_schema.sql").read_text(encoding="utf-8")
ODD = '"Odd Schema"."it\'s ""quoted"" %s"'

ROWS = [
    "insert into author (name) values (md5(random()::text)), (md5(random()::text))",
    "insert into author (name) values ('Ada')",  # fails, and moves the sequence
    "insert into author (name, mood) values ('Ada', 'bad') on conflict (name) do update set mood = excluded.mood",
    "insert into author (name) values ('Ada') on conflict do nothing",
    "update author set name = name || 'x', tags = tags || 't'",
    "delete from author where id = 1",
    "delete from author",
    "insert into fine_author (name) values ('through a view')",
    "update fine_author set name = 'renamed' where id = 2",
    "select add_author('by a function')",
    "insert into book (author_id, title) values (2, 'new')",
    "insert into book (id, author_id, title) overriding system value values (50, 2, 'fifty')",
    "update book set title = 'changed', data = '[]'",
    "delete from book",
    "update author set id = 77 where id = 2",
    "insert into review values (1, 1), (null, 2)",
    "truncate author cascade",
    "truncate book restart identity cascade",
    "truncate only vehicle restart identity",
    "truncate measure",
    "truncate nothing, alone restart identity",
    "insert into hen values (2, null); insert into egg values (2, 2); update hen set egg = 2 where id = 2",
    "update hen set egg = null; delete from egg; delete from hen",
    "delete from tree where id = 2; delete from tree",
    "insert into tree values (3, 2)",
    "insert into measure (day, value) values ('2019-05-05', 1), ('2022-01-01', 1), ('2022-01-01', 2)",
    "insert into measure_new_rest (day, value) values ('2023-01-01', 7)",
    "update measure set day = '2022-02-02'",
    "delete from measure_new",
    "insert into car (name) values ('sports car')",
    "update vehicle set name = 'all of them'",
    "delete from vehicle",
    "delete from only vehicle",
    f"insert into {ODD} (\"%\") values ('100%')",
    f'update {ODD} set "sel ect" = 5',
    "insert into uses_shared default values",
    "insert into uses_shared_by_name default values",
    "insert into cache values ('new', null) on conflict do nothing",
    "delete from cache",
    "insert into nothing default values",
    "insert into alone default values",
    "update soft set deleted = true",
    "delete from soft",
    "insert into softer values (9) on conflict do nothing",
    "update softer set deleted = true",
    "insert into secret values (2)",
    "delete from secret",
    "with gone as (delete from book returning *) insert into audit (what) select title from gone",
    "merge into author a using (values ('Ada'), ('Zoe')) v(n) on a.name = v.n"
    " when matched then update set mood = 'bad' when not matched then insert (name) values (v.n)",
]
SEQUENCES = [
    "select nextval('author_id_seq')",
    "select nextval('alone_id_seq'), nextval('alone_id_seq')",
    "select setval('alone_id_seq', 500)",
    "select setval('alone_id_seq', 500, false)",
    "select setval('author_id_seq', 1, false)",
    'select nextval(\'"Odd Schema"."Ticket No"\')',
    'select setval(\'"Odd Schema"."Ticket No"\', 5000, false)',
    "select nextval('shared_counter')",
    "alter sequence alone_id_seq restart with 300",
    "alter sequence author_id_seq restart",
    "alter table book alter id restart with 900",
]
OTHER_STATE = [
    "refresh materialized view author_count",
    "refresh materialized view concurrently author_count",
    "refresh materialized view author_count; refresh materialized view twice",
    "refresh materialized view not_yet",
    "refresh materialized view twice with no data",
    "select lo_from_bytea(0, 'new')",
    "select lo_put(90001, 2, 'changed')",
    "select lo_unlink(90002) where exists (select from pg_largeobject_metadata where oid = 90002)",
    "create temporary table scratchpad (id serial primary key, x text); insert into scratchpad default values",
    "create temporary table gone on commit drop as select * from author",
    "notify news, 'hello'",
    "analyze author",
    "set local session_replication_role = replica",
    "set constraints all immediate",
    "lock table author in access exclusive mode",
    "select pg_advisory_xact_lock(5)",
]
CONTROL = ["commit", "commit", "commit", "rollback", "savepoint s", "rollback to savepoint s", "release savepoint s"]
SESSION = ["set session_replication_role = replica", "reset session_replication_role", "copy", "copy broken"]

operation = st.one_of(
    *(st.sampled_from(statements) for statements in (ROWS, ROWS, SEQUENCES, OTHER_STATE, CONTROL, CONTROL, SESSION))
)
workload = st.lists(st.tuples(st.integers(0, 1), operation), max_size=25)


class CleaningCase(unittest.TestCase):
    """A database with one of each thing, its dump, and a cleaner."""

    role = "postgres"
    scratch: Scratch
    before: dict[str, Any]
    cleaner: Cleaner

    @classmethod
    def setUpClass(cls) -> None:
        scratch = Scratch(cls.__name__.lower(), cls.schema(), owner=cls.role)
        install(scratch.template)
        cls.scratch = cls.enterClassContext(scratch)
        cls.before = dump(cls.scratch.url)
        cls.cleaner = cls.enterClassContext(cleaner_for(cls.scratch.url, cls.scratch))

    @classmethod
    def schema(cls) -> str:
        return SCHEMA

    def perform(self, work: list[tuple[int, str]]) -> None:
        """Run a workload on two connections as an application would: an error is answered with a rollback."""
        connections = [connect(self.scratch.url, options="-c lock_timeout=50ms") for _ in range(2)]
        try:
            for number, statement in work:
                connection = connections[number]
                try:
                    self.execute(connection, statement)
                except psycopg.Error:
                    connection.rollback()
            for connection in connections:
                try:
                    connection.commit()
                except psycopg.Error:
                    connection.rollback()
        finally:
            for connection in connections:
                connection.close()

    def execute(self, connection: psycopg.Connection[Any], statement: str) -> None:
        if statement == "commit":
            connection.commit()
        elif statement == "rollback":
            connection.rollback()
        elif statement == "copy":
            with connection.cursor().copy("copy author (name) from stdin") as copy:
                copy.write("Copied\nAnd another\n")
        elif statement == "copy broken":
            with connection.cursor().copy("copy book (author_id, title) from stdin") as copy:
                copy.write("2\tfine\n99999\tno such author\n")
        else:
            connection.execute(statement.encode(), prepare=False)

    def assertAsBefore(self) -> None:
        after = dump(self.scratch.url)
        for name in self.before.keys() | after.keys():
            self.assertEqual(after.get(name), self.before.get(name), name)


class WorkloadTest(CleaningCase):
    @settings(
        max_examples=50 if LONG else 12,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    @given(workload)
    def test_after_any_workload_the_database_is_as_before(self, work: list[tuple[int, str]]) -> None:
        self.perform(work)
        report = self.cleaner.clean(look=Look.EXACT)
        self.assertAsBefore()
        self.assertEqual(report.blocking, ())
        if not any(statement.startswith("alter table") for _, statement in work):
            self.assertEqual(report.altered, ())

    def test_each_statement_by_itself_is_undone(self) -> None:
        for end in ("commit", "rollback"):
            for statement in a_share(ROWS + SEQUENCES + OTHER_STATE, 5):
                with self.subTest(statement, end=end):
                    self.perform([(0, statement), (0, end)])
                    self.cleaner.clean(look=Look.EXACT)
                    self.assertAsBefore()

    def test_each_statement_under_the_replica_role_is_undone(self) -> None:
        for statement in a_share(ROWS, 5):
            with self.subTest(statement):
                self.perform([(0, SESSION[0]), (0, statement), (0, "commit")])
                self.cleaner.clean()
                self.assertAsBefore()


ORDINARY = "dbtestcase_ordinary"


class ScanningWorkloadTest(CleaningCase):
    """The same by an ordinary role, which may neither make event triggers nor set session_replication_role."""

    role = ORDINARY

    @classmethod
    def setUpClass(cls) -> None:
        with connect(postgresql_url(), autocommit=True) as connection:
            connection.execute(f"drop role if exists {ORDINARY}; create role {ORDINARY} login".encode(), prepare=False)
        cls.addClassCleanup(cls.drop_role)
        with cls().assertLogs("dbtestcase.cleaning", "WARNING"):
            super().setUpClass()

    @classmethod
    def drop_role(cls) -> None:
        with connect(postgresql_url(), autocommit=True) as connection:
            connection.execute(f"drop role {ORDINARY}".encode())

    @classmethod
    def schema(cls) -> str:
        # The owner itself could not read what is forced on it.
        return SCHEMA.replace("alter table secret force row level security;", "")

    @settings(max_examples=20 if LONG else 6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(workload)
    def test_after_any_workload_the_database_is_as_before(self, work: list[tuple[int, str]]) -> None:
        self.perform(work)
        self.cleaner.clean()
        self.assertAsBefore()

    def test_each_statement_by_itself_is_undone_without_a_clone(self) -> None:
        for statement in a_share(ROWS + SEQUENCES, 5):
            with self.subTest(statement):
                self.perform([(0, statement), (0, "commit")])
                report = self.cleaner.clean()
                self.assertAsBefore()
                self.assertEqual(report.altered, ())
