"""A suite of pytest's functions with ``database_fixture``, and what pytest says of it."""

from __future__ import annotations

import re
import tempfile
import textwrap
import unittest
from pathlib import Path

from tests.support.runners import run_python
from tests.support.servers import inner_url

__all__ = ["CONFTEST", "MODELS", "PytestCase"]

MODELS = """
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str]

    engine = create_engine("postgresql+psycopg://production.invalid/notes")
    async_engine = create_async_engine("postgresql+psycopg://production.invalid/notes")

    def save(text):
        with Session(engine) as session:
            session.add(Note(text=text))
            session.commit()

    kept = []

    def forget(text):
        session = Session(engine)
        session.add(Note(text=text))
        session.flush()
        kept.append(session)
"""

CONFTEST = """
    import pytest
    from dbtestcase import AsyncDatabaseTest, DatabaseTest
    from dbtestcase.pytest_plugin import database_fixture
    from models import Base, Note, async_engine, engine

    class Notes(DatabaseTest):
        metadata = Base.metadata
        engines = [engine]

        @classmethod
        def setUpTestData(cls):
            print("class data are made")
            cls.first = Note(text="first")
            cls.session.add(cls.first)

    class AsyncNotes(AsyncDatabaseTest):
        metadata = Base.metadata
        engines = [async_engine]

    db = database_fixture(Notes)
    adb = database_fixture(AsyncNotes)
"""


class PytestCase(unittest.TestCase):
    def run_pytest(
        self, test: str, *options: str, conftest: str = CONFTEST, more_plugins: tuple[str, ...] = (), **more: str
    ) -> str:
        """The output of pytest over one file of tests.

        :param more_plugins: the modules of plugins.
        :param more: other files, by name.
        """
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        files = {"models.py": MODELS, "conftest.py": conftest, "test_it.py": test, **more}
        for name, text in files.items():
            (folder / name.replace("_ini", ".ini")).write_text(textwrap.dedent(text))
        plugins = ["no:cacheprovider", "dbtestcase.pytest_plugin"]  # as pytest loads it where the library is installed
        if any("asyncio" in option for option in options):
            plugins.append("pytest_asyncio.plugin")  # not the name of its entry point, which is a module of Python
            if "-o" not in options:
                options = ("-o", "asyncio_default_fixture_loop_scope=function", *options)
        plugins += more_plugins
        plugins += ["anyio"] * ("anyio" in test) + ["xdist"] * any(option.startswith("-n") for option in options)
        named = [word for plugin in plugins for word in ("-p", plugin)]
        done = run_python(
            ["-W", "error", "-m", "pytest", "-W", "error", *named, *options],
            cwd=folder,
            env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "DBTESTCASE_URL": inner_url().render_as_string(False)},
        )
        return done.stdout + done.stderr

    def assertOutcome(self, output: str, **expected: int) -> None:
        counts = {
            name.rstrip("s"): int(n) for n, name in re.findall(r"(\d+) (passed|failed|errors?|skipped)\b", output)
        }
        self.assertEqual(counts, expected, output)
