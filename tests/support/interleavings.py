"""Random sequences of operations on several connections, run in a sandbox and on connections that are independent.

Each connection has rows of its own, so that production would never block; everybody reads everything.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from dbtestcase.errors import DirtyReadWarning, SandboxConflict
from tests.support.connections_model import GONE, Independent

__all__ = ["SCHEMA", "Comparison", "Difference", "Sandboxed", "Sequence", "Side", "sequence", "shrink"]

SCHEMA = """
CREATE TABLE item (owner int, key int, value int, PRIMARY KEY (owner, key));
CREATE TABLE part (owner int, key int, item int, FOREIGN KEY (owner, item) REFERENCES item (owner, key)
    DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION add_item(owner int, key int) RETURNS int LANGUAGE sql VOLATILE
    AS 'INSERT INTO item VALUES ($1, $2, $2) RETURNING key';
CREATE TABLE deleted (owner int, key int);
CREATE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO deleted VALUES (OLD.owner, OLD.key); RETURN OLD; END';
CREATE TRIGGER deletion AFTER DELETE ON item FOR EACH ROW EXECUTE FUNCTION note_deletion();
"""
EVERYTHING = (
    "SELECT 'item', owner, key, value FROM item UNION ALL SELECT 'part', owner, key, item FROM part "
    "UNION ALL SELECT 'deleted', owner, key, 0 FROM deleted ORDER BY 1, 2, 3, 4"
)

Step = tuple[int, str, int]
"""The number of a connection, what it does, and a number to choose by."""

OPERATIONS = {
    "insert": 14,
    "insert_twice": 4,
    "insert_nothing": 2,
    "insert_by_cte": 2,
    "insert_by_function": 2,
    "insert_many": 3,
    "pipeline": 2,
    "pipeline_fails": 1,
    "copy_in": 2,
    "copy_out": 1,
    "update": 5,
    "update_nothing": 3,
    "delete": 4,
    "part": 2,
    "orphan": 0,
    "read": 12,
    "lock": 2,
    "divide": 4,
    "set": 2,
    "set_local": 2,
    "set_config": 1,
    "setting": 5,
    "cursor": 3,
    "fetch": 4,
    "savepoint": 8,
    "release": 5,
    "rollback_to": 7,
    "commit": 14,
    "rollback": 8,
    "close": 4,
}
READS = {"read", "copy_out", "cursor", "fetch"}
STATEMENTS = set(OPERATIONS) - {"commit", "rollback", "close", "release", "rollback_to", "savepoint", "fetch"}
WRITES = STATEMENTS - {"read", "lock", "setting", "copy_out", "set", "set_local", "set_config", "cursor", "divide"}
WRITES -= {"pipeline_fails"}
UNCOUNTED = {"copy_in", "insert_many", "pipeline"}


@dataclass(frozen=True)
class Sequence:
    """What is done.

    :param autocommit: the connections that commit each statement by itself.
    """

    connections: int
    autocommit: frozenset[int]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        marks = "".join("ABCD"[i] for i in sorted(self.autocommit)) or "none"
        return f"autocommit: {marks}; " + " ".join(f"{'ABCD'[i]}.{name}({n})" for i, name, n in self.steps)

    @classmethod
    def parse(cls, text: str) -> Sequence:
        """What a sequence says of itself."""
        found = [("ABCD".index(i), name, int(n)) for i, name, n in re.findall(r"([A-D])\.(\w+)\((\d+)\)", text)]
        marks = re.match(r"autocommit: ([A-D]*)", text)
        autocommit = frozenset("ABCD".index(mark) for mark in (marks[1] if marks else ""))
        return cls(1 + max(i for i, *_ in found), autocommit, tuple(found))


def sequence(seed: int, *, deferred: bool = False) -> Sequence:
    """The sequence of a seed; ``deferred``: with rows that break a deferred constraint."""
    r = random.Random(seed)
    connections = r.choice((2, 2, 2, 3, 4))
    weights = {**OPERATIONS, "orphan": 3 if deferred else 0}
    autocommit = frozenset(i for i in range(connections) if r.random() < 0.12)
    # How long somebody goes on before another has a turn decides how much the transactions overlap.
    patience = r.choice((0.0, 0.5, 0.8, 0.95))
    return Sequence(connections, autocommit, random_steps(r, connections, weights, patience))


def random_steps(
    r: random.Random, connections: int, weights: Mapping[str, int], patience: float
) -> tuple[tuple[int, str, int], ...]:
    """What is done, by whom, and a number for it; at the end everybody ends.

    :param patience: how likely one goes on before another has a turn.
    """
    steps, current = [], 0
    for _ in range(r.randrange(4, 30)):
        if r.random() >= patience:
            current = r.randrange(connections)
        name = r.choices(list(weights), list(weights.values()))[0]
        steps.append((current, name, r.randrange(1_000)))
    order = list(range(connections))
    r.shuffle(order)
    return (*steps, *((i, r.choice(("commit", "rollback", "close")), 0) for i in order))


class Difference(AssertionError):
    """The sandbox did silently something else."""


class Side:
    """One way to run a sequence: on real connections.

    :param connect: a new DBAPI connection of psycopg or psycopg2.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.connect = connect
        self.connections: dict[int, Any] = {}
        self.cursors: dict[int, Any] = {}

    def begin(self, autocommit: frozenset[int]) -> None:
        self.autocommit = autocommit

    def connection(self, i: int) -> Any:
        if i not in self.connections:
            self.connections[i] = self.connect()
        found = self.connections[i]
        if i in self.autocommit and not found.autocommit:
            found.autocommit = True
        return found

    def close(self, i: int) -> str:
        """As if the connection were closed; to connect to a real server is slow."""
        state = self.end_cursor(i)
        if i in self.connections:
            connection = self.connections[i]
            connection.rollback()
            connection.autocommit = True
            connection.cursor().execute("RESET ALL")
            connection.autocommit = False
        return state

    def end_cursor(self, i: int) -> str:
        """Close the cursor, if one is open; the state of the error, if a rollback to a savepoint has closed it."""
        if i in self.cursors:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                try:
                    self.cursors.pop(i).close()
                except (psycopg.Error, *_also_errors()) as error:
                    return _state(error)
        return ""

    def everything(self) -> list[Any]:
        connection = self.connect()
        try:
            return _rows(connection, EVERYTHING)
        finally:
            connection.close()

    def dispose(self) -> None:
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()


class Sandboxed(Side):
    """The same on virtual connections, through an engine's pool."""

    def __init__(self, engine: Any, sandbox: Any) -> None:
        super().__init__(engine.raw_connection)
        self.sandbox = sandbox
        self.fairies: dict[int, Any] = {}

    def connection(self, i: int) -> Any:
        if i not in self.connections:
            self.fairies[i] = self.connect()
            self.connections[i] = self.fairies[i].driver_connection
            self.connections[i].autocommit = False
        return super().connection(i)

    def close(self, i: int) -> str:
        state = self.end_cursor(i)
        self.connections.pop(i, None)
        if i in self.fairies:
            self.fairies.pop(i).close()
        for error in self.sandbox.raised:  # a pool swallows what goes wrong; at the end of a test it is reported
            raise error
        return state

    def name(self, i: int) -> str:
        connection = self.connections.get(i)
        return connection._client.name if connection is not None else ""


def _also_errors() -> list[type[Exception]]:
    with contextlib.suppress(ImportError):
        import psycopg2

        return [psycopg2.Error]
    return []


def _rows(connection: Any, query: str, *parameters: Any) -> list[Any]:
    cursor = connection.cursor()
    cursor.execute(query, parameters or None)
    return [tuple(row) for row in cursor.fetchall()]


def perform(side: Side, i: int, name: str, n: int, fresh: int) -> Any:
    """Run one step; what the application would see of it.

    :param fresh: a number that no step before has used.
    :raises Exception: of the driver, or of the sandbox.
    """
    if name == "close":
        return side.close(i)
    connection = side.connection(i)
    if name in ("commit", "rollback"):
        state = side.end_cursor(i)
        getattr(connection, name)()
        return state
    if name == "cursor":
        if i in side.cursors:
            return None
        cursor = connection.cursor(f"cursor_{i}")
        try:
            cursor.execute("SELECT key FROM item ORDER BY owner, key")
        except Exception:
            cursor.close()
            raise
        side.cursors[i] = cursor
        return cursor.fetchmany(1)
    if name == "fetch":
        return side.cursors[i].fetchmany(2) if i in side.cursors else None
    if name in ("pipeline", "pipeline_fails"):
        return _pipeline(connection, i, fresh, fails=name == "pipeline_fails")
    if name in ("copy_in", "copy_out"):
        return _copy(connection, f"{i}\t{fresh}\t{fresh}\n", out=name == "copy_out")
    cursor = connection.cursor()
    label = f"s{n % 2}"
    text, parameters = {
        "insert": ("INSERT INTO item VALUES (%s, %s, %s)", (i, fresh, fresh)),
        "insert_twice": ("INSERT INTO item VALUES (%s, %s, 0)", (i, n % 5)),
        "insert_nothing": ("INSERT INTO item VALUES (%s, %s, 0) ON CONFLICT DO NOTHING", (i, n % 5)),
        "insert_by_cte": (
            "WITH x AS (INSERT INTO item VALUES (%s, %s, %s) RETURNING key) SELECT * FROM x",
            (i, fresh, fresh),
        ),
        "insert_by_function": ("SELECT add_item(%s, %s)", (i, fresh)),
        "insert_many": ("INSERT INTO item VALUES (%s, %s, %s)", ()),
        "update": ("UPDATE item SET value = value + 1000 WHERE owner = %s AND key %% 2 = %s", (i, n % 2)),
        "update_nothing": ("UPDATE item SET value = 1 WHERE owner = %s AND false", (i,)),
        "delete": ("DELETE FROM item WHERE owner = %s AND key %% 4 = %s", (i, n % 4)),
        "part": ("INSERT INTO part SELECT owner, %s, key FROM item WHERE owner = %s ORDER BY key LIMIT 1", (fresh, i)),
        "orphan": ("INSERT INTO part VALUES (%s, %s, -1)", (i, fresh)),
        "read": (EVERYTHING, ()),
        "lock": ("SELECT key FROM item WHERE owner = %s ORDER BY key FOR UPDATE", (i,)),
        "divide": ("SELECT 1 / 0", ()),
        "set": ("SET app.name = %s", (f"u{n}",)),
        "set_local": ("SET LOCAL app.name = %s", (f"l{n}",)),
        "set_config": ("SELECT set_config('app.name', %s, %s)", (f"c{n}", n % 2 == 0)),
        "setting": ("SELECT coalesce(current_setting('app.name', true), '')", ()),
        "savepoint": (f"SAVEPOINT {label}", ()),
        "release": (f"RELEASE SAVEPOINT {label}", ()),
        "rollback_to": (f"ROLLBACK TO {label}", ()),
    }[name]
    if name == "insert_many":
        cursor.executemany(text, [(i, fresh, fresh), (i, fresh + 500_000, fresh + 500_000)])
        return None
    if name in ("set", "set_local"):
        cursor.execute(text.replace("%s", f"'{parameters[0]}'"))
        return None
    cursor.execute(text, parameters or None)
    rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else None
    return rows, cursor.rowcount if name not in ("savepoint", "release", "rollback_to") else None


def _pipeline(connection: Any, i: int, fresh: int, *, fails: bool) -> Any:
    insert = "INSERT INTO item VALUES (%s, %s, %s)"
    if fails and not hasattr(connection, "pipeline"):
        return connection.cursor().execute("SELECT 1 / 0")
    with connection.pipeline() if hasattr(connection, "pipeline") else contextlib.nullcontext():
        connection.cursor().execute(insert, (i, fresh, fresh))
        connection.cursor().execute(f"SET app.name = 'p{fresh}'")
        cursor = connection.cursor()
        if fails:
            cursor.execute("SELECT 1 / 0")
        cursor.execute(insert + " RETURNING key", (i, fresh + 500_000, fresh))
        return cursor.fetchall()


def _copy(connection: Any, line: str, *, out: bool) -> Any:
    cursor = connection.cursor()
    statement = "COPY (SELECT owner, key FROM item ORDER BY 1, 2) TO STDOUT" if out else "COPY item FROM STDIN"
    if hasattr(cursor, "copy_expert"):  # psycopg2
        stream = io.StringIO("" if out else line)
        cursor.copy_expert(statement, stream)
        return stream.getvalue() if out else None
    with cursor.copy(statement) as copy:
        if out:
            return b"".join(bytes(block) for block in copy).decode()
        copy.write(line)
    return None


@dataclass
class Event:
    """Something that a connection wrote, in the order of time."""

    number: int
    written: int
    gone: int = 0


@dataclass
class Comparison:
    """Runs sequences on both sides and compares them.

    ``counts`` holds what was found: sequences, conflicts, dirty reads.
    """

    real: Side
    sandboxed: Sandboxed
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, each: Sequence) -> str:
        """Run one sequence.

        :returns: ``"equal"``, or ``"conflict"``, which was checked to be a real one.
        :raises Difference: anything else.
        """
        self.model = Independent(each.connections)
        self.events: list[Event] = []
        self.warned: dict[int, set[str]] = {i: set() for i in range(each.connections)}
        self.names: dict[str, int] = {}
        self.counts["sequences"] += 1
        for side in (self.real, self.sandboxed):
            side.begin(each.autocommit)
        ends = tuple((i, "close", 0) for i in range(each.connections))
        for time, (i, name, n) in enumerate(each.steps + ends, 1):
            outcome = self._step(each, time, i, name, n)
            if outcome == "conflict":
                self.counts["conflicts"] += 1
                return "conflict"
        real, sandboxed = self.real.everything(), self.sandboxed.everything()
        if real != sandboxed:
            raise Difference(f"the rows at the end: {real} really, {sandboxed} in the sandbox")
        return "equal"

    def _step(self, each: Sequence, time: int, i: int, name: str, n: int) -> str:
        fresh = 10 + time
        really = _outcome(self.real, i, name, n, fresh)
        self._follow(each, time, i, name, n, really)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                virtually = _outcome(self.sandboxed, i, name, n, fresh)
            except SandboxConflict as conflict:
                if "fails a deferred constraint" in conflict.what:
                    self.counts["conflicts over deferred constraints"] += 1
                    return "conflict"
                self._check_conflict(each, i, name, n, conflict)
                return "conflict"
        if name != "close":
            self.names[self.sandboxed.name(i)] = i
        self._collect(i, caught)
        if really != virtually:
            self._check_dirty(i, name, really, virtually)
        if name in ("commit", "rollback", "close"):
            self.warned[i].clear()
        return "equal"

    def _collect(self, i: int, caught: list[warnings.WarningMessage]) -> None:
        for warning in caught:
            if not issubclass(warning.category, DirtyReadWarning):
                raise Difference(f"a warning: {warning.message}")
            found = re.search(r"while (.*?) (?:\(began|has)", str(warning.message))
            assert found is not None, warning.message
            self.warned[i].add(found[1])

    def _check_dirty(self, i: int, name: str, really: Any, virtually: Any) -> None:
        """A difference in what was read is all right if the rows are of somebody who was named in a warning."""
        if name in READS and really[0] == virtually[0] == "ok" and self.warned[i]:
            if name == "read":
                owners = {row[1] for row in set(really[1][0]) ^ set(virtually[1][0])}
                told = {self.names.get(each) for each in self.warned[i]}
                if not owners <= told:
                    raise Difference(f"rows of {owners} were read, but the warnings name only {told}")
            self.counts["dirty reads"] += 1
            return
        raise Difference(f"{really} really, {virtually} in the sandbox; warned of {self.warned[i]}")

    # -- the argument for a conflict

    def _follow(self, each: Sequence, time: int, i: int, name: str, n: int, outcome: Any) -> None:
        """Keep the books: whose write is where, after what really happened."""
        model, tx, good = self.model, self.model.transactions[i], outcome[0] == "ok"
        label = f"s{n % 2}"
        if not good and name not in ("commit",):
            if i in each.autocommit:
                pass
            elif name != "fetch" or outcome[1] is not None:
                tx.failed = True
        elif name in ("commit", "rollback", "close"):
            tx.failed |= good and bool(outcome[1])  # to close a cursor that is gone has aborted the transaction
            model.end(i, keep=name == "commit" and good)
        elif name == "savepoint":
            tx.labels.append(label)
        elif name in ("release", "rollback_to"):
            at = len(tx.labels) - 1 - tx.labels[::-1].index(label)
            getattr(model, name)(i, at)
        elif name == "cursor" and outcome[1] is not None:
            self.events.append(Event(time, time))
            model.declare(i, time)
        elif name in WRITES and (name in UNCOUNTED or outcome[1][1] != 0):
            self.events.append(Event(time, time))
            model.write(i, time)
            if i in each.autocommit:
                model.end(i, keep=True)
        for event in self.events:
            if not event.gone and model.status(event.number) == GONE:
                event.gone = time

    def _check_conflict(self, each: Sequence, i: int, name: str, n: int, conflict: SandboxConflict) -> None:
        """There must be a write that went after something was done above it that stays."""
        statement = name in STATEMENTS
        for below in self.events:
            for above in self.events:
                if not (below.gone and below.written < above.written < below.gone):
                    continue
                status = self.model.status(above.number)
                if status == "committed" or (statement and status != GONE):
                    return
        raise Difference(f"a conflict that could be avoided: {conflict.what}")


def _outcome(side: Side, i: int, name: str, n: int, fresh: int) -> Any:
    try:
        return "ok", perform(side, i, name, n, fresh)
    except SandboxConflict:
        raise
    except Exception as error:
        return "error", _state(error)


def _state(error: Exception) -> str:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state or type(error).__name__ + str(error)


def shrink(each: Sequence, fails: Callable[[Sequence], bool]) -> Sequence:
    """The shortest sequence found by leaving out steps that still fails."""
    found = True
    while found:
        found = False
        for at in range(len(each.steps)):
            shorter = Sequence(each.connections, each.autocommit, each.steps[:at] + each.steps[at + 1 :])
            if fails(shorter):
                each, found = shorter, True
                break
    return each


@contextlib.contextmanager
def disposing(*sides: Side) -> Iterator[None]:
    """Close what the sides have opened."""
    try:
        yield
    finally:
        for side in sides:
            side.dispose()
