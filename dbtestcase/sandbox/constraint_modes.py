"""``SET CONSTRAINTS``: it ends with its transaction and holds for nobody else."""

from __future__ import annotations

import re
from typing import ClassVar

from ..errors import SandboxConflict
from .connections import Client, Wire
from .lexer import NAME, POSTGRESQL, name_in
from .rules import COMMITTING
from .session_objects import SessionObjects, nothing
from .session_settings import Flow
from .statements import Kind, Statement
from .topics import Topic

_SET = re.compile(r"\bset\s+constraints\s+(all\b|[^;]+?)\s*\b(deferred|immediate)\b", re.IGNORECASE)
_NAMES = re.compile(rf"{NAME}(?:\s*\.\s*{NAME})?")
_DEFERRABLE = (
    "SELECT pg_catalog.format('%I.%I', n.nspname, c.conname), n.nspname, c.conname, c.condeferred "
    "FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace WHERE c.condeferrable"
)
_SAVEPOINT = "dbtc_modes"


class ConstraintModes(SessionObjects):
    """Which constraints are deferred for whom; the session keeps that for the one transaction of all."""

    topics: ClassVar[Topic] = Topic.CONSTRAINTS

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._set: dict[Client, list[tuple[int, str]]] = {}
        self._applied: frozenset[str] | None = frozenset()
        self._usual = True
        """Whether every constraint has the mode in which it was declared."""
        self._ever = False
        """Whether any has ever had another: a rollback to a savepoint of that time brings it back."""

    @property
    def used(self) -> bool:  # type: ignore[override]
        return bool(self._set) or not self._usual

    def reset(self) -> None:
        """All constraints were checked, and each is as it was declared."""
        self._usual = True

    def before(self, client: Client, statement: Statement) -> Flow:
        mine = self._set.get(client, ())
        if statement.kind not in (Kind.WRITE, Kind.SCHEMA, Kind.CONSTRAINTS) or (self._usual and not mine):
            return
        rows = yield _DEFERRABLE
        deferrable = {str(name) for name, *_ in rows}
        usual = frozenset(str(name) for name, *_, deferred in rows if deferred in (True, "t"))
        deferred = usual
        for _, text in mine:
            deferred = _changed(deferred, deferrable, [(str(q), str(s), str(n)) for q, s, n, _ in rows], text)
        if self._applied == deferred and not self._usual:
            return
        commands = [
            f"SET CONSTRAINTS {', '.join(sorted(names))} {mode}"
            for names, mode in ((deferred, "DEFERRED"), (deferrable - deferred, "IMMEDIATE"))
            if names
        ]
        try:
            yield ";".join((f"SAVEPOINT {_SAVEPOINT}", *commands, f"RELEASE SAVEPOINT {_SAVEPOINT}"))
        except Exception as error:
            yield f"ROLLBACK TO SAVEPOINT {_SAVEPOINT};RELEASE SAVEPOINT {_SAVEPOINT}"
            self._applied = None
            raise SandboxConflict(
                f"{client} writes while constraints of another transaction are deferred by SET CONSTRAINTS and broken: "
                f"{' '.join(str(error).split())}",
                cause="the mode of constraints is one for the whole wire; those of the other transaction would be "
                "checked now",
                remedy="commit or roll back the other transaction first, or " + COMMITTING,
            ) from error
        self._applied, self._usual = deferred, deferred == usual

    def after(self, client: Client, statement: Statement) -> Flow:
        if Topic.CONSTRAINTS in statement.topics:
            if not client.each_statement:  # else its transaction is over
                text = statement.text
                spans = (match.span() for match in _SET.finditer(POSTGRESQL.mask(text)))
                found = [(client.depth, text[begin:end]) for begin, end in spans]
                self._set.setdefault(client, []).extend(found)
            self._applied, self._usual, self._ever = None, False, True
        return nothing()

    def ended(self, client: Client, *, committed: bool) -> Flow:
        self._set.pop(client, None)
        return nothing()

    def rolled_back_to(self, client: Client, depth: int) -> None:
        if client in self._set:
            self._set[client] = [each for each in self._set[client] if each[0] < depth]

    def released(self, client: Client, depth: int) -> None:
        if client in self._set:
            # PostgreSQL forgets with the savepoint what the modes were before it: no outer one brings them back
            self._set[client] = [(each if each < depth else 0, text) for each, text in self._set[client]]

    def undone(self) -> None:
        if self._ever:
            self._applied, self._usual = None, False

    def forget(self, scope: int) -> Flow:
        self._set.clear()
        ever, self._applied, self._usual, self._ever = self._ever, None, True, False
        if ever and self._wire.in_transaction():
            # A RELEASE forgets what the modes were before its savepoint, so the rollback has not brought them back;
            # nor will any other undo what is set in the same way.
            rows = yield _DEFERRABLE
            deferred = [str(name) for name, *_, deferred in rows if deferred in (True, "t")]
            commands = ["SET CONSTRAINTS ALL IMMEDIATE", *(f"SET CONSTRAINTS {name} DEFERRED" for name in deferred)]
            yield ";".join((f"SAVEPOINT {_SAVEPOINT}", *commands, f"RELEASE SAVEPOINT {_SAVEPOINT}"))


def _changed(
    deferred: frozenset[str], deferrable: set[str], known: list[tuple[str, str, str]], text: str
) -> frozenset[str]:
    """The constraints deferred after a ``SET CONSTRAINTS``; ``known``: quoted with its schema, schema, name."""
    masked = POSTGRESQL.mask(text)
    match = _SET.search(masked)
    assert match is not None  # it was found by the same pattern
    if match[1].lower() == "all":
        chosen = deferrable
    else:
        chosen = set()
        for named in _NAMES.finditer(masked, match.start(1), match.end(1)):
            first = name_in(text[named.start(1) : named.end(1)])
            second = name_in(text[named.start(2) : named.end(2)]) if named[2] else ""
            schema, _, name = (first, ".", second) if second else first.rpartition(".")
            chosen |= {quoted for quoted, s, n in known if n == name and schema in ("", s)}
    return deferred | chosen if match[2].lower() == "deferred" else deferred - chosen
