"""What connections own in the session of MariaDB and SQLite: refused by name where it cannot be told apart."""

from __future__ import annotations

import unittest
from contextlib import closing
from types import SimpleNamespace

from sqlalchemy import URL, make_url

from dbtestcase.errors import SandboxConflict
from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.mariadb import connect, mariadb_url


class _Sandboxed(unittest.TestCase):
    def sandboxed(self, url: URL) -> None:
        run = self.enterContext(running_sandbox(SimpleNamespace(url=url, built=True), url))
        run.sandbox.begin("class")
        run.sandbox.mark("test")
        self.engine = run.engine


class MariaDBTest(_Sandboxed):
    def setUp(self) -> None:
        super().setUp()
        url = mariadb_url()
        with closing(connect(url, None)) as connection, connection.cursor() as cursor:
            for statement in (
                "CREATE OR REPLACE DATABASE session_objects",
                "CREATE TABLE session_objects.item (id INTEGER PRIMARY KEY) ENGINE=InnoDB",
                "CREATE TABLE session_objects.other (id INTEGER PRIMARY KEY) ENGINE=InnoDB",
            ):
                cursor.execute(statement)
        self.addCleanup(self.drop, url)
        self.sandboxed(url.set(database="session_objects"))

    @staticmethod
    def drop(url: URL) -> None:
        with closing(connect(url, None)) as connection, connection.cursor() as cursor:
            cursor.execute("DROP DATABASE session_objects")

    def test_a_lock_that_two_connections_want_is_refused(self) -> None:
        with self.engine.connect() as a, self.engine.connect() as b:
            self.assertEqual(a.exec_driver_sql("SELECT GET_LOCK('job', 0)").scalar(), 1)
            self.assertEqual(a.exec_driver_sql("SELECT GET_LOCK(%s, 0)", ("job",)).scalar(), 1)
            for text, values in (
                ("SELECT GET_LOCK('JOB', 0)", ()),
                ("SELECT GET_LOCK(%s, 0)", ("job",)),
                ("SELECT RELEASE_LOCK(CONCAT('jo', 'b'))", ()),
                ("DO RELEASE_ALL_LOCKS()", ()),
            ):
                with self.subTest(text), self.assertRaisesRegex(SandboxConflict, "'job'.*TruncatingDatabaseTest|job"):
                    b.exec_driver_sql(text, values)
            self.assertEqual(b.exec_driver_sql("SELECT GET_LOCK('another', 0)").scalar(), 1)
            self.assertEqual([a.exec_driver_sql("SELECT RELEASE_LOCK('job')").scalar() for _ in range(2)], [1, 1])
            self.assertEqual(b.exec_driver_sql("SELECT GET_LOCK('job', 0)").scalar(), 1)

    def test_a_lock_ends_with_its_connection(self) -> None:
        with self.engine.connect() as a, self.engine.connect() as b:
            a.exec_driver_sql("SELECT GET_LOCK('job', 0), GET_LOCK('job', 0)")
            a.invalidate()
            self.assertEqual(b.exec_driver_sql("SELECT GET_LOCK('job', 0)").scalar(), 1)
            self.assertEqual([b.exec_driver_sql("SELECT RELEASE_LOCK('job')").scalar() for _ in range(2)], [1, None])

    def test_a_snapshot_is_kept_or_refused(self) -> None:
        with self.engine.connect() as reader:
            self.assertEqual(reader.exec_driver_sql("SELECT COUNT(*) FROM item").scalar(), 0)
            with self.engine.begin() as writer:
                writer.exec_driver_sql("INSERT INTO item VALUES (1)")
            self.assertEqual(reader.exec_driver_sql("SELECT COUNT(*) FROM other").scalar(), 0)
            with self.assertRaisesRegex(SandboxConflict, "snapshot.*REPEATABLE READ"):
                reader.exec_driver_sql("SELECT COUNT(*) FROM item")
            reader.rollback()
            self.assertEqual(reader.exec_driver_sql("SELECT COUNT(*) FROM item").scalar(), 1)

    def test_read_committed_sees_what_is_committed(self) -> None:
        with self.engine.connect().execution_options(isolation_level="READ COMMITTED") as reader:
            self.assertEqual(reader.exec_driver_sql("SELECT COUNT(*) FROM item").scalar(), 0)
            with self.engine.begin() as writer:
                writer.exec_driver_sql("INSERT INTO item VALUES (1)")
            self.assertEqual(reader.exec_driver_sql("SELECT COUNT(*) FROM item").scalar(), 1)

    def test_a_temporary_table_of_another_connection_is_refused(self) -> None:
        with self.engine.connect() as a, self.engine.connect() as b:
            a.exec_driver_sql("CREATE TEMPORARY TABLE mine (id INT)")
            a.exec_driver_sql("INSERT INTO mine VALUES (1)")
            a.commit()
            for text in ("SELECT * FROM mine", "CREATE TEMPORARY TABLE mine (id INT)", "INSERT INTO `mine` VALUES (2)"):
                with self.subTest(text), self.assertRaisesRegex(SandboxConflict, "temporary table 'mine'"):
                    b.exec_driver_sql(text)
            self.assertEqual(b.exec_driver_sql("SELECT id AS mine FROM item").all(), [])
            a.exec_driver_sql("DROP TEMPORARY TABLE mine")
            b.exec_driver_sql("CREATE TEMPORARY TABLE mine (id INT)")


class SQLiteTest(_Sandboxed):
    def test_a_temporary_table_of_another_connection_is_refused(self) -> None:
        self.sandboxed(make_url("sqlite://"))
        with self.engine.connect() as a, self.engine.connect() as b:
            a.exec_driver_sql("CREATE TEMP TABLE mine (id INT)")
            a.commit()
            with self.assertRaisesRegex(SandboxConflict, "temporary table 'mine'.*TruncatingDatabaseTest|mine"):
                b.exec_driver_sql("SELECT * FROM mine")
            b.rollback()
            a.exec_driver_sql("DROP TABLE mine")
            b.exec_driver_sql("CREATE TEMP TABLE mine (id INT)")
