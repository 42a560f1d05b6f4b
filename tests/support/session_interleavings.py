"""Random sequences of what connections own in the server's session, in a sandbox and on independent connections.

Temporary tables, prepared statements, the mode of constraints, isolation levels, advisory locks, settings (those of
``connect()``), cursors and streams that are read on late.  The names are the same on every connection; rows are each
connection's own, so that production would rarely block.
"""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from dbtestcase.errors import DirtyReadWarning, SandboxConflict, SandboxError, ServerUnreachable
from tests.support.interleavings import Difference, Sequence, random_steps

__all__ = ["ASKED", "SESSION_SCHEMA", "SessionComparison", "SessionSide", "session_sequence"]

SESSION_SCHEMA = """
CREATE TABLE item (owner int, key int, PRIMARY KEY (owner, key));
CREATE TABLE part (owner int, key int, item int, CONSTRAINT part_item FOREIGN KEY (owner, item)
    REFERENCES item (owner, key) DEFERRABLE);
CREATE TABLE note (owner int, key int);
CREATE SEQUENCE counter;
CREATE TABLE t1 (x int CHECK (x < 0));
INSERT INTO t1 VALUES (-1);
"""
EVERYTHING = "SELECT 'item', owner, key FROM item UNION ALL SELECT 'part', owner, key FROM part ORDER BY 1, 2, 3"

_LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
_ON_COMMIT = ("", "", " ON COMMIT DROP", " ON COMMIT DELETE ROWS", " ON COMMIT PRESERVE ROWS")
_CURSORS = ("CURSOR", "SCROLL CURSOR", "CURSOR WITH HOLD")
_LOCKS = (
    *("pg_try_advisory_lock({k})", "pg_try_advisory_lock_shared({k})", "pg_try_advisory_xact_lock({k})"),
    *("pg_try_advisory_xact_lock_shared({k})", "pg_advisory_unlock({k})", "pg_advisory_unlock_shared({k})"),
    *("pg_advisory_unlock_all() IS NULL", "pg_try_advisory_lock({k}, 1)", "pg_advisory_unlock({k}, 1)"),
)
OPERATIONS: dict[str, tuple[int, Callable[[int, int, int], str]]] = {
    "insert": (8, lambda i, n, fresh: f"INSERT INTO item VALUES ({i}, {fresh})"),
    "note": (3, lambda i, n, fresh: f"INSERT INTO note VALUES ({i}, {fresh})"),
    "delete": (2, lambda i, n, fresh: f"DELETE FROM item WHERE owner = {i} AND key % 2 = {n % 2}"),
    "read": (8, lambda i, n, fresh: EVERYTHING),
    "read_notes": (2, lambda i, n, fresh: "SELECT owner, key FROM note ORDER BY 1, 2"),
    "divide": (2, lambda i, n, fresh: "SELECT 1 / 0"),
    "temp_create": (6, lambda i, n, fresh: f"CREATE TEMP TABLE t{n % 2} (x int){_ON_COMMIT[n % 5]}"),
    "temp_as": (2, lambda i, n, fresh: f"CREATE TEMPORARY TABLE t{n % 2}{_ON_COMMIT[n % 5]} AS SELECT {fresh} AS x"),
    "temp_insert": (8, lambda i, n, fresh: f"INSERT INTO t{n % 2} VALUES ({fresh})"),
    "temp_read": (8, lambda i, n, fresh: f"SELECT x FROM t{n % 2} ORDER BY 1"),
    "temp_drop": (3, lambda i, n, fresh: "DROP TABLE t0"),
    "temp_asked": (1, lambda i, n, fresh: "SELECT to_regclass('t0') IS NULL"),
    "prepare": (4, lambda i, n, fresh: f"PREPARE p{n % 2} AS SELECT {fresh}"),
    "execute": (5, lambda i, n, fresh: f"EXECUTE p{n % 2}"),
    "deallocate": (2, lambda i, n, fresh: f"DEALLOCATE p{n % 2}"),
    "defer": (4, lambda i, n, fresh: f"SET CONSTRAINTS {('ALL', 'part_item')[n % 2]} DEFERRED"),
    "at_once": (2, lambda i, n, fresh: "SET CONSTRAINTS ALL IMMEDIATE"),
    "orphan": (4, lambda i, n, fresh: f"INSERT INTO part VALUES ({i}, {fresh}, {-1 - n % 2})"),
    "adopt": (2, lambda i, n, fresh: f"INSERT INTO item VALUES ({i}, {-1 - n % 2})"),
    "level": (4, lambda i, n, fresh: f"SET TRANSACTION ISOLATION LEVEL {_LEVELS[n % 3]}"),
    "session_level": (
        1,
        lambda i, n, fresh: f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {_LEVELS[n % 3]}",
    ),
    "show_level": (3, lambda i, n, fresh: ("SHOW transaction_isolation", "SHOW transaction_read_only")[n % 2]),
    "access": (2, lambda i, n, fresh: f"SET TRANSACTION READ {('ONLY', 'WRITE')[n % 2]}"),
    "session_access": (1, lambda i, n, fresh: f"SET default_transaction_read_only = {('on', 'off', 'off')[n % 3]}"),
    "nextval": (2, lambda i, n, fresh: "SELECT nextval('counter') > 0"),
    "lock_rows": (2, lambda i, n, fresh: f"SELECT key FROM item WHERE owner = {i} ORDER BY 1 FOR UPDATE"),
    "skip_locked": (
        1,
        lambda i, n, fresh: f"SELECT key FROM item WHERE owner = {n % 3} ORDER BY 1 FOR UPDATE SKIP LOCKED",
    ),
    "advisory": (8, lambda i, n, fresh: f"SELECT {_LOCKS[n % len(_LOCKS)].format(k=n % 2)}"),
    "set": (2, lambda i, n, fresh: f"SET app.name = 'u{n}'"),
    "set_local": (2, lambda i, n, fresh: f"SET LOCAL app.name = 'l{n}'"),
    "reset": (1, lambda i, n, fresh: ("RESET app.name", "RESET ALL", "SET app.name TO DEFAULT")[n % 3]),
    "setting": (
        4,
        lambda i, n, fresh: f"SELECT current_setting('{('app.name', 'app.name', 'application_name')[n % 3]}', true)",
    ),
    "listen": (1, lambda i, n, fresh: f"LISTEN c{n % 2}"),
    "unlisten": (1, lambda i, n, fresh: f"UNLISTEN {('c0', 'c1', '*')[n % 3]}"),
    "listening": (2, lambda i, n, fresh: "SELECT pg_listening_channels() ORDER BY 1"),
    "declare": (3, lambda i, n, fresh: f"DECLARE c{n % 2} {_CURSORS[n % 3]} FOR SELECT generate_series(1, 5)"),
    "fetch": (5, lambda i, n, fresh: f"{('FETCH 2', 'FETCH 1', 'MOVE 1')[n % 3]} FROM c{n // 3 % 2}"),
    "close_cursor": (2, lambda i, n, fresh: f"CLOSE {('c0', 'c1', 'ALL')[n % 3]}"),
    "stream": (3, lambda i, n, fresh: ""),
    "stream_on": (4, lambda i, n, fresh: ""),
    "stream_end": (1, lambda i, n, fresh: ""),
    "reconnect": (2, lambda i, n, fresh: ""),
    "savepoint": (7, lambda i, n, fresh: f"SAVEPOINT s{n % 2}"),
    "release": (4, lambda i, n, fresh: f"RELEASE SAVEPOINT s{n % 2}"),
    "rollback_to": (6, lambda i, n, fresh: f"ROLLBACK TO SAVEPOINT s{n % 2}"),
    "commit": (13, lambda i, n, fresh: ""),
    "rollback": (6, lambda i, n, fresh: ""),
    "close": (3, lambda i, n, fresh: ""),
}
READS = {"read", "read_notes", "lock_rows", "skip_locked", "stream", "stream_on"}
WRITES = {"insert", "note", "delete", "orphan", "adopt"}
ENDS = {"commit", "rollback", "close"}
_BLOCKED = ("55P03", "57014")


def session_sequence(seed: int) -> Sequence:
    """The sequence of a seed."""
    r = random.Random(seed)
    connections = r.choice((1, 2, 2, 2, 3))
    autocommit = frozenset(i for i in range(connections) if r.random() < 0.08)
    patience = r.choice((0.0, 0.5, 0.8, 0.95))
    # a few subjects at a time, so that operations meet
    chosen = set(r.sample(list(OPERATIONS), r.choice((8, 14, 20, len(OPERATIONS))))) | ENDS
    weights = {name: weight if name in chosen else 0 for name, (weight, _) in OPERATIONS.items()}
    return Sequence(connections, autocommit, random_steps(r, connections, weights, patience))


ASKED: tuple[dict[str, str], ...] = (
    {},
    {"app.name": "connected"},
    {"default_transaction_isolation": "repeatable read"},
    {"default_transaction_read_only": "on", "application_name": "reader"},
)
"""What a connection asks for when it connects: nothing, or as ``reconnect`` chooses."""


class SessionSide:
    """Connections by number.

    :param connects: for each of :data:`ASKED`, a function that makes a DBAPI connection with it; closed, it is closed.
    :param stream: runs a query on a connection whose rows stay with the server.
    """

    def __init__(
        self,
        connects: tuple[Callable[[], Any], ...],
        make_autocommit: Callable[[Any], None],
        stream: Callable[[Any, str], Any],
        sandbox: Any = None,
    ) -> None:
        self.connects, self.make_autocommit, self.stream, self.sandbox = connects, make_autocommit, stream, sandbox
        self.open: dict[int, Any] = {}
        self.streams: dict[int, Any] = {}
        self.asked: dict[int, int] = {}
        self.autocommit: frozenset[int] = frozenset()

    def connection(self, i: int) -> Any:
        if i not in self.open:
            self.open[i] = self.connects[self.asked.get(i, 0)]()
            if i in self.autocommit:
                self.make_autocommit(self.open[i])
        return self.open[i]

    def perform(self, i: int, name: str, n: int, fresh: int) -> Any:
        if name in ("close", "reconnect"):
            self.streams.pop(i, None)
            if i in self.open:
                self.open.pop(i).close()
            self.asked[i] = 1 + n % 3 if name == "reconnect" else self.asked.get(i, 0)
            for error in self.sandbox.raised if self.sandbox is not None else ():
                raise error  # a pool swallows what goes wrong; at the end of a test it is reported
            return None
        if name in ENDS:
            return getattr(self.connection(i), name)()
        if name == "stream":
            if i in self.streams:
                return None
            self.streams[i], rows = self.stream(self.connection(i), "SELECT key FROM item ORDER BY owner, key")
            return rows
        if name in ("stream_on", "stream_end"):
            if i not in self.streams:
                return None
            return self.streams[i].fetchmany(2) if name == "stream_on" else self.streams.pop(i).close()
        return self.rows(self.connection(i), OPERATIONS[name][1](i, n, fresh))

    @staticmethod
    def rows(connection: Any, text: str) -> Any:
        cursor = connection.cursor()
        try:
            cursor.execute(text)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else None
        finally:
            cursor.close()

    def everything(self) -> Any:
        connection = self.connects[0]()
        try:
            return self.rows(connection, EVERYTHING)
        finally:
            connection.close()

    def close(self) -> None:
        self.streams.clear()
        self.asked.clear()
        for i in list(self.open):
            self.open.pop(i).close()


class SessionComparison:
    """Runs sequences on both sides; ``counts`` holds what was found."""

    def __init__(self, real: SessionSide, virtual: SessionSide, *, keeps_plans: bool = False) -> None:
        self.real, self.virtual, self.keeps_plans = real, virtual, keeps_plans
        self.counts: Counter[str] = Counter()

    def run(self, each: Sequence) -> str:
        """Run one sequence.

        :returns: ``equal``, ``blocked`` (in production), ``conflict``, or what the driver does by itself.
        :raises Difference: anything else.
        """
        self.counts["sequences"] += 1
        self.warned: set[int] = set()
        self.told_of_stream: set[int] = set()
        self.writers: set[int] = set()
        self.holders: set[int] = set()
        self.ran: Counter[tuple[int, str]] = Counter()
        self.began: dict[int, int] = {}
        self.commits: list[tuple[int, int]] = []
        for side in (self.real, self.virtual):
            side.autocommit = each.autocommit
        ends = tuple((i, "close", 0) for i in range(each.connections))
        for time, (i, name, n) in enumerate(each.steps + ends, 1):
            found = self._step(each, time, i, name, n)
            if found:
                self.counts[found] += 1
                return found
        real, virtual = self.real.everything(), self.virtual.everything()
        if real != virtual:
            raise Difference(f"the rows at the end: {real} really, {virtual} in the sandbox")
        return "equal"

    def _step(self, each: Sequence, time: int, i: int, name: str, n: int) -> str:
        step = (i, name, n, 10 + time)
        really = _outcome(self.real, *step)
        if really[0] == "error" and really[1] in _BLOCKED:
            return "blocked"
        if really[0] == "error" and really[1].startswith("InternalClientError"):
            return "error of the driver's own"  # asyncpg remembers how a name was described that meant nothing then
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                virtually = _outcome(self.virtual, *step)
            except SandboxError as refusal:
                self._check_refusal(i, name, refusal)
                return "conflict"
        for warning in caught:
            if issubclass(warning.category, DirtyReadWarning):
                self.warned.add(i)
        if name == "stream" and i in self.warned:
            self.told_of_stream.add(i)
        told = i in self.warned or (name == "stream_on" and i in self.told_of_stream)
        self._follow(each, time, i, name, really)
        if really == virtually:
            self.ran[i, name if name in ("temp_create", "temp_as") else f"{name} {n % 2}"] += 1
            return ""
        if self.keeps_plans and self._may_be_an_old_plan(i, name, n):
            return "old plan of the driver's"
        if name in READS and really[0] == virtually[0] == "ok" and told:
            self.counts["dirty reads"] += 1
            return ""
        if really[0] == "error" and really[1] == "40001":
            # which of several serializable transactions fails, production decides by heuristics
            raise Difference(f"{step}: a serialization failure really, {virtually} in the sandbox")
        raise Difference(f"{step}: {really} really, {virtually} in the sandbox")

    def _may_be_an_old_plan(self, i: int, name: str, n: int) -> bool:
        """Whether the driver has prepared the statement before its second temporary table, which hides another table.

        The server plans anew for the first one only (limits.rst).
        """
        made = self.ran[i, "temp_create"] + self.ran[i, "temp_as"]
        return name in ("temp_read", "temp_insert") and made > 1 and self.ran[i, f"{name} {n % 2}"] > 0

    def _follow(self, each: Sequence, time: int, i: int, name: str, really: Any) -> None:
        """Keep the books of who is in the middle of what."""
        if name in ENDS or i in each.autocommit:
            wrote = i in self.writers or (i in each.autocommit and name in WRITES)
            if wrote and name not in ("rollback", "close") and really[0] == "ok":
                self.commits.append((time, i))
            self.writers.discard(i)
            self.holders.discard(i)
            self.began.pop(i, None)
            self.warned.discard(i)
            return
        self.began.setdefault(i, time)
        if really[0] == "ok" and name in WRITES:
            self.writers.add(i)
        if really[0] == "ok" and name in ("lock_rows", "skip_locked"):
            self.holders.add(i)

    def _check_refusal(self, i: int, name: str, refusal: SandboxError) -> None:
        """It must name the way out, and be of a kind that had to come."""
        kind = next((kind for pattern, kind in _KINDS.items() if re.search(pattern, refusal.what)), "")
        others = (self.writers | self.holders) - {i}
        good = "TruncatingDatabaseTest" in str(refusal) and isinstance(refusal, SandboxConflict)
        if kind == "snapshot":
            good &= any(who != i and time > self.began.get(i, 1 << 30) for time, who in self.commits)
        elif kind in ("locked rows", "broken constraints"):
            good &= bool(others)
        if not kind or not good:
            raise Difference(f"a refusal that could be avoided, by {name}: {refusal}")
        self.counts[f"refused: {kind}"] += 1


_KINDS = {
    "cannot be rolled back": "overlapping rollback",
    "has a snapshot of the database|could not serialize": "snapshot",
    "takes rows without waiting": "locked rows",
    "cursor .* cannot be declared": "name of a cursor",
    "deferred by SET CONSTRAINTS|fails a deferred constraint": "broken constraints",
}


def _outcome(side: SessionSide, *step: Any) -> Any:
    try:
        return "ok", side.perform(*step)
    except (SandboxError, ServerUnreachable):
        raise
    except Exception as error:
        return "error", _state(error)


def _state(error: Exception) -> str:
    if error.args and isinstance(error.args[0], dict):  # pg8000
        return str(error.args[0].get("C"))
    for each in (error, getattr(error, "orig", None), error.__cause__):
        state = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)
        if state:
            return str(state)
    return f"{type(error).__name__}: {error}"
