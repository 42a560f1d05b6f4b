"""The sandbox: many connections of an application over one wire, in one transaction that is never committed.

How it works
============

A :class:`Sandbox` owns a *wire*: one physical connection in one outer transaction.  Each connection that the
application opens is a *virtual connection*, known here as a :class:`Client`.  What a client believes to be ``BEGIN …
COMMIT`` is a savepoint; ``savepoints`` decides which.  A test ends with one ``ROLLBACK TO SAVEPOINT``,
and everything that any client did is gone, committed or not.

This module is the part between the decisions and the drivers.  Its operations are *flows*: generators that yield SQL
and receive rows.  A driver runs them, synchronously or asynchronously, so that the logic is written once::

    def execute(self, sql):
        statement = classify(sql)
        drive(sandbox.before(client, statement))     # may yield SAVEPOINT …
        real_cursor.execute(sql)
        drive(sandbox.after(client, statement, real_cursor.rowcount))

The order of things in one statement:

1. the client waits for its turn (:mod:`dbtestcase.sandbox.scheduler`);
2. a transaction that an error has aborted is rolled back to its savepoint, so that nobody else is poisoned;
3. what cannot be contained is refused, before it is sent;
4. the client's savepoint is set, if the top of the stack is not its own, and its ``SET`` parameters are applied;
5. what clients own in the session (:mod:`dbtestcase.sandbox.session_objects`) is put in order for this one;
6. the statement runs.

Limits
======

* One connection has one snapshot.  A statement sees what other clients have written and not committed; where that can
  happen a :exc:`DirtyReadWarning` says so.  Make it an error with ``-W error::dbtestcase.DirtyReadWarning``.
* No transaction runs beside another: rows that somebody else has locked, snapshots that differ, ``NOTIFY``, ``now()``
  per transaction and what the server refuses inside a transaction (``VACUUM``, ``CREATE DATABASE``) need
  ``TruncatingDatabaseTest``.
* There is one session of the server.  :mod:`dbtestcase.sandbox.session_state` keeps apart what connections own in it
  by kinds; sequences are common to all anyway (one goes on where it was unless ``reset_sequences`` is set).

Questions
=========

"… cannot be rolled back: … wrote after it began and …"
    (:exc:`SandboxConflict`)  Transaction A wrote, then B wrote and committed, then A rolled back.  On the server that
    works because A and B are two connections.  Here B's rows lie above A's in one transaction, and the server can only
    undo both.  Usually a session was left open: close A before B begins, or test this in ``TruncatingDatabaseTest``.

"The statement 'COMMIT' would end or begin the transaction that the test runs in; it was not sent."
    (:exc:`SandboxEscape`)  Use the methods of the connection or session, which the sandbox can follow.

"… is in the middle of a COPY, a stream or a pipeline."
    (:exc:`SandboxBusy`)  The wire carries one answer at a time.  Finish the generator or the ``with`` block first.

"… lost the connection of the sandbox"
    (:exc:`LeakError`)  The server was stopped or ended it, a timeout out of a signal's handler broke it, or a thread
    was in the middle of something when the test ended and could not be interrupted.  Nothing was kept; the next test
    gets a new connection, and its class is set up again.

"The cursor … cannot be declared: … has an open one of that name."
    (:exc:`SandboxConflict`)  Names of server-side cursors belong to the server's session, which all connections share.

"Deadlock: … waits for the unfinished transaction of …"
    (:exc:`SandboxConflict`)  Two threads or tasks have both written and wait for each other.

"… belongs to …, which has ended."
    (:exc:`SandboxClosed`)  A thread, a task or a global kept a connection beyond its test.  What it did now would show
    up in another test, so it is refused.  A session that the test's own thread has left open, or a pool's thread that
    waits for work, is no such case: it is rolled back with the test, and as new in the next one.

"… was left with unfinished writes"
    (:exc:`LeakError`)  A commit was forgotten: in production these rows would be lost.

"… was raised and swallowed"
    (:exc:`LeakError`)  An ``except Exception`` of the application hid one of the errors above.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from ..errors import ConfigurationError, DBTestCaseError, SandboxClosed, SandboxConflict, SandboxError, SandboxTimeout
from ..reporting import Origin, find_origin
from .connections import POOLED, Client, Scope, Wire
from .cursors import close_cursors, find_cursors, free_cursor_name, open_cursor
from .dirty_reads import warn_of_dirty_reads, warn_of_locks
from .problems import find_problems
from .rules import COMMITTING, Rules
from .savepoints import Conflict, Fate, Owner, Stack, Step, Verb
from .scheduler import Turn, Turns
from .schema_facts import Catalog
from .session_settings import Flow, Parameters, ParameterStore
from .session_state import SessionState
from .setting_reports import UnknownSetting
from .statements import Kind, Statement
from .topics import Topic

__all__ = ["Sandbox"]

_NO_SCOPE = -2
"""What no client belongs to: nothing runs in the sandbox."""

_WITNESS = "dbtc_outer"
"""A savepoint right after the outer transaction's begin: gone, if somebody has ended it and begun another."""

_BACK = f"ROLLBACK TO SAVEPOINT {_WITNESS}"

_CHECK = "dbtc_check"
"""The savepoint around a check of the deferred constraints."""


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _holding_the_wire(method: _Method) -> _Method:
    """Decorate a method of the harness: it runs between the statements of everybody else."""

    @functools.wraps(method)
    def held(self: Sandbox, *args: Any, **kwargs: Any) -> Any:
        with self.held():
            return method(self, *args, **kwargs)

    return cast(_Method, held)


class Sandbox:
    """One outer transaction and the clients in it.

    :param wire: the physical connection, on which no transaction is open.
    :param rules: the dialect's rules.
    """

    def __init__(self, wire: Wire, rules: Rules) -> None:
        self.wire = wire
        self.rules = rules
        self.catalog = Catalog(rules)
        self.stack = Stack()
        self.turns = Turns(self._unfinished_turns, self._is_alone)
        self.raised: list[SandboxError] = []
        self.test_files: frozenset[str] = frozenset()
        """The source files of the test that runs."""
        self.application_connected = False
        """Whether the application has ever had a connection."""
        self.handed_out = False
        """Whether somebody was given a connection, or gave one back, since the last mark or rollback."""
        self.statements = 0
        self.session = SessionState(rules, wire, self.catalog, self.stack, self._fail)
        self._guarded: Client | None = None
        """For whom the server was told to refuse writes."""
        self._parameters = ParameterStore(rules.read_settings, rules.write_settings)
        self._numbers = itertools.count(1)
        self._scope_numbers = itertools.count(1)
        self._scopes: list[Scope] = []
        self._top = _NO_SCOPE
        """The number of the last scope."""
        self._labels: dict[int, str] = {}
        self.clients: weakref.WeakSet[Client] = weakref.WeakSet()
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

    # -- the outer transaction and its marks

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Keep the wire for the harness; whatever statement of another thread runs is over then."""
        return self.turns.seized(self.wire.interrupt, self.wire.cut)

    @_holding_the_wire
    def begin(self, label: str) -> None:
        """Begin the outer transaction."""
        self.wire.reset()
        self.wire.run(self.rules.begin, f"SAVEPOINT {_WITNESS}")
        self._enter(label, "")

    @_holding_the_wire
    def mark(self, label: str) -> None:
        """Set a mark in the outer transaction, to which :meth:`rollback_to_mark` comes back."""
        name = f"dbtc_mark_{len(self._scopes)}"
        self._scopes[-1].wrote |= self._wrote
        self._wrote = False
        self._settle()
        self.wire.run(f"SAVEPOINT {name}")
        self._enter(label, name)

    @_holding_the_wire
    def rollback_to_mark(self, label: str) -> None:
        """Undo everything since the last mark, which stays set; ``label`` names what comes next.  One round trip."""
        scope = self._scopes[-1]
        if scope.name:
            self._leave([f"ROLLBACK TO SAVEPOINT {scope.name}"])
        else:
            self._leave([_BACK, self.rules.end, self.rules.begin, f"SAVEPOINT {_WITNESS}"])
        self._scopes.pop()
        self._enter(label, scope.name)
        self.wire.test_ended(self.restart)

    @_holding_the_wire
    def drop_mark(self) -> None:
        """Undo everything since the last mark and forget the mark."""
        scope = self._scopes[-1]
        self._leave([f"ROLLBACK TO SAVEPOINT {scope.name}", f"RELEASE SAVEPOINT {scope.name}"])
        self._scopes.pop()
        self._top = self._scopes[-1].number
        self._wrote = False

    @_holding_the_wire
    def renew(self, label: str) -> bool:
        """Begin a new outer transaction below the last mark, if nothing was written before the mark.

        Dead rows are removed by the server only when the transaction that made them has ended.

        :returns: whether it could be done.
        """
        if len(self._scopes) != 2 or self._scopes[0].wrote:
            return False
        name = self._scopes[-1].name
        savepoints = [f"SAVEPOINT {_WITNESS}", f"SAVEPOINT {name}"]
        self._leave([_BACK, self.rules.end, self.rules.begin, *savepoints])
        self._scopes.pop()
        self._enter(label, name)
        return True

    @_holding_the_wire
    def end(self) -> None:
        """Roll back the outer transaction; no client can be used any more.

        :raises Exception: the driver's; the transaction was not the one that was begun here.
        """
        try:
            if self.wire.in_transaction():
                self._leave([_BACK, self.rules.end])
        finally:
            self.shut()

    def shut(self) -> None:
        """Forget the outer transaction, of which nothing is left to be rolled back; no client can be used any more."""
        self._scopes.clear()
        self._top = _NO_SCOPE
        self._forget()

    @property
    def begun(self) -> bool:
        """Whether the outer transaction has begun."""
        return self._top != _NO_SCOPE

    @property
    def wrote(self) -> bool:
        """Whether anything was written since the last mark."""
        return self._wrote

    @_holding_the_wire
    def restart(self, *statements: str) -> bool:
        """Run statements that must not run in a transaction, if nothing was written in the outer one.

        :returns: whether it could be done.
        """
        if self._wrote or any(scope.wrote for scope in self._scopes):
            return False
        marks = [f"SAVEPOINT {scope.name}" for scope in self._scopes if scope.name]
        begin = [self.rules.begin, f"SAVEPOINT {_WITNESS}", *marks] if self._scopes else []
        self.wire.run(*([self.rules.end] if begin else []), *statements, *begin)
        self.stack.clear()
        return True

    def relabel(self, label: str) -> None:
        """Say what runs above the last mark from now on."""
        scope = self._scopes[-1]
        scope.label = self._labels[scope.number] = label

    def defer_constraints(self) -> None:
        """Somebody asked for constraints to be checked at the commit only."""
        self._deferral_set = True

    def pin(self) -> None:
        """Something was written below the marks that must last: :meth:`renew` would lose it."""
        self._scopes[0].wrote = True
        self._wrote = False

    @property
    def label(self) -> str:
        """What runs in the sandbox now."""
        return self._scopes[-1].label if self._scopes else ""

    def _enter(self, label: str, name: str) -> None:
        number = next(self._scope_numbers)
        self._labels[number] = label
        self._scopes.append(Scope(number, label, name))
        self._top = number
        self._wrote = self.handed_out = False

    def _leave(self, statements: list[str]) -> None:
        if not self.rules.settings_roll_back:
            statements += self._parameters.undo()
        if self._locks_taken and self.rules.undo_session:
            statements.append(self.rules.undo_session)
            self._locks_taken = False
        self.wire.run(*statements)
        self._guarded = None
        if self._schema_changed or self.plans_doubtful:
            self._run(self._forget_plans())
        self._run(self.session.forget(self._scopes[-1].number if self._scopes else 0))
        self._forget()

    def _forget(self) -> None:
        self.stack.clear()
        self._abandoned.clear()
        self._parameters.clear()
        if self._schema_changed:
            self._schema_changed = False
            self.catalog.forget()
        self._deferral_set = False
        self._current = self._late = self._guarded = None
        self.raised.clear()
        self.turns.reset()
        for client in self._everyone():
            client.end()
            client.block = 0
            if client.changed:
                client.retired = True
            if client.parameters.touched:
                client.parameters = self._new_parameters(client.parameters.startup)

    def _settle(self) -> None:
        """Before a mark: nothing of the stack is to be rolled back any more."""
        if self.wire.aborted() and self._current is not None:
            self.wire.run(*self.rules.render(self.stack.fail(self._current)))
            self._guarded = None
        self._run(self._unguard())
        self.stack.clear()
        if self._deferral_pending():
            self.wire.run(*self.rules.check_deferred(self.catalog.deferred or ""))
            self.session.constraints_checked()
        for client in self._everyone():
            if client.active:
                self._run(self.session.ended(client, committed=True))
            client.end()

    # -- clients

    def client(
        self, *, own: bool = False, what: str = "connection", settings: Mapping[str, object] | None = None
    ) -> Client:
        """A new virtual connection's part.

        :param settings: the server's settings that its engine asks for.
        """
        client = Client(f"{'the test' if own else 'the application'}'s {what} {next(self._numbers)}", own=own)
        client.scope = self._scopes[-1].number if self._scopes else 0
        settings = {n: v for n, v in (settings or {}).items() if n not in self.rules.ending_settings}
        client.parameters = self._new_parameters(settings)
        client.look_at_modes()
        self.clients.add(client)
        self.handed_out = True
        self.application_connected |= not own
        return client

    def _everyone(self) -> list[Client]:
        while True:
            with contextlib.suppress(RuntimeError):  # another thread has connected meanwhile
                return list(self.clients)

    def _new_parameters(self, startup: Mapping[str, object] | None = None) -> Parameters:
        return Parameters(lasting=not self.rules.settings_roll_back, startup=startup)

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
            and all(client.scope == POOLED for client in self._everyone())
        )

    def abandon(self, client: Client) -> None:
        """Roll back a virtual connection's transaction with the next use of the wire.

        It was garbage collected, or its rollback came in the middle of another statement of the same thread, which is
        when the collector runs the finalizers of pools.
        """
        self.handed_out = True
        if client.active:
            self._abandoned.append(client)

    def close(self, client: Client) -> None:
        """A virtual connection was closed: what it owned in the server's session ends with it."""
        self.session.closed(client)

    @property
    def settings_seen(self) -> set[str]:
        """The server's settings that somebody has asked for or set, in any test so far."""
        return self._parameters.seen

    def is_open(self, client: Client) -> bool:
        """Whether what the client belongs to still runs."""
        return any(scope.number == client.scope for scope in self._scopes)

    def _unfinished_turns(self) -> list[Turn]:
        writers = self.stack.unfinished()
        turns = [owner.turn for owner in writers if isinstance(owner, Client)]
        if self._locking:
            # Row locks hold nobody back on one connection: FOR UPDATE would hand the same row to two threads.
            turns += [client.turn for client in self._lockers() if client not in writers]
        if self.session.used:
            turns += [client.turn for client in self.session.keeping_out() if client.turn not in turns]
        return turns

    def _is_alone(self, turn: Turn) -> bool:
        for entry in self.stack.entries:
            if entry.wrote and entry.fate is Fate.OPEN and entry.owner.turn is not turn:  # type: ignore[attr-defined]
                return False
        return not self._locking and not self.session.used

    def _lockers(self) -> list[Client]:
        self._locking = {client for client in self._locking if client.locks}
        return list(self._locking)

    # -- what clients do: flows

    def before(self, client: Client, statement: Statement) -> Flow:
        """The client is about to run a statement, and has its turn.

        :raises SandboxError: it is refused; nothing was sent.
        """
        if not self.is_open(client):
            if client.scope != POOLED or not self._scopes:
                raise self.note(self._closed(client))
            self.checkout(client)
        refusal = self.rules.refuse(statement)
        if refusal is not None:
            raise self.note(refusal)
        if self._late is not None or self._abandoned or self.wire.aborted():
            yield from self._recover(client)
        if client.failed:
            raise self._aborted()
        kind = statement.kind
        if statement.cursor and client.each_statement and not statement.holdable:
            raise self.wire.error("NoActiveSqlTransaction", "DECLARE CURSOR can only be used in transaction blocks")
        if kind is Kind.CHARACTERISTICS:
            yield from self._characterize(client, statement)
        if statement.writes and client.refuses_writes and not self.rules.read_only:
            raise self._fail(client, "ReadOnlySqlTransaction", "cannot execute a write in a read-only transaction")
        writes = statement.writes
        if writes and self.rules.one_writer:
            self._refuse_second_writer(client)
        if statement.cursor:
            yield from self._noting(free_cursor_name(client, statement.cursor, self._everyone()))
        if kind is Kind.READ or statement.calls:
            yield from self.catalog.load_functions()
            writes |= kind is Kind.READ and self.catalog.may_write(statement)
        yield from self._noting(self.session.check(client, statement))
        if self.stack.has_others(client):
            yield from warn_of_dirty_reads(client, statement, self.stack.unfinished(), self.catalog)
        if self._locking and (writes or kind is Kind.LOCK):
            warn_of_locks(client, self._lockers())
        if kind is Kind.LOCK and not client.own and not client.each_statement:
            client.locks = True
            self._locking.add(client)
        if not client.active:
            client.where = _where()
            client.parameters.begin()
        if writes and self.test_files:
            self._note_writer(client)
        steps = self._steps(self.stack.statement, client, writes=writes)
        read_only = bool(self.rules.read_only) and self.rules.is_read_only(client)
        if self._guarded is not None and (steps or self._guarded is not client or not read_only):
            yield from self._unguard()
        if steps:
            for sql in self.rules.render(steps):
                yield sql
        self._current = client
        if not client.has_run and statement.takes_snapshot:
            client.has_run = True
        if client.each_statement and not client.piped:
            self._late = client
        if writes:
            self._wrote = True
            if not (kind is Kind.SCHEMA and Topic.TEMPORARY in statement.topics):  # which nobody else can see
                client.writes[statement.text] = statement
        if not self._parameters.fits(client.parameters):
            yield from self._give_settings(client)
        if statement.settings and self.rules.has_parameters:
            yield from self._parameters.before(self._kept_settings(statement))
        if kind is not Kind.READ or statement.calls:
            if kind is Kind.SCHEMA:
                self._schema_changed = True
                self.catalog.forget()
            elif kind is Kind.CONSTRAINTS:
                self._deferral_set = True
            self._locks_taken |= self.rules.takes_locks(statement)
        if self.session.used or statement.topics:
            yield from self._unguard()
            yield from self._noting(self.session.before(client, statement))
        if read_only and self._guarded is None:
            yield self.rules.read_only
            self._guarded = client

    def _unguard(self) -> Flow:
        """What comes next may write; the savepoint of a transaction that is read-only lies on top."""
        guarded, self._guarded = self._guarded, None
        if guarded is not None and not self.wire.aborted():
            yield self.rules.end_read_only

    def _characterize(self, client: Client, statement: Statement) -> Flow:
        """``SET TRANSACTION``: followed here, since the one transaction of all cannot be changed any more."""
        yield from self._unguard()
        name = self.rules.refuse_characteristics(client, statement.text)
        if name:
            raise self._fail(client, "ActiveSqlTransaction", name)
        client.characterize(statement.text)

    def replacement(self, client: Client, statement: Statement) -> str | None:
        """What is to be sent in a statement's place; to be asked before :meth:`before`."""
        if statement.plain:
            return None
        text = self.session.replace(client, statement)
        if text is None and statement.topics:
            try:
                text = self.rules.report(client, statement, self._parameters.unknown_to(client.parameters))
            except UnknownSetting as unknown:
                message = f'unrecognized configuration parameter "{unknown}"'
                raise self._fail(client, "UndefinedObject", message) from None
        return text if text is not None else self.rules.replace(statement)

    def _give_settings(self, client: Client) -> Flow:
        """Give the wire the settings of the client.

        :raises ConfigurationError: the server refuses one that the client's engine asked for.
        """
        try:
            yield from self._parameters.apply(client.parameters)
        except Exception as error:
            asked = client.parameters.startup
            if not asked or client.parameters.changed or self.wire.gone:
                raise
            raise ConfigurationError(
                f"The server refuses what the engine of {client.name} asks for its connections "
                f"({', '.join(f'{name} = {value}' for name, value in asked.items())}): {error}",
                cause="a setting in connect_args or in the query of the engine's URL that the test's server does not "
                "know, or that cannot be changed once a connection is made",
                remedy="correct it, or leave it out of the engine that the tests use, or " + COMMITTING,
            ) from error

    def _kept_settings(self, statement: Statement) -> list[str]:
        """The settings that the application changes, without those that would end the one session of all."""
        return [name for name in statement.settings if name not in self.rules.ending_settings]

    def at_once(self, client: Client, statement: Statement) -> str | None:
        """The common case of :meth:`before`, in little time: a plain statement, nobody else busy.

        :returns: what is to be sent before the statement, perhaps nothing; None if this is not that case.
        """
        if (
            not statement.plain
            or client.failed
            or client.autocommit
            or client.moded
            or self._late is not None
            or self.rules.refuses_plain
            or self._abandoned
            or self._locking
            or not self._parameters.fits(client.parameters)
            or self._guarded is not None
            or self.session.used
            or client.scope != self._top
            or not self.stack.is_clear(client)
            or self.wire.aborted()
        ):
            return None
        writes = statement.kind is Kind.WRITE
        if writes:
            self._wrote = True
            client.writes[statement.text] = statement
        elif self.catalog.functions is None or self.catalog.may_write(statement):
            return None
        if writes or statement.calls:
            self._locks_taken |= self.rules.takes_locks(statement)
        if not client.active:
            client.where = _where()
            client.parameters.begin()
        if writes and self.test_files:
            self._note_writer(client)
        self._current = client
        if statement.text:
            client.has_run = True
        steps = self.stack.statement(client, writes=writes)
        return self.rules.render(steps)[0] if steps else ""

    def is_over(self, client: Client, statement: Statement, rowcount: int) -> bool:
        """Whether :meth:`after` would do nothing."""
        return (
            statement.plain
            and not (client.autocommit and not client.block)
            and not (rowcount == 0 and statement.counts)
            and not self.session.used
            and not (statement.calls and (self.catalog.opens_cursors(statement) or self.catalog.topics_of(statement)))
        )

    def after(self, client: Client, statement: Statement, rowcount: int) -> Flow:
        """The statement has run."""
        if rowcount == 0 and statement.counts and self.stack.entries:
            yield from self._unwrite(client, statement)
        if statement.settings and self.rules.has_parameters:
            settings = self._kept_settings(statement)
            if len(settings) < len(statement.settings) or "*" in settings:
                yield self.rules.no_end
            yield from self._parameters.after(
                client.parameters, settings, local=statement.local, reset=statement.resets
            )
            client.look_at_modes()
        if statement.cursor and self.stack.entries:
            self.opened_cursor(client, statement.cursor)
        elif statement.calls and self.catalog.opens_cursors(statement):
            self.stack.hold(client)
            yield from find_cursors(client, self._everyone())
        yield from self._noting(self.session.after(client, statement))
        if client.each_statement and not client.piped:
            yield from self.commit(client)

    def failed(self, client: Client, *, partly: bool) -> Flow:
        """A statement failed on a server that undoes the statement and lets its transaction go on.

        :param partly: some of its rows may have been written all the same.
        """
        if self.stack.entries and not partly:
            self.stack.unwrite(client)
        if client.each_statement:
            yield from self.commit(client)

    def savepoint(self, client: Client, statement: Statement) -> Flow:
        """``SAVEPOINT``, ``RELEASE`` and ``ROLLBACK TO`` of the application: mostly bookkeeping, no round trip."""
        if not self.is_open(client):
            raise self.note(self._closed(client))
        yield from self._recover(client)
        label, kind = statement.label, statement.kind
        if client.each_statement:
            raise self.wire.error("NoActiveSqlTransaction", f"{kind.value} can only be used in transaction blocks")
        if client.failed and kind is not Kind.ROLLBACK_TO:
            raise self._aborted()
        if kind is Kind.SAVEPOINT:
            if not client.active:
                client.where = _where()
                client.parameters.begin()
            if self.rules.savepoints_replace and label in client.labels:
                self.stack.forget(client, label)
            self.stack.savepoint(client, label)
            client.parameters.savepoint()
            return
        if label not in client.labels:
            name, message = self.rules.no_savepoint
            raise self._fail(client, name, message.format(label))
        depth = len(client.labels) - client.labels[::-1].index(label)
        if kind is Kind.RELEASE:
            self.stack.release(client, label)
            client.parameters.release(depth)
            self.session.released(client, depth)
            for name in client.cursors_above(depth):
                client.cursors[name] = depth - 1
            return
        cursors = client.cursors_above(depth)
        for name in cursors:
            del client.cursors[name]
        try:
            yield from self._send(self._steps(self.stack.rollback_to, client, label))
        finally:
            client.parameters.rollback(depth)
            self.session.rolled_back_to(client, depth)
            self._parameters.invalidate()  # a SET without a write leaves nothing to be rolled back by the server
            self.turns.changed()
        if cursors:
            yield from close_cursors(cursors, holdable=True)

    def commit_at_once(self, client: Client) -> bool:
        """Commit where nothing need be sent for it: the common case of :meth:`commit`, in little time.

        :returns: whether it is done.
        """
        if (
            not client.active
            or client.failed
            or client.cursors
            or self._late is not None
            or self._abandoned
            or client.parameters.local
            or self.session.used
            or self._guarded is not None
            or client.scope != self._top
            or (self.rules.deferred_names and (self.catalog.deferred != "" or self._deferral_set))
            or self.stack.waiting()
            or self.wire.aborted()
        ):
            return False
        self.stack.commit(client)
        client.end()
        client.parameters.commit()
        self.turns.changed()
        return True

    def commit(self, client: Client) -> Flow:
        """The client commits: kept until the test ends.

        :raises SandboxConflict: rows of a rollback that waited below would be kept with it.
        """
        if not self.is_open(client):
            if client.active:
                raise self.note(self._closed(client))
            return
        yield from self._recover(client)
        if client.active and not client.failed:
            if self.session.used:
                yield from self._check_commit(client)
            if self._wrote:
                yield from self._check_deferred(client)
        had_local = bool(client.parameters.local)
        cursors = list(client.cursors)
        failed = client.failed
        if client.active:
            yield from self.session.ended(client, committed=not failed)
        try:
            yield from self._send(self._steps(self.stack.commit, client))
        finally:
            client.end()
            if failed:
                client.parameters.rollback()
            client.parameters.commit()
            if had_local:
                self._parameters.invalidate()
            self.turns.changed()
        if cursors:
            yield from close_cursors(cursors)

    def has_nothing(self, client: Client) -> bool:
        """Whether a rollback of the client would do nothing: no transaction, and nobody's end is to be made up for."""
        return not (
            client.active
            or client.failed
            or client.cursors
            or client.where
            or client.moded
            or client.locks
            or client.warned
            or client.parameters.saved
            or client.parameters.local
            or self._late is not None
            or self._abandoned
            or client.scope != self._top
            or self.stack.waiting()
            or self.wire.aborted()
        )

    def rollback(self, client: Client) -> Flow:
        """The client rolls back: its own work undone, nobody else's.

        :raises SandboxConflict: another transaction's committed rows lie above.
        """
        if not self.is_open(client):
            client.end()
            return
        yield from self._recover(client)
        cursors = list(client.cursors)
        if client.active:
            yield from self.session.ended(client, committed=False)
        try:
            yield from self._send(self._steps(self.stack.rollback, client))
        finally:
            self._rolled_back(client)
        if cursors:
            yield from close_cursors(cursors, holdable=True)

    def _check_commit(self, client: Client) -> Flow:
        try:
            yield from self._noting(self.session.committing(client))
        except SandboxConflict:
            raised = len(self.raised)
            with contextlib.suppress(SandboxConflict):  # what is said already is nearer to the cause
                yield from self.rollback(client)
            del self.raised[raised:]
            raise

    def _rolled_back(self, client: Client) -> None:
        client.end()
        client.parameters.rollback()
        client.parameters.commit()
        self._parameters.invalidate()
        self.turns.changed()

    def status(self, client: Client) -> str:
        """``idle``, ``active`` or ``failed``: what the client believes of its transaction."""
        if client.each_statement:
            return "idle"
        if client.failed or (self._current is client and client.active and self.wire.aborted()):
            return "failed"
        return "active" if client.active else "idle"

    def opened_cursor(self, client: Client, name: str) -> None:
        """The statement that runs has opened a server-side cursor, or a portal, which ends with its transaction."""
        self.stack.hold(client)
        client.cursors[name] = client.depth

    def recover_for(self, client: Client, cursor: str = "") -> Flow:
        """Before something that sees no new rows, such as ``FETCH``: undo another client's failure.

        :param cursor: the server-side cursor that is asked; it may have ended with its transaction.
        """
        if not self.is_open(client):
            if client.scope != POOLED or not self._scopes:
                raise self.note(self._closed(client))
            self.checkout(client)
        if self._current is not client:
            yield from self._recover(client)
        if self._guarded is not client:
            yield from self._unguard()
        if client.failed:
            raise self._aborted()
        if cursor and not client.active and not (yield open_cursor(cursor)):
            # said here: an error of the server would abort the transaction of somebody else
            raise self.wire.error("InvalidCursorName", f'cursor "{cursor}" does not exist')
        if client.active:
            # should it fail, that must not be somebody else's loss
            yield from self._send(self.stack.statement(client, writes=False, looks=False))
            self._current = client

    def _recover(self, client: Client) -> Flow:
        """Roll back what an error has aborted, to the savepoint of whoever caused it."""
        late, self._late = self._late, None
        if self.wire.aborted() and self._current is not None:
            culprit = self._current
            self.session.rolled_back_to(culprit, culprit.depth)  # whose locks and the like end with the error
            yield from self._send(self.stack.fail(culprit))
            if culprit.each_statement:
                yield from self.session.ended(culprit, committed=False)
                yield from self._send(self.stack.rollback(culprit))
                self._rolled_back(culprit)
        elif late is not None and late.active:
            yield from self.commit(late)
        while self._abandoned:
            client = self._abandoned.pop()
            yield from self.session.ended(client, committed=False)
            yield from self._send(self._steps(self.stack.rollback, client))

    def _send(self, steps: list[Step]) -> Flow:
        if steps:
            yield from self._unguard()
            if self.rules.settings_roll_back:
                self._parameters.invalidate()
            for sql in self.rules.render(steps):
                yield sql
            if any(verb is Verb.ROLLBACK for verb, _ in steps):
                self.session.undone()
                if self._schema_changed:
                    self.catalog.forget()
                    yield from self._forget_plans()

    def _forget_plans(self) -> Flow:
        """The schema may have been rolled back: no plan made for it is to be used again."""
        self.plans_doubtful = False
        self.wire.forget_plans()
        if self.rules.plans:
            for (name,) in (yield self.rules.plans):
                yield f'DEALLOCATE "{name}"'

    def _check_deferred(self, client: Client) -> Flow:
        if not self.rules.deferred_names or not client.checks_deferred or client not in self.stack.unfinished():
            return
        yield from self.catalog.load_deferred()
        if not (self.catalog.deferred or self._deferral_set):
            return
        others = [c for c in (*self.stack.unfinished(), *self.stack.waiting()) if c is not client]
        guarded = self.rules.error_aborts
        try:
            for sql in self.rules.check_deferred(self.catalog.deferred or ""):
                # the top of the stack may be somebody else's, who has nothing to do with a failure
                rows = yield f"SAVEPOINT {_CHECK};{sql};RELEASE SAVEPOINT {_CHECK}" if guarded else sql
                if violation := self.rules.violation(rows):
                    raise self.wire.error("IntegrityError", violation)
        except Exception as error:
            if guarded:  # elsewhere a commit that fails leaves the transaction open
                yield f"ROLLBACK TO SAVEPOINT {_CHECK};RELEASE SAVEPOINT {_CHECK}"
                raised = len(self.raised)
                try:
                    yield from self.rollback(client)
                except SandboxConflict:
                    if not others:
                        raise
                    del self.raised[raised:]  # what is said below is nearer to the cause
            if others:
                raise self.note(
                    SandboxConflict(
                        f"The commit of {client} fails a deferred constraint, but {_and(others)} has unfinished "
                        f"writes too: {error}",
                        cause="deferred constraints are checked for the whole wire; whose rows fail cannot be told",
                        remedy="commit or close the other transaction first, or " + COMMITTING,
                    )
                ) from error
            raise
        self.session.constraints_checked()
        self.stack.seal()

    def _deferral_pending(self) -> bool:
        if not self.rules.deferred_names:
            return False
        self._run(self.catalog.load_deferred())
        return bool(self.catalog.deferred or self._deferral_set)

    def _run(self, flow: Flow) -> None:
        """Run a flow on the wire, where nobody has a turn."""
        try:
            command = next(flow)
            while True:
                command = flow.send(self.wire.run(command))
        except StopIteration:
            return

    def _unwrite(self, client: Client, statement: Statement) -> Flow:
        """No row was written: the entry need not stand in anyone's way, unless a trigger or rule may have written."""
        entry = self.stack.entries[-1]
        if entry.owner is not client or not entry.first_write:
            return
        yield from self.catalog.load_triggers()
        if not self.catalog.may_write_without_rows(statement):
            self.stack.unwrite(client)

    def _note_writer(self, client: Client) -> None:
        """Who writes in a transaction that the test's own file has begun: what it flushes is arranged, not lost."""
        if not client.own and not client.used_by_application and self.is_the_tests(client.where):
            client.used_by_application = not self.is_the_tests(_where())

    def is_the_tests(self, where: Origin | str) -> bool:
        """Whether a line is one of the test's own source files."""
        return isinstance(where, Origin) and where.filename in self.test_files

    def _refuse_second_writer(self, client: Client) -> None:
        for other in self.stack.unfinished():
            if other is not client and isinstance(other, Client) and not (other.own or client.own):
                error = self.wire.error("OperationalError", "database is locked")
                error.add_note(f"dbtestcase: {client.name} writes while {other} has unfinished writes")
                raise error

    def _fail(self, client: Client, name: str, message: str) -> Exception:
        """The error that the server would give, which aborts the client's transaction as the server would."""
        if self.rules.error_aborts and not client.each_statement:
            client.active = client.failed = True
            self.session.rolled_back_to(client, client.depth)
        return self.wire.error(name, message)

    def _aborted(self) -> Exception:
        return self.wire.error(
            "InFailedSqlTransaction", "current transaction is aborted, commands ignored until end of transaction block"
        )

    # -- errors

    def explain(self, client: Client, error: BaseException) -> None:
        """Add to an error of the server's what only a test has to know.

        :raises SandboxConflict: it is about what another connection has, and all share one session.
        """
        self.rules.annotate(error)
        conflict = self.session.explain(client, error)
        if conflict is not None:
            raise self.note(conflict) from error

    def note(self, error: SandboxError) -> SandboxError:
        """Remember an error that is about to be raised: swallowed, it fails the test at its end."""
        self.raised.append(error)
        return error

    def _noting(self, flow: Flow) -> Flow:
        try:
            yield from flow
        except SandboxError as error:
            raise self.note(error) from None

    def _steps(self, decide: Callable[..., list[Step]], *args: object, **kwargs: object) -> list[Step]:
        try:
            return decide(*args, **kwargs)
        except Conflict as conflict:
            kept = _and(conflict.kept)
            raise self.note(
                SandboxConflict(
                    f"The transaction of {conflict.rolled_back} cannot be rolled back: {kept} wrote after it and "
                    "these rows stay.",
                    cause="two transactions overlap, and the first to write was rolled back; on the one connection of "
                    "the sandbox the server can only undo both",
                    remedy="end transactions in the reverse order of their first writes (is a session left open?), or "
                    + COMMITTING,
                )
            ) from None

    def _closed(self, client: Client) -> SandboxClosed:
        label = self._labels.get(client.scope) or "a test"
        return SandboxClosed(
            f"{client.name[0].upper()}{client.name[1:]} belongs to {label}, which has ended.",
            cause=f"{threading.current_thread().name!r} still runs, or a global kept the connection beyond its test",
            remedy="join threads and cancel tasks before the test ends; close sessions where they were opened",
        )

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

    # -- the end of a test

    def problems(self, test_files: frozenset[str] = frozenset()) -> list[DBTestCaseError]:
        """What is wrong at the end of a test, before it is rolled back.

        :param test_files: source files of the test: an error of the sandbox that they catch was expected.
        """
        return find_problems(
            self.label,
            self.wire,
            [c for c in self.stack.unfinished() if isinstance(c, Client) and self._is_left(c)],
            self.raised,
            test_files,
            wrote=self._wrote,
        )

    def _is_left(self, client: Client) -> bool:
        """Whether its unfinished writes are ones that the application has left."""
        if client.own or client is self._late:
            return False
        return client.used_by_application or not self.is_the_tests(client.where)

    @_holding_the_wire
    def deferred_failure(self) -> Exception | None:
        """Check the deferred constraints for what was never committed."""
        checked = any(isinstance(c, Client) and c.checks_deferred for c in self.stack.unfinished())
        if not checked or self.wire.aborted() or not self._deferral_pending():
            return None
        try:
            rows = self.wire.run(*self.rules.check_deferred(self.catalog.deferred or ""))
        except Exception as error:
            return error
        violation = self.rules.violation(rows)
        return self.wire.error("IntegrityError", violation) if violation else None


def _where() -> Origin | str:
    """The application's line that is running; empty if there is none.  To write it out takes longer than to find it."""
    return find_origin(2) or ""


def _and(owners: Iterable[Owner]) -> str:
    return " and ".join(dict.fromkeys(str(owner) for owner in owners)) or "another transaction"
