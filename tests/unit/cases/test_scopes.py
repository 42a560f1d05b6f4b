"""Things of a run and of a module are made once, and closed once, by the process that made them."""

import contextlib
import os
import unittest
from collections.abc import Callable, Iterator
from unittest import mock

from dbtestcase.cases import scopes
from dbtestcase.cases.scopes import Scopes, worker_name
from dbtestcase.errors import ServerError


class ScopesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.events: list[str] = []
        self.enterContext(mock.patch("atexit.register"))
        self.enterContext(mock.patch("multiprocessing.util.Finalize"))
        self.module_cleanups: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        add = self.enterContext(mock.patch("unittest.addModuleCleanup"))
        add.side_effect = lambda function, *arguments: self.module_cleanups.append((function, arguments))
        self.scopes = Scopes()

    def thing(self, name: str, *, fails: bool = False) -> Callable[[], contextlib.AbstractContextManager[str]]:
        @contextlib.contextmanager
        def factory() -> Iterator[str]:
            self.events.append(f"made {name}")
            try:
                yield name
            finally:
                self.events.append(f"closed {name}")
            if fails:
                raise RuntimeError(name)

        return factory

    def test_a_thing_is_made_on_first_use_and_then_shared(self) -> None:
        for _ in range(2):
            self.assertEqual(self.scopes.of_run("key", self.thing("server")), "server")
        self.scopes.of_run("other", self.thing("database"))
        self.assertEqual(self.events, ["made server", "made database"])

    def test_a_run_closes_in_reverse_order_and_once(self) -> None:
        self.scopes.of_run(1, self.thing("server"))
        self.scopes.of_run(2, self.thing("database"))
        self.scopes.close_all()
        self.scopes.close_all()
        self.assertEqual(self.events[2:], ["closed database", "closed server"])

    def test_the_module_closes_before_the_run(self) -> None:
        self.scopes.of_module("m", 1, self.thing("m"))
        self.scopes.of_run(1, self.thing("r"))
        self.scopes.close_all()
        self.assertEqual(self.events[2:], ["closed m", "closed r"])

    def test_one_that_fails_keeps_none_of_the_others_from_closing(self) -> None:
        self.scopes.of_run(1, self.thing("server"))
        self.scopes.of_run(2, self.thing("database", fails=True))
        self.scopes.of_module("m", 1, self.thing("module", fails=True))
        with self.assertRaisesRegex(RuntimeError, "database"):
            self.scopes.close_all()
        self.assertEqual(self.events[3:], ["closed module", "closed database", "closed server"])

    def test_a_factory_that_fails_is_asked_again(self) -> None:
        def fail() -> contextlib.AbstractContextManager[str]:
            raise OSError

        with self.assertRaises(OSError):
            self.scopes.of_run(1, fail)
        self.assertEqual(self.scopes.of_run(1, self.thing("server")), "server")

    def test_what_fails_for_the_server_is_tried_once_a_run(self) -> None:
        def fail() -> contextlib.AbstractContextManager[str]:
            self.events.append("tried")
            raise ServerError("it does not start", cause="c", remedy="r")

        for _ in range(2):
            with self.assertRaisesRegex(ServerError, "it does not start"):
                self.scopes.of_run(1, fail)
        self.assertEqual(self.events, ["tried"])
        self.assertEqual(list(self.scopes.failures()), [1])
        self.scopes.close_all()
        self.assertEqual(self.scopes.of_run(1, self.thing("server")), "server")

    def test_a_module_ends_when_another_begins(self) -> None:
        self.scopes.of_module("first", 1, self.thing("first"))
        self.scopes.module_started("first")
        self.assertEqual(self.events, ["made first"])
        self.scopes.of_module("second", 1, self.thing("second"))
        self.assertEqual(self.events, ["made first", "closed first", "made second"])

    def test_a_module_ends_with_its_cleanup(self) -> None:
        self.scopes.of_module("m", 1, self.thing("m"))
        for function, arguments in self.module_cleanups:
            function(*arguments)
        self.assertEqual(self.events, ["made m", "closed m"])

    def test_a_forked_child_neither_uses_nor_closes_what_it_inherited(self) -> None:
        self.scopes.of_run(1, self.thing("run"))
        self.scopes.of_module("m", 1, self.thing("module"))
        made = len(self.events)
        with mock.patch("os.getpid", return_value=os.getpid() + 1):
            self.scopes.close_all()
            for function, arguments in self.module_cleanups:
                function(*arguments)
            self.assertEqual(self.events[made:], [])
            self.scopes.of_run(1, self.thing("child's"))
            self.scopes.close_all()
        self.assertEqual(self.events[made:], ["made child's", "closed child's"])

    def test_a_thing_may_ask_for_another_while_it_is_made(self) -> None:
        @contextlib.contextmanager
        def outer() -> Iterator[str]:
            yield self.scopes.of_run("inner", self.thing("inner")) + " outer"

        self.assertEqual(self.scopes.of_run("outer", outer), "inner outer")


class WorkerNameTest(unittest.TestCase):
    def test_xdist_says_it(self) -> None:
        with mock.patch.dict(os.environ, PYTEST_XDIST_WORKER="gw3"):
            self.assertEqual(worker_name(), "gw3")

    def test_multiprocessing_numbers_its_workers(self) -> None:
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop("PYTEST_XDIST_WORKER", None)
        with mock.patch("multiprocessing.current_process") as process:
            process.return_value._identity = (2, 1)
            self.assertEqual(worker_name(), "w2_1")

    def test_otherwise_it_is_the_pid(self) -> None:
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop("PYTEST_XDIST_WORKER", None)
        with mock.patch("multiprocessing.current_process") as process:
            process.return_value._identity = ()
            self.assertEqual(worker_name(), f"p{os.getpid()}")

    def test_the_module_functions_share_one_registry(self) -> None:
        for function in (scopes.of_run, scopes.of_module, scopes.module_started, scopes.close_all):
            self.assertIs(function.__self__, scopes._scopes)  # type: ignore[attr-defined]
