"""Things of a run, a module and a class are made once, and closed once, by the process that made them."""

import contextlib
import os
import unittest
from collections.abc import Callable, Iterator
from unittest import mock

from dbtestcase.cases import scopes
from dbtestcase.cases.scopes import Scopes, worker_name
from dbtestcase.errors import ConfigurationError


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
            yield name
            self.events.append(f"closed {name}")
            if fails:
                raise RuntimeError(name)

        return factory

    def case(self, module: str) -> type[unittest.TestCase]:
        return type("Case", (unittest.TestCase,), {"__module__": module})

    def test_a_thing_is_made_on_first_use_and_then_shared(self) -> None:
        for _ in range(2):
            self.assertEqual(self.scopes.enter("run", "key", self.thing("server")), "server")
        self.scopes.enter("run", "other", self.thing("database"))
        self.assertEqual(self.events, ["made server", "made database"])

    def test_a_run_closes_in_reverse_order_and_once(self) -> None:
        self.scopes.enter("run", 1, self.thing("server"))
        self.scopes.enter("run", 2, self.thing("database"))
        self.scopes.close_all()
        self.scopes.close_all()
        self.assertEqual(self.events[2:], ["closed database", "closed server"])

    def test_classes_close_before_the_module_and_the_module_before_the_run(self) -> None:
        case = self.case("m")
        self.scopes.enter("class", 1, self.thing("c"), test_class=case)
        self.scopes.enter("module", 1, self.thing("m"), test_class=case)
        self.scopes.enter("run", 1, self.thing("r"))
        self.scopes.close_all()
        self.assertEqual(self.events[3:], ["closed c", "closed m", "closed r"])

    def test_one_that_fails_keeps_none_of_the_others_from_closing(self) -> None:
        case = self.case("m")
        self.scopes.enter("run", 1, self.thing("server"))
        self.scopes.enter("run", 2, self.thing("database", fails=True))
        self.scopes.enter("module", 1, self.thing("module", fails=True), test_class=case)
        with self.assertRaisesRegex(RuntimeError, "database"):
            self.scopes.close_all()
        self.assertEqual(self.events[3:], ["closed module", "closed database", "closed server"])

    def test_a_factory_that_fails_is_asked_again(self) -> None:
        def fail() -> contextlib.AbstractContextManager[str]:
            raise OSError

        with self.assertRaises(OSError):
            self.scopes.enter("run", 1, fail)
        self.assertEqual(self.scopes.enter("run", 1, self.thing("server")), "server")

    def test_a_module_ends_with_the_first_class_of_another(self) -> None:
        first, second = self.case("first"), self.case("second")
        self.scopes.enter("module", 1, self.thing("first"), test_class=first)
        self.scopes.class_started(self.case("first"))
        self.assertEqual(self.events, ["made first"])
        self.scopes.enter("module", 1, self.thing("second"), test_class=second)
        self.assertEqual(self.events, ["made first", "closed first", "made second"])

    def test_a_module_ends_with_its_cleanup(self) -> None:
        self.scopes.enter("module", 1, self.thing("m"), test_class=self.case("m"))
        for function, arguments in self.module_cleanups:
            function(*arguments)
        self.assertEqual(self.events, ["made m", "closed m"])

    def test_a_class_ends_with_its_cleanups_and_begins_anew_when_it_runs_again(self) -> None:
        case = self.case("m")
        for _ in range(2):
            self.scopes.enter("class", 1, self.thing("c"), test_class=case)
            case.doClassCleanups()
        self.assertEqual(self.events, ["made c", "closed c"] * 2)

    def test_a_class_scope_without_a_class_is_refused(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "without a class"):
            self.scopes.enter("class", 1, self.thing("c"))

    def test_a_forked_child_neither_uses_nor_closes_what_it_inherited(self) -> None:
        case = self.case("m")
        self.scopes.enter("run", 1, self.thing("run"))
        self.scopes.enter("module", 1, self.thing("module"), test_class=case)
        self.scopes.enter("class", 1, self.thing("class"), test_class=case)
        made = len(self.events)
        with mock.patch("os.getpid", return_value=os.getpid() + 1):
            self.scopes.close_all()
            for function, arguments in self.module_cleanups:
                function(*arguments)
            case.doClassCleanups()
            self.assertEqual(self.events[made:], [])
            self.scopes.enter("run", 1, self.thing("child's"))
            self.scopes.close_all()
        self.assertEqual(self.events[made:], ["made child's", "closed child's"])

    def test_a_thing_may_ask_for_another_while_it_is_made(self) -> None:
        @contextlib.contextmanager
        def outer() -> Iterator[str]:
            yield self.scopes.enter("run", "inner", self.thing("inner")) + " outer"

        self.assertEqual(self.scopes.enter("run", "outer", outer), "inner outer")


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
        self.assertIs(scopes.enter.__globals__["_scopes"], scopes._scopes)
