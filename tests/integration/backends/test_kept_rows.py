"""The rows of one open transaction are copied to a database of their own, as they are."""

from contextlib import closing
from typing import Any

import psycopg
from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool

from dbtestcase.backends.postgresql.keep_rows import Kept, copy_rows, fetcher
from tests.support.postgresql import PostgreSQLTestCase

SCHEMA = """
    CREATE SCHEMA "odd Schema";
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE authors (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,
        loud text GENERATED ALWAYS AS (upper(name)) STORED);
    CREATE TABLE posts (id serial PRIMARY KEY, author_id int NOT NULL REFERENCES authors DEFERRABLE INITIALLY DEFERRED,
        reply_to int REFERENCES posts, "odd ""Column%" jsonb, body bytea, tags text[], at timestamptz, mood mood,
        span tstzrange, price numeric(10, 2), score float8, flag bool, code char(4), lasts interval);
    CREATE TABLE "odd Schema"."odd Table" (id int);
    CREATE TABLE events (id int, day date) PARTITION BY RANGE (day);
    CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE parents (id int);
    CREATE TABLE children (extra int) INHERITS (parents);
    CREATE TABLE nothing ();
    CREATE TABLE log (entry text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO log VALUES (NEW.name); RETURN NEW; END $$;
    CREATE TRIGGER note AFTER INSERT ON authors FOR EACH ROW EXECUTE FUNCTION note();
    CREATE MATERIALIZED VIEW titles AS SELECT id FROM posts;
    INSERT INTO authors (name) VALUES ('base data');
"""
ROWS = r"""
    INSERT INTO authors (name) VALUES ('Ada'), (E'tab\t, newline\n, \\N and "quotes"');
    INSERT INTO posts (author_id, "odd ""Column%", body, tags, at, mood, span, price, score, flag, code, lasts)
        VALUES (2, '{"a": [1, null, "x\"y"]}', '\x00ff', '{a,NULL,"b,c"}', '2024-02-29 12:00:00.123456+02', 'ok',
                '[2024-01-01,)', 1.10, 0.1, true, 'ab', '1 mon 2 days 03:04:05');
    INSERT INTO posts (author_id, reply_to) VALUES (2, 1);
    INSERT INTO "odd Schema"."odd Table" VALUES (7);
    INSERT INTO events VALUES (1, '2024-05-01');
    INSERT INTO parents VALUES (1);
    INSERT INTO children VALUES (2, 3);
    UPDATE authors SET name = 'changed' WHERE name = 'base data';
    DELETE FROM log WHERE entry = 'base data';
"""
OWN_EVERYTHING = """
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
                     WHERE nspname IN ('public', 'odd Schema') AND relkind IN ('r', 'p', 'm')
        LOOP EXECUTE format('ALTER TABLE %s OWNER TO plain', name); END LOOP;
    END $$;
    ALTER SCHEMA "odd Schema" OWNER TO plain;
"""
EVERYTHING = [
    "SELECT * FROM authors ORDER BY id",
    "SELECT * FROM posts ORDER BY id",
    'SELECT * FROM "odd Schema"."odd Table"',
    "SELECT * FROM events",
    "SELECT * FROM ONLY parents",
    "SELECT * FROM children",
    "SELECT * FROM log ORDER BY 1",
    "SELECT last_value, is_called FROM posts_id_seq",
    "SELECT last_value, is_called FROM authors_id_seq",
]


class KeepingTest(PostgreSQLTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.source = self.enterContext(self.database("source"))
        self.target = self.enterContext(self.database("kept_rows"))
        for url in (self.source, self.target):
            self.ask(SCHEMA, url)

    def copy(self, rows: str = ROWS, target: URL | None = None, driver: str = "psycopg") -> tuple[Kept, list[Any]]:
        """Copy what an open transaction sees; what that was."""
        engine = create_engine(self.source.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
        with closing(engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute(rows)
            kept = copy_rows(fetcher(connection.dbapi_connection), target or self.target)
            seen = []
            for query in EVERYTHING:
                cursor.execute(query)
                seen.append(cursor.fetchall())
            connection.rollback()
        engine.dispose()
        return kept, seen

    def kept(self) -> list[Any]:
        return [self.ask(query, self.target) for query in EVERYTHING]

    def test_rows_sequences_and_views_are_as_the_transaction_saw_them(self) -> None:
        kept, seen = self.copy()
        self.assertEqual(self.kept(), seen)
        self.assertEqual(kept, Kept(rows=11, missing=()))
        self.assertEqual(self.ask("SELECT * FROM titles ORDER BY 1", self.target), [(1,), (2,)])
        self.assertEqual(self.ask("SELECT count(*) FROM posts", self.source), [(0,)], "the source is not committed")

    def test_it_works_through_another_driver(self) -> None:
        kept, seen = self.copy(driver="psycopg2")
        self.assertEqual(kept.rows, 11)
        self.assertEqual(self.ask("SELECT name FROM authors ORDER BY id", self.target), [(row[1],) for row in seen[0]])

    def test_a_role_that_is_no_superuser_can_keep_them_too(self) -> None:
        with self.role("plain"):
            self.ask(OWN_EVERYTHING, self.target)
            _, seen = self.copy(
                ROWS + "INSERT INTO posts (author_id) VALUES (99);",
                self.target.set(username="plain", password="secret"),
            )
            self.assertEqual(self.kept(), seen)
            validated = "SELECT conname::text, convalidated FROM pg_constraint WHERE contype = 'f'"
            self.assertEqual(
                dict(self.ask(validated, self.target)), {"posts_author_id_fkey": False, "posts_reply_to_fkey": True}
            )
            self.assertEqual(self.ask("SELECT tgenabled FROM pg_trigger WHERE tgname = 'note'", self.target), [("O",)])
            self.ask("REASSIGN OWNED BY plain TO CURRENT_USER; DROP OWNED BY plain", self.target)

    def test_constraints_and_triggers_work_again_afterwards(self) -> None:
        self.copy()
        with self.assertRaises(psycopg.errors.ForeignKeyViolation):
            self.ask("INSERT INTO posts (author_id) VALUES (99)", self.target)
        self.ask("INSERT INTO authors (name) VALUES ('later')", self.target)
        self.assertIn(("later",), self.ask("SELECT entry FROM log", self.target))

    def test_tables_and_columns_that_the_test_made_are_told(self) -> None:
        kept, _ = self.copy(ROWS + "CREATE TABLE mine (id int); ALTER TABLE authors ADD COLUMN age int;")
        self.assertEqual(kept.missing, ("public.mine", "public.authors.age"))
        self.assertEqual(self.ask("SELECT count(*) FROM authors", self.target), [(3,)])
