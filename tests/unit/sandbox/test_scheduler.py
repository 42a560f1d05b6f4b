"""Whose turn it is: who goes first, what the harness takes, and what a finalizer in the middle of it all may do."""

from __future__ import annotations

import signal
import threading
import time
import unittest
from collections.abc import Callable
from unittest import mock

from dbtestcase.errors import SandboxBusy
from dbtestcase.sandbox import scheduler as turns_module
from dbtestcase.sandbox.scheduler import Scheduler
from dbtestcase.sandbox.tickets import Actor, Reason, Ticket, Wait

LONG = 60.0
"""Seconds after which a test that should have ended hangs."""


class TurnsTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.unfinished: list[Ticket] = []
        self.scheduler = Scheduler(lambda: self.unfinished, lambda turn: all(each is turn for each in self.unfinished))
        self.log: list[str] = []

    def start(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.addCleanup(self.join, thread)
        return thread

    def join(self, thread: threading.Thread) -> None:
        thread.join(LONG)
        self.assertFalse(thread.is_alive(), "it hangs")

    def wait_for_waiters(self, number: int) -> None:
        """Until so many are waiting."""
        limit = time.monotonic() + LONG
        while len(self.scheduler._waiting) < number:
            self.assertLess(time.monotonic(), limit, "nobody waits")
            time.sleep(0.001)

    def use(self, name: str) -> None:
        turn = Ticket(name, own=False)
        self.scheduler.acquire(turn)
        self.log.append(name)
        self.scheduler.release(turn)


class QueueTest(TurnsTestCase):
    def test_who_has_waited_longer_goes_first(self) -> None:
        holder = Ticket("holder", own=False)
        self.scheduler.acquire(holder)
        threads = []
        for number in range(4):
            threads.append(self.start(lambda name=f"waiter {number}": self.use(name)))  # type: ignore[misc]
            self.wait_for_waiters(number + 1)
        self.scheduler.release(holder)
        self.use("holder again")
        for thread in threads:
            self.join(thread)
        self.assertEqual(self.log, ["waiter 0", "waiter 1", "waiter 2", "waiter 3", "holder again"])

    def test_who_was_not_woken_yet_is_no_deadlock(self) -> None:
        """One with an unfinished transaction waited for the wire, which is free again: it goes on, and commits."""
        writer, reader = Ticket("writer", own=False), Ticket("reader", own=False)
        self.scheduler.acquire(reader)
        self.scheduler.release(reader)
        over = threading.Event()
        thread = self.start(lambda: over.wait(LONG) and None)
        self.addCleanup(over.set)
        writer.actor = Actor(thread, None)
        self.unfinished.append(writer)
        self.scheduler._waiting[writer.actor] = Wait(writer, reader, Reason.WIRE, True)
        with mock.patch.object(turns_module, "COURTESY", 0.01), mock.patch.object(turns_module, "PATIENCE", 0.1):
            self.scheduler.acquire(reader)  # once it has waited long enough for the transaction
        self.assertTrue(writer.waited_out)
        self.scheduler.release(reader)

    def test_nobody_gives_way_to_those_who_wait_for_his_own_transaction(self) -> None:
        writer = Ticket("writer", own=False)
        self.scheduler.acquire(writer)
        self.unfinished.append(writer)
        self.scheduler.release(writer)
        thread = self.start(lambda: self.use("reader"))
        self.wait_for_waiters(1)
        with mock.patch.object(turns_module, "COURTESY", LONG):
            self.scheduler.acquire(writer)  # its commit
        self.unfinished.clear()
        self.log.append("commit")
        self.scheduler.release(writer)
        self.join(thread)
        self.assertEqual(self.log, ["commit", "reader"])

    def test_one_that_does_not_go_is_passed(self) -> None:
        stop = threading.Event()
        sleeper = Actor(self.start(lambda: self.assertTrue(stop.wait(LONG))), None)
        self.addCleanup(stop.set)
        turn = Ticket("sleeper", own=False)
        self.scheduler._waiting[sleeper] = Wait(turn, Ticket("whom it waited for", own=False), Reason.WIRE, True)
        with mock.patch.object(turns_module, "COURTESY", 0.05):
            self.use("next")
        self.assertEqual(self.log, ["next"])


class PatienceTest(unittest.TestCase):
    def test_the_time_in_which_the_process_stood_still_does_not_count(self) -> None:
        now = 0.0
        limits = turns_module._Limits(lambda: now)
        wait = Wait(Ticket("reader", own=False), Ticket("writer", own=False), Reason.TRANSACTION, True)
        self.assertGreater(limits.remaining(wait), 0)
        for _ in range(3):
            now += 60
            self.assertGreater(limits.remaining(wait), 0)
        looks = 0
        while limits.remaining(wait) > 0:
            now += turns_module.LOOK
            looks += 1
        self.assertEqual(looks, 2)  # of eight: each of the three counted as two


class FinalizerTest(TurnsTestCase):
    """The collector may run anywhere; here it runs where a decision asks for the transactions."""

    def test_it_is_refused_in_the_middle_of_a_decision(self) -> None:
        other = Ticket("a pool's finalizer", own=False)
        caught: list[Exception] = []

        def finalize(turn: Ticket) -> bool:
            try:
                self.scheduler.acquire(other)
            except SandboxBusy as busy:
                caught.append(busy)
            return True

        self.scheduler = Scheduler(lambda: [], finalize)
        self.join(self.start(lambda: self.use("statement")))
        self.assertEqual((self.log, len(caught)), (["statement"], 1))
        self.assertIn("garbage collector", getattr(caught[0], "cause", ""))
        self.scheduler = Scheduler(lambda: [Ticket(str(finalize(other)), own=True)], lambda turn: False)
        self.join(self.start(lambda: self.use("slowly")))
        self.assertEqual((self.log[1:], len(caught)), (["slowly"], 2))


class HarnessTest(TurnsTestCase):
    def test_it_waits_for_the_statement_of_another_thread_and_the_others_for_it(self) -> None:
        holder, begun, go_on = Ticket("holder", own=False), threading.Event(), threading.Event()

        def work() -> None:
            self.scheduler.acquire(holder)
            begun.set()
            go_on.wait(LONG)
            self.log.append("statement")
            self.scheduler.release(holder)
            self.use("the next statement")

        thread = self.start(work)
        begun.wait(LONG)
        threading.Timer(0.05, go_on.set).start()
        with self.scheduler.seized(self.fail, self.fail):
            self.log.append("harness")
            with self.scheduler.seized(self.fail, self.fail):
                self.wait_for_waiters(1)
                self.scheduler.reset()
                with self.assertRaises(SandboxBusy):
                    self.use("a finalizer")
            self.log.append("harness again")
        self.join(thread)
        self.assertEqual(self.log, ["statement", "harness", "harness again", "the next statement"])

    def test_what_does_not_end_is_interrupted_then_cut_then_passed_over(self) -> None:
        for heeds in ("interrupt", "cut", ""):
            holder, begun, stop = Ticket("holder", own=False), threading.Event(), threading.Event()

            def work(holder: Ticket = holder, begun: threading.Event = begun, stop: threading.Event = stop) -> None:
                self.scheduler.acquire(holder)
                begun.set()
                stop.wait(LONG)
                self.scheduler.release(holder)

            interrupt, cut = (
                mock.Mock(side_effect=lambda *_: stop.set()) if heeds == name else mock.Mock()  # noqa: B023
                for name in ("interrupt", "cut")
            )
            waits = mock.patch.multiple(
                turns_module,
                PATIENCE=0.05,
                INTERRUPT_TIMEOUT=LONG if heeds == "interrupt" else 0.05,
                COURTESY=LONG if heeds else 0.05,
            )
            with self.subTest(heeds=heeds), waits:
                thread = self.start(work)
                begun.wait(LONG)
                with self.scheduler.seized(interrupt, cut):
                    self.assertEqual(thread.is_alive() and not stop.is_set(), not heeds)
                interrupt.assert_called_once_with()
                self.assertEqual(cut.call_count, heeds != "interrupt")
                if cut.called:
                    self.assertRegex(cut.call_args[0][0], r"thread 'Thread-.*' was in the middle of a statement")
                stop.set()
                self.join(thread)
                self.use("the next test")
        self.assertEqual(self.log, ["the next test"] * 3)

    def test_a_thread_whose_join_was_interrupted_is_waited_for(self) -> None:
        """A signal's handler that raises in join() makes Python say that the thread has ended (before 3.13)."""
        begun, stop = threading.Event(), threading.Event()

        def work() -> None:
            self.scheduler.acquire(holder)
            begun.set()
            stop.wait(LONG)
            self.log.append("statement")
            self.scheduler.release(holder)

        def raise_it(*_: object) -> None:
            raise TimeoutError

        holder = Ticket("holder", own=False)
        thread = self.start(work)
        begun.wait(LONG)
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, raise_it))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with self.assertRaises(TimeoutError):
            thread.join(LONG)
        with mock.patch.object(turns_module, "PATIENCE", 0.01), self.scheduler.seized(stop.set, self.fail):
            self.log.append("harness")
        self.join(thread)
        self.assertEqual(self.log, ["statement", "harness"])

    def test_what_this_thread_has_left_unfinished_is_over(self) -> None:
        stream = Ticket("a stream", own=False)
        self.scheduler.acquire(stream)
        with self.assertRaises(SandboxBusy):
            self.use("statement")
        with self.scheduler.seized(self.fail, self.fail):
            self.scheduler.release(stream)  # its generator is closed late
            with self.assertRaises(SandboxBusy):
                self.use("a finalizer")
        self.use("the next test")
        self.assertEqual(self.log, ["the next test"])


if __name__ == "__main__":
    unittest.main()
