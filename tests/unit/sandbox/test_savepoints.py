"""The stack of savepoints beside independent connections: the same rows, or a conflict that nobody could avoid.

The short sequences are explored exhaustively: two sequences that lead to the same state have the same future, so each
state is gone on from once.  The long ones are Hypothesis's.
"""

import unittest
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from dbtestcase.sandbox.savepoints import Conflict, Fate, Owner, Stack, Verb
from tests.support.connections_model import World
from tests.support.samples import LONG, a_share


def explore(owners: int, length: int, *, deferred: bool = False, based: bool = False) -> Counter[str]:
    """Every sequence of ``length`` operations; what was found is counted.

    :raises AssertionError: naming the first sequence that goes wrong.
    """
    found: Counter[str] = Counter()
    seen: set[object] = set()
    frontier: list[tuple[World, tuple[tuple[int, str], ...]]] = [(World(owners, deferred=deferred, based=based), ())]
    for _ in range(length):
        following = []
        for world, path in frontier:
            for choice in world.choices():
                if not path and choice[0]:
                    continue  # which of them is first makes no difference
                copy = world.copy()
                try:
                    conflict = copy.apply(*choice)
                except AssertionError as error:
                    steps = " ".join(f"{'ABCD'[i]}.{name}" for i, name in (*path, choice))
                    raise AssertionError(f"{steps}: {error}") from error
                found["transitions"] += 1
                if conflict is not None:
                    found["conflicts"] += 1
                    continue
                key = copy.key()
                if key not in seen:
                    seen.add(key)
                    following.append((copy, (*path, choice)))
        frontier = following
    found["states"] = len(seen)
    return found


class ExhaustiveTest(unittest.TestCase):
    """One of three goes a step further, in each process another."""

    further = a_share(("two", "based", "three"), 3)

    def test_two_connections_match_independent_ones_in_every_short_sequence(self) -> None:
        found = explore(2, 7 if LONG else 4 + ("two" in self.further))
        self.assertGreater(found["states"], 1_000 if "two" in self.further else 200)
        self.assertGreater(found["conflicts"], 100 if "two" in self.further else 10)

    def test_checks_of_deferred_constraints_are_not_undone_by_those_who_only_read(self) -> None:
        self.assertGreater(explore(2, 6 if LONG else 4, deferred=True)["states"], 500)

    def test_they_match_them_on_a_savepoint_that_must_stay(self) -> None:
        found = explore(2, 6 if LONG else 4 + ("based" in self.further), based=True)
        self.assertGreater(found["states"], 1_000 if "based" in self.further else 200)
        self.assertGreater(explore(2, 6 if LONG else 4, based=True, deferred=True)["states"], 500)

    def test_three_connections_match_independent_ones_in_every_short_sequence(self) -> None:
        length = 5 if LONG else 3 + ("three" in self.further)
        found = explore(3, length)
        self.assertGreater(found["conflicts" if length > 3 else "states"], 50)  # three steps are too few for a conflict


class Connections(RuleBasedStateMachine):
    """Long sequences on four connections."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(4, based=True)
        self.over = False

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        if self.over:
            return  # a conflict fails the test: what comes after it is of no account
        choice = data.draw(st.sampled_from(self.world.choices(depth=3)))
        self.over = self.world.apply(*choice) is not None

    def teardown(self) -> None:
        if not self.over:
            for i in range(4):
                if self.world.apply(i, "rollback") is not None:
                    return
            self.assert_nothing_unfinished()

    def assert_nothing_unfinished(self) -> None:
        assert not self.world.stack.unfinished()
        assert set(self.world.server.rows) == self.world.model.committed


LongSequencesTest = Connections.TestCase
LongSequencesTest.settings = settings(
    max_examples=2_000 if LONG else 50,
    stateful_step_count=60,
    deadline=None,
    derandomize=not LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class StepsTest(unittest.TestCase):
    """What is sent, for the cases that every suite meets."""

    def setUp(self) -> None:
        self.stack, self.a, self.b = Stack(), Owner("A"), Owner("B")

    def sent(self, steps: list[tuple[Verb, str]]) -> list[str]:
        return [f"{verb.value} {name}" for verb, name in steps]

    def test_one_transaction_after_the_other_costs_two_steps_in_one_round_trip(self) -> None:
        self.assertEqual(self.sent(self.stack.statement(self.a, writes=True)), ["SAVEPOINT dbtc_1"])
        self.assertEqual(self.stack.commit(self.a), [])
        steps = self.sent(self.stack.statement(self.a, writes=True))
        self.assertEqual(steps, ["RELEASE SAVEPOINT dbtc_1", "SAVEPOINT dbtc_2"])

    def test_the_first_transaction_needs_no_savepoint_of_its_own(self) -> None:
        self.stack.clear("mark")
        self.assertEqual(self.stack.statement(self.a, writes=True), [])
        self.assertEqual(self.sent(self.stack.rollback(self.a)), ["ROLLBACK TO SAVEPOINT mark"])
        self.assertEqual(self.stack.statement(self.b, writes=True), [])
        self.assertEqual(self.stack.commit(self.b), [])
        self.assertEqual(self.sent(self.stack.statement(self.a, writes=True)), ["SAVEPOINT dbtc_1"])

    def test_transactions_that_only_read_share_one_savepoint(self) -> None:
        self.stack.statement(self.a, writes=False)
        self.assertEqual(self.stack.statement(self.b, writes=False), [])
        self.stack.commit(self.a)
        self.assertEqual(self.stack.statement(self.a, writes=True), [])
        self.assertEqual(len(self.stack.entries), 1)

    def test_begin_and_savepoint_of_the_application_send_nothing(self) -> None:
        self.stack.savepoint(self.a, "s")
        self.assertEqual(self.stack.entries, [])
        self.stack.release(self.a, "s")
        self.assertEqual(self.stack.commit(self.a), [])

    def test_ten_thousand_transactions_do_not_pile_up(self) -> None:
        for number in range(10_000):
            owner = self.a if number % 2 else self.b
            self.stack.statement(owner, writes=True)
            if number % 3:
                self.stack.commit(owner)
            else:
                self.stack.rollback(owner)
        self.assertLess(len(self.stack.entries), 3)

    def test_a_savepoint_of_that_name_must_exist(self) -> None:
        with self.assertRaises(KeyError):
            self.stack.release(self.a, "s")
        with self.assertRaises(KeyError):
            self.stack.rollback_to(self.a, "s")

    def test_the_newest_of_two_savepoints_with_one_name_is_meant(self) -> None:
        self.stack.savepoint(self.a, "s")
        self.stack.statement(self.a, writes=True)
        self.stack.savepoint(self.a, "s")
        self.stack.statement(self.a, writes=True)
        self.assertEqual(self.sent(self.stack.rollback_to(self.a, "s")), ["ROLLBACK TO SAVEPOINT dbtc_2"])
        self.stack.release(self.a, "s")
        self.assertEqual(self.sent(self.stack.rollback_to(self.a, "s")), ["ROLLBACK TO SAVEPOINT dbtc_1"])

    def test_a_conflict_names_who_is_rolled_back_and_who_stays(self) -> None:
        self.stack.statement(self.a, writes=True)
        self.stack.statement(self.b, writes=True)
        self.stack.commit(self.b)
        with self.assertRaises(Conflict) as caught:
            self.stack.rollback(self.a)
        self.assertEqual((caught.exception.rolled_back, caught.exception.kept), (self.a, [self.b]))

    def test_a_rollback_below_unfinished_writes_waits_for_their_end(self) -> None:
        self.stack.statement(self.a, writes=True)
        self.stack.statement(self.b, writes=True)
        self.assertEqual(self.stack.rollback(self.a), [])
        self.assertIs(self.stack.entries[0].fate, Fate.DOOMED)
        self.assertEqual(self.sent(self.stack.rollback(self.b)), ["ROLLBACK TO SAVEPOINT dbtc_1"])

    def test_somebody_elses_open_cursor_is_not_closed_by_a_rollback(self) -> None:
        self.stack.statement(self.a, writes=True)
        self.stack.statement(self.b, writes=False)
        self.stack.hold(self.b)
        self.assertEqual(self.stack.rollback(self.a), [])
        self.assertEqual(self.sent(self.stack.commit(self.b)), ["ROLLBACK TO SAVEPOINT dbtc_1"])

    def test_a_conflict_is_said_once(self) -> None:
        self.stack.statement(self.a, writes=True)
        self.stack.statement(self.b, writes=True)
        self.stack.rollback(self.a)
        with self.assertRaises(Conflict):
            self.stack.statement(self.b, writes=False)
        self.stack.statement(self.b, writes=False)
        self.stack.commit(self.b)
