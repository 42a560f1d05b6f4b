"""Two small models: a server that knows savepoints, and connections that are really independent.

The stack of savepoints is compared with the second by carrying out its steps on the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dbtestcase.sandbox.savepoints import Conflict, Entry, Owner, Stack, Step, Verb

__all__ = ["GONE", "FakeServer", "Independent", "World"]

_BASE = "base"
GONE = "gone"
"""The status of a write that no connection of the model has any more."""


class FakeServer:
    """One transaction of a server: an ordered log of savepoints, writes and open cursors."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str | int]] = []

    def run(self, steps: list[Step]) -> None:
        """Carry out what the stack decided.

        :raises AssertionError: there is no savepoint of that name, which a real server refuses.
        """
        for verb, name in steps:
            marker = ("savepoint", name)
            if verb is Verb.SET:
                self.log.append(marker)
                continue
            assert marker in self.log, f"{verb.value} {name}: savepoint does not exist"
            at = len(self.log) - 1 - self.log[::-1].index(marker)
            if verb is Verb.ROLLBACK:
                del self.log[at + 1 :]
            else:
                self.log[at:] = [item for item in self.log[at:] if item[0] != "savepoint"]

    @property
    def rows(self) -> list[int]:
        """The writes that a statement sees, in the order of time."""
        return [int(number) for kind, number in self.log if kind == "write"]


@dataclass
class Transaction:
    """What one independent connection has not committed yet: each write or cursor with its depth of savepoints."""

    labels: list[str] = field(default_factory=list)
    failed: bool = False
    writes: list[tuple[int, int]] = field(default_factory=list)
    cursors: list[tuple[int, int]] = field(default_factory=list)


class Independent:
    """Connections of their own, each with rows of its own, as a server with many connections treats them."""

    def __init__(self, owners: int) -> None:
        self.committed: set[int] = set()
        self.transactions = [Transaction() for _ in range(owners)]

    def pending(self, owner: int) -> set[int]:
        return {number for number, _ in self.transactions[owner].writes}

    def cursors(self) -> set[int]:
        return {number for tx in self.transactions for number, _ in tx.cursors}

    def write(self, owner: int, number: int) -> None:
        tx = self.transactions[owner]
        tx.writes.append((number, len(tx.labels)))

    def declare(self, owner: int, number: int) -> None:
        tx = self.transactions[owner]
        tx.cursors.append((number, len(tx.labels)))

    def release(self, owner: int, at: int) -> None:
        tx = self.transactions[owner]
        del tx.labels[at:]
        tx.writes = [(number, min(depth, at)) for number, depth in tx.writes]
        tx.cursors = [(number, min(depth, at)) for number, depth in tx.cursors]

    def rollback_to(self, owner: int, at: int) -> None:
        tx = self.transactions[owner]
        del tx.labels[at + 1 :]
        tx.failed = False
        tx.writes = [(number, depth) for number, depth in tx.writes if depth <= at]
        tx.cursors = [(number, depth) for number, depth in tx.cursors if depth <= at]

    def end(self, owner: int, *, keep: bool) -> None:
        if keep and not self.transactions[owner].failed:
            self.committed |= self.pending(owner)
        self.transactions[owner] = Transaction()

    def status(self, number: int) -> object:
        """``committed``, ``gone``, or whose unfinished work it is and at which depth."""
        if number in self.committed:
            return "committed"
        for i, tx in enumerate(self.transactions):
            for each, depth in tx.writes + tx.cursors:
                if each == number:
                    return (i, depth)
        return GONE


class World:
    """A stack with its server beside the model; every operation is checked.

    :param owners: how many connections there are.
    :param deferred: whether a commit checks deferred constraints on the server.
    :param based: whether the stack lies on a savepoint that must stay.
    """

    def __init__(self, owners: int, *, deferred: bool = False, based: bool = False) -> None:
        self.deferred = deferred
        self.based = based
        self.stack = Stack()
        self.owners = [Owner(chr(ord("A") + i)) for i in range(owners)]
        self.server = FakeServer()
        if based:
            self.server.run([(Verb.SET, _BASE)])
            self.stack.clear(_BASE)
        self.model = Independent(owners)
        self.numbers = 0

    # -- what can be done

    def choices(self, *, depth: int = 2) -> list[tuple[int, str]]:
        """The operations that make sense now: the number of a connection and what it does."""
        found = []
        for i, tx in enumerate(self.model.transactions):
            names = ["commit", "rollback"]
            if tx.labels:
                names.append("rollback_to")
            if len(tx.labels) > 1:
                names.append("rollback_to_first")
            if not tx.failed:
                names += ["write", "read", "touch", "declare", "fail"]
                if self.owners[i].active:
                    names += ["fetch", "fetch_fails"]
                if len(tx.labels) < depth:
                    names.append("savepoint")
                if tx.labels:
                    names.append("release")
                if len(tx.labels) > 1:
                    names.append("release_first")
            found += [(i, name) for name in names]
        return found

    def apply(self, i: int, name: str) -> Conflict | None:
        """Do one thing on both sides and compare.

        :returns: the conflict that the stack found, already checked to be a real one.
        :raises AssertionError: the two differ, or the conflict was none.
        """
        before = list(self.server.log)
        try:
            self._apply(i, name)
        except Conflict as conflict:
            self._check_conflict(i, name)
            return conflict
        self._check(before)
        return None

    def _apply(self, i: int, name: str) -> None:
        owner, model, tx = self.owners[i], self.model, self.model.transactions[i]
        base = name.removesuffix("_first")
        at = 0 if name.endswith("_first") else len(tx.labels) - 1
        label = tx.labels[at] if base in ("release", "rollback_to") else ""
        if name in ("write", "read", "touch", "declare", "fail"):
            self._statement(i, name)
        elif name in ("fetch", "fetch_fails"):  # a cursor shows what it saw when it was declared
            self.server.run(self.stack.statement(owner, writes=False, looks=False))
            if name == "fetch_fails":
                tx.failed = True
                self.server.run(self.stack.fail(owner))
        elif name == "savepoint":
            tx.labels.append(f"s{len(tx.labels)}")
            self.stack.savepoint(owner, tx.labels[-1])
        elif base == "release":
            model.release(i, at)
            self.stack.release(owner, label)
        elif base == "rollback_to":
            model.rollback_to(i, at)
            self.server.run(self.stack.rollback_to(owner, label))
        else:
            if self.deferred and name == "commit" and not tx.failed and owner in self.stack.unfinished():
                self.numbers += 1
                self.server.log.append(("check", self.numbers))
                self.stack.seal()
            model.end(i, keep=name == "commit")
            self.server.run(getattr(self.stack, name)(owner))

    def _statement(self, i: int, name: str) -> None:
        owner = self.owners[i]
        self.server.run(self.stack.statement(owner, writes=name in ("write", "touch", "fail")))
        if name == "fail":
            self.model.transactions[i].failed = True
            self.server.run(self.stack.fail(owner))
            return
        self._check_visible(i)
        if name == "touch":  # UPDATE … WHERE false: nothing was written after all
            self.stack.unwrite(owner)
        elif name != "read":
            self.numbers += 1
            self.server.log.append(("write" if name == "write" else "cursor", self.numbers))
            getattr(self.model, name)(i, self.numbers)
            if name == "declare":
                self.stack.hold(owner)

    # -- what must be true

    def _check_visible(self, i: int) -> None:
        seen, model = set(self.server.rows), self.model
        expected = model.committed | model.pending(i)
        assert expected <= seen, f"rows are lost: {expected - seen}"
        extra = seen - expected
        named = {owner.name for owner in self.stack.unfinished()}
        for number in extra:
            status = model.status(number)
            assert isinstance(status, tuple), f"write {number} should be gone, and is seen"
            assert self.owners[status[0]].name in named, f"a dirty read of write {number} that nobody is told of"

    def _check(self, before: list[tuple[str, str | int]]) -> None:
        """Nothing that must stay is lost, whoever looks; nothing that must go lies below a committed write."""
        seen = self.server.rows
        model = self.model
        assert not self.based or self.server.log[0] == ("savepoint", _BASE), "the savepoint below the stack is gone"
        kept = model.committed.union(*(model.pending(j) for j, tx in enumerate(model.transactions) if not tx.failed))
        assert kept <= set(seen), f"rows are lost: {kept - set(seen)}"
        cursors = {number for kind, number in self.server.log if kind == "cursor"}
        wanted = {n for tx in model.transactions if not tx.failed for n, _ in tx.cursors}
        assert wanted <= cursors, f"an open cursor is lost: {wanted - cursors}"
        gone = [number for number in seen if model.status(number) == GONE]
        if gone:
            above = self.server.log[self.server.log.index(("write", gone[0])) :]
            statuses = [model.status(int(number)) for kind, number in above if kind in ("write", "cursor")]
            assert any(isinstance(status, tuple) for status in statuses), "a rollback was not carried out"
            assert "committed" not in statuses, "a rollback below committed writes passed in silence"
        lost = [item for item in before if item not in self.server.log]
        for at, (kind, _) in enumerate(lost):
            if kind == "check":  # its constraints are pending again, which only a rollback of writes may cause
                assert any(k == "write" for k, _ in lost), f"a check was undone for nothing: {lost[at]}"

    def _check_conflict(self, i: int, name: str) -> None:
        """A write that must go was made before something that stays, so no savepoint could have parted them."""
        log, model = self.server.log, self.model
        must_go = [at for at, (kind, number) in enumerate(log) if kind == "write" and model.status(int(number)) == GONE]
        assert must_go, f"a conflict, but nothing must go: {log}"
        above = [model.status(int(number)) for kind, number in log[must_go[0] :] if kind in ("write", "cursor")]
        statement = name in ("write", "read", "touch", "declare", "fail")
        stays = "committed" in above or (statement and any(isinstance(status, tuple) for status in above))
        assert stays, f"a conflict that {name} of {self.owners[i].name} could avoid: {log}"

    # -- exploring

    def key(self) -> object:
        """Everything that the future depends on, without the names of things."""
        owners = {owner: i for i, owner in enumerate(self.owners)}
        names = {entry.name: i for i, entry in enumerate(self.stack.entries)}
        entries = tuple(
            (owners[e.owner], e.depth, e.wrote, e.first_write, e.holds, e.sealed, e.fate) for e in self.stack.entries
        )
        log: list[object] = []
        for kind, value in self.server.log:
            item: object = kind
            if kind == "savepoint":
                item = names.get(str(value))
            elif kind != "check":
                item = (kind, self.model.status(int(value)))
            if item is not None and (not log or log[-1] != item):
                log.append(item)
        transactions = tuple((tuple(tx.labels), tx.failed) for tx in self.model.transactions)
        states = tuple((o.active, o.failed, tuple(o.labels)) for o in self.owners)
        return entries, tuple(log), transactions, states, bool(self.stack.base)

    def copy(self) -> World:
        """Another world in the same state."""
        other = World(0, deferred=self.deferred, based=self.based)
        copies: dict[Owner, Owner] = {}
        for owner in self.owners:
            copies[owner] = twin = Owner(owner.name)
            twin.active, twin.failed, twin.labels = owner.active, owner.failed, list(owner.labels)
        other.owners = list(copies.values())
        other.numbers = self.numbers
        other.stack._count, other.stack.base = self.stack._count, self.stack.base
        other.stack.doomed = self.stack.doomed
        for entry in self.stack.entries:
            twin_entry = Entry(entry.name, copies[entry.owner], entry.depth)
            for attribute in ("wrote", "first_write", "holds", "sealed", "fate"):
                setattr(twin_entry, attribute, getattr(entry, attribute))
            other.stack.entries.append(twin_entry)
        other.server.log = list(self.server.log)
        other.model.committed = set(self.model.committed)
        other.model.transactions = [
            Transaction(list(tx.labels), tx.failed, list(tx.writes), list(tx.cursors)) for tx in self.model.transactions
        ]
        return other
