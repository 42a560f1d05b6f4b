"""A signal's handler raises while the framework ends or begins a test, as timeouts do: the next test sees no rows."""

import signal
import unittest
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dbtestcase import DatabaseTest
from dbtestcase.isolation.left_threads import LeftThreads
from dbtestcase.isolation.rollback import SandboxIsolation
from dbtestcase.sandbox import Sandbox
from tests.support.inner import run_inner

engine = create_engine("postgresql+psycopg://nowhere/app")


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)


class TooLate(BaseException):
    pass


def add(test: Any) -> None:
    with engine.begin() as connection:
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
                sandbox.wire.run("SELECT pg_sleep(60)")
            begin(sandbox, label, **options)

        with mock.patch.object(Sandbox, "begin", slowly):
            result = run_inner(make_case(transaction_scope="test", test_a=add, test_b=add, test_c=add))
        self.assertEqual([test.id().rpartition(".")[2] for test, _ in result.errors], ["test_b"])
        self.assertEqual(result.failures, [])


if __name__ == "__main__":
    unittest.main()
