"""Shapes of env.py by drivers: upgraded, walked through, clean where nothing differs, and drift is found."""

import asyncio
import contextlib
import logging
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import URL

from dbtestcase.migrations.compare import compare_models
from dbtestcase.migrations.project import Project
from dbtestcase.migrations.walk import stairway
from tests.support.alembic_projects import empty_database
from tests.support.environments import SHAPES, write
from tests.support.mariadb import connect, mariadb_url, require_mariadb
from tests.support.samples import a_share


class ShapesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())).resolve()
        known = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - known if "shape_" in name])

    def check(self, name: str, url: URL, drivername: str, *, walk: bool) -> None:
        """What every shape is to do in an empty database."""
        schema = SHAPES[name].schema
        ini = write(self.folder / f"{name.replace(' ', '_')}_{drivername}".replace("+", "_"), name, drivername)
        project = Project(ini)
        logger = logging.getLogger("shapes")
        with self.assertLogs(logger, "INFO"):
            project.build(url)
            logger.info("heard, whatever env.py configures")
        self.assertEqual(project.current_revisions(url), ("0003",))
        self.assertEqual(compare_models(project, url), [])
        engine = sa.create_engine(url.set(drivername=_plain(url)), poolclass=sa.NullPool)
        table = self.table(engine, schema)
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN extra INTEGER"))
        self.assertIn("extra", "\n".join(compare_models(project, url)))
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN extra"))
        if walk:
            self.assertEqual([str(problem) for problem in stairway(project, url)], [])
        project.downgrade(url, "base")
        self.assertEqual(project.current_revisions(url), ())
        engine.dispose()

    def table(self, engine: sa.Engine, schema: str | None) -> str:
        """The table of authors, in whatever schema it was made."""
        inspector = sa.inspect(engine)
        if engine.dialect.name == "postgresql":
            schema = next(each for each in inspector.get_schema_names() if "author" in inspector.get_table_names(each))
        self.assertIn("author", inspector.get_table_names(schema))
        return f"{schema}.author" if schema else "author"

    @contextlib.contextmanager
    def each_shape(self, kind: str) -> Iterator[list[str]]:
        yield [name for name, shape in SHAPES.items() if kind in shape.kinds]

    def on_postgresql(self, driver: str, *, walk: bool, share: int) -> None:
        with empty_database() as database, self.each_shape("postgresql") as names:
            for name in a_share(names, share):
                with self.subTest(name, driver=driver):
                    try:
                        self.check(name, database.url, f"postgresql+{driver}", walk=walk)
                    finally:
                        for schema in ("public", "audit", "tenant", "books"):
                            database.ask(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
                        database.ask("CREATE SCHEMA public")

    def test_psycopg(self) -> None:
        self.on_postgresql("psycopg", walk=True, share=6)

    def test_psycopg2(self) -> None:
        self.on_postgresql("psycopg2", walk=False, share=10)

    def test_asyncpg(self) -> None:
        self.on_postgresql("asyncpg", walk=False, share=10)

    def test_sqlite(self) -> None:
        with self.each_shape("sqlite") as names:
            for name in a_share(names, 4):
                with self.subTest(name):
                    url = URL.create("sqlite", database=str(self.folder / f"{name}.db"))
                    self.check(name, url, "sqlite", walk=True)

    def test_mariadb(self) -> None:
        require_mariadb()
        server = mariadb_url()
        for name in a_share(("generic", "filters", "locations set late", "a version table of its own"), 2):
            with self.subTest(name), closing(connect(server, None)) as judge:
                database = f"shape_{name.replace(' ', '_')}"
                judge.query(f"CREATE OR REPLACE DATABASE {database}")
                try:
                    self.check(name, server.set(database=database), "mariadb+pymysql", walk=name == "generic")
                finally:
                    judge.query(f"DROP DATABASE {database}")

    def test_in_a_running_loop(self) -> None:
        with empty_database() as database:
            for driver in ("psycopg", "asyncpg"):
                ini = write(self.folder / driver, "generic", f"postgresql+{driver}")

                async def build(ini: Path = ini, url: URL = database.url) -> None:
                    project = Project(ini)
                    project.build(url)
                    self.assertEqual(compare_models(project, url), [])
                    project.downgrade(url, "base")

                asyncio.run(build())


def _plain(url: URL) -> str:
    return {"postgresql": "postgresql+psycopg"}.get(url.get_backend_name(), url.drivername)
