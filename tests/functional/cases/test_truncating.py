"""TruncatingDatabaseTest as its users run it: inner suites, drivers, runners, and classes of both kinds mixed."""

from __future__ import annotations

import tempfile
import textwrap
import unittest

from sqlalchemy import URL

from tests.support.requirements import require_module
from tests.support.runners import PARALLEL_RUNNERS, SERIAL_RUNNERS, Outcome, run_suite, some_of, write_suite
from tests.support.samples import a_share
from tests.support.scratch import connect, dump
from tests.support.servers import postgresql_url

MODELS = """
    from sqlalchemy import create_engine, select, func, text
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]

    engine = create_engine("postgresql+{driver}://nobody@nowhere.invalid/production", {options})

    def add(body):
        with Session(engine) as session, session.begin():
            session.add(Note(body=body))

    def bodies():
        with Session(engine) as session:
            return sorted(session.scalars(select(Note.body)))

    def first_id():
        with Session(engine) as session:
            return session.scalar(select(func.min(Note.id)))
"""

TESTS = """
    import threading, warnings
    import app
    from app import Note
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest
    from sqlalchemy import text
    from sqlalchemy.orm import Session

    class CommittingTest(TruncatingDatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]

        @classmethod
        def load_base_data(cls, session):
            session.add(Note(body="reference"))

        @classmethod
        def setUpTestData(cls):
            cls.note = Note(body="of the class")
            cls.session.add(cls.note)

        def check(self):
            self.assertEqual(app.bodies(), ["of the class", "reference"])
            app.add("new")
            with Session(app.engine) as session:
                self.assertEqual(session.get_one(Note, 3).body, "new")

        def test_1(self):
            self.check()

        def test_2(self):
            self.check()

        def test_commits_are_seen_by_other_connections(self):
            with app.engine.connect() as one, app.engine.connect() as two:
                one.execute(text("INSERT INTO notes (body) VALUES ('x')"))
                self.assertEqual(two.scalar(text("SELECT count(*) FROM notes")), 2)
                one.commit()
                self.assertEqual(two.scalar(text("SELECT count(*) FROM notes")), 3)

        def test_the_own_session_and_the_class_row(self):
            self.note.body = "changed"
            self.session.flush()
            self.session.add(Note(body="left open"))
            self.session.flush()

        def test_the_schema_may_be_changed(self):
            with app.engine.begin() as connection:
                connection.execute(text("CREATE TABLE made (id int)"))
                connection.execute(text("DROP TABLE notes"))

        def test_the_session_of_the_server_is_new(self):
            with app.engine.connect() as connection:
                self.assertEqual(connection.scalar(text("SHOW work_mem")), "4MB")
                self.assertIsNone(connection.scalar(text("SELECT to_regclass('pg_temp.scratch')::text")))
                connection.execute(text("SET work_mem = '1MB'"))
                connection.execute(text("CREATE TEMPORARY TABLE scratch (id int)"))
                connection.commit()

        test_the_session_of_the_server_is_new_again = test_the_session_of_the_server_is_new

    class SandboxedTest(DatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]

        def test_1(self):
            self.assertEqual(app.bodies(), [])
            app.add("sandboxed")
            self.assertEqual(app.bodies(), ["sandboxed"])

        test_2 = test_1

    class AnotherCommittingTest(TruncatingDatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]

        def test_1(self):
            self.assertEqual(app.bodies(), [])
            app.add("committed")
            self.assertEqual(app.first_id(), 1)

        test_2 = test_1

    class ZLastTest(SandboxedTest):
        pass
"""


class InnerCase(unittest.TestCase):
    def run_inner(self, files: dict[str, str], runner: str = "unittest", env: dict[str, str] | None = None) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            write_suite(folder, files)
            return run_suite(folder, runner, env=env)

    def models(self, driver: str, options: str = "") -> str:
        return MODELS.replace("{driver}", driver).replace("{options}", options)


class DriversTest(InnerCase):
    def test_sync_drivers(self) -> None:
        for driver in a_share(("psycopg", "psycopg2"), 2):
            with self.subTest(driver):
                require_module(driver)
                self.run_inner({"app.py": self.models(driver), "test_it.py": TESTS}).expect(passed=13)

    def test_pools_and_creators(self) -> None:
        each = (
            "poolclass=__import__('sqlalchemy').pool.NullPool",
            "pool_size=1, max_overflow=0",
            "poolclass=__import__('sqlalchemy').pool.StaticPool",
            "creator=lambda: __import__('psycopg').connect('host=db.example.org dbname=shop')",
            "connect_args={'application_name': 'mine', 'sslmode': 'require'}, echo_pool=False",
        )
        for options in a_share(each, 4):
            with self.subTest(options):
                tests = TESTS
                if "size=1" in options or "StaticPool" in options:
                    tests = tests.replace("def test_commits_are_seen", "def no_test_commits_are_seen")
                    self.run_inner({"app.py": self.models("psycopg", options), "test_it.py": tests}).expect(passed=12)
                else:
                    self.run_inner({"app.py": self.models("psycopg", options), "test_it.py": tests}).expect(passed=13)

    def test_async_drivers(self) -> None:
        for driver in a_share(("psycopg", "asyncpg"), 2):
            with self.subTest(driver):
                require_module(driver)
                self.run_inner({"app.py": ASYNC_MODELS.replace("{driver}", driver), "test_it.py": ASYNC_TESTS}).expect(
                    passed=5
                )


ASYNC_MODELS = """
    from sqlalchemy import select
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]

    engine = create_async_engine("postgresql+{driver}://nobody@nowhere.invalid/production")

    async def add(body):
        async with AsyncSession(engine) as session, session.begin():
            session.add(Note(body=body))

    async def bodies():
        async with AsyncSession(engine) as session:
            return sorted(await session.scalars(select(Note.body)))
"""

ASYNC_TESTS = """
    import asyncio
    import app
    from app import Note
    from dbtestcase import AsyncTruncatingDatabaseTest, TruncatingDatabaseTest
    from sqlalchemy import text

    class CommittingTest(AsyncTruncatingDatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]

        @classmethod
        def setUpTestData(cls):
            cls.session.add(Note(body="of the class"))

        async def test_1(self):
            self.assertEqual(await app.bodies(), ["of the class"])
            await asyncio.gather(*(app.add(f"new {n}") for n in range(4)))
            self.assertEqual(len(await app.bodies()), 5)
            self.session.add(Note(body="by the test"))
            await self.session.commit()
            self.assertEqual(len(await app.bodies()), 6)

        test_2 = test_1

        async def test_another_engine_and_sync_code(self):
            async with self.engine.begin() as connection:
                await connection.execute(text("INSERT INTO notes (body) VALUES ('x')"))
            self.sync_session.add(Note(body="y"))
            self.sync_session.commit()
            self.assertEqual(await app.bodies(), ["of the class", "x", "y"])

        async def test_own_session_left_open(self):
            self.session.add(Note(body="z"))
            await self.session.flush()

    class LoopsOfItsOwnTest(TruncatingDatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]

        def test_1(self):
            async def work():
                await app.add("in its own loop")
                self.assertEqual(await app.bodies(), ["in its own loop"])
                await app.engine.dispose()
            asyncio.run(work())
            asyncio.run(app.engine.dispose())
"""


class RunnersTest(InnerCase):
    def test_in_one_process_and_in_several(self) -> None:
        for runner in (*some_of(SERIAL_RUNNERS[1:], "committing"), *some_of(PARALLEL_RUNNERS, "committing")):
            with self.subTest(runner):
                self.run_inner({"app.py": self.models("psycopg"), "test_it.py": TESTS}, runner).expect(passed=13)


class LeftoversTest(InnerCase):
    def one_test(self, body: str, helper: str = "") -> Outcome:
        helper = textwrap.indent(textwrap.dedent(helper).strip(), " " * 16).strip()
        body = textwrap.indent(textwrap.dedent(body).strip(), " " * 20).strip()
        source = f"""
            import threading, time, warnings
            import app, psycopg
            from dbtestcase import TruncatingDatabaseTest
            from sqlalchemy import text, select, make_url
            from sqlalchemy.orm import Session

            class LeavingTest(TruncatingDatabaseTest):
                metadata = app.Base.metadata
                engines = [app.engine]

                def connect(self):
                    url = make_url(self.database_url).set(drivername="postgresql")
                    return psycopg.connect(url.render_as_string(hide_password=False))

                {helper}

                def test_1(self):
                    {body}

                def test_2(self):
                    self.assertEqual(app.bodies(), [])
        """
        return self.run_inner({"app.py": self.models("psycopg"), "test_it.py": source})

    def test_an_open_transaction_that_wrote_fails_its_test_and_only_that(self) -> None:
        outcome = self.one_test(
            "global left; left = Session(app.engine); left.add(app.Note(body='x')); left.flush()"
        ).expect(passed=1, errors=1)
        for part in ("LeakError", "LeavingTest.test_1 left behind", "idle in transaction", "test_it.py:19 in test_1"):
            self.assertIn(part, outcome.output)

    def test_an_open_transaction_that_read_is_a_warning(self) -> None:
        outcome = self.one_test("global left; left = Session(app.engine); left.scalars(select(app.Note)).all()")
        outcome.expect(passed=1, errors=1)  # the inner run makes errors of warnings
        self.assertIn("LeftoverConnectionWarning", outcome.output)
        self.assertIn("test_it.py:19", outcome.output)

    def test_a_raw_connection_that_wrote_fails_its_test(self) -> None:
        outcome = self.one_test("global left; left = self.connect(); left.execute('delete from notes')")
        outcome.expect(passed=1, errors=1)
        self.assertIn("delete from notes", outcome.output)

    def test_idle_connections_of_others_outlive_the_test(self) -> None:
        source = """
            import app, psycopg
            from dbtestcase import TruncatingDatabaseTest
            from sqlalchemy import create_engine, make_url, text

            class SharingTest(TruncatingDatabaseTest):
                metadata = app.Base.metadata
                engines = [app.engine]
                engine_of_url = raw = None
                pids = set()

                def test_1(self):
                    cls = SharingTest
                    if cls.raw is None:
                        cls.engine_of_url = create_engine(self.database_url)
                        url = make_url(self.database_url).set(drivername="postgresql")
                        cls.raw = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
                    self.assertEqual(app.bodies(), [])
                    self.raw.execute("insert into notes (body) values ('by another connection')")
                    self.raw.execute("select setval('notes_id_seq', 77, false)")
                    with self.engine_of_url.begin() as connection:
                        connection.execute(text("insert into notes (body) values ('by another engine')"))
                        self.pids.add((connection.scalar(text("select pg_backend_pid()")), self.raw.info.backend_pid))
                    self.assertEqual(len(self.pids), 1)

                test_2 = test_3 = test_4 = test_1

                def test_5(self):
                    self.raw.execute("create table made_by_test ()")

                def test_6(self):
                    with self.engine_of_url.connect() as connection:    # connects again by itself
                        self.assertIsNone(connection.scalar(text("select to_regclass('made_by_test')")))
        """
        self.run_inner({"app.py": self.models("psycopg"), "test_it.py": source}).expect(passed=6)

    def test_whatever_happens_to_the_database_the_next_test_begins_anew(self) -> None:
        each = {
            "every connection ended": "with self.connect() as c: c.execute('select pg_terminate_backend(pid) from "
            "pg_stat_activity where pid <> pg_backend_pid() and datname is not null')",
            "no connections accepted": "self.alone('alter database {} allow_connections false')",
            "a template": "self.alone('alter database {} is_template true')",
            "dropped": "self.alone('drop database {} with (force)')",
            "renamed": "app.engine.dispose(); self.alone('alter database {} rename to renamed_by_a_test', end=True)",
            "a subscription": "with self.connect() as c: c.execute(\"create subscription hears connection 'dbname=x' "
            'publication p with (connect = false, enabled = false, slot_name = none)")',
        }
        for name, body in a_share(each.items(), 2):
            with self.subTest(name):
                helper = """
                    def alone(self, statement, end=False):
                        url = make_url(self.database_url).set(drivername="postgresql")
                        name, url = url.database, url.set(database="postgres")
                        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as c:
                            if end:
                                c.execute(
                                    "select pg_terminate_backend(pid, 60000) from pg_stat_activity where datname = %s",
                                    (name,),
                                )
                            c.execute(statement.format(name))
                """
                self.one_test(body, helper).expect(passed=2)

    def test_sessions_that_were_closed_are_nobodys_fault(self) -> None:
        outcome = self.one_test("app.add('x'); self.session.add(app.Note(body='y')); self.session.flush()").expect(
            passed=2
        )
        self.assertNotIn("Warning", outcome.output)

    def test_a_thread_that_still_writes_is_caught(self) -> None:
        body = """
            def work():
                with app.engine.connect() as connection:
                    connection.execute(text("INSERT INTO notes (body) VALUES ('x')"))
                    started.set()
                    time.sleep(300)
                    connection.commit()
            started = threading.Event()
            threading.Thread(target=work, daemon=True).start()
            started.wait(60)
        """
        outcome = self.one_test(body).expect(passed=1, errors=1)
        self.assertIn("in work", outcome.output)

    def test_engines_get_their_own_pool_and_url_back(self) -> None:
        source = """
            import unittest
            import app
            from dbtestcase import TruncatingDatabaseTest

            before = app.engine.pool, app.engine.url

            class ATest(TruncatingDatabaseTest):
                metadata = app.Base.metadata
                engines = [app.engine]

                def test(self):
                    app.add("x")
                    self.assertNotEqual(app.engine.url.database, "production")

            class BTest(unittest.TestCase):
                def test(self):
                    self.assertEqual((app.engine.pool, app.engine.url), before)
                    with self.assertRaises(Exception):
                        app.add("x")
        """
        self.run_inner({"app.py": self.models("psycopg"), "test_it.py": source}).expect(passed=2)

    def test_an_engine_of_one_test_is_enlisted_for_it_alone(self) -> None:
        source = """
            import app
            from dbtestcase import TruncatingDatabaseTest
            from sqlalchemy import create_engine, text

            other = create_engine("postgresql+psycopg://nowhere.invalid/other")

            class ATest(TruncatingDatabaseTest):
                metadata = app.Base.metadata

                def test_1(self):
                    self.enlist(other)
                    with other.begin() as connection:
                        connection.execute(text("INSERT INTO notes (body) VALUES ('x')"))
                    self.assertRowCount(app.Note, 1) if hasattr(self, "assertRowCount") else None

                def test_2(self):
                    self.assertEqual(other.url.database, "other")
        """
        self.run_inner({"app.py": self.models("psycopg"), "test_it.py": source}).expect(passed=2)

    def test_a_connection_in_use_from_before_is_refused_by_name(self) -> None:
        source = """
            import app
            from dbtestcase import ConfigurationError, TruncatingDatabaseTest
            from sqlalchemy import create_engine

            class ATest(TruncatingDatabaseTest):
                metadata = app.Base.metadata

                def test_1(self):
                    other = create_engine(self.database_url)
                    with other.connect(), self.assertRaisesRegex(ConfigurationError, "are in use"):
                        self.enlist(other)
                    other.dispose()
        """
        self.run_inner({"app.py": self.models("psycopg"), "test_it.py": source}).expect(passed=1)


EXISTING = """
    import app
    from dbtestcase import DatabaseTest, TruncatingDatabaseTest
    from sqlalchemy import text

    class CommittingTest(TruncatingDatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]
        database = "existing"

        def test_1(self):
            self.assertEqual(app.bodies(), [])
            app.add("new")
            self.assertEqual(app.first_id(), 1)

        test_2 = test_1

        def test_the_schema_may_be_changed(self):
            with app.engine.begin() as connection:
                connection.execute(text("CREATE TABLE made (id int)"))

    class SandboxedTest(DatabaseTest):
        metadata = app.Base.metadata
        engines = [app.engine]
        database = "existing"

        def test_1(self):
            self.assertEqual(app.bodies(), [])
            app.add("new")

        test_2 = test_1

    class ThirdTest(CommittingTest):
        pass
"""


class ExistingDatabaseTest(InnerCase):
    def run_in(self, role: str) -> Outcome:
        server = postgresql_url()
        name = f"truncating_{role}_test"
        self.addCleanup(self.execute, server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.execute(server, f"CREATE DATABASE {name} OWNER {role}")
        url = server.set(database=name, username=role)
        before = dump(url)
        env = {"DBTESTCASE_URL": url.render_as_string(hide_password=False)}
        outcome = self.run_inner({"app.py": self.models("psycopg"), "test_it.py": EXISTING}, env=env)
        self.assertEqual(dump(url), before)
        with connect(url, autocommit=True) as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM pg_event_trigger").fetchone(), (0,))
        return outcome

    def execute(self, url: URL, statement: str) -> None:
        with connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def test_a_superuser_leaves_nothing_in_it(self) -> None:
        self.run_in(postgresql_url().username or "postgres").expect(passed=8)

    def test_an_ordinary_role_is_told_once_that_it_takes_longer(self) -> None:
        self.execute(postgresql_url(), "CREATE ROLE dbtestcase_tester LOGIN")
        self.addCleanup(self.execute, postgresql_url(), "DROP ROLE dbtestcase_tester")
        outcome = self.run_in("dbtestcase_tester").expect(passed=8)
        self.assertEqual(outcome.output.count("is no superuser"), 1)


class MigrationsTest(InnerCase):
    def test_a_migrated_database_is_put_back_even_when_it_was_downgraded(self) -> None:
        require_module("alembic")
        files = {
            "alembic.ini": "[alembic]\nscript_location = %(here)s/migrations\n",
            "migrations/env.py": """
                from alembic import context
                from sqlalchemy import engine_from_config, create_engine, pool

                url = context.config.get_main_option("sqlalchemy.url", "postgresql+psycopg://nowhere.invalid/production")
                with create_engine(url, poolclass=pool.NullPool).connect() as connection:
                    context.configure(connection=connection)
                    with context.begin_transaction():
                        context.run_migrations()
                """,
            "migrations/versions/0001_notes.py": """
                from alembic import op
                revision, down_revision = "0001", None

                def upgrade():
                    op.execute("CREATE TABLE notes (id serial PRIMARY KEY, body text)")

                def downgrade():
                    op.execute("DROP TABLE notes")
                """,
            "app.py": self.models("psycopg"),
            "test_it.py": """
                import app
                from dbtestcase import TruncatingDatabaseTest

                class MigratedTest(TruncatingDatabaseTest):
                    migrations = "alembic.ini"
                    engines = [app.engine]

                    def test_1(self):
                        self.assertEqual(app.bodies(), [])
                        app.add("new")
                        self.downgrade("base")
                        self.assertIsNone(self.current_revision())

                    def test_2(self):
                        self.assertEqual(self.current_revision(), "0001")
                        self.test_1()
                """,
        }
        self.run_inner(files).expect(passed=2)
