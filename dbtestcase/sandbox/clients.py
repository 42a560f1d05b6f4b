"""The clients of a sandbox: who they are, what runs with them, and the errors that name them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping

from ..errors import SandboxClosed, SandboxError, SandboxTimeout
from ..reporting import CallSite, site_of_statement
from .connections import POOLED, Client, Wire
from .rules import Rules
from .savepoints import OPEN, Scope, Stack
from .scheduler import Scheduler
from .schema_facts import SchemaFacts
from .session_settings import Flow, SessionSettings, SettingsStore
from .session_state import SessionState
from .tickets import Ticket

NO_SCOPE = -2
"""What no client belongs to: nothing runs in the sandbox."""


class Clients:
    """The virtual connections over one wire."""

    def __init__(self, wire: Wire, rules: Rules) -> None:
        self.wire = wire
        self.rules = rules
        self.facts = SchemaFacts(rules)
        self.stack = Stack()
        self.scheduler = Scheduler(self._unfinished_tickets, self._is_alone)
        self.raised: list[SandboxError] = []
        self.losses: list[BaseException] = []
        """Errors of the driver's that the application was given for a lost connection."""
        self.test_files: frozenset[str] = frozenset()
        """The source files of the test that runs."""
        self.application_connected = False
        """Whether the application has ever had a connection."""
        self._is_marked = False
        """Whether the first mark is set already, for whoever asks for it."""
        self.handed_out = False
        """Whether somebody was given a connection, or gave one back, since the last mark or rollback."""
        self.statements = 0
        self.session = SessionState(rules, wire, self.facts, self.stack, self.fail)
        self._guarded: Client | None = None
        """For whom the server was told to refuse writes."""
        self._settings = SettingsStore(rules.read_settings, rules.write_settings)
        self._numbers = itertools.count(1)
        self._scope_numbers = itertools.count(1)
        self._scopes: list[Scope] = []
        self._top = NO_SCOPE
        """The number of the last scope."""
        self._labels: dict[int, str] = {}
        self.clients: dict[Client, None] = {}
        """Those whose virtual connections are there, in the order in which they were made."""
        self._locking: set[Client] = set()
        self._abandoned: list[Client] = []
        self._current: Client | None = None
        self._late: Client | None = None
        """Whose statement commits by itself and has not yet: a driver does not always tell when it is over."""
        self._schema_changed = False
        self.plans_doubtful = False
        """Set by a driver that does not know any more which statements the server has prepared."""
        self._locks_taken = False
        self._deferral_set = False
        self._wrote = False

    @property
    def begun(self) -> bool:
        """Whether the outer transaction has begun."""
        return self._top != NO_SCOPE

    @property
    def label(self) -> str:
        """What runs in the sandbox now."""
        return self._scopes[-1].label if self._scopes else ""

    @property
    def settings_seen(self) -> set[str]:
        """The server's settings that somebody has asked for or set, in any test so far."""
        return self._settings.seen

    def is_open(self, client: Client) -> bool:
        """Whether what the client belongs to still runs."""
        return any(scope.number == client.scope for scope in self._scopes)

    def client(self, *, own: bool = False, settings: Mapping[str, object] | None = None) -> Client:
        """A new virtual connection's part, with the server's settings that its engine asks for."""
        client = Client(f"{'the test' if own else 'the application'}'s connection {next(self._numbers)}", own=own)
        client.scope = self._scopes[-1].number if self._scopes else 0
        settings = {n: v for n, v in (settings or {}).items() if n not in self.rules.ending_settings}
        client.settings = self._new_settings(settings)
        client.look_at_modes()
        self.clients[client] = None
        self.handed_out = True
        self.application_connected |= not own
        return client

    def _new_settings(self, startup: Mapping[str, object] | None = None) -> SessionSettings:
        return SessionSettings(lasting=not self.rules.settings_roll_back, startup=startup)

    def checkout(self, client: Client) -> None:
        """A pool hands a virtual connection to somebody: it belongs to what runs now."""
        self.handed_out = True
        client.hand_out()
        client.scope = self._scopes[-1].number if self._scopes else 0

    def checkin(self, client: Client) -> None:
        """A virtual connection is back in its pool, which may ping it before it hands it out again."""
        client.scope = POOLED
        if not client.own:
            self.handed_out = True

    @property
    def is_at_rest(self) -> bool:
        """Whether nobody can do anything without being handed a connection: nobody has one, or what lies under it."""
        return (
            not self.handed_out
            and self.wire.is_private()
            and all(client.scope == POOLED for client in list(self.clients))
        )

    def abandon(self, client: Client) -> None:
        """Roll back a virtual connection's transaction with the next use of the wire.

        Its rollback came in the middle of another statement of the same thread, which is when the collector runs the
        finalizers of pools.
        """
        if client.active:
            self.handed_out = True
            self._abandoned.append(client)

    def collected(self, client: Client) -> None:
        """A virtual connection was garbage collected: its transaction is rolled back as one that is abandoned."""
        self.clients.pop(client, None)
        self.abandon(client)

    def close(self, client: Client) -> None:
        """A virtual connection was closed: what it owned in the server's session ends with it."""
        self.session.closed(client)

    def _unfinished_tickets(self) -> list[Ticket]:
        writers = self.stack.unfinished()
        tickets = [owner.ticket for owner in writers if isinstance(owner, Client)]
        if self._locking:
            # Row locks hold nobody back on one connection: FOR UPDATE would hand the same row to two threads.
            tickets += [client.ticket for client in self._lockers() if client not in writers]
        if self.session.used:
            tickets += [client.ticket for client in self.session.blockers() if client.ticket not in tickets]
        return tickets

    def _is_alone(self, ticket: Ticket) -> bool:
        for entry in self.stack.entries:
            if entry.wrote and entry.fate is OPEN and entry.owner.ticket is not ticket:  # type: ignore[attr-defined]
                return False
        return not self._locking and not self.session.used

    def _lockers(self) -> list[Client]:
        self._locking = {client for client in self._locking if client.locks}
        return list(self._locking)

    def note(self, error: SandboxError) -> SandboxError:
        """Remember an error that is about to be raised: swallowed, it fails the test at its end."""
        self.raised.append(error)
        return error

    def _noting(self, flow: Flow) -> Flow:
        try:
            yield from flow
        except SandboxError as error:
            raise self.note(error) from None

    def fail(self, client: Client, name: str, message: str) -> Exception:
        """The error that the server would give, which aborts the client's transaction as the server would."""
        if self.rules.error_aborts and not client.each_statement:
            client.active = client.failed = True
            self.session.rolled_back_to(client, client.depth)
        return self.wire.error(name, message)

    def _aborted(self) -> Exception:
        return self.wire.error(
            "InFailedSqlTransaction", "current transaction is aborted, commands ignored until end of transaction block"
        )

    def _closed(self, client: Client) -> SandboxClosed:
        label = self._labels.get(client.scope) or "a test"
        return SandboxClosed(
            f"{client.name[0].upper()}{client.name[1:]} belongs to {label}, which has ended.",
            cause=f"{threading.current_thread().name!r} still runs, or a global kept the connection beyond its test",
            remedy="join threads and cancel tasks before the test ends; close sessions where they were opened",
        )

    def explain(self, client: Client, error: BaseException) -> None:
        """Add to an error of the server's what only a test has to know; a conflict where another connection did it."""
        self.rules.annotate(error)
        conflict = self.session.explain(client, error)
        if conflict is not None:
            raise self.note(conflict) from error

    def lock_timeout(self, error: Exception, holders: str) -> SandboxTimeout:
        """The error for a statement that waited for a lock held outside the sandbox."""
        timeout = SandboxTimeout(
            "A statement waited too long for a lock that is held outside the sandbox: "
            f"{str(error).splitlines()[0]}\n{holders}",
            cause="another process or a real connection works on the same database and has not committed",
            remedy="end its transaction, or let its engine be led into the sandbox (engines = [...])",
        )
        self.raised.append(timeout)
        return timeout

    def is_the_tests(self, where: CallSite | str) -> bool:
        """Whether a line is one of the test's own source files."""
        return isinstance(where, CallSite) and where.filename in self.test_files

    def _note_writer(self, client: Client, text: str) -> None:
        """Who writes in a transaction that the test's own file has begun: what it flushes is arranged, not lost."""
        if not client.own and not client.used_by_application and self.is_the_tests(client.where):
            client.used_by_application = not self.is_the_tests(where(text))


def where(text: str) -> CallSite | str:
    """The application's line that sends a statement; empty if there is none."""
    return site_of_statement(text, 2) or ""
