"""The connections of a sandbox: the physical one, and what is known of each virtual one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Dialect

from ..reporting import CallSite
from .savepoints import Owner
from .session_settings import Rows, SessionSettings
from .statements import Statement
from .tickets import Ticket

POOLED = -1
"""The scope of a client that lies in a pool: it belongs to whoever uses it next."""

_LEVEL = re.compile(
    r"(?:isolation\s+level\s+|_isolation\s*(?:=|to)\s*'?)(read\s+(?:un)?committed|repeatable\s+read|serializable)",
    re.IGNORECASE,
)
_READ_ONLY = re.compile(
    r"(?:\b|_)read[\s_]+(?:only\s*(?:=|to)\s*'?)?(only|write|on|off|true|false|0|1)\b", re.IGNORECASE
)


class Arguments(NamedTuple):
    """What an engine gives, or would have given, to its driver's ``connect()``."""

    args: Sequence[Any] = ()
    parameters: Mapping[str, Any] = MappingProxyType({})


NO_ARGUMENTS = Arguments()


class Wire(Protocol):
    """The physical connection, as the sandbox sees it; made by a module of :mod:`dbtestcase.drivers`."""

    driver: str
    """SQLAlchemy's name of the driver."""

    connection: Any
    """The driver's physical connection."""

    ended_by: str
    """The statement that ended the outer transaction, if one is known to have."""

    @property
    def drivers(self) -> frozenset[str]:
        """The drivers whose engines can be led here, by SQLAlchemy's names."""

    def connect(self, sandbox: Any, dialect: Dialect, given: Arguments = NO_ARGUMENTS, *, own: bool = False) -> Any:
        """A virtual connection as the pool of an engine with this dialect expects it from its creator.

        :param sandbox: the :class:`~dbtestcase.sandbox.Sandbox` that it takes part in.
        :param own: whether it is the test's own.
        :raises ConfigurationError: something of it can neither be honoured nor done without.
        """

    def run(self, *statements: str) -> Rows:
        """Run the harness's own statements, together if the database can; the rows of the last that has any."""

    @property
    def gone(self) -> str:
        """Why the physical connection cannot be used any more; empty as long as it can."""

    def aborted(self) -> bool:
        """Whether the server refuses everything until a rollback."""

    def in_transaction(self) -> bool:
        """Whether the outer transaction is still there."""

    def is_private(self) -> bool:
        """Whether nobody can have used the physical connection itself, past the virtual ones."""

    def reset(self) -> None:
        """An outer transaction is about to begin: nothing is left of what the last one's clients have set."""

    def test_ended(self, restart: Callable[[str], bool]) -> None:
        """Everything was rolled back to the last mark: what else a test has changed ends (:meth:`Sandbox.restart`)."""

    def forget_plans(self) -> None:
        """Forget the statements that the driver has prepared: the schema was rolled back, and they go with it."""

    def settle(self) -> None:
        """Get out of a COPY, stream or pipeline that a test has left in the middle."""

    def interrupt(self) -> None:
        """Make the statement that another thread runs fail, where the driver can."""

    def cut(self, why: str) -> None:
        """Make it fail in any case: the connection is closed under it, and :attr:`gone` from now on."""

    def error(self, name: str, message: str) -> Exception:
        """An error of the driver, by its PEP 249 name or (PostgreSQL) its condition's name."""

    def close(self) -> None:
        """Close the physical connection."""


_DEFERRABLE = re.compile(r"(\bnot\s+)?\b(?:transaction_)?deferrable\b(?:\s*(?:=|to)\s*'?(\w+))?", re.IGNORECASE)


def characteristics(text: str) -> tuple[str, bool | None]:
    """The isolation level and whether read-only (None: not said) that a text asks for."""
    level, access = _LEVEL.search(text), _READ_ONLY.search(_LEVEL.sub(" ", text))
    return (
        " ".join(level[1].lower().split()) if level else "",
        access[1].lower() in ("only", "on", "true", "1") if access else None,
    )


class Client(Owner):
    """A virtual connection's part of the sandbox: the application's, or the test's own."""

    __slots__ = (
        "__weakref__",
        "autocommit",
        "begun_with",
        "block",
        "checks_deferred",
        "cursors",
        "deferrable",
        "deferrable_now",
        "has_run",
        "kept_modes",
        "level",
        "level_now",
        "locks",
        "moded",
        "own",
        "piped",
        "read_only",
        "read_only_now",
        "retired",
        "scope",
        "settings",
        "state",
        "ticket",
        "used_by_application",
        "warned",
        "where",
        "writes",
    )

    def __init__(self, name: str, *, own: bool) -> None:
        super().__init__(name)
        self.own = own  # the test's
        self.ticket = Ticket(name, own)
        self.autocommit = False
        self.moded = False
        """Whether its transactions are anything else than read and write, at the usual level."""
        self.read_only: bool | None = None  # None: as the session's settings have it
        self.read_only_now: bool | None = None  # what SET TRANSACTION says of the running transaction
        self.deferrable: bool | None = None
        self.deferrable_now: bool | None = None
        self.kept_modes: list[tuple[bool | None, bool | None]] = []  # both, as they were at each of its savepoints
        self.has_run = False  # a statement of the running transaction that SET TRANSACTION would come too late for
        self.level = ""  # the isolation level of its transactions, where it is not the session's
        self.level_now = ""  # what SET TRANSACTION says of the running transaction
        self.piped = False  # in a pipeline, whose statements commit together
        self.block = 0  # depth of explicit transaction blocks in autocommit mode
        self.locks = False  # it has locked rows by a SELECT … FOR UPDATE
        self.checks_deferred = True  # whether constraints are enforced for it at all
        self.settings = SessionSettings()
        self.cursors: dict[str, int] = {}  # its server-side cursors, each with how many savepoints were set before it
        self.where: CallSite | str = ""
        self.used_by_application = False  # in a transaction that began in the test's own file: anybody else has written
        self.scope = 0
        self.state: Callable[[], object] | None = None
        """Says how the driver's own connection behaves: what of it a test changes must not reach the next one."""
        self.begun_with: object = None
        self.retired = False  # a test has changed it: a pool must not hand it to another test
        self.warned: set[str] = set()
        self.writes: dict[str, Statement] = {}

    def hand_out(self) -> None:
        """Its pool gives it to somebody: what was done to it until the first time, by listeners, belongs to it."""
        if self.begun_with is None and self.state is not None:
            self.begun_with = self.state()

    @property
    def changed(self) -> bool:
        """Whether it is not any more what it was when its pool first handed it out."""
        if self.settings.changed:
            return True
        return self.begun_with is not None and self.state is not None and self.state() != self.begun_with

    @property
    def refuses_writes(self) -> bool:
        """Whether its transaction is read-only."""
        return bool(self.read_only if self.read_only_now is None else self.read_only_now)

    def set_modes(
        self, *, level: str | None = None, read_only: bool | str | None = "", deferrable: bool | str | None = ""
    ) -> None:
        """What the connection's transactions are to be from the next one on; what is not given is left as it is.

        :param level: the isolation level; empty for the session's.
        :param read_only: None for the session's default, which is what ``deferrable`` takes, too.
        """
        if level is not None:
            self.level = level
        if not isinstance(read_only, str):
            self.read_only = read_only
        if not isinstance(deferrable, str):
            self.deferrable = deferrable
        self.look_at_modes()

    def look_at_modes(self) -> None:
        """See whether its transactions are anything else than usual."""
        asked = (self.read_only_now, self.deferrable_now, self.read_only, self.deferrable)
        self.moded = bool(
            self.level_now or self.level or any(each is not None for each in asked) or self.settings.characteristics
        )

    def characterize(self, text: str) -> None:
        """Take level and access from a statement that sets the running transaction's characteristics."""
        level, access = characteristics(text)
        self.level_now = level or self.level_now
        if access is not None:
            self.read_only_now = access
        deferrable = _DEFERRABLE.search(text)
        if deferrable is not None:
            self.deferrable_now = deferrable[1] is None and (deferrable[2] or "").lower() in ("", "on", "true", "1")
        self.moded = True

    def keep_modes(self) -> None:
        """A savepoint is set: a rollback to it takes back what ``SET TRANSACTION`` says after it."""
        self.kept_modes.append((self.read_only_now, self.deferrable_now))

    def release_modes(self, depth: int) -> None:
        """The savepoint at ``depth`` (1 for the outermost) is gone."""
        del self.kept_modes[depth - 1 :]

    def restore_modes(self, depth: int) -> None:
        """Back to the savepoint at ``depth``, which stays."""
        self.read_only_now, self.deferrable_now = self.kept_modes[depth - 1]
        del self.kept_modes[depth:]
        self.look_at_modes()

    @property
    def each_statement(self) -> bool:
        """Whether each statement commits by itself."""
        return self.autocommit and not self.block

    def cursors_above(self, depth: int) -> list[str]:
        """Its cursors that a rollback to the savepoint of this depth closes."""
        return [name for name, below in self.cursors.items() if below >= depth]

    def end(self) -> None:
        self.active = self.failed = False  # what super().end() does, at each transaction's end
        self.labels.clear()
        self.has_run = False
        if self.moded:
            self.read_only_now = self.deferrable_now = None
            self.level_now = ""
            self.look_at_modes()
        self.kept_modes.clear()
        self.locks = False
        self.where = ""
        self.used_by_application = False
        self.ticket.waited_out = False
        self.cursors.clear()
        self.warned.clear()
        self.writes.clear()

    def __str__(self) -> str:
        return f"{self.name} (began at {self.where})" if self.where else self.name
