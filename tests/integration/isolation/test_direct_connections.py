"""Connections that a driver makes by itself, past SQLAlchemy, while a sandbox runs."""

import asyncio
import contextlib

import psycopg
import psycopg2
import sqlalchemy as sa

from dbtestcase import DatabaseTest, SandboxEscape
from dbtestcase.drivers.psycopg.watching import watching_connections

metadata = sa.MetaData()
notes = sa.Table("notes", metadata, sa.Column("text", sa.String))


class DirectConnectionTest(DatabaseTest):
    metadata = metadata

    def setUp(self):
        url = self.engine.url
        self.dsn = f"host={url.query['host']} dbname={url.database} user={url.username}"
        with self.engine.begin() as connection:
            connection.execute(notes.insert(), {"text": "in the sandbox"})

    def connect(self, module):
        connection = module.connect(self.dsn)
        self.addCleanup(connection.close)
        return connection

    def test_a_real_connection_may_read_and_sees_nothing_of_the_test(self):
        for module in (psycopg, psycopg2):
            with self.subTest(module.__name__):
                cursor = self.connect(module).cursor()
                cursor.execute("SELECT count(*) FROM notes")
                self.assertEqual(cursor.fetchone()[0], 0)

    def test_a_real_connection_may_read_however_many_sandboxes_there_are(self):
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(watching_connections(lambda connection: False, self.fail))
            self.assertEqual(self.connect(psycopg).execute("SELECT count(*) FROM notes").fetchone(), (0,))

    def test_a_real_connection_may_not_write(self):
        for module in (psycopg, psycopg2):
            for sql in ("INSERT INTO notes VALUES ('x')", "TRUNCATE notes", "CREATE TABLE more ()"):
                with self.subTest(module.__name__, sql=sql):
                    cursor = self.connect(module).cursor()
                    with self.assertRaisesRegex(SandboxEscape, "A real connection to the test database"):
                        cursor.execute(sql)

    def test_copy_is_a_write(self):
        cursor = self.connect(psycopg).cursor()
        with self.assertRaises(SandboxEscape), cursor.copy("COPY notes FROM STDIN"):
            pass

    def test_an_async_connection_may_not_write(self):
        async def write():
            connection = await psycopg.AsyncConnection.connect(self.dsn)
            try:
                await connection.execute("INSERT INTO notes VALUES ('x')")
            finally:
                await connection.close()

        with self.assertRaises(SandboxEscape):
            asyncio.run(write())
