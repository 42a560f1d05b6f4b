"""Which threads are still at work when their test ends: those that compute or poll, not those that wait."""

import _thread
import contextlib
import functools
import queue
import sys
import threading
import time
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from dbtestcase.errors import SandboxClosed
from dbtestcase.isolation.left_threads import LeftThreads


class LeftThreadsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.left = LeftThreads()
        self.left.begin_class()
        self.go, self.begun = threading.Event(), threading.Event()

    def answer(self, wait: Callable[[], object]) -> str:
        """What a thread that asks for a connection in the next test is told, when it was in ``wait`` before."""
        started, answers = threading.Event(), queue.SimpleQueue[str]()

        def work() -> None:
            started.set()
            wait()
            try:
                self.left.refuse()
            except SandboxClosed as error:
                answers.put(str(error))
            else:
                answers.put("")

        thread = threading.Thread(target=work, name="late")
        thread.start()
        started.wait(60)
        while not self.is_inside(thread, wait):
            pass
        self.left.end_test("the test before")
        self.go.set()
        thread.join(60)
        return answers.get_nowait()

    def is_inside(self, thread: threading.Thread, wait: Callable[[], object]) -> bool:
        frame = sys._current_frames().get(thread.ident or 0)
        if wait == self.go.wait:  # it is on its way there until the module has it
            return frame is not None and frame.f_code.co_name == "wait"
        code = getattr(getattr(wait, "func", wait), "__code__", None)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        return frame is not None

    def test_one_that_polls_is_at_work_wherever_it_is_met(self) -> None:
        def poll() -> None:
            while not self.go.is_set():
                pass

        for _ in range(30):
            with self.subTest():
                self.go.clear()
                self.assertRegex(self.answer(poll), "'late' was started by the test before, which has ended")

    def test_one_that_was_just_started_is_at_work(self) -> None:
        answers = queue.SimpleQueue[str]()

        def work() -> None:
            self.begun.set()
            while not self.go.is_set():
                pass
            try:
                self.left.refuse()
            except SandboxClosed as error:
                answers.put(str(error))

        registering = threading._active_limbo_lock  # type: ignore[attr-defined]

        def let_go(seconds: float) -> None:
            if not self.begun.is_set():
                registering.release()
                self.begun.wait(60)

        for ends in (lambda: self.left.end_test("a"), lambda: self.left.bar(self.left.new_jobs(), "a")):
            thread = threading.Thread(target=work)
            self.left.begin_test()
            registering.acquire()
            thread.start()  # which waits no longer than until the thread is there
            with mock.patch.object(time, "sleep", let_go):
                ends()
            let_go(0)
            self.go.set()
            thread.join(60)
            self.assertRegex(answers.get_nowait(), "was started by a, which has ended")
            self.go.clear()
            self.begun.clear()

    def test_a_job_that_waits_in_the_queue_of_a_pool_belongs_to_the_test_that_put_it_there(self) -> None:
        of_class = threading.Event()

        def work() -> None:
            self.begun.set()
            self.go.wait(60)
            self.left.refuse()

        def let_go(seconds: float) -> None:
            of_class.set()
            self.begun.wait(60)

        for ends in (lambda: self.left.end_test("a"), lambda: self.left.bar(self.left.new_jobs(), "a")):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(of_class.wait, 60)
                while pool._work_queue.qsize():
                    pass
                self.left.begin_sandboxed_test()
                job = pool.submit(work)
                with mock.patch.object(time, "sleep", let_go):
                    ends()
                self.go.set()
                self.assertRegex(str(job.exception(60)), "was started by a, which has ended")
                self.assertIsNone(pool.submit(self.left.refuse).result(60))
            for event in (of_class, self.begun, self.go):
                event.clear()

    def test_a_job_of_a_pool_that_began_before_the_test_goes_on(self) -> None:
        def work() -> None:
            self.begun.set()
            self.go.wait(60)
            self.left.refuse()

        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(work)
            self.begun.wait(60)
            self.left.begin_class()
            self.left.begin_sandboxed_test()
            self.left.end_test("a")
            self.go.set()
            self.assertIsNone(job.exception(60))

    def test_a_pool_that_is_busy_all_the_while_costs_no_test_a_wait(self) -> None:
        def work() -> None:
            self.begun.set()
            self.go.wait(60)

        pool = ThreadPoolExecutor(1)
        for hand_over in (lambda: pool.submit(int), lambda: pool.shutdown(wait=False)):
            pool.submit(work)
            self.begun.wait(60)
            hand_over()
            for begin in (self.left.begin_test, self.left.begin_sandboxed_test):
                begin()
                with mock.patch.object(time, "sleep") as sleep:
                    self.left.end_test("a")
                    self.left.new_jobs()
                sleep.assert_not_called()
                self.left.end_class()
            self.go.set()
            for thread in list(pool._threads) if pool._shutdown else ():
                thread.join(60)
            self.begun.clear()
            self.go.clear()

    def test_a_job_of_a_pool_that_waits_for_work_may_serve_the_next_test(self) -> None:
        inner = queue.Queue[Callable[[], Any]]()
        answers = queue.SimpleQueue[Any]()
        library: dict[str, Any] = {"__name__": "sqlalchemy.pool"}
        exec("def fetch(get): return get()", library)

        def serve(get: Callable[[], Any]) -> None:
            self.begun.set()
            try:
                answers.put(get()())
            except SandboxClosed as error:
                answers.put(error)

        for get, is_refused in ((inner.get, False), (functools.partial(library["fetch"], inner.get), True)):
            for is_new in (True, False):
                with self.subTest(is_refused=is_refused, is_new=is_new), ThreadPoolExecutor(1) as pool:
                    if not is_new:
                        pool.submit(int).result()
                        self.left.begin_class()
                    self.left.begin_sandboxed_test()
                    pool.submit(serve, get)
                    self.begun.wait(60)
                    while not self.is_inside(next(iter(pool._threads)), queue.Queue.get):
                        pass
                    self.left.end_test("a")
                    inner.put(self.left.refuse)
                    self.assertEqual(isinstance(answers.get(timeout=60), SandboxClosed), is_refused)
                self.begun.clear()

    def test_one_that_waits_may_serve_the_next_test(self) -> None:
        self.assertEqual(self.answer(self.go.wait), "")

    def test_one_that_wakes_by_itself_is_at_work(self) -> None:
        def beat() -> None:
            while not self.go.wait(0.01):
                pass

        self.assertRegex(self.answer(beat), "'late' was started by the test before, which has ended")

    def test_the_watch_of_this_library_is_nobodys(self) -> None:
        library: dict[str, Any] = {"__name__": "dbtestcase.reporting.lock_waits"}
        exec(compile("def watch(stop):\n    while not stop.wait(0.01): pass", "/lib/x.py", "exec"), library)
        self.assertEqual(self.answer(functools.partial(library["watch"], self.go)), "")

    def test_jobs_of_a_scheduler_that_a_test_has_left_are_refused_in_the_threads_of_any_pool(self) -> None:
        library: dict[str, Any] = {"__name__": "scheduler.loop"}
        code = "def loop(stop):\n    while not stop.wait(0.01): pass\ndef run(job):\n    return job()"
        exec(compile(code, "/lib/site-packages/scheduler/loop.py", "exec"), library)
        thread = threading.Thread(target=library["loop"], args=[self.go], name="Scheduler")
        with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
            stack.callback(self.go.set)
            thread.start()
            while not self.is_inside(thread, library["loop"]):
                pass
            self.left.end_test("the test before")
            with self.assertRaisesRegex(SandboxClosed, "works for 'Scheduler', which was started by the test before"):
                pool.submit(library["run"], self.left.refuse).result()
            self.assertIsNone(pool.submit(self.left.refuse).result())
            self.go.set()
            thread.join()
            self.assertIsNone(pool.submit(library["run"], self.left.refuse).result())

    def test_the_threads_of_a_pool_wait_between_two_pieces_of_work(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int).result()
            while pool._idle_semaphore._value != 1:  # type: ignore[attr-defined]
                pass
            self.left.end_test("the test before")
            self.assertIsNone(pool.submit(self.left.refuse).result())

    def test_a_thread_of_a_pool_is_refused_for_what_it_does_now_and_for_nothing_else(self) -> None:
        begun = threading.Event()

        def work() -> None:
            begun.set()
            self.go.wait(60)
            self.left.refuse()

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(work)
            begun.wait(60)
            (thread,) = pool._threads
            self.assertEqual(self.left.bar({thread.ident or 0}, "the test before"), {thread.ident: thread.name})
            self.go.set()
            self.assertIsInstance(first.exception(), SandboxClosed)
            self.assertIsNone(pool.submit(work).result())

    def test_one_that_goes_on_by_itself_never_rests(self) -> None:
        def poll() -> None:
            while not self.go.is_set():
                pass

        def sleep() -> None:
            while not self.go.is_set():
                time.sleep(0.01)

        def wait_a_while() -> None:
            while not self.go.wait(0.01):
                pass

        def query() -> None:
            exec("while not go.is_set(): pass", {"__name__": "sqlalchemy.engine", "go": self.go})

        self.left.begin_test()
        works = (self.go.wait, poll, sleep, wait_a_while, query)
        threads = [threading.Thread(target=each, name=each.__name__) for each in works]
        for thread in threads:
            thread.start()
        self.addCleanup(self.go.set)
        idents = {each.ident or 0 for each in threads}
        end = time.monotonic() + 60
        while self.left.new_jobs() != {each.ident for each in threads[1:]} and time.monotonic() < end:
            pass  # until they are there
        restless, waited = self.left.restless(idents, idents)
        self.assertEqual(restless, {each.ident for each in threads[1:]})
        self.assertTrue(waited)
        self.left.begin_test()
        self.assertEqual(self.left.new_jobs(), set())

    def test_a_thread_of_a_pool_is_at_something_new_in_each_test(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            self.addCleanup(self.go.set)
            pool.submit(int).result()
            self.left.begin_test()
            self.assertEqual(self.left.new_jobs(), set())
            pool.submit(self.stand)
            self.begun.wait(60)
            self.assertEqual(self.left.new_jobs(), {each.ident for each in pool._threads})
            self.go.set()

    def test_a_thread_that_threading_does_not_know_of_was_at_work_before_as_well(self) -> None:
        _thread.start_new_thread(self.stand, ())  # as execnet's are, in a worker of xdist
        self.begun.wait(60)
        self.left.begin_test()
        thread = threading.Thread(target=self.go.wait)  # now there is one that it knows
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.go.set)
        self.assertEqual(self.left.new_jobs(), set())

    def stand(self) -> None:
        self.begun.set()
        self.go.wait(60)

    def test_what_is_to_run_later_is_refused(self) -> None:
        answers = queue.SimpleQueue[str]()

        def ask() -> None:
            try:
                self.left.refuse()
            except SandboxClosed as error:
                answers.put(str(error))

        self.left.begin_test()
        timer = threading.Timer(0.5, ask)
        timer.start()
        restless, waited = self.left.restless(self.left.new_jobs(), ())
        self.assertEqual((restless, waited), ({timer.ident}, False))
        self.left.bar(restless, "the test before")
        self.assertRegex(answers.get(timeout=60), "was started by the test before")
        self.assertEqual(self.left.refused, {timer.name: "the test before"})


if __name__ == "__main__":
    unittest.main()
