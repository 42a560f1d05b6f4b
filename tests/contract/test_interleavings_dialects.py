"""Random sequences on SQLite and MariaDB: the rows of really independent connections, or an error that says so."""

from __future__ import annotations

import random
import sqlite3
import tempfile
import unittest
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import URL, NullPool, create_engine

from dbtestcase.errors import DirtyReadWarning, SandboxConflict
from dbtestcase.isolation.sandbox_run import running_sandbox
from tests.support.connections_model import GONE, Independent
from tests.support.interleavings import Difference, Event, Sequence, shrink
from tests.support.mariadb import connect, mariadb_url
from tests.support.samples import LONG

SEQUENCES = 5_000 if LONG else 40

OPERATIONS = {
    "insert": 14,
    "insert_twice": 6,
    "insert_pair": 3,
    "update": 5,
    "update_nothing": 3,
    "delete": 4,
    "read": 10,
    "broken": 3,
    "savepoint": 9,
    "release": 5,
    "rollback_to": 7,
    "commit": 14,
    "rollback": 8,
    "close": 3,
}
WRITES = {"insert", "insert_twice", "insert_pair", "update", "update_nothing", "delete"}
TABLE = "CREATE TABLE item (owner INT, k INT, v INT, PRIMARY KEY (owner, k), UNIQUE (owner, v))"
EVERYTHING = "SELECT owner, k, v FROM item ORDER BY 1, 2"


def sequence(seed: int, *, autocommit: bool) -> Sequence:
    r = random.Random(seed)
    connections = r.choice((2, 2, 3, 4))
    chosen = frozenset(i for i in range(connections) if autocommit and r.random() < 0.12)
    patience = r.choice((0.0, 0.5, 0.8, 0.95))
    current, steps = 0, []
    for _ in range(r.randrange(4, 30)):
        if r.random() >= patience:
            current = r.randrange(connections)
        steps.append((current, r.choices(list(OPERATIONS), list(OPERATIONS.values()))[0], r.randrange(1_000)))
    order = list(range(connections))
    r.shuffle(order)
    steps += [(i, r.choice(("commit", "rollback", "close")), 0) for i in order]
    return Sequence(connections, chosen, tuple(steps))


class Side:
    """Connections by number: real ones, or virtual ones of an engine without a pool."""

    def __init__(self, connect: Callable[[], Any], autocommit: Callable[[Any], None], sandbox: Any = None) -> None:
        self.connect, self.make_autocommit, self.sandbox = connect, autocommit, sandbox
        self.open: dict[int, Any] = {}
        self.autocommit: frozenset[int] = frozenset()

    def connection(self, i: int) -> Any:
        if i not in self.open:
            self.open[i] = self.connect()
            if i in self.autocommit:
                self.make_autocommit(self.open[i])
        return self.open[i]

    def close(self) -> None:
        for i in list(self.open):
            self.open.pop(i).close()

    def perform(self, i: int, name: str, n: int, fresh: int) -> Any:
        if name == "close":
            if i in self.open:
                self.open.pop(i).close()
            for error in self.sandbox.raised if self.sandbox is not None else ():
                raise error  # a pool swallows what goes wrong; at the end of a test it is reported
            return None
        connection = self.connection(i)
        if name in ("commit", "rollback"):
            return getattr(connection, name)()
        text = {
            "insert": f"INSERT INTO item VALUES ({i}, {fresh}, {fresh})",
            "insert_twice": f"INSERT INTO item VALUES ({i}, {n % 5}, 0)",
            "insert_pair": f"INSERT INTO item VALUES ({i}, {fresh}, {fresh}), ({i}, {n % 5}, {fresh + 1000})",
            "update": f"UPDATE item SET v = v + 100000 WHERE owner = {i} AND k = {n % 5}",
            "update_nothing": f"UPDATE item SET v = 1 WHERE owner = {i} AND k = -1",
            "delete": f"DELETE FROM item WHERE owner = {i} AND k = {n % 5}",
            "read": EVERYTHING,
            "broken": "SELECT nothing FROM nowhere",
            "savepoint": f"SAVEPOINT s{n % 2}",
            "release": f"RELEASE SAVEPOINT s{n % 2}",
            "rollback_to": f"ROLLBACK TO SAVEPOINT s{n % 2}",
        }[name]
        with closing(connection.cursor()) as cursor:
            cursor.execute(text)
            return (
                [tuple(r) for r in cursor.fetchall()] if name == "read" else cursor.rowcount if name in WRITES else None
            )

    def everything(self) -> list[Any]:
        with closing(self.connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(EVERYTHING)
            return [tuple(row) for row in cursor.fetchall()]


class Blocked(Exception):
    """Production waits for a lock, and gives up."""


def outcome(side: Side, *step: Any) -> Any:
    try:
        return "ok", side.perform(*step)
    except SandboxConflict:
        raise
    except Exception as error:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else str(error).partition(":")[0]
        return "error", type(error).__name__, number


class Comparison:
    """Runs a sequence on both sides."""

    def __init__(self, real: Side, virtual: Side, *, keeps_books: bool) -> None:
        self.real, self.virtual, self.keeps_books = real, virtual, keeps_books
        self.counts: Counter[str] = Counter()

    def run(self, each: Sequence) -> str:
        self.model, self.events = Independent(each.connections), list[Event]()
        self.counts["sequences"] += 1
        for side in (self.real, self.virtual):
            side.autocommit = each.autocommit
        ends = tuple((i, "close", 0) for i in range(each.connections))
        for time, (i, name, n) in enumerate(each.steps + ends, 1):
            step = (i, name, n, 10 + time)
            really = outcome(self.real, *step)
            if really[0] == "error" and (
                really[2] == 1205 or (name in ("commit", "read") and "locked" in str(really[2]))
            ):
                self.counts["blocked in production"] += 1
                return "blocked"
            self.follow(each, time, i, name, n, really)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    virtually = outcome(self.virtual, *step)
                except SandboxConflict as conflict:
                    self.check_conflict(name, conflict)
                    self.counts["conflicts"] += 1
                    return "conflict"
            dirty = any(issubclass(w.category, DirtyReadWarning) for w in caught)
            self.told = dirty or (getattr(self, "told", False) and name not in ("commit", "rollback", "close"))
            if really != virtually:
                if name == "read" and really[0] == virtually[0] == "ok":
                    self.counts["dirty reads"] += 1
                    continue
                if "locked" in str(really) and "locked" not in str(virtually):
                    self.counts["blocked in production"] += 1
                    return "blocked"
                raise Difference(f"{step}: {really} really, {virtually} in the sandbox")
        real, virtual = self.real.everything(), self.virtual.everything()
        if real != virtual:
            raise Difference(f"the rows at the end: {real} really, {virtual} in the sandbox")
        return "equal"

    def follow(self, each: Sequence, time: int, i: int, name: str, n: int, really: Any) -> None:
        """Keep the books of whose write is where, after what really happened."""
        if not self.keeps_books:
            return
        model, tx, label = self.model, self.model.transactions[i], f"s{n % 2}"
        if really[0] == "error":
            return
        if name in ("commit", "rollback", "close"):
            model.end(i, keep=name == "commit")
        elif i in each.autocommit and name in ("savepoint", "release", "rollback_to"):
            return
        elif name == "savepoint":
            if label in tx.labels:
                self.replace(i, label)
            tx.labels.append(label)
        elif name in ("release", "rollback_to"):
            getattr(model, name)(i, tx.labels.index(label))
        elif name in WRITES and really[1]:
            self.events.append(Event(time, time))
            model.write(i, time)
            if i in each.autocommit:
                model.end(i, keep=True)
        for event in self.events:
            if not event.gone and model.status(event.number) == GONE:
                event.gone = time

    def replace(self, i: int, label: str) -> None:
        """MySQL forgets a savepoint when one of the same name is set; those above it stay."""
        tx = self.model.transactions[i]
        at = tx.labels.index(label)
        del tx.labels[at]
        tx.writes = [(number, depth - (depth > at)) for number, depth in tx.writes]

    def check_conflict(self, name: str, conflict: SandboxConflict) -> None:
        """There must be a write that went after something was done above it that stays."""
        if "has a snapshot of the database" in conflict.what and name == "read":
            return
        if not self.keeps_books:
            raise Difference(f"a conflict where only one writes at a time: {conflict.what}")
        statement = name not in ("commit", "rollback", "close", "release", "rollback_to", "savepoint")
        for below in self.events:
            for above in self.events:
                if below.gone and below.written < above.written < below.gone:
                    status = self.model.status(above.number)
                    if status == "committed" or (statement and status != GONE):
                        return
        raise Difference(f"a conflict that could be avoided: {conflict.what}")


class _Interleavings(unittest.TestCase):
    __test__ = False
    autocommit = False
    keeps_books = False

    def sandboxed_url(self) -> URL:
        raise NotImplementedError

    def real(self) -> Side:
        raise NotImplementedError

    def make_autocommit(self, fairy: Any) -> None:
        raise NotImplementedError

    def empty(self) -> None:
        """Empty the real database."""
        raise NotImplementedError

    def test_no_sequence_differs_silently(self) -> None:
        url = self.sandboxed_url()
        real = self.real()
        with running_sandbox(SimpleNamespace(url=url, built=True), url) as run:
            engine = create_engine(url, poolclass=NullPool)
            virtual = Side(engine.raw_connection, self.make_autocommit, run.sandbox)
            comparison = Comparison(real, virtual, keeps_books=self.keeps_books)
            run.sandbox.begin("class")
            run.sandbox.mark("test")

            def attempt(each: Sequence) -> Exception | None:
                try:
                    comparison.run(each)
                except Difference as difference:
                    return difference
                finally:
                    real.close()
                    virtual.close()
                    run.sandbox.rollback_to_mark("test")
                    self.empty()
                return None

            for seed in range(SEQUENCES):
                each = sequence(seed, autocommit=self.autocommit)
                if attempt(each) is not None:
                    each = shrink(each, lambda shorter: attempt(shorter) is not None)
                    self.fail(f"seed {seed}: {each}: {attempt(each)}")
            run.sandbox.end()
        counts = comparison.counts
        print(f"{type(self).__name__}: {dict(counts)}")
        self.assertGreater(counts["sequences"] - counts["blocked in production"], SEQUENCES // 3)
        self.assertLess(counts["conflicts"], SEQUENCES // 3)


class SQLiteFileTest(_Interleavings):
    __test__ = True

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name in ("real", "sandboxed"):
            with closing(sqlite3.connect(self.folder / f"{name}.db")) as connection:
                connection.execute(TABLE)
        self.cleaner = sqlite3.connect(self.folder / "real.db", isolation_level=None)
        self.addCleanup(self.cleaner.close)

    def sandboxed_url(self) -> URL:
        return URL.create("sqlite", database=str(self.folder / "sandboxed.db"))

    def real(self) -> Side:
        return Side(lambda: sqlite3.connect(self.folder / "real.db", timeout=0), self.make_autocommit)

    def make_autocommit(self, connection: Any) -> None:
        getattr(connection, "driver_connection", connection).isolation_level = None

    def empty(self) -> None:
        self.cleaner.execute("DELETE FROM item")


class SQLiteMemoryTest(SQLiteFileTest):
    """The sandbox in memory beside a file."""

    def sandboxed_url(self) -> URL:
        keeper = sqlite3.connect("file:/interleavings?vfs=memdb", uri=True)
        keeper.execute(TABLE)
        self.addCleanup(keeper.close)
        return URL.create("sqlite", database="file:/interleavings", query={"vfs": "memdb", "uri": "true"})


class SQLiteAutocommitTest(SQLiteFileTest):
    """Connections that commit each statement, unless a savepoint begins a transaction."""

    autocommit = True


class MariaDBTest(_Interleavings):
    __test__ = True
    autocommit = True
    keeps_books = True

    def setUp(self) -> None:
        super().setUp()
        self.server = mariadb_url()
        self.cleaner = connect(self.server, None)
        self.addCleanup(self.cleaner.close)
        for name in ("verify_real", "verify_sandboxed"):
            self.ask(f"CREATE DATABASE {name}")
            self.addCleanup(self.ask, f"DROP DATABASE {name}")
            self.ask(TABLE.replace("TABLE item", f"TABLE {name}.item"))

    def ask(self, statement: str) -> None:
        with self.cleaner.cursor() as cursor:
            cursor.execute(statement)

    def sandboxed_url(self) -> URL:
        return self.server.set(database="verify_sandboxed")

    def real(self) -> Side:
        def connected() -> Any:
            connection = connect(self.server, "verify_real")
            connection.autocommit(False)
            with connection.cursor() as cursor:
                # as in the sandbox, what others have committed is seen at once, and no gaps are locked
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                cursor.execute("SET innodb_lock_wait_timeout = 0")
            return connection

        return Side(connected, self.make_autocommit)

    def make_autocommit(self, connection: Any) -> None:
        connection.autocommit(True)

    def empty(self) -> None:
        self.ask("DELETE FROM verify_real.item")


del _Interleavings
