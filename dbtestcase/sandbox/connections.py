"""The connections of a sandbox: the physical one, and what is known of each virtual one."""

from __future__ import annotations

import re
from typing import Protocol

from ..reporting.call_sites import Origin
from .savepoints import Owner
from .scheduler import Turn
from .session_settings import Parameters, Rows
from .statements import Statement

__all__ = ["POOLED", "Client", "Scope", "Wire"]

POOLED = -1
"""The scope of a client that lies in a pool: it belongs to whoever uses it next."""

_READ_ONLY = re.compile(
    r"(?:\b|_)read[\s_]+(?:only\s*(?:=|to)\s*'?)?(only|write|on|off|true|false|0|1)\b", re.IGNORECASE
)


class Wire(Protocol):
    """The physical connection, as the sandbox sees it; made by a module of :mod:`dbtestcase.drivers`."""

    driver: str
    """SQLAlchemy's name of the driver."""

    def run(self, *statements: str) -> Rows:
        """Run the harness's own statements, together if the database can; the rows of the last that has any."""

    @property
    def gone(self) -> str:
        """Why the physical connection cannot be used any more; empty as long as it can."""

    def aborted(self) -> bool:
        """Whether the server refuses everything until a rollback."""

    def in_transaction(self) -> bool:
        """Whether the outer transaction is still there."""

    def reset(self) -> None:
        """An outer transaction is about to begin: nothing is left of what the last one's clients have set."""

    def forget_plans(self) -> None:
        """The schema was rolled back: plans made for it are not to be used again."""

    def interrupt(self) -> None:
        """Make the statement that another thread runs fail, where the driver can."""

    def cut(self, why: str) -> None:
        """Make it fail in any case: the connection is closed under it, and :attr:`gone` from now on."""

    def error(self, name: str, message: str) -> Exception:
        """An error of the driver, by its PEP 249 name or (PostgreSQL) its condition's name."""

    def close(self) -> None:
        """Close the physical connection."""


class Client(Owner):
    """A virtual connection's part of the sandbox.

    :param own: whether it is the test's own and not the application's.
    """

    __slots__ = (
        "__weakref__",
        "autocommit",
        "block",
        "checks_deferred",
        "cursors",
        "locks",
        "parameters",
        "piped",
        "read_only",
        "read_only_now",
        "retired",
        "scope",
        "turn",
        "warned",
        "where",
        "writes",
    )

    def __init__(self, name: str, *, own: bool) -> None:
        super().__init__(name)
        self.turn = Turn(name, own)
        self.autocommit = False
        self.read_only = False
        self.read_only_now: bool | None = None  # what SET TRANSACTION says of the running transaction
        self.piped = False  # in a pipeline, whose statements commit together
        self.block = 0  # depth of explicit transaction blocks in autocommit mode
        self.locks = False  # it has locked rows by a SELECT … FOR UPDATE
        self.checks_deferred = True  # whether constraints are enforced for it at all
        self.parameters = Parameters()
        self.cursors: dict[str, int] = {}  # its server-side cursors, each with how many savepoints were set before it
        self.where: Origin | str = ""
        self.scope = 0
        self.retired = False  # it has SET something: a pool must not hand it to another test
        self.warned: set[str] = set()
        self.writes: dict[str, Statement] = {}

    @property
    def refuses_writes(self) -> bool:
        """Whether its transaction is read-only."""
        return self.read_only if self.read_only_now is None else self.read_only_now

    def characterize(self, text: str) -> None:
        """Take ``READ ONLY`` and ``READ WRITE`` from a statement that sets a transaction's characteristics."""
        found = _READ_ONLY.search(text)
        if found is None:
            return
        value = found[1].lower() in ("only", "on", "true", "1")
        if "session characteristics" in " ".join(text.lower().split()):
            self.read_only = value
        else:
            self.read_only_now = value

    @property
    def own(self) -> bool:
        """Whether it is the test's own."""
        return self.turn.own

    @property
    def each_statement(self) -> bool:
        """Whether each statement commits by itself."""
        return self.autocommit and not self.block

    def cursors_above(self, depth: int) -> list[str]:
        """Its cursors that a rollback to the savepoint of this depth closes."""
        return [name for name, below in self.cursors.items() if below >= depth]

    def end(self) -> None:
        super().end()
        self.read_only_now = None
        self.locks = False
        self.where = ""
        self.turn.waited_out = False
        self.cursors.clear()
        self.warned.clear()
        self.writes.clear()

    def __str__(self) -> str:
        return f"{self.name} (began at {self.where})" if self.where else self.name


class Scope:
    """A mark in the outer transaction: what happens after it is undone together."""

    def __init__(self, number: int, label: str, name: str) -> None:
        self.number = number
        self.label = label
        self.name = name
        self.wrote = False
