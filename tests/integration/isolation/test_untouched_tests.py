"""A test that asks for no connection sends nothing; what reaches the wire some other way is undone all the same."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any
from unittest import mock

import psycopg
import sqlalchemy as sa

from dbtestcase import DatabaseTest
from dbtestcase.drivers.harness import harness_connections
from dbtestcase.drivers.psycopg.wire import PsycopgWire
from dbtestcase.errors import SandboxClosed
from tests.support.inner import InnerRuns

metadata = sa.MetaData()
item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True))
engine = sa.create_engine("postgresql+psycopg://nowhere/app")
INSERT = b"INSERT INTO item VALUES (1)"


class Case(DatabaseTest):
    metadata = metadata
    engines = [engine]

    def rows(self) -> int:
        with engine.connect() as connection:
            return len(connection.execute(sa.select(item)).all())


class UntouchedTestsTest(InnerRuns):
    def test_an_empty_test_sends_nothing(self) -> None:
        sent: list[list[tuple[str, ...]]] = []

        def note(test: Case) -> None:
            wire = test._dbtestcase.isolation.run.wire  # a wire of a run before may be ended by the collector meanwhile
            sent.append([call.args[1:] for call in run.call_args_list if call.args[0] is wire])

        class Empty(Case):
            def test_a(self) -> None:
                self.assertEqual(self.rows(), 0)
                self.session.execute(sa.insert(item).values(id=1))

            def test_b(self) -> None:
                note(self)

            def test_c(self) -> None:
                note(self)

            def test_d(self) -> None:
                note(self)
                self.assertEqual(self.rows(), 0)

        with mock.patch.object(PsycopgWire, "run", autospec=True, side_effect=PsycopgWire.run) as run:
            self.assertPassed(Empty, tests=4)
        first, *_, last = sent
        self.assertTrue(first)
        self.assertEqual(last[len(first) :], [])

    def test_a_closed_connection_of_an_earlier_test_is_collected_without_a_round_trip(self) -> None:
        class Collected(Case):
            @classmethod
            def setUpClass(cls) -> None:
                cls.addClassCleanup(gc.enable)
                gc.disable()
                super().setUpClass()

            def test_a(self) -> None:
                with engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    driver.itself = driver  # type: ignore[union-attr]
                engine.dispose()

            def test_b(self) -> None:
                gc.collect()
                run.reset_mock()

            def test_c(self) -> None:
                self.assertEqual(run.call_args_list, [])

        with mock.patch.object(PsycopgWire, "run", autospec=True, side_effect=PsycopgWire.run) as run:
            self.assertPassed(Collected, tests=3)

    def test_a_raw_connection_that_an_earlier_test_has_kept_reaches_no_other_test(self) -> None:
        kept: list[Any] = []

        class Raw(Case):
            def test_a(self) -> None:
                raw = engine.raw_connection()
                kept.append(raw.driver_connection.pgconn)
                raw.close()

            def test_b(self) -> None:
                kept.pop().exec_(INSERT)

            def test_c(self) -> None:
                self.assertEqual(self.rows(), 0)

        self.assertPassed(Raw, tests=3)

    def test_a_connection_that_an_earlier_test_has_not_given_back_reaches_no_other_test(self) -> None:
        kept: list[Any] = []

        class Held(Case):
            def test_a(self) -> None:
                kept.append(engine.raw_connection())
                kept.append(kept[0].driver_connection)

            def test_b(self) -> None:
                with self.assertRaises(SandboxClosed):
                    kept[1].pgconn.exec_(INSERT)
                kept[1].pgconn.send_query(INSERT)
                while kept[1].pgconn.get_result():
                    pass
                kept.clear()

            def test_c(self) -> None:
                self.assertEqual(self.rows(), 0)

        self.assertPassed(Held, tests=3)

    def test_a_thread_of_a_test_that_asked_for_nothing_is_named_with_it(self) -> None:
        begin, seen = threading.Event(), list[BaseException]()

        def work() -> None:
            while not begin.is_set():
                time.sleep(0.001)  # at work, as far as anybody can see
            try:
                engine.connect()
            except Exception as error:
                seen.append(error)

        threads = [threading.Thread(target=work, daemon=True)]

        class Left(Case):
            def test_a(self) -> None:
                self.assertEqual(self.rows(), 0)

            def test_b(self) -> None:
                threads[0].start()

            def test_c(self) -> None:
                begin.set()
                threads[0].join()

        self.assertPassed(Left, tests=3)
        self.assertRegex(str(seen[0]), r"started by .*test_b, which has ended")

    def test_a_loss_during_a_test_that_asked_for_nothing_is_made_up_for(self) -> None:
        class Lost(Case):
            @classmethod
            def setUpTestData(cls) -> None:
                cls.session.execute(sa.insert(item).values(id=1))

            def test_a(self) -> None:
                self.assertEqual(self.rows(), 1)

            def test_b(self) -> None:
                wire = self._dbtestcase.isolation.run.wire  # type: ignore[attr-defined]
                info = wire.connection.info
                with harness_connections(), psycopg.connect(info.dsn, autocommit=True) as judge:
                    judge.execute("SELECT pg_terminate_backend(%s, 60000)", (wire.pgconn.backend_pid,))

            def test_c(self) -> None:
                self.assertEqual(self.rows(), 1)

        self.assertPassed(Lost, tests=3)
