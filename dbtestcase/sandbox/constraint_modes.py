"""``SET CONSTRAINTS``: it ends with its transaction and holds for nobody else."""

from __future__ import annotations

import re
from typing import ClassVar

from ..errors import SandboxConflict
from .connections import Client
from .lexer import POSTGRESQL
from .rules import COMMITTING, Rules
from .schema_facts import Catalog
from .session_objects import SessionObjects
from .session_settings import Flow
from .statements import Kind, Statement
from .topics import Topic

__all__ = ["ConstraintModes"]

_MODES = "dbtc_modes"
_Modes = tuple[tuple[int, str], ...]


_SET = re.compile(r"\bset\s+constraints\s[^;]+", re.IGNORECASE)


class ConstraintModes(SessionObjects):
    """The modes of constraints, which the session keeps for one transaction.

    :param catalog: knows which constraints are deferred from the start.
    """

    topics: ClassVar[Topic] = Topic.CONSTRAINTS

    def __init__(self, rules: Rules, catalog: Catalog) -> None:
        self._rules = rules
        self._catalog = catalog
        self._set: dict[Client, list[tuple[int, str]]] = {}
        self._applied: _Modes | None = ()
        """The statements that made the session's modes what they are; None where a rollback may have changed them."""

    @property
    def used(self) -> bool:  # type: ignore[override]
        return bool(self._set) or self._applied != ()

    def reset(self) -> None:
        """All constraints were checked, and each is as it was declared."""
        self._applied = ()

    def before(self, client: Client, statement: Statement) -> Flow:
        modes = tuple(self._set.get(client, ()))
        if self._applied == modes or statement.kind not in (Kind.WRITE, Kind.SCHEMA, Kind.CONSTRAINTS):
            return
        yield from self._catalog.load_deferred()
        commands = [*self._rules.check_deferred(self._catalog.deferred or ""), *(text for _, text in modes)]
        try:
            yield f"SAVEPOINT {_MODES};{';'.join(commands)};RELEASE SAVEPOINT {_MODES}"
        except Exception as error:
            yield f"ROLLBACK TO SAVEPOINT {_MODES};RELEASE SAVEPOINT {_MODES}"
            raise SandboxConflict(
                f"{client} writes while constraints of another transaction are deferred by SET CONSTRAINTS and broken: "
                f"{' '.join(str(error).split())}",
                cause="the mode of constraints is one for the whole wire; those of the other transaction would be "
                "checked now",
                remedy="commit or roll back the other transaction first, or " + COMMITTING,
            ) from error
        self._applied = modes

    def after(self, client: Client, statement: Statement) -> Flow:
        if Topic.CONSTRAINTS in statement.topics and not client.each_statement:
            text = statement.text
            spans = (match.span() for match in _SET.finditer(POSTGRESQL.mask(text)))
            found = [(client.depth, text[begin:end]) for begin, end in spans]
            self._set.setdefault(client, []).extend(found)
            self._applied = tuple(self._set[client])
        return
        yield

    def ended(self, client: Client, *, committed: bool) -> Flow:
        self._set.pop(client, None)
        return
        yield

    def rolled_back_to(self, client: Client, depth: int) -> None:
        if client in self._set:
            self._set[client] = [each for each in self._set[client] if each[0] < depth]

    def released(self, client: Client, depth: int) -> None:
        if client in self._set:
            self._set[client] = [(min(each, depth - 1), text) for each, text in self._set[client]]

    def undone(self) -> None:
        if self.used:
            self._applied = None

    def forget(self, scope: int) -> Flow:
        self._set.clear()
        self._applied = ()
        return
        yield
