"""Random sequences of what applications do with SQLAlchemy's sessions and engines, for a sandbox and for real.

Each session has rows of its own, so that production would never block; everybody reads everything.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

__all__ = ["READS", "TABLES", "Play", "Side", "play_of"]


class Base(orm.DeclarativeBase):
    pass


class Parent(Base):
    __tablename__ = "parent"
    owner: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    key: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    value: orm.Mapped[int]


class Child(Base):
    __tablename__ = "child"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    owner: orm.Mapped[int]
    key: orm.Mapped[int]
    __table_args__ = (sa.ForeignKeyConstraint(["owner", "key"], ["parent.owner", "parent.key"]),)


TABLES = Base.metadata
EVERYTHING = sa.text(
    "SELECT 'parent', owner, key, value FROM parent UNION ALL "
    "SELECT 'child', owner, key, id FROM child ORDER BY 1, 2, 3, 4"
)
OPERATIONS = {
    "add": 8,
    "insert": 8,
    "insert_returning": 3,
    "insert_twice": 3,
    "bulk_insert": 3,
    "child": 4,
    "orphan": 1,
    "update": 4,
    "update_nothing": 2,
    "delete": 3,
    "read": 8,
    "stream": 2,
    "get": 3,
    "lock": 2,
    "divide": 3,
    "begin_nested": 6,
    "commit_nested": 4,
    "rollback_nested": 4,
    "nested_block": 3,
    "nested_block_raises": 3,
    "commit": 10,
    "rollback": 6,
    "close": 4,
    "engine_begin": 4,
    "engine_begin_raises": 2,
    "engine_connect": 3,
    "autocommit": 3,
}
READS = {"read", "stream", "get", "lock"}

Step = tuple[int, str, int]


@dataclass(frozen=True)
class Play:
    """What is done: the number of a session, the operation, and a number to choose by.

    :param options: ``expire_on_commit`` and ``autoflush`` of each session.
    """

    options: tuple[tuple[bool, bool], ...]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return " ".join(f"{'ABCD'[i]}.{name}({n})" for i, name, n in self.steps)


def play_of(seed: int) -> Play:
    """The sequence of a seed."""
    r = random.Random(seed)
    sessions = r.choice((1, 2, 2, 2, 3, 4))
    patience = r.choice((0.0, 0.5, 0.8, 0.95))  # how long somebody goes on before another has a turn
    current, steps = 0, []
    for _ in range(r.randrange(4, 30)):
        if r.random() >= patience:
            current = r.randrange(sessions)
        steps.append((current, r.choices(list(OPERATIONS), list(OPERATIONS.values()))[0], r.randrange(1_000)))
    order = list(range(sessions))
    r.shuffle(order)
    steps += [(i, r.choice(("commit", "rollback", "close")), 0) for i in order]
    return Play(tuple((r.random() < 0.5, r.random() < 0.7) for _ in range(sessions)), tuple(steps))


class _Boom(Exception):
    """The application's own."""


class Side:
    """One way to run a sequence.

    :param engine: leads to the real database, or into the sandbox.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.sessions: list[orm.Session] = []
        self.nested: list[list[Any]] = []

    def begin(self, options: Sequence[tuple[bool, bool]]) -> None:
        self.sessions = [orm.Session(self.engine, expire_on_commit=e, autoflush=a) for e, a in options]
        self.nested = [[] for _ in options]

    def end(self) -> None:
        """Close the sessions, as an application does that does not care how they are."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for session in self.sessions:
                session.close()

    def everything(self) -> list[Any]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(EVERYTHING)]

    def perform(self, i: int, name: str, n: int, fresh: int) -> Any:
        """Run one step; what the application would see of it.

        :param fresh: a number that no step before has used.
        """
        session = self.sessions[i]
        row = {"owner": i, "key": fresh, "value": n}
        if name in ("commit", "rollback", "close"):
            self.nested[i].clear()
            return getattr(session, name)()
        if name in ("commit_nested", "rollback_nested"):
            return self._end_nested(i, name.partition("_")[0])
        if name.startswith("engine") or name == "autocommit":
            return self._without_session(name, n, {**row, "owner": 10 + i})
        if name == "add":
            session.add(Parent(**row))
            return session.flush()
        if name == "insert_twice":
            session.add(Parent(owner=i, key=n % 3, value=0))
            return session.flush()
        if name == "bulk_insert":
            return session.bulk_insert_mappings(
                sa.inspect(Parent), [{"owner": i, "key": fresh + k * 1_000, "value": k} for k in range(3)]
            )
        if name == "begin_nested":
            return self.nested[i].append(session.begin_nested())
        if name in ("nested_block", "nested_block_raises"):
            with session.begin_nested():
                session.execute(sa.insert(Parent).values(row))
                if name.endswith("raises"):
                    raise _Boom
            return None
        if name == "get":
            session.expire_all()
            found = session.get(Parent, (i, n % 3))
            return found and found.value
        if name in ("read", "stream"):
            options = {"stream_results": True, "max_row_buffer": 1} if name == "stream" else {}
            return sorted(tuple(each) for each in session.execute(EVERYTHING, execution_options=options))
        mine = Parent.owner == i
        statement: Any = {
            "insert": sa.insert(Parent).values(row),
            "insert_returning": sa.insert(Parent).returning(Parent.key),
            "child": sa.text(
                "INSERT INTO child SELECT :fresh, owner, key FROM parent WHERE owner = :i ORDER BY key LIMIT 1"
            ).bindparams(fresh=fresh, i=i),
            "orphan": sa.insert(Child).values(id=fresh, owner=i, key=-1),
            "update": sa.update(Parent).where(mine, Parent.key % 2 == n % 2).values(value=Parent.value + 1_000),
            "update_nothing": sa.update(Parent).where(Parent.owner == -1).values(value=1),
            "delete": sa.delete(Parent).where(mine, Parent.key % 4 == n % 4),
            "lock": sa.select(Parent.key).where(mine).order_by(Parent.key).with_for_update(),
            "divide": sa.text("SELECT 1 / 0"),
        }[name]
        many = [row, {**row, "key": fresh + 100_000}] if name == "insert_returning" else None
        result: Any = session.execute(statement, many)
        return [tuple(each) for each in result] if result.returns_rows else result.rowcount

    def _end_nested(self, i: int, how: str) -> bool:
        while self.nested[i]:
            transaction = self.nested[i].pop()
            if transaction.is_active or how == "rollback":
                getattr(transaction, how)()
                return True
        return False

    def _without_session(self, name: str, n: int, row: dict[str, int]) -> None:
        insert = sa.insert(Parent).values(row)
        if name == "autocommit":
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(insert)
        elif name == "engine_connect":
            with self.engine.connect() as connection:
                connection.execute(insert)
                if n % 2:
                    connection.commit()
        else:
            with self.engine.begin() as connection:
                connection.execute(insert)
                if name.endswith("raises"):
                    raise _Boom
