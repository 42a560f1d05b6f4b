"""A signal's handler raises while the framework ends or begins a test, as timeouts do: the next test sees no rows."""

import signal
import unittest
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dbtestcase import DatabaseTest
from dbtestcase.drivers.proxy_wire import ProxyWire
from dbtestcase.isolation.left_threads import LeftThreads
from dbtestcase.isolation.rollback import SandboxIsolation
from dbtestcase.sandbox import Sandbox
from tests.support.inner import run_inner
from tests.support.mariadb import require_mariadb

engine = create_engine("postgresql+psycopg://nowhere/app")


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)


class TooLate(BaseException):
    pass


def add(test: Any) -> None:
    with test.engines[0].begin() as connection:
        test.assertEqual(connection.execute(sa.select(Note)).all(), [])
        connection.execute(sa.insert(Note).values(id=1))


def raise_it(*_: object) -> None:
    raise TooLate


def make_case(**body: Any) -> Any:
    facts = {"metadata": Base.metadata, "engines": [engine], "__module__": __name__, **body}
    return type("Inner", (DatabaseTest,), facts)


class InterruptedEndsTest(unittest.TestCase):
    def test_wherever_it_raises_at_the_end_the_next_test_sees_no_rows(self) -> None:
        for scope in ("class", "test"):
            for owner, name in ((LeftThreads, "end_test"), (Sandbox, "problems"), (SandboxIsolation, "_undo_test")):
                original: Any = getattr(owner, name)
                calls: list[str] = []

                def once(self: Any, *args: Any, original: Any = original, calls: list[str] = calls, **kw: Any) -> Any:
                    if calls == ["armed"]:
                        calls.append("raised")
                        raise TooLate
                    return original(self, *args, **kw)

                def test_a(test: Any, calls: list[str] = calls) -> None:
                    add(test)
                    calls.append("armed")

                with self.subTest(name, scope=scope), mock.patch.object(owner, name, once):
                    result = run_inner(make_case(transaction_scope=scope, test_a=test_a, test_b=add, test_c=add))
                    self.assertEqual(calls, ["armed", "raised"])
                    self.assertEqual([test.id().rpartition(".")[2] for test, _ in result.errors], ["test_a"])
                    self.assertEqual(result.failures, [])

    def test_in_the_middle_of_the_rollback_the_connection_is_made_anew(self) -> None:
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, raise_it))
        undo = SandboxIsolation._undo_test

        def slowly(isolation: Any) -> None:
            if isolation.run.sandbox.label.endswith("test_a"):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                isolation.run.wire.run("SELECT pg_sleep(60)")
            undo(isolation)

        for scope in ("class", "test"):
            with self.subTest(scope=scope), mock.patch.object(SandboxIsolation, "_undo_test", slowly):
                result = run_inner(make_case(transaction_scope=scope, test_a=add, test_b=add))
                self.assertEqual([test.id().rpartition(".")[2] for test, _ in result.errors], ["test_a"])
                self.assertEqual(result.failures, [])

    def test_between_two_tests_as_well(self) -> None:
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, raise_it))
        begin = Sandbox.begin

        def slowly(sandbox: Any, label: str, **options: Any) -> None:
            if label.endswith("test_b"):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                sandbox.wire.run("SELECT pg_sleep(1)" if sandbox.rules.name == "postgresql" else "SELECT sleep(1)")
            begin(sandbox, label, **options)

        for url in (
            *("postgresql+psycopg://", "postgresql+psycopg2://", "postgresql+pg8000://"),
            *("mariadb+pymysql://", "mariadb+mysqldb://"),
        ):
            if url.startswith("mariadb"):
                require_mariadb()
            facts = {"url": url, "engines": [create_engine(f"{url}nowhere/app")], "transaction_scope": "test"}
            with self.subTest(url), mock.patch.object(Sandbox, "begin", slowly):
                result = run_inner(make_case(**facts, test_a=add, test_b=add, test_c=add))
                ((test, trace),) = result.errors
                self.assertEqual(test.id().rpartition(".")[2], "test_b")
                self.assertIn("TooLate", trace.splitlines()[-1])
                self.assertEqual(result.failures, [])

    def test_in_the_middle_of_a_savepoint_before_a_statement(self) -> None:
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, raise_it))
        send, armed = ProxyWire.send, []

        def slowly(wire: Any, command: str) -> Any:
            if armed and command.startswith("SAVEPOINT"):
                armed.clear()
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                send(wire, "SELECT pg_sleep(1)")
            return send(wire, command)

        def test_a(test: Any) -> None:
            with test.engines[0].connect() as connection:
                connection.execute(sa.insert(Note).values(id=1))
                connection.begin_nested()
                armed.append("armed")
                connection.execute(sa.insert(Note).values(id=2))

        url = "postgresql+pg8000://"
        facts = {"url": url, "engines": [create_engine(f"{url}nowhere/app")], "transaction_scope": "test"}
        with mock.patch.object(ProxyWire, "send", slowly):
            result = run_inner(make_case(**facts, test_a=test_a, test_b=add))
        self.assertEqual({test.id().rpartition(".")[2] for test, _ in result.errors}, {"test_a"})
        self.assertIn("TooLate", result.errors[0][1])
        self.assertIn("lost the connection of the sandbox", result.errors[-1][1])
        self.assertEqual((armed, result.failures), ([], []))


if __name__ == "__main__":
    unittest.main()
