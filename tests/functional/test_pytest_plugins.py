"""database_fixture beside what other plugins of pytest do: run a test again, elsewhere, in another order or loop."""

import unittest

from tests.support.pytest_runs import CONFTEST, MODELS, PytestCase
from tests.support.requirements import require_module
from tests.support.samples import a_share

SWALLOWING = (
    MODELS
    + """
    from sqlalchemy import text

    def swallow():
        try:
            with engine.connect() as connection:
                connection.execute(text("COMMIT"))
        except Exception:
            pass
"""
)


class AgainTest(PytestCase):
    def test_a_test_that_is_run_again_is_judged_by_its_last_run(self) -> None:
        require_module("pytest_rerunfailures", "pytest-rerunfailures")
        output = self.run_pytest(
            """
            from dbtestcase import DatabaseTest
            from models import Base, Note, engine, forget, save
            times = {}

            def fails_once(name):
                times[name] = times.get(name, 0) + 1
                assert times[name] > 1

            def test_is_well_the_second_time(db):
                save("x")
                db.assertRowCount(Note, 2)
                fails_once("well")

            def test_leaks_the_second_time(db):
                fails_once("leaks")
                forget("x")

            class CaseTest(DatabaseTest):
                metadata = Base.metadata
                engines = [engine]

                def test_leaks_the_second_time(self):
                    fails_once("case")
                    forget("x")

                def test_is_well(self):
                    self.assertRowCount(Note, 0)
            """,
            "--reruns=1",
            "--only-rerun=assert",
            more_plugins=("pytest_rerunfailures",),
        )
        self.assertOutcome(output, passed=3, failed=1, error=1)
        self.assertRegex(output, r"LeakError: .* by conftest.Notes.test_it.py::test_leaks_the_second_time")
        self.assertRegex(output, r"LeakError: .* by test_it.CaseTest.test_leaks_the_second_time")

    def test_many_times_and_in_any_order(self) -> None:
        require_module("pytest_repeat", "pytest-repeat")
        require_module("pytest_randomly", "pytest-randomly")
        output = self.run_pytest(
            """
            import pytest
            from models import Note, save

            def test_function(db):
                assert db.first.text == "first"
                db.first.text = "changed"
                save("x")
                db.assertRowCount(Note, 2)

            @pytest.mark.dbtestcase(reset_sequences=True)
            def test_with_a_mark(db):
                save("x")
                db.assertRowCount(Note, 1, Note.id == 2)
            """,
            "--count=5",
            more_plugins=("pytest_repeat", "pytest_randomly"),
        )
        self.assertOutcome(output, passed=10)

    def test_ctrl_c_and_exit_end_the_run_as_ever(self) -> None:
        for ending in ("raise KeyboardInterrupt", "pytest.exit('enough')"):
            with self.subTest(ending):
                output = self.run_pytest(
                    f"""
                    import pytest
                    from models import save

                    def test_before(db):
                        save("x")

                    def test_stops(db):
                        save("x")
                        {ending}
                    """
                )
                self.assertOutcome(output, passed=1)
                self.assertNotIn("Traceback", output)


class ElsewhereTest(PytestCase):
    TEST = """
        import pytest
        from models import Note, save

        @pytest.mark.parametrize("number", range(4))
        @pytest.mark.xdist_group("one")
        def test_it(db, number):
            save("x")
            db.assertRowCount(Note, 2)
    """

    def test_each_way_of_sharing_out(self) -> None:
        require_module("xdist", "pytest-xdist")
        ways = ("load", "loadscope", "loadfile", "loadgroup", "worksteal", "each")
        for way in a_share(ways, len(ways)):
            with self.subTest(way):
                output = self.run_pytest(self.TEST, "-n2", f"--dist={way}")
                self.assertOutcome(output, passed=8 if way == "each" else 4)

    def test_a_time_limit_ends_a_statement_and_the_next_test_is_well(self) -> None:
        require_module("pytest_timeout", "pytest-timeout")
        output = self.run_pytest(
            """
            import pytest
            from models import Note, engine, save
            from sqlalchemy import text

            @pytest.mark.timeout(0.3, func_only=True)       # the set-up of the class is no part of it
            def test_late(db):
                save("x")
                with engine.connect() as connection:
                    connection.execute(text("SELECT pg_sleep(30)"))

            def test_next(db):
                db.assertRowCount(Note, 1)
            """,
            more_plugins=("pytest_timeout",),
        )
        self.assertOutcome(output, passed=1, failed=1)
        self.assertRegex(output, "Timeout .*from pytest-timeout")


class WrittenHereTest(PytestCase):
    def test_what_the_tests_own_file_catches_was_expected(self) -> None:
        """As in a test case, whose file is the class's own; the application's file is another."""
        output = self.run_pytest(
            """
            import pytest
            from dbtestcase import SandboxEscape
            from models import Note, engine, swallow
            from sqlalchemy import text
            from sqlalchemy.orm import Session

            def test_expected(db):
                with pytest.raises(SandboxEscape):
                    with engine.connect() as connection:
                        connection.execute(text("COMMIT"))

            def test_flushes(db, note):
                assert note.id

            def test_swallowed(db):
                swallow()
            """,
            conftest=CONFTEST
            + """
    from sqlalchemy.orm import Session

    session = Session(engine)

    @pytest.fixture
    def note(db):
        note = Note(text="by a fixture, in the application's session")
        session.add(note)
        session.flush()
        return note
""",
            **{"models.py": SWALLOWING},
        )
        self.assertOutcome(output, passed=3, error=1)
        self.assertRegex(output, "ERROR at teardown of test_swallowed")


class LoopTest(PytestCase):
    HOOKS = """
    import asyncio
    import os
    from dbtestcase import AsyncTruncatingDatabaseTest

    class Committing(AsyncTruncatingDatabaseTest):
        metadata = Base.metadata
        engines = [async_engine]
        async def asyncSetUp(self):
            self.loop = asyncio.get_running_loop()

    cdb = database_fixture(Committing)
    """
    TEST = """
        import asyncio
        import pytest
        from models import Note, async_engine
        from sqlalchemy.ext.asyncio import AsyncSession

        async def save(text):
            async with AsyncSession(async_engine) as session:
                session.add(Note(text=text))
                await session.commit()

        {mark}
        async def test_sandbox(adb):
            await asyncio.gather(save("x"), save("y"))
            adb.assertRowCount(Note, 2)

        {mark}
        async def test_committing(cdb):
            await asyncio.gather(save("x"), save("y"))
            cdb.assertRowCount(Note, 2)
            cdb.session.add(Note(text="z"))
            with pytest.raises(Exception, match="holds changes that were not sent"):
                cdb.assertRowCount(Note, 3)
            await cdb.session.commit()
            cdb.assertRowCount(Note, 3)
            assert cdb.loop is asyncio.get_running_loop()
    """

    def loops(self, mark: str, *options: str) -> str:
        return self.run_pytest(self.TEST.format(mark=mark), *options, conftest=CONFTEST + self.HOOKS)

    def test_pytest_asyncio(self) -> None:
        require_module("pytest_asyncio", "pytest-asyncio")
        mark = '@pytest.mark.asyncio(loop_scope="session")'
        setting = ("-o", "asyncio_default_fixture_loop_scope=session")
        self.assertOutcome(self.loops(mark, "--asyncio-mode=strict", *setting), passed=2)
        output = self.loops(mark, "--asyncio-mode=strict")
        self.assertOutcome(output, passed=1, error=1)
        self.assertRegex(output, "runs in a loop of its session, its fixture 'cdb' in one of its function")
        self.assertRegex(output, "asyncio_default_fixture_loop_scope = session in pytest's configuration")

    def test_anyio(self) -> None:
        require_module("anyio")
        backend = "\n    @pytest.fixture\n    def anyio_backend(): return {!r}\n"
        for name, expected in (("asyncio", {"passed": 2}), ("trio", {"errors": 2})):
            if name == "trio":
                require_module("trio")
            output = self.run_pytest(
                self.TEST.format(mark="@pytest.mark.anyio"), conftest=CONFTEST + self.HOOKS + backend.format(name)
            )
            self.assertOutcome(output, **{key.rstrip("s"): value for key, value in expected.items()})
        self.assertRegex(output, "runs on trio, and 'adb' is the fixture of an asyncio class")

    def test_both(self) -> None:
        """pytest-asyncio takes a fixture that it knows also where anyio runs the test."""
        require_module("pytest_asyncio", "pytest-asyncio")
        output = self.run_pytest(
            self.TEST.format(mark="@pytest.mark.anyio"),
            "--asyncio-mode=strict",
            conftest=CONFTEST + self.HOOKS + "\n    @pytest.fixture\n    def anyio_backend(): return 'asyncio'\n",
        )
        self.assertOutcome(output, passed=1, error=1)
        self.assertRegex(output, "runs in a loop of its anyio, its fixture 'cdb' in one of its pytest-asyncio")


if __name__ == "__main__":
    unittest.main()
