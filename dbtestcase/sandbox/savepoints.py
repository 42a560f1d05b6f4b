"""The stack of savepoints: which savepoint to set, release or roll back to.  Decisions only, no I/O.

One physical transaction carries the transactions of many connections.  What they do is laid on one stack, in the order
of time: an :class:`Entry` is a savepoint of the server together with everything that happened since it was set.  The
server can undo only the top of the stack, so the rules are:

* An entry belongs to one :class:`Owner`, at one depth of that owner's own savepoints, and is set with the first
  statement that needs it: ``BEGIN`` and ``SAVEPOINT`` of an application cost nothing by themselves.
* An entry without writes stands in nobody's way.  It is reused by, or merged for, whoever comes next; its owner gets a
  new one with its next statement.
* The savepoint that the stack lies on, if nothing has happened since it was set, serves the first entry; it is never
  released.
* A commit only changes the entry's fate; the release is sent together with the next savepoint.
* A rollback dooms the owner's entries.  Doomed entries at the top are rolled back at once.  Doomed entries below
  another owner's *unfinished* writes wait for these: if they are rolled back too, nothing was lost.
* An open server-side cursor is kept like a write: a rollback below it would close it.

**When is there a conflict?**  Only if a write that must go was made before something that stays: below a committed
entry, or below unfinished writes or cursors while somebody goes on (a statement would see rows that must not exist
any more; a commit would keep what lies above).  A server undoes what happened since a moment, never what happened
before it, so no order of savepoints on one connection could have avoided it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator


class Verb(enum.Enum):
    """What is to be sent to the server."""

    SET = "SAVEPOINT"
    RELEASE = "RELEASE SAVEPOINT"
    ROLLBACK = "ROLLBACK TO SAVEPOINT"


Step = tuple[Verb, str]


class Fate(enum.Enum):
    """What becomes of an entry."""

    OPEN = "open"
    COMMITTED = "committed"
    DOOMED = "doomed"


OPEN, COMMITTED, DOOMED = Fate  # each time that a member is asked of its class costs as much as a call


class Owner:
    """One connection's view of its own transaction."""

    __slots__ = ("active", "failed", "labels", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.active = False
        self.failed = False
        self.labels: list[str] = []

    def __repr__(self) -> str:
        return f"<Owner {self.name}>"

    @property
    def depth(self) -> int:
        """How many savepoints of the application are set."""
        return len(self.labels)

    def end(self) -> None:
        """The transaction is over, whatever its end."""
        self.active = self.failed = False
        self.labels.clear()


class Entry:
    """A savepoint of the server and what happened since it was set."""

    __slots__ = ("depth", "fate", "first_write", "holds", "name", "owner", "sealed", "wrote")

    def __init__(self, name: str, owner: Owner, depth: int) -> None:
        self.name = name
        self.owner = owner
        self.depth = depth
        self.wrote = False
        self.first_write = False  # whether the last statement is the only one that wrote
        self.holds = False  # a server-side cursor lives here, which a rollback would close
        self.sealed = False  # deferred constraints were checked here: a rollback would make them pending again
        self.fate = OPEN

    def __repr__(self) -> str:
        return f"<{self.name} {self.owner.name}@{self.depth} {self.fate.value}{' wrote' if self.wrote else ''}>"

    @property
    def loose(self) -> bool:
        """Whether it stands in nobody's way: committed, or without writes."""
        return not self.wrote or self.fate is COMMITTED

    @property
    def kept_open(self) -> bool:
        """Whether its owner would miss what lies in it."""
        return self.fate is OPEN and (self.wrote or self.holds)


class Conflict(Exception):
    """A write that must go lies below a write that stays: who rolls back, and whose writes that would undo."""

    def __init__(self, rolled_back: Owner, kept: list[Owner]) -> None:
        super().__init__(rolled_back, kept)
        self.rolled_back = rolled_back
        self.kept = kept


class Stack:
    """The savepoints of one physical transaction, lowest first.

    Every method returns the steps to be sent to the server, in order, or raises :exc:`Conflict` (see the module).
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.doomed = False
        """Whether a rollback has had to wait for others since the stack was last empty."""
        self.base = ""
        """The savepoint right below the stack; empty once something lies between that is not on the stack."""
        self.last_writer: Owner | None = None
        """Who has written last, committed or not."""
        self.numbered = False
        """Whether that may have numbered a row since the test began, or another one wrote."""
        self._count = 0

    def clear(self, base: str = "") -> None:
        """The server has rolled back to below the stack.

        :param base: a savepoint that is set, and after which nothing has happened.
        """
        self.entries.clear()
        self.doomed = False
        self.base = base
        self.last_writer = None

    # -- what the owners do

    def statement(self, owner: Owner, writes: bool, numbers: bool = True, looks: bool = True) -> list[Step]:
        """``owner`` is about to run a statement.

        :param numbers: a write may number rows.
        :param looks: it looks at rows: its cursor was not declared before.
        """
        if looks and self.doomed:
            self._refuse_if_waiting()
        owner.active = True
        if writes:
            self.numbered = numbers or (self.last_writer is owner and self.numbered)
            self.last_writer = owner
        top = self.entries[-1] if self.entries else None
        if (
            top is not None
            and top.owner is owner
            and top.fate is OPEN
            and top.depth == len(owner.labels)
            and not top.sealed
        ):
            if looks:  # psycopg forgets prepared statements before it tells what the last one has done
                top.first_write = writes and not top.wrote
            top.wrote |= writes
            return []
        steps, spare = self._make_room()
        if spare is None and self.base and not self.entries:
            spare = self.base
        if spare is None:
            self._count += 1
            spare = f"dbtc_{self._count}"
            steps.append((Verb.SET, spare))
        entry = Entry(spare, owner, owner.depth)
        entry.wrote = entry.first_write = writes
        self.entries.append(entry)
        return steps

    def savepoint(self, owner: Owner, label: str) -> None:
        """The application sets a savepoint; the server hears of it with the next statement."""
        owner.active = True
        owner.labels.append(label)

    def forget(self, owner: Owner, label: str) -> None:
        """A savepoint of the same name takes the place of this one; those above it stay."""
        depth = _depth_of(owner, label)
        for entry in self._open_entries(owner):
            if entry.depth > depth:
                entry.depth -= 1
        del owner.labels[depth]

    def release(self, owner: Owner, label: str) -> None:
        """The application releases a savepoint; :exc:`KeyError` where it has set none of that name."""
        depth = _depth_of(owner, label)
        for entry in self._open_entries(owner):
            entry.depth = min(entry.depth, depth)
        del owner.labels[depth:]

    def rollback_to(self, owner: Owner, label: str) -> list[Step]:
        """The application rolls back to a savepoint, which stays set; :exc:`KeyError` if there is none."""
        depth = _depth_of(owner, label)
        del owner.labels[depth + 1 :]
        owner.failed = False
        return self._doom([e for e in self._open_entries(owner) if e.depth > depth], owner)

    def commit(self, owner: Owner) -> list[Step]:
        """The application commits, in spite of a conflict; a failed transaction is rolled back, as on the server."""
        if owner.failed:
            return self.rollback(owner)
        wrote = False
        for entry in self._open_entries(owner):
            entry.fate = COMMITTED
            wrote |= entry.wrote
        owner.end()
        if wrote and self.doomed:
            self._refuse_if_waiting(COMMITTED)
        return self._settle()

    def rollback(self, owner: Owner) -> list[Step]:
        """The application rolls back its transaction."""
        targets = list(self._open_entries(owner))
        owner.end()
        return self._doom(targets, owner)

    def fail(self, owner: Owner) -> list[Step]:
        """A statement of ``owner`` failed and the server refuses everything but a rollback.

        What lies in the top entry is lost to its owner whatever it does next, so the others need not wait for it.
        """
        owner.failed = True
        top = self.entries[-1] if self.entries else None
        if top is None or top.owner is not owner or top.fate is not OPEN:
            return []
        top.wrote = top.holds = False
        return self._settle() or [(Verb.ROLLBACK, top.name)]

    def unwrite(self, owner: Owner) -> None:
        """The last statement wrote nothing after all: no row matched."""
        top = self.entries[-1]
        if top.owner is owner and top.first_write:
            top.wrote = top.first_write = False

    def hold(self, owner: Owner) -> None:
        """The last statement opened a server-side cursor."""
        top = self.entries[-1]
        if top.owner is owner:
            top.holds = True

    def seal(self) -> None:
        """Deferred constraints were checked: whoever goes on gets a savepoint above that."""
        if self.entries:
            self.entries[-1].sealed = True

    # -- questions

    def unfinished(self) -> list[Owner]:
        """The owners with writes that are neither committed nor rolled back, in the order of their first write."""
        found: list[Owner] = []
        for entry in self.entries:
            if entry.wrote and entry.fate is OPEN and entry.owner not in found:
                found.append(entry.owner)
        return found

    def is_free_for(self, owner: Owner) -> bool:
        """Whether nobody else is in the middle of something."""
        for entry in self.entries:
            if entry.fate is DOOMED or (entry.wrote and entry.fate is OPEN and entry.owner is not owner):
                return False
        return True

    def has_others(self, owner: Owner) -> bool:
        """Whether somebody else has unfinished writes."""
        return any(entry.wrote and entry.fate is OPEN and entry.owner is not owner for entry in self.entries)

    def has_work(self, owner: Owner) -> bool:
        """Whether a rollback of the owner would undo something."""
        return any(entry.wrote or entry.holds for entry in self._open_entries(owner))

    def waiting(self) -> list[Owner]:
        """The owners whose rollback waits for others to end."""
        found: list[Owner] = []
        for entry in self.entries:
            if entry.fate is DOOMED and (entry.wrote or entry.holds) and entry.owner not in found:
                found.append(entry.owner)
        return found

    # -- inside

    def _open_entries(self, owner: Owner) -> Iterator[Entry]:
        return (e for e in self.entries if e.owner is owner and e.fate is OPEN)

    def _make_room(self) -> tuple[list[Step], str | None]:
        """Merge what is loose at the top; give back a savepoint that can be used again, if one is left over."""
        entries = self.entries
        start = len(entries)
        while start and entries[start - 1].loose:
            start -= 1
        run = entries[start:]
        if not run:
            return [], None
        if not any(e.wrote for e in run):
            if run[-1].holds or run[-1].sealed:
                return [], None
            # nothing happened since the highest of them was set that a rollback could undo
            del entries[-1]
            return [], run[-1].name
        if start == 0:
            entries.clear()
            released = run[1:] if run[0].name == self.base else run
            self.base = ""
            return [(Verb.RELEASE, entry.name) for entry in released[:1]], None
        # an unfinished transaction lies below: what was committed above it must stay apart from it
        kept = run[0]
        owner = next(e.owner for e in reversed(run) if e.wrote)
        merged = Entry(kept.name, owner, 0)
        merged.wrote, merged.fate = True, COMMITTED
        entries[start:] = [merged]
        return ([(Verb.RELEASE, run[1].name)] if len(run) > 1 else []), None

    def _doom(self, targets: list[Entry], owner: Owner) -> list[Step]:
        written = [e for e in targets if e.wrote]
        sealed = max((i for i, e in enumerate(self.entries) if e.sealed), default=-1)
        for entry in targets:
            # a cursor alone may as well be left open, where its rollback would do harm
            worth_it = entry.wrote or (entry.holds and self.entries.index(entry) > sealed)
            entry.fate = DOOMED if worth_it else COMMITTED
            self.doomed |= worth_it
        if written:
            above = self.entries[self.entries.index(written[0]) + 1 :]
            kept = [e.owner for e in above if e.wrote and e.fate is COMMITTED]
            if kept:
                for entry in targets:
                    entry.fate = COMMITTED
                raise Conflict(owner, list(dict.fromkeys(kept)))
        return self._settle()

    def _settle(self) -> list[Step]:
        """Roll back the doomed entries that nothing but doomed and unwritten ones lie upon."""
        entries = self.entries
        lowest = None
        for i in range(len(entries) - 1, -1, -1):
            if entries[i].fate is DOOMED:
                lowest = i
            elif entries[i].wrote or entries[i].kept_open:
                break
        if lowest is None:
            return []
        entry = entries[lowest]
        del entries[lowest + 1 :]
        entry.fate, entry.wrote, entry.holds, entry.sealed = COMMITTED, False, False, False
        return [(Verb.ROLLBACK, entry.name)]

    def _refuse_if_waiting(self, *fates: Fate) -> None:
        """Raise if writes of one of the fates (of any but the doomed) lie above a rollback that waits."""
        for i, entry in enumerate(self.entries):
            if entry.fate is DOOMED and entry.wrote:
                above = (e for e in self.entries[i + 1 :] if e.kept_open or (e.wrote and e.fate is COMMITTED))
                kept = list(dict.fromkeys(e.owner for e in above if not fates or e.fate in fates))
                if kept:
                    for each in self.entries:
                        if each.fate is DOOMED:
                            each.fate = COMMITTED  # said once; its rows stay
                    raise Conflict(entry.owner, kept)


class Scope:
    """A mark in the outer transaction: what happens after it is undone together."""

    def __init__(self, number: int, label: str, name: str) -> None:
        self.number = number
        self.label = label
        self.name = name
        self.wrote = False


def _depth_of(owner: Owner, label: str) -> int:
    for depth in range(len(owner.labels) - 1, -1, -1):
        if owner.labels[depth] == label:
            return depth
    raise KeyError(label)
