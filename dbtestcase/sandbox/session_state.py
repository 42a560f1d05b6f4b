"""All that the connections of a sandbox own in the server's session: which kinds there are on which database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..errors import SandboxConflict
from ..reporting import says
from .advisory_locks import IS_HELD, AdvisoryLocks
from .connections import Client, Wire
from .constraint_modes import ConstraintModes
from .cursors import DeclaredCursors
from .last_values import LastValues
from .listening import Listening
from .prepared_statements import PreparedStatements
from .row_locks import RowLocks
from .rules import Rules
from .savepoints import Stack
from .schema_facts import SchemaFacts
from .session_objects import SessionObjects
from .session_settings import Flow
from .snapshots import Snapshots
from .statements import Kind, Statement
from .temporary_tables import TemporaryTables
from .topics import Topic

Fail = Callable[[Client, str, str], Exception]
Factory = Callable[[Rules, Wire, SchemaFacts, Stack, Fail], list[SessionObjects]]


class SessionState:
    """The kinds of things, each asked in turn; ``used`` if anybody owns any: no statement takes the short way then."""

    def __init__(self, rules: Rules, wire: Wire, facts: SchemaFacts, stack: Stack, fail: Fail) -> None:
        self._facts = facts
        self._kinds = _registry.get(rules.name, common_objects)(rules, wire, facts, stack, fail)
        self.used = False
        self._involved: Sequence[SessionObjects] = ()
        """The kinds, once a statement has spoken of any since the last time that all was forgotten: else none."""

    def look(self) -> None:
        """See whether anything is owned."""
        self.used = any(kind.used for kind in self._kinds)
        if self.used:
            self._involved = self._kinds

    def _concerned(self, statement: Statement) -> Iterator[SessionObjects]:
        topics = self._facts.topics_of(statement)
        if topics or statement.kind not in (Kind.READ, Kind.WRITE):
            self._involved = self._kinds
        return (kind for kind in self._kinds if kind.concerns(statement, topics))

    def check(self, client: Client, statement: Statement) -> Flow:
        """Before anything is done for a statement."""
        for kind in self._concerned(statement):
            yield from kind.check(client, statement)
        self.look()

    def before(self, client: Client, statement: Statement) -> Flow:
        """The statement is the next to be sent."""
        for kind in self._concerned(statement):
            yield from kind.before(client, statement)

    def replace(self, client: Client, statement: Statement) -> str | None:
        """What to send in the statement's place."""
        for kind in self._concerned(statement):
            text = kind.replace(client, statement)
            if text is not None:
                return text
        return None

    def after(self, client: Client, statement: Statement) -> Flow:
        """The statement has run."""
        for kind in self._concerned(statement):
            yield from kind.after(client, statement)
        self.look()

    def committing(self, client: Client) -> Flow:
        """The client is about to commit."""
        for kind in self._kinds:
            yield from kind.committing(client)

    def ended(self, client: Client, *, committed: bool) -> Flow:
        """The client's transaction is over."""
        for kind in self._involved:
            yield from kind.ended(client, committed=committed)
        if self._involved:
            self.look()

    def rolled_back_to(self, client: Client, depth: int) -> None:
        """The client has gone back to its savepoint number ``depth``."""
        for kind in self._involved:
            kind.rolled_back_to(client, depth)

    def released(self, client: Client, depth: int) -> None:
        """The client has released its savepoint number ``depth``."""
        for kind in self._involved:
            kind.released(client, depth)

    def undone(self) -> None:
        """The server has rolled back to a savepoint."""
        for kind in self._involved:
            kind.undone()

    def closed(self, client: Client) -> None:
        """The connection was closed."""
        for kind in self._involved:
            kind.closed(client)

    def constraints_checked(self) -> None:
        """All constraints were checked, and each has the mode again in which it was declared."""
        for kind in self._kinds:
            if isinstance(kind, ConstraintModes):
                kind.reset()

    def blockers(self) -> list[Client]:
        """Those whose transactions hold advisory locks: what another thread asks for waits for their end."""
        return [client for kind in self._kinds if isinstance(kind, AdvisoryLocks) for client in kind.blockers()]

    def is_private(self, client: Client, statement: Statement) -> bool:
        """Whether what a statement writes is in temporary tables alone, where nobody else can see it."""
        if statement.kind is Kind.SCHEMA and Topic.TEMPORARY in statement.topics:
            return True
        return self.used and any(
            isinstance(kind, TemporaryTables) and kind.is_private(client, statement) for kind in self._kinds
        )

    def listens(self, client: Client) -> bool:
        """Whether a connection listens to a channel."""
        return any(isinstance(kind, Listening) and kind.listens(client) for kind in self._kinds)

    def has_foreign_cursor(self, client: Client, name: str) -> bool:
        """Whether a name is that of another connection's server-side cursor."""
        return any(isinstance(kind, DeclaredCursors) and kind.is_foreign(client, name) for kind in self._kinds)

    def explain(self, client: Client, error: BaseException) -> SandboxConflict | None:
        """The error in place of one that the server gives only because all share one session."""
        if not says(error, {IS_HELD}):
            return None
        return next(kind.conflict(client, error) for kind in self._kinds if isinstance(kind, AdvisoryLocks))

    def forget(self, scope: int) -> Flow:
        """What ran in a scope was rolled back."""
        if not self._involved:
            return
        for kind in self._kinds:
            yield from kind.forget(scope)
        self._involved = ()
        self.look()


def common_objects(rules: Rules, wire: Wire, facts: SchemaFacts, stack: Stack, fail: Fail) -> list[SessionObjects]:
    """What there is on every database."""
    return [RowLocks(facts, stack.unfinished), Snapshots(rules, facts, stack.unfinished), LastValues(stack)]


def _postgresql(rules: Rules, wire: Wire, facts: SchemaFacts, stack: Stack, fail: Fail) -> list[SessionObjects]:
    return [
        *common_objects(rules, wire, facts, stack, fail),
        ConstraintModes(wire),
        TemporaryTables(facts),
        PreparedStatements(fail),
        AdvisoryLocks(facts),
        Listening(),
        DeclaredCursors(fail),
    ]


_registry: dict[str, Factory] = {"postgresql": _postgresql}


def register_objects(dialect: str, factory: Factory) -> None:
    """Make the kinds of things of a dialect known."""
    _registry[dialect] = factory
