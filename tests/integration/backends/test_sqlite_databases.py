"""Databases on SQLite, in memory and in files: copied from a template, put back, removed; guarded where lent."""

import multiprocessing
import os
import signal
import sqlite3
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import DDL, URL, Column, ForeignKey, Integer, MetaData, Table, create_engine, event, make_url

from dbtestcase import backends as databases
from dbtestcase.backends.existing import MARK_TABLE
from dbtestcase.backends.interface import Database
from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.backends.sqlite import databases as sqlite
from dbtestcase.backends.sqlite import files as sqlite_files
from dbtestcase.errors import ConfigurationError, DatabaseError, SchemaError, ServerUnreachable, UnsafeDatabase
from dbtestcase.settings import Settings
from tests.support.postgresql import CountingRecipe, recipe

CONTEXT = multiprocessing.get_context("fork")


class SQLiteTestCase(unittest.TestCase):
    """Every test must leave the folder of this user's databases as it was."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.settings = Settings(cache=self.folder / "cache", cache_is_chosen=True)
        self.enterContext(
            mock.patch.dict(os.environ, TMPDIR=str(self.folder), DBTESTCASE_CACHE=str(self.folder / "cache"))
        )
        self.enterContext(mock.patch.object(tempfile, "tempdir", None))
        self.addCleanup(lambda: self.assertEqual(self.left(), [], "files were left behind"))
        self.file = URL.create("sqlite", database=str(self.folder / "shop.db"))
        self.memory = make_url("sqlite://")

    def left(self) -> list[Path]:
        return list(sqlite_files.private_folder().iterdir())

    def templates(self) -> list[Path]:
        return sorted(self.folder.glob("cache/sqlite/*"))

    def make(self, url: URL, made_from: MetadataRecipe, **options: Any) -> Database:
        return databases.test_database(url, made_from, **{"base": "shop", "settings": self.settings} | options)

    def ask(self, url: URL, statement: str) -> list[Any]:
        """What a connection of the judge's own sees; or does."""
        with closing(sqlite_files.open_uri(url)) as connection:
            return connection.execute(statement).fetchall()


class CreateTest(SQLiteTestCase):
    def test_tables_and_base_data_are_there_for_every_connection(self) -> None:
        for url in (self.memory, self.file, make_url("sqlite+aiosqlite://")):
            for settings in (self.settings, Settings(cache=None)):
                with (
                    self.subTest(url=url, cache=settings.cache),
                    self.make(url, recipe("author", 3), settings=settings) as made,
                ):
                    self.assertEqual(made.url.drivername, url.drivername)
                    engine = create_engine(made.url.set(drivername="sqlite"))
                    with engine.connect() as first, engine.connect() as second:
                        first.exec_driver_sql("DELETE FROM author WHERE id = 1")
                        first.commit()
                        self.assertEqual(second.exec_driver_sql("SELECT count(*) FROM author").scalar_one(), 2)
                    engine.dispose()

    def test_the_second_one_is_copied_and_both_are_apart(self) -> None:
        for url in (self.memory, self.file):
            with self.subTest(url=url):
                name = "copied" if url is self.file else "cloned"
                first, second = CountingRecipe(name), CountingRecipe(name)
                with self.make(url, first) as made, self.make(url, second) as copied:
                    self.assertEqual((made.made_template, copied.made_template), (True, False))
                    self.ask(made.url, f"INSERT INTO {name} DEFAULT VALUES")
                    self.assertEqual(self.ask(copied.url, f"SELECT count(*) FROM {name}"), [(0,)])
                self.assertEqual((len(first.built), second.built), (1, []))

    def test_a_file_and_a_database_in_memory_share_a_template(self) -> None:
        self.make(self.memory, recipe("shared")).close()
        with self.make(self.file, recipe("shared")) as made:
            self.assertFalse(made.made_template)

    def test_the_named_file_is_not_touched(self) -> None:
        self.ask(self.file, "CREATE TABLE kept (id)")
        path = Path(self.file.database or "")
        before = path.read_bytes(), path.stat().st_mtime_ns
        with self.make(self.file, recipe("kept")) as made:
            self.assertNotEqual(made.name, str(path))
        self.assertEqual((path.read_bytes(), path.stat().st_mtime_ns), before)
        self.assertFalse(Path(made.name).exists())

    def test_reclone_puts_it_back_while_others_are_connected(self) -> None:
        for url in (self.memory, self.file):
            for settings in (self.settings, Settings(cache=None)):
                with (
                    self.subTest(url=url, cache=settings.cache),
                    self.make(url, recipe("again", 2), settings=settings) as made,
                    closing(sqlite_files.open_uri(made.url)) as other,
                ):
                    other.execute("DELETE FROM again")
                    other.execute("CREATE TABLE extra (id)")
                    made.reclone()
                    self.assertEqual(other.execute("SELECT count(*) FROM again").fetchall(), [(2,)])
                    with self.assertRaises(sqlite3.OperationalError):
                        other.execute("SELECT * FROM extra")

    def test_reclone_does_not_hang_on_an_open_transaction(self) -> None:
        for url in (self.memory, self.file):
            with self.subTest(url=url), self.make(url, recipe("again")) as made:
                with closing(sqlite_files.open_uri(made.url)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    with mock.patch.object(sqlite_files, "PATIENCE", 0.2):
                        with self.assertRaisesRegex(DatabaseError, "locked"):
                            made.reclone()

    def test_a_write_ahead_log_is_part_of_the_template(self) -> None:
        made_from = recipe("logged", 2)
        event.listen(made_from.metadata[0], "before_create", DDL("PRAGMA journal_mode = wal"))
        for _ in range(2):
            with self.make(self.file, made_from) as made:
                self.assertEqual(self.ask(made.url, "SELECT count(*) FROM logged"), [(2,)])
        self.assertEqual(len(self.templates()), 1)

    def test_no_tables_at_all(self) -> None:
        for _ in range(2):
            with self.make(self.memory, MetadataRecipe(MetaData(), dialect="sqlite")) as made:
                self.assertEqual(self.ask(made.url, "SELECT * FROM sqlite_master"), [])
        self.assertFalse(made.made_template)


class SchemaTest(SQLiteTestCase):
    def test_a_table_in_a_schema_is_refused(self) -> None:
        metadata = MetaData()
        Table("entry", metadata, Column("id", Integer), schema="ledger")
        with self.assertRaisesRegex(SchemaError, "'ledger'"):
            self.make(self.memory, MetadataRecipe(metadata, dialect="sqlite"))


class TemplateTest(SQLiteTestCase):
    def test_a_spoilt_template_is_made_again(self) -> None:
        self.make(self.memory, recipe("spoilt")).close()
        (template,) = self.templates()
        for content in (b"", b"half"):
            template.write_bytes(content)
            with self.make(self.memory, recipe("spoilt")) as made:
                self.assertTrue(made.made_template)
                self.assertEqual(self.ask(made.url, "SELECT * FROM spoilt"), [])

    def test_a_failed_build_leaves_nothing(self) -> None:
        made_from = recipe("flawed")
        event.listen(made_from.metadata[0], "after_create", DDL("SELECT no_such_function()"))
        for url in (self.memory, self.file):
            for settings in (self.settings, Settings(cache=None)):
                with self.subTest(url=url, cache=settings.cache), self.assertRaises(SchemaError):
                    self.make(url, made_from, settings=settings)
        self.assertEqual(self.templates(), [])

    def test_eight_processes_at_once_make_it_once(self) -> None:
        reading, writing = CONTEXT.Pipe(duplex=False)
        start = CONTEXT.Barrier(8)

        def work() -> None:
            counted = CountingRecipe("crowd")
            start.wait(60)
            with self.make(self.memory, counted) as made:
                writing.send((len(counted.built), self.ask(made.url, "SELECT count(*) FROM crowd")))

        processes = [CONTEXT.Process(target=work) for _ in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        self.assertEqual(sorted(reading.recv() for _ in processes), [(0, [(0,)])] * 7 + [(1, [(0,)])])

    def test_one_that_is_killed_while_it_builds_is_replaced(self) -> None:
        reading, writing = CONTEXT.Pipe(duplex=False)

        class Dying(CountingRecipe):
            def build(self, url: URL) -> None:
                super().build(url)
                writing.send("half")
                signal.pause()

        process = CONTEXT.Process(target=lambda: self.make(self.memory, Dying("dying")))
        process.start()
        reading.recv()
        process.kill()
        process.join()
        counted = CountingRecipe("dying")
        self.make(self.memory, counted).close()
        self.assertEqual(len(counted.built), 1)
        self.assertEqual(len(self.templates()), 1)

    def test_only_those_that_were_used_last_are_kept(self) -> None:
        with mock.patch.object(sqlite, "KEPT_TEMPLATES", 2):
            for name in ("a", "b", "c"):
                self.make(self.memory, recipe(name)).close()
                for age, template in enumerate(self.templates()):
                    os.utime(template, (age, age))
            self.assertEqual(len(self.templates()), 2)

    def test_prune_removes_those_that_nobody_may_copy_again(self) -> None:
        used, unused = self.make(self.file, recipe("used")), self.make(self.memory, recipe("unused"))
        kept, gone = used._template, str(unused._template)
        unused.close()
        for dry in (True, False):
            self.assertEqual(databases.prune(self.memory, dry=dry), [gone])
        self.assertEqual(self.templates(), [kept])
        self.ask(used.url, "DROP TABLE used")
        used.reclone()
        self.assertEqual(self.ask(used.url, "SELECT * FROM used"), [])
        used.close()
        self.assertEqual(databases.prune(self.memory), [str(kept)])
        again = CountingRecipe("used")
        self.make(self.file, again).close()
        self.assertEqual(len(again.built), 1)

    def test_one_that_is_removed_before_it_is_copied_is_made_again(self) -> None:
        real = sqlite._template

        def removed_at_once(*args: Any) -> Any:
            found = real(*args)
            if len(removed) < 2:
                removed.append(found)
                found[0].unlink()
            return found

        removed: list[Any] = []
        with mock.patch.object(sqlite, "_template", removed_at_once):
            made = self.make(self.memory, recipe("unlucky"))
        self.addCleanup(made.close)
        self.assertEqual((len(removed), made.made_template), (2, True))

    def test_a_current_folder_that_was_removed_is_named(self) -> None:
        with tempfile.TemporaryDirectory() as folder, chdir(self.folder):
            os.chdir(folder)
            os.rmdir(folder)
            with self.assertRaisesRegex(ConfigurationError, "current folder of this process is not there any more"):
                self.make(self.memory, recipe("homeless"))
            os.chdir(self.folder)
            os.mkdir(folder)

    def test_a_cache_that_cannot_be_used_is_named_where_it_was_chosen(self) -> None:
        (self.folder / "cache").write_text("in the way")
        with self.assertRaisesRegex(DatabaseError, "cache"):
            self.make(self.memory, recipe("walled"))


class LeaseTest(SQLiteTestCase):
    def test_what_a_killed_run_left_is_removed_by_the_next(self) -> None:
        reading, writing = CONTEXT.Pipe(duplex=False)

        def killed() -> None:
            made = self.make(self.file, recipe("k"))
            writing.send(made.name)
            signal.pause()

        process = CONTEXT.Process(target=killed)
        process.start()
        name = reading.recv()
        self.make(self.file, recipe("k")).close()
        self.assertTrue(Path(name).exists(), "removed although its owner lives")
        process.kill()
        process.join()
        self.assertEqual(databases.prune(self.file, templates=False, dry=True), [name])
        self.assertEqual(databases.prune(self.file, templates=False), [name])

    def test_a_forked_process_removes_nothing(self) -> None:
        with self.make(self.file, recipe("forked")) as made:
            process = CONTEXT.Process(target=made.close)
            process.start()
            process.join()
            self.assertEqual(process.exitcode, 0)
            self.assertEqual(databases.prune(self.file), [])
            self.assertEqual(self.ask(made.url, "SELECT * FROM forked"), [])


class ExistingTest(SQLiteTestCase):
    def use(self, url: URL, made_from: MetadataRecipe | None = None, **options: Any) -> Database:
        return self.make(url, made_from or recipe("author", 2), mode="existing", **options)

    @contextmanager
    def in_transaction(self, made: Database) -> Iterator[Any]:
        engine = create_engine(made.url)
        event.listen(engine, "connect", lambda dbapi, _: setattr(dbapi, "isolation_level", None))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            made.create_in(connection)
            yield connection
            connection.rollback()
        engine.dispose()

    def test_a_file_with_rows_is_refused_and_stays_byte_for_byte(self) -> None:
        self.ask(self.file, "CREATE TABLE customer AS SELECT 'Ada' AS name")
        path = self.folder / "shop.db"
        before = path.read_bytes(), path.stat().st_mtime_ns
        for transactional in (True, False):
            with self.subTest(transactional=transactional):
                with self.assertRaisesRegex(UnsafeDatabase, r"'shop'.*customer"):
                    self.use(self.file, transactional=transactional)
                self.assertEqual((path.read_bytes(), path.stat().st_mtime_ns), before)
        self.assertEqual(sorted(item.name for item in self.folder.glob("shop*")), ["shop.db"])

    def test_one_that_is_not_there_is_made_and_removed(self) -> None:
        with self.use(self.file) as made:
            self.assertEqual(self.ask(self.file, "SELECT count(*) FROM author"), [(2,)])
            self.assertEqual(made.url, self.file)
        self.assertFalse((self.folder / "shop.db").exists())

    def test_one_that_is_named_like_a_test_or_marked_is_emptied_and_left_empty(self) -> None:
        named = self.file.set(database=str(self.folder / "shop-test.db"))
        self.ask(named, "CREATE TABLE old (id)")
        self.ask(self.file, f"CREATE TABLE {MARK_TABLE} (id)")
        for url in (named, self.file):
            with self.subTest(url=url):
                with self.use(url):
                    self.assertEqual(self.ask(url, "SELECT count(*) FROM author"), [(2,)])
                    self.assertEqual(self.ask(url, "SELECT * FROM sqlite_master WHERE name = 'old'"), [])
                self.assertEqual(self.ask(url, "SELECT * FROM sqlite_master"), [])

    def test_in_a_transaction_nothing_is_ever_committed(self) -> None:
        url = self.file.set(database=str(self.folder / "test.db"))
        with closing(sqlite_files.open_uri(url)) as connection:
            connection.executescript(
                "CREATE TABLE author (id INTEGER PRIMARY KEY, old TEXT);"
                "CREATE TABLE book (id INTEGER PRIMARY KEY, author_id REFERENCES author (id));"
                "INSERT INTO author VALUES (1, 'kept'); INSERT INTO book VALUES (1, 1);"
                "CREATE VIEW books AS SELECT * FROM book; CREATE VIRTUAL TABLE words USING fts5(text)"
            )
        with self.use(url, transactional=True) as made:
            self.assertFalse(made.built)
            with self.in_transaction(made) as connection:
                self.assertEqual(connection.exec_driver_sql("SELECT count(title) FROM author").scalar_one(), 2)
        self.assertEqual(self.ask(url, "SELECT * FROM author, books, words"), [])
        self.assertEqual(self.ask(url, "SELECT old FROM author"), [("kept",)])

    def test_a_circular_model_that_has_changed_is_rebuilt(self) -> None:
        def circular(extra: str) -> MetadataRecipe:
            metadata = MetaData()
            for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
                Table(
                    name,
                    metadata,
                    Column("id", Integer, primary_key=True),
                    Column(f"{other}_id", ForeignKey(f"{other}.id")),
                    Column(extra, Integer),
                )
            return MetadataRecipe(metadata, dialect="sqlite")

        with self.use(self.file, circular("first")) as first:
            self.ask(self.file, "CREATE VIEW over_a AS SELECT * FROM a")
            first._lock.release()  # type: ignore[attr-defined]  # as if the run had died
            with self.use(self.file, circular("second")):
                self.assertEqual(self.ask(self.file, "SELECT second FROM a"), [])

    def test_in_memory_it_is_as_good_as_created(self) -> None:
        with self.use(self.memory) as made:
            self.assertTrue(made.built)
            self.assertEqual(self.ask(made.url, "SELECT count(*) FROM author"), [(2,)])
            with self.assertRaises(ConfigurationError):
                made.create_in(mock.Mock())

    def test_a_folder_that_is_not_there_and_a_file_that_is_no_database(self) -> None:
        with self.assertRaisesRegex(ServerUnreachable, "no such folder"):
            self.use(self.file.set(database=str(self.folder / "nowhere" / "test.db")))
        (self.folder / "test.db").write_text("not a database, but long enough to be read as one" * 100)
        with self.assertRaisesRegex(DatabaseError, "cannot be read"):
            self.use(self.file.set(database=str(self.folder / "test.db")))
