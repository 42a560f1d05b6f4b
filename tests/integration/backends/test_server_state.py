"""What a committing test changes on the server itself: put back on a disposable one, named on any other."""

import contextlib
import os
import unittest.mock
from collections.abc import Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from dbtestcase import TruncatingDatabaseTest
from dbtestcase.cases import scopes
from tests.support.inner import InnerRuns
from tests.support.mariadb import connect as connect_mariadb
from tests.support.mariadb import mariadb_url, require_mariadb
from tests.support.scratch import connect
from tests.support.servers import postgresql_url

metadata = sa.MetaData()
note = sa.Table("note", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String(50)))

POSTGRESQL = [
    "create role reporting login password 'secret'; grant select on note to reporting",
    "create role reporting; create table theirs (id int); alter table theirs owner to reporting",
    "create role one; create role two in role one; comment on role two is 'words'",
    "alter role postgres set work_mem = '2MB'; alter role all set search_path = other, public",
    "alter role postgres connection limit 100 password 'secret' valid until '2040-01-01'",
    "alter role postgres set default_transaction_read_only = on",
    "alter system set work_mem = '1MB'; select pg_reload_conf()",
    "alter system set default_transaction_read_only = on; select pg_reload_conf()",
    "set allow_in_place_tablespaces = on; create tablespace fast location ''; alter table note set tablespace fast",
    "create database another_one",
    "do $$ begin create role by_the_way; end $$",
    "comment on role postgres is 'words'",
    "comment on tablespace pg_default is 'words'; comment on database postgres is 'words'",
    "alter database postgres set work_mem = '3MB'; alter role postgres in database postgres set work_mem = '4MB'",
    "create role boss superuser; alter database postgres owner to boss; grant create on tablespace pg_default to boss",
    "create role tuner; grant set on parameter work_mem to tuner; grant set on parameter wal_compression to public",
    "alter tablespace pg_default set (random_page_cost = 9); alter database template1 allow_connections false",
]
MARIADB = [
    "create user bob@localhost identified by 'secret'; grant select on *.* to bob@localhost",
    "create user bob@localhost; grant insert on note to bob@localhost; create role clerk; grant clerk to bob@localhost",
    "set global sort_buffer_size = 300000; set global sql_mode = ''",
    "set global read_only = 1",
    "set @a = 1, global net_read_timeout = 77",
    "insert into mysql.servers values ('far', 'h', 'd', 'u', 'p', 3306, '', 'mysql', 'o')",
    "set global event_scheduler = on",
    "create server far foreign data wrapper mysql options (user 'x', host 'y')",
    "create database another_one; create table another_one.note (id int)",
    "set password for root@localhost = password('secret'); set password for root@localhost = ''",
]


class Case(TruncatingDatabaseTest):
    metadata = metadata
    app: ClassVar[sa.Engine]

    def do(self, statements: str) -> None:
        parts = [statements] if "$$" in statements else statements.split("; ")
        with self.app.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in parts:
                connection.exec_driver_sql(statement)

    def server(self) -> Any:
        """What is on the server, as another connection sees it."""
        url = sa.make_url(self.database_url)
        if url.get_backend_name() == "postgresql":
            with connect(url.set(database="postgres"), autocommit=True) as connection:
                return [
                    connection.execute(query).fetchall()
                    for query in (
                        b"select to_jsonb(a) - 'oid' from pg_authid a order by rolname",
                        b"select * from pg_db_role_setting where setdatabase in (0, 1, 5) order by 1, 2",
                        b"select datname, datdba, datacl, datallowconn from pg_database where oid < 16384 order by 1",
                        b"select * from pg_parameter_acl order by 1",
                        b"select roleid::regrole, member::regrole from pg_auth_members order by 1, 2",
                        b"select name, setting from pg_file_settings order by 1",
                        b"select * from pg_tablespace order by 1",
                        b"select datname from pg_database where datname ~ 'another' order by 1",
                        b"select * from pg_shdescription where description ~ 'words'",
                    )
                ]
        with contextlib.closing(connect_mariadb(url, None)) as connection, connection.cursor() as cursor:
            found = []
            for query in (
                "SELECT User, Host, Priv FROM mysql.global_priv",
                "SELECT * FROM mysql.tables_priv",
                "SELECT * FROM mysql.roles_mapping",
                "SELECT * FROM mysql.servers",
                "SHOW DATABASES LIKE '%another%'",
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('sort_buffer_size', 'sql_mode', 'read_only',"
                " 'event_scheduler', 'net_read_timeout')",
            ):
                cursor.execute(query)
                found.append(sorted(cursor.fetchall()))
            return found


class ServerStateTest(InnerRuns):
    def tearDown(self) -> None:
        scopes.close_all()  # the end of the run
        super().tearDown()

    def case(self, url: str | None, **attributes: Any) -> type[Case]:
        app = sa.create_engine("mariadb+pymysql://nowhere/app" if url and "mariadb" in url else "postgresql:///app")
        self.addCleanup(app.dispose)
        return type("Inner", (Case,), {"url": url, "app": app, "engines": [app], "__module__": __name__} | attributes)

    def check_put_back(self, url: str | None, changes: Sequence[str]) -> None:
        first: list[Any] = []

        def doing(statements: str) -> Any:
            def test(self: Any) -> None:
                first.append(self.server())
                self.assertEqual(first[-1], first[0])
                if statements:
                    self.do(statements)
                    self.assertNotEqual(self.server(), first[0]) if "password('" not in statements else None

            return test

        tests = {f"test_{number:02}": doing(each) for number, each in enumerate([*changes, ""])}
        self.assertPassed(self.case(url, **tests), tests=len(tests))

    def test_a_disposable_postgresql_is_put_back(self) -> None:
        self.check_put_back(None, POSTGRESQL)

    def test_a_disposable_mariadb_is_put_back(self) -> None:
        require_mariadb()
        self.check_put_back("mariadb+pymysql://", MARIADB)

    def test_what_a_drivers_cursor_changes_is_put_back(self) -> None:
        require_mariadb()

        def beneath(case: Any, statements: str) -> None:
            with case.app.connect() as connection:
                for statement in statements.split("; "):
                    connection.connection.cursor().execute(statement)
                connection.connection.commit()

        with unittest.mock.patch.object(Case, "do", beneath):
            self.check_put_back("mariadb+pymysql://", MARIADB[:3])
            self.check_put_back(
                None, ["create role bob; comment on role bob is 'words'", "alter role all set work_mem = '2MB'"]
            )

    def check_named(self, url: sa.URL, user: str, judge: Any) -> None:
        """Of two users that are made meanwhile, the test is told of its own, and drops none."""
        self.addCleanup(judge, f"drop {user} made_here")
        self.addCleanup(judge, f"drop {user} made_by_others")

        def makes(test: Any) -> None:
            test.do(f"create {user} made_here")
            judge(f"create {user} made_by_others")

        case = self.case(url.render_as_string(hide_password=False), test_1=makes, test_2=lambda test: None)
        (failed,) = self.assertFailed(case, pattern=r"LeakError: .*test_1 changed what belongs to the server", tests=2)
        self.assertIn("made_here", failed[1])
        self.assertNotIn("made_by_others", failed[1])

    def test_a_named_postgresql_is_left_as_it_is(self) -> None:
        def judge(statement: str) -> None:
            with connect(postgresql_url(), autocommit=True) as connection:
                connection.execute(statement.encode())

        self.check_named(postgresql_url(), "role", judge)

    def test_an_ordinary_role_is_told_as_well(self) -> None:
        def judge(statement: str) -> None:
            with connect(postgresql_url(), autocommit=True) as connection:
                connection.execute(statement.encode())

        judge("create role maker login createrole createdb")
        self.addCleanup(judge, "drop role maker")
        self.addCleanup(scopes.close_all)
        with unittest.mock.patch.dict(os.environ, {"DBTESTCASE_CACHE": "off"}):  # no template that it would own
            self.check_named(postgresql_url().set(username="maker"), "role", judge)

    def test_a_named_mariadb_is_left_as_it_is(self) -> None:
        def judge(statement: str) -> None:
            with contextlib.closing(connect_mariadb(mariadb_url(), None)) as connection:
                connection.cursor().execute(statement)

        self.check_named(mariadb_url(), "user", judge)

    def test_what_a_class_makes_stays_while_it_runs(self) -> None:
        def make(cls: Any) -> None:
            cls.do(cls, "create role of_the_class")

        def uses(test: Any) -> None:
            test.do("create role of_the_test; grant of_the_class to of_the_test")

        case = self.case(None, setUpTestData=classmethod(make), test_1=uses, test_2=uses)
        self.assertPassed(case, tests=2)
