"""database_fixture: pytest's functions and plain classes have the life of a test case; sync, async, in parallel."""

import unittest

from tests.support.pytest_runs import CONFTEST, MODELS, PytestCase
from tests.support.requirements import require_module

OWN_MODELS = MODELS.replace("postgresql+psycopg://production.invalid/notes", "sqlite:///own.db", 1).replace(
    "postgresql+psycopg://production.invalid/notes", "sqlite+aiosqlite:///own.db"
)


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

    def test_a_fixture_around_a_test_case_uses_no_engine_of_its_class(self) -> None:
        output = self.run_pytest(
            """
            import pytest, unittest
            from conftest import Notes
            from models import Note, engine, save

            def ask():
                with engine.connect() as connection:
                    connection.exec_driver_sql("SELECT 1")

            @pytest.fixture(scope="module")
            def plain():
                ask()
                yield
                ask()

            @pytest.fixture(scope="module")
            def early():
                ask()

            @pytest.fixture(scope="module")
            def late():
                yield
                ask()

            def test_of_another_kind(plain):
                ask()

            @pytest.fixture
            def of_a_test():
                ask()

            class FreeTest(Notes):
                def test_it(self):
                    self.assertRowCount(Note, 1)

            @pytest.mark.usefixtures("late")
            class LateTest(FreeTest):
                pass

            def test_one_more(early, of_a_test):
                ask()

            class LastTest(FreeTest):
                pass

            @pytest.mark.usefixtures("early")
            class EarlyTest(FreeTest):
                pass
            """,
            conftest=CONFTEST.replace("metadata =", 'url = "sqlite://"\n        metadata ='),
            **{"models.py": OWN_MODELS},
        )
        self.assertOutcome(output, passed=5, error=2)
        self.assertRegex(output, "EarlyTest was to begin after models.engine .* test_it.py:\\d+ in ask, .* in early")
        self.assertRegex(output, "The end of the fixture late was about to use .* in late")

    def test_a_leak_is_an_error_of_the_teardown_of_the_test_that_did_it(self) -> None:
        output = self.run_pytest("""
            from models import Note, forget

            def test_leaks(db):
                forget("x")

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

    def test_marks_examples_and_the_applications_own_fixtures(self) -> None:
        output = self.run_pytest(
            """
            import pytest
            from hypothesis import HealthCheck, given, settings, strategies as st
            from models import Note, engine, save
            from sqlalchemy import select
            from sqlalchemy.orm import Session

            few = settings(max_examples=4, database=None, deadline=None,
                           suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])

            @pytest.fixture(autouse=True)
            def before():                       # of the application's: before, and after
                yield "nothing of the database"

            @pytest.fixture
            def number(db):
                with Session(engine) as session:
                    note = Note(text="x")
                    session.add(note)
                    session.commit()
                    yield note.id
                    assert session.scalars(select(Note)).all()      # the test has not ended

            @pytest.mark.dbtestcase(reset_sequences=True)
            @pytest.mark.parametrize("time", range(2))
            def test_ids(number, time):
                assert number == 2

            def test_other_ids(number):
                pass

            @few
            @given(st.integers(0, 5))
            def test_examples(db, number):
                save("x")
                db.assertRowCount(Note, 2)

            class TestPlain:
                def setup_example(self):
                    save("by setup_example")

                @few
                @given(number=st.integers(0, 5))
                def test_examples(self, db, number):
                    save("x")
                    db.assertRowCount(Note, 3)
            """,
            "--strict-markers",
            *("-p", "dbtestcase.pytest_plugin"),  # as pytest loads it by itself where the library is installed anew
        )
        self.assertOutcome(output, passed=5)

    def test_what_is_written_wrongly_says_what_to_write(self) -> None:
        output = self.run_pytest(
            """
            import pytest
            from dbtestcase import DatabaseTest
            from models import Base, Note, engine, save

            @pytest.fixture(scope="module", autouse=True)
            def early():
                Base.metadata.create_all(engine)            # really there, in own.db
                save("early")

            @pytest.fixture
            def before():
                save("before")

            @pytest.fixture(scope="session")
            def wide(db):
                pass

            def test_1_early(db): pass
            def test_2_runs(db): db.assertRowCount(Note, 1)
            def test_3_before(before, db): pass
            def test_4_runs(db): db.assertRowCount(Note, 1)
            def test_5_wide(wide): pass

            @pytest.mark.dbtestcase(reset_sequence=True)
            def test_6(db): pass

            @pytest.mark.dbtestcase(reset_sequences="no")
            def test_7(db): pass

            @pytest.mark.dbtestcase(reset_sequences=True)
            def test_8(): pass

            @pytest.mark.dbtestcase
            def test_9(db): pass

            def test_a_coroutine_is_forgotten(adb):
                adb.assertRowCount(Note, 0)
                adb.sync_session.add(Note(text="x"))
                adb.assertRowCount(Note, 1)
                with pytest.raises(Exception, match="test_a_coroutine_is_forgotten asked for `session`.*AsyncSession"):
                    adb.session
            """,
            "--tb=short",
            *("-p", "dbtestcase.pytest_plugin"),
            conftest=CONFTEST.replace("metadata =", 'url = "sqlite://"\n        metadata ='),
            **{"models.py": OWN_MODELS},
        )
        self.assertOutcome(output, passed=3, failed=1, error=6)
        self.assertRegex(
            output, r"Notes was to begin after models.engine had been used on its own database at models.py:"
        )
        self.assertRegex(output, r"in save, called by \S*test_it.py:\d+ in early")
        self.assertRegex(output, "let the fixture there take `db` as an argument")
        self.assertRegex(output, r"written to the test database at \S*models.py:\d+ in save before .*test_3_before")
        self.assertIn("ScopeMismatch", output)
        self.assertRegex(output, r"reset_sequence=True\): reset_sequence is no argument of it")
        self.assertRegex(output, r"True or False")
        self.assertRegex(output, r"test_8 has the mark dbtestcase, and uses no fixture")
        self.assertRegex(output, r"it needs an argument by name")

    def test_a_wider_scope_is_refused(self) -> None:
        output = self.run_pytest(
            "def test_it(db): pass",
            conftest=CONFTEST + "    import dbtestcase.pytest_plugin\n    wrong = database_fixture(object)\n",
        )
        self.assertRegex(output, "object.* is not a class of this library")


class AroundCasesTest(PytestCase):
    def test_what_fixtures_around_a_test_case_write_is_its_own(self) -> None:
        output = self.run_pytest("""
            import pytest
            from dbtestcase import DatabaseTest, TruncatingDatabaseTest
            from models import Base, Note, engine, save

            class Around:
                metadata = Base.metadata
                engines = [engine]

                @pytest.fixture(autouse=True)
                def around(self):
                    save("before")
                    yield
                    save("after")

                def test_one(self):
                    self.assertRowCount(Note, 1)

                test_two = test_one

            class SandboxTest(Around, DatabaseTest): pass
            class CommittingTest(Around, TruncatingDatabaseTest): pass
        """)
        self.assertOutcome(output, passed=4)

    def test_a_session_that_fixtures_share_goes_on_though_it_is_open_between_two_tests(self) -> None:
        output = self.run_pytest("""
            import pytest
            from dbtestcase import DatabaseTest
            from models import Base, Note, engine
            from sqlalchemy.orm import Session

            shared = Session(engine)

            class SharedTest(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]
                reset_sequences = True

                @pytest.fixture(autouse=True)
                def emptied(self):
                    yield
                    shared.query(Note).delete()
                    shared.commit()
                    shared.add(Note(text="one more"))
                    shared.flush()

                def test_one(self):
                    shared.add(Note(text="one"))
                    shared.commit()
                    self.assertRowCount(Note, 1)
                    self.assertEqual(shared.query(Note).one().id, 1)

                test_two = test_one
        """)
        self.assertOutcome(output, passed=2)

    def test_a_setting_that_a_fixture_of_the_class_makes_comes_too_late(self) -> None:
        output = self.run_pytest("""
            import pytest
            from dbtestcase import AsyncDatabaseTest, DatabaseTest, TruncatingDatabaseTest
            from models import Base, engine

            SETTINGS = {
                "UrlTest": ("url", "sqlite://"),
                "EnginesTest": ("engines", [engine]),
                "ScopeTest": ("transaction_scope", "test"),
                "OwnTest": ("base_url", "http://localhost"),
            }

            @pytest.fixture(scope="class")
            def sets(request):
                setattr(request.cls, *SETTINGS[request.cls.__name__])

            @pytest.mark.usefixtures("sets")
            class Late:
                metadata = Base.metadata
                def test_one(self): pass
                test_two = test_one

            class UrlTest(Late, DatabaseTest): pass
            class EnginesTest(Late, TruncatingDatabaseTest): pass
            class ScopeTest(Late, AsyncDatabaseTest): pass
            class OwnTest(Late, DatabaseTest): pass
        """)
        self.assertOutcome(output, failed=6, passed=2)
        for name in ("UrlTest.url", "EnginesTest.engines", "ScopeTest.transaction_scope"):
            self.assertRegex(output, rf"{name} was changed when the class had begun(.*\n)+.*a fixture of pytest")


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
