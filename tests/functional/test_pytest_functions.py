"""database_fixture: pytest's functions and plain classes have the life of a test case; sync, async, in parallel."""

import re
import tempfile
import textwrap
import unittest
from pathlib import Path

from tests.support.requirements import require_module
from tests.support.runners import run_python

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
    def run_pytest(self, test: str, *options: str, conftest: str = CONFTEST, **more: str) -> str:
        """The output of pytest over one file of tests."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        files = {"models.py": MODELS, "conftest.py": conftest, "test_it.py": test, **more}
        for name, text in files.items():
            (folder / name.replace("_ini", ".ini")).write_text(textwrap.dedent(text))
        if not any("asyncio" in option for option in options):
            options = ("-p", "no:asyncio", *options)
        elif "-o" not in options:
            options = ("-o", "asyncio_default_fixture_loop_scope=function", *options)
        done = run_python(
            ["-W", "error", "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *options], cwd=folder
        )
        return done.stdout + done.stderr

    def assertOutcome(self, output: str, **expected: int) -> None:
        counts = {
            name.rstrip("s"): int(n) for n, name in re.findall(r"(\d+) (passed|failed|errors?|skipped)\b", output)
        }
        self.assertEqual(counts, expected, output)


class FunctionTest(PytestCase):
    def test_functions_classes_and_parameters_start_from_the_same_rows(self) -> None:
        output = self.run_pytest(
            """
            import pytest
            from models import Note, save

            @pytest.fixture
            def saved(db):
                save("by a fixture")

            def test_function(db):
                save("x")
                db.assertRowCount(Note, 2)

            @pytest.mark.parametrize("number", range(3))
            def test_parameters(saved, db, number):
                save("x")
                db.assertRowCount(Note, 3)

            class TestPlain:
                def setup_method(self):
                    self.text = "by setup_method"

                @pytest.fixture(autouse=True)
                def rows(self, db):
                    self.db = db
                    save(self.text)

                def test_a(self):
                    self.db.assertRowCount(Note, 2)

                def test_b(self):
                    self.db.assertRowCount(Note, 2)
                    assert self.db.first.text == "first"
                    self.db.first.text = "changed"
            """,
            "-s",
        )
        self.assertOutcome(output, passed=6)
        self.assertEqual(output.count("class data are made"), 1)

    def test_a_leak_is_an_error_of_the_teardown_of_the_test_that_did_it(self) -> None:
        output = self.run_pytest("""
            from sqlalchemy.orm import Session
            from models import Note, engine
            kept = []

            def test_leaks(db):
                session = Session(engine)
                session.add(Note(text="x"))
                session.flush()
                kept.append(session)

            def test_next(db):
                db.assertRowCount(Note, 1)
        """)
        self.assertOutcome(output, passed=2, error=1)
        self.assertRegex(output, "ERROR at teardown of test_leaks")
        self.assertRegex(output, "LeakError: .*test_it.py::test_leaks")

    def test_a_failing_test_shows_its_statements_once_in_a_section(self) -> None:
        output = self.run_pytest("""
            from models import save

            def test_fails(db):
                save("x")
                assert 1 == 2
        """)
        self.assertOutcome(output, failed=1)
        self.assertEqual(output.count("INSERT INTO note"), 1, output)
        self.assertRegex(output, r"-+ Database \(dbtestcase\) -+")

    def test_it_goes_along_with_test_cases_and_a_second_class(self) -> None:
        output = self.run_pytest(
            """
            import pytest
            from dbtestcase import DatabaseTest
            from dbtestcase.pytest_plugin import database_fixture
            from models import Base, Note, engine, save

            class Others(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

            others = database_fixture(Others)

            def test_one(db):
                save("x")
                db.assertRowCount(Note, 2)

            class CaseTest(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]
                def test_it(self):
                    save("x")
                    self.assertRowCount(Note, 1)

            def test_two(db):
                db.assertRowCount(Note, 1)

            def test_three(others):
                save("x")
                others.assertRowCount(Note, 1)

            def test_four(db):
                db.assertRowCount(Note, 1)

            def test_both(db, request):
                with pytest.raises(Exception, match="while .*test_both"):
                    request.getfixturevalue("others")
            """
        )
        self.assertOutcome(output, passed=6)

    def test_in_parallel(self) -> None:
        require_module("xdist", "pytest-xdist")
        output = self.run_pytest(
            """
            import pytest
            from models import Note, save

            @pytest.mark.parametrize("number", range(10))
            def test_it(db, number):
                save("x")
                db.assertRowCount(Note, 2)
            """,
            "-n2",
        )
        self.assertOutcome(output, passed=10)

    def test_a_wider_scope_is_refused(self) -> None:
        output = self.run_pytest(
            "def test_it(db): pass",
            conftest=CONFTEST + "    import dbtestcase.pytest_plugin\n    wrong = database_fixture(object)\n",
        )
        self.assertRegex(output, "object.* is not a class of this library")


class AsyncFunctionTest(PytestCase):
    BODY = """
        import pytest
        from sqlalchemy import select
        from sqlalchemy.ext.asyncio import AsyncSession
        from models import Note, async_engine
        {mark}

        async def save(text):
            async with AsyncSession(async_engine) as session:
                session.add(Note(text=text))
                await session.commit()

        @pytest.mark.parametrize("number", range(2))
        async def test_it(adb, number):
            await save("x")
            adb.session.add(Note(text="y"))
            await adb.session.commit()
            assert len((await adb.session.scalars(select(Note))).all()) == 2
            adb.assertRowCount(Note, 2)
    """

    def test_pytest_asyncio_strict(self) -> None:
        require_module("pytest_asyncio", "pytest-asyncio")
        output = self.run_pytest(self.BODY.format(mark="pytestmark = pytest.mark.asyncio"), "--asyncio-mode=strict")
        self.assertOutcome(output, passed=2)

    def test_pytest_asyncio_auto(self) -> None:
        require_module("pytest_asyncio", "pytest-asyncio")
        output = self.run_pytest(self.BODY.format(mark=""), "--asyncio-mode=auto")
        self.assertOutcome(output, passed=2)

    def test_anyio(self) -> None:
        require_module("anyio")
        output = self.run_pytest(
            self.BODY.format(mark="pytestmark = pytest.mark.anyio"),
            conftest=CONFTEST + "    @pytest.fixture\n    def anyio_backend(): return 'asyncio'\n",
        )
        self.assertOutcome(output, passed=2)

    def test_hooks_and_committing_classes_are_awaited(self) -> None:
        require_module("pytest_asyncio", "pytest-asyncio")
        output = self.run_pytest(
            self.BODY.format(mark="").replace("adb.assertRowCount(Note, 2)", "assert adb.loop is not None"),
            "--asyncio-mode=auto",
            conftest="""
                import asyncio
                from dbtestcase import AsyncTruncatingDatabaseTest
                from dbtestcase.pytest_plugin import database_fixture
                from models import Base, async_engine

                class Committing(AsyncTruncatingDatabaseTest):
                    metadata = Base.metadata
                    engines = [async_engine]
                    async def asyncSetUp(self):
                        self.loop = asyncio.get_running_loop()

                adb = database_fixture(Committing)
            """,
        )
        self.assertOutcome(output, passed=2)


if __name__ == "__main__":
    unittest.main()
