"""The border at a project's doors: migrated classes, env.py of Alembic's commands, a command line called in process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import types
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from dbtestcase import (
    AsyncDatabaseTest,
    AsyncMigratedDatabaseTest,
    AsyncTruncatingDatabaseTest,
    DatabaseTest,
    LeakError,
    MigratedDatabaseTest,
    OutsideDatabase,
    TruncatingDatabaseTest,
)
from tests.support.alembic_projects import AlembicProject
from tests.support.border import ASYNC_DOORS, COUNT, DOORS, Base, BorderCase, Note
from tests.support.production import PostgreSQLProduction, SQLiteProduction
from tests.support.requirements import require_module
from tests.support.runners import ROOT, run_python
from tests.support.shop_command import VARIABLE, call

KINDS = (DatabaseTest, TruncatingDatabaseTest, MigratedDatabaseTest)
ASYNC_KINDS = (AsyncDatabaseTest, AsyncTruncatingDatabaseTest, AsyncMigratedDatabaseTest)

JUDGE = """
import json, sys
import sqlalchemy as sa
found = []
for url in sys.argv[1:]:
    with sa.create_engine(url).connect() as connection:
        rows = connection.scalars(sa.text("SELECT text FROM note")).all()
        found.append([sorted(sa.inspect(connection).get_table_names()), rows])
print(json.dumps(found))
"""


def alembic(name: str, revision: str) -> None:
    """A command of Alembic, as an application calls it: its env.py makes an engine of the URL in the environment."""
    from alembic import command
    from alembic.config import Config

    getattr(command, name)(Config(os.environ["SHOP_INI"]), revision)


def has_table(connection: sa.Connection, name: str) -> bool:
    return sa.inspect(connection).has_table(name)


class ProjectCase(BorderCase):
    """``self.elsewhere`` is a real database of another kind than the class's, which the application knows as well."""

    elsewhere: Any
    async_url: str | None = None

    def setUp(self) -> None:
        super().setUp()
        require_module("alembic")
        folder = self.enterContext(tempfile.TemporaryDirectory())
        project = AlembicProject(folder)
        project.table("0001", None, "note")
        project.replace("primary_key=True)", 'primary_key=True), sa.Column("text", sa.String(99))', self.only(folder))
        project.table("0002", "0001", "extra")
        project.reads_url(f'sqlalchemy.create_engine(os.environ["{VARIABLE}"])')
        self.ini = str(project.ini)
        self.settings("sqlite:///nowhere/shop.db")

    def only(self, folder: str) -> Path:
        (path,) = Path(folder, "migrations", "versions").glob("0001*.py")
        return path

    def settings(self, url: sa.URL | str) -> None:
        """What the application reads its URL from."""
        text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
        self.enterContext(mock.patch.dict(os.environ, {VARIABLE: text, "SHOP_INI": self.ini}))

    def check(self) -> None:
        """Another process finds both real databases as they were."""
        urls = [each.url(each.drivers[0]) for each in (self.production, self.elsewhere)]
        judged = run_python(["-c", JUDGE, *(url.render_as_string(hide_password=False) for url in urls)], cwd=ROOT)
        self.assertEqual(judged.returncode, 0, judged.stderr)
        self.assertEqual(json.loads(judged.stdout), [[["note"], []], [["note"], []]])

    def sync_drivers(self) -> Iterator[str]:
        return self.drivers(tuple(driver for driver in self.production.drivers if driver != "pg8000"))

    def of(self, kind: type, **attributes: Any) -> type:
        """A base class: what the kind makes its tables of, and more attributes."""
        migrated = issubclass(kind, MigratedDatabaseTest | AsyncMigratedDatabaseTest)
        made: dict[str, Any] = {"migrations": self.ini} if migrated else {"metadata": Base.metadata}
        url = self.async_url if issubclass(kind, ASYNC_KINDS) else self.kind_url
        return type(kind.__name__, (kind,), made | {"url": url, "__module__": __name__} | attributes)


class Doors:
    """The contract of every dialect."""

    def test_a_migrated_class_refuses_who_is_not_named_and_leads_who_is_of_a_named_engines_url(self: Any) -> None:
        for driver in self.sync_drivers():
            named, other, filled = (self.engine(driver) for _ in range(3))
            self.settings(self.production.url(driver))
            with filled.connect() as connection:
                connection.execute(select(Note))

            class Refused(self.of(MigratedDatabaseTest)):  # type: ignore[misc]
                def test_doors(self) -> None:
                    for each in (other, filled):  # noqa: B023
                        for door in DOORS:
                            with self.subTest(door=door.__name__), self.assertRaises(OutsideDatabase):
                                door(each)
                    self.assertRowCount(Note, 0)

            class Led(self.of(MigratedDatabaseTest, engines=[named])):  # type: ignore[misc]
                def test_doors(self) -> None:
                    for number, door in enumerate(DOORS[:4]):
                        door((other, filled)[number % 2])  # noqa: B023
                        self.assertRowCount(Note, number + 1)

            self.assertPassed(Refused, Led, tests=2)

    def test_an_async_migrated_class_does_so_too(self: Any) -> None:
        for driver in self.drivers(self.production.async_drivers):
            named, other = (create_async_engine(self.production.url(driver)) for _ in range(2))
            self.settings(self.production.url(self.production.drivers[0]))

            class Refused(self.of(AsyncMigratedDatabaseTest)):  # type: ignore[misc]
                async def test_doors(self) -> None:
                    for door in ASYNC_DOORS:
                        with self.assertRaises(OutsideDatabase):
                            await door(other)  # noqa: B023

            class Led(self.of(AsyncMigratedDatabaseTest, engines=[named])):  # type: ignore[misc]
                async def test_doors(self) -> None:
                    for number, door in enumerate(ASYNC_DOORS):
                        await door(other)  # noqa: B023
                        self.assertEqual(await self.session.scalar(COUNT), number + 1)
                        await self.session.rollback()

            self.assertPassed(Refused, Led, tests=2)

    def test_env_py_of_a_command_is_led_and_one_of_another_kind_of_database_is_refused_by_name(self: Any) -> None:
        elsewhere = self.elsewhere.url(self.elsewhere.drivers[0])
        read = self.settings
        for driver in self.sync_drivers():
            named, url = self.engine(driver), self.production.url(driver)
            for kind, engines in [*((each, [named]) for each in KINDS), (DatabaseTest, [])]:
                migrated = kind is MigratedDatabaseTest
                tables = {} if migrated else {"metadata": sa.MetaData()}

                class Commands(self.of(kind, engines=engines, **tables)):  # type: ignore[misc]
                    def test_led(self) -> None:
                        read(url)  # noqa: B023
                        for step, revision in (("upgrade", "head"), ("downgrade", "0001"), ("upgrade", "0002")):
                            alembic(step, revision)
                            with self.engine.connect() as connection:
                                self.assertEqual(has_table(connection, "extra"), revision != "0001")

                    def test_refused(self) -> None:
                        read(elsewhere)
                        with self.assertRaisesRegex(OutsideDatabase, f"{elsewhere.database}.*env.py"):
                            alembic("upgrade", "head")

                with self.subTest(kind=kind.__name__, engines=engines):
                    read(url)
                    self.assertPassed(Commands, tests=2)

    def test_a_command_line_is_led_where_its_url_is_a_named_engines_and_refused_by_name_where_not(self: Any) -> None:
        require_module("click")
        for driver in self.sync_drivers():
            named, url = self.engine(driver), self.production.url(driver)
            self.settings(url)
            for kind in KINDS:

                class Led(self.of(kind, engines=[named])):  # type: ignore[misc]
                    def test_it(self) -> None:
                        self.assertEqual(call().exit_code, 0)
                        self.assertRowCount(Note, 1)

                class Refused(self.of(kind)):  # type: ignore[misc]
                    def test_it(self) -> None:
                        with self.assertRaisesRegex(OutsideDatabase, f"{url.database}.*shop_command.py"):  # noqa: B023
                            call(catch_exceptions=False)
                        self.assertRowCount(Note, 0)

                with self.subTest(kind=kind.__name__):
                    self.assertPassed(Led, Refused, tests=2)

            class Swallowed(self.of(DatabaseTest)):  # type: ignore[misc]
                def test_it(self) -> None:
                    call()

            self.assertFailed(Swallowed, pattern=rf"{LeakError.__name__}: OutsideDatabase was raised and swallowed")

    def test_a_command_line_in_a_thread_beside_a_loop(self: Any) -> None:
        require_module("click")
        driver = self.production.drivers[0]
        named, url = self.engine(driver), self.production.url(driver)
        self.settings(url)
        for kind in ASYNC_KINDS:

            class Led(self.of(kind, engines=[named])):  # type: ignore[misc]
                async def test_it(self) -> None:
                    self.assertEqual((await asyncio.to_thread(call)).exit_code, 0)
                    self.assertEqual(await self.session.scalar(COUNT), 1)

            class Refused(self.of(kind)):  # type: ignore[misc]
                async def test_it(self) -> None:
                    with self.assertRaisesRegex(OutsideDatabase, f"{url.database}.*shop_command.py"):
                        await asyncio.to_thread(call, catch_exceptions=False)

            with self.subTest(kind=kind.__name__):
                self.assertPassed(Led, Refused, tests=2)


class RealDatabases(ProjectCase):
    """One of each kind."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.postgresql = PostgreSQLProduction("border_commands")
        cls.addClassCleanup(cls.postgresql.close)
        cls.sqlite = SQLiteProduction(cls.enterClassContext(tempfile.TemporaryDirectory()))


class PostgreSQLTest(Doors, RealDatabases):
    def setUp(self) -> None:
        self.production, self.elsewhere = self.postgresql, self.sqlite
        super().setUp()

    def test_env_py_reaches_the_database_of_an_engine_in_outside_and_does_not_migrate_it(self) -> None:
        audit, seen = self.engine("psycopg"), []
        module = types.ModuleType("audit_of_env_py")
        module.engine, module.seen = audit, seen  # type: ignore[attr-defined]
        self.enterContext(mock.patch.dict(sys.modules, {module.__name__: module}))
        env_py = Path(self.ini).parent / "migrations" / "env.py"
        look = "with audit_of_env_py.engine.connect() as connection:\n"
        look += "    audit_of_env_py.seen.append(connection.engine.url.database)\n"
        look += "    audit_of_env_py.seen.append(connection.scalar(sqlalchemy.text('SELECT current_database()')))\n\n"
        text = env_py.read_text().replace(
            "target_metadata = None", f"import audit_of_env_py\n{look}target_metadata = None"
        )
        env_py.write_text(text)
        named = self.engine("psycopg")
        self.settings(self.production.url("psycopg"))
        for kind in (MigratedDatabaseTest, TruncatingDatabaseTest):
            with self.subTest(kind=kind.__name__):

                class Inner(self.of(kind, engines=[named], outside=[audit], migrations=self.ini)):  # type: ignore[misc]
                    def test_it(self) -> None:
                        alembic("downgrade", "0001")
                        alembic("upgrade", "head")

                if kind is TruncatingDatabaseTest:
                    Inner.metadata = None
                seen.clear()
                self.assertPassed(Inner, tests=1)
                self.assertEqual(set(seen), {"border_commands"})
        env_py.write_text(text.replace("connectable = ", "connectable = audit_of_env_py.engine or "))
        Inner = self.of(MigratedDatabaseTest, outside=[audit], test_it=lambda test: None)
        self.assertFailed(Inner, pattern="does not go to the test database(.|\n)*`outside`", tests=0)


class SQLiteTest(Doors, RealDatabases):
    kind_url, async_url = "sqlite://", "sqlite+aiosqlite://"

    def setUp(self) -> None:
        self.production, self.elsewhere = self.sqlite, self.postgresql
        super().setUp()


del Doors, BorderCase, ProjectCase, RealDatabases

if __name__ == "__main__":
    unittest.main()
