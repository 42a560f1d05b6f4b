"""What a client's transaction does on the wire: savepoints, commits, rollbacks, and what an error has left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from ..errors import SandboxConflict
from .clients import Clients, where
from .connections import POOLED, Client
from .cursors import close_cursors, open_cursor
from .rules import COMMITTING
from .savepoints import Conflict, Owner, Step, Verb
from .session_settings import Flow
from .statements import Kind, Statement

_CHECK = "dbtc_check"
"""The savepoint around a check of the deferred constraints."""


class TransactionFlows(Clients):
    """Flows (generators that yield SQL and receive rows) of transactions; a driver runs them, blocking or awaiting."""

    def _may_end_at_once(self, client: Client, aborted: bool) -> bool:
        """Whether nothing else has to end with the client's transaction, and nobody's trouble has to be seen to."""
        return (
            client.active
            and not client.failed
            and not client.cursors
            and self._late is None
            and not self._abandoned
            and not self.session.used
            and self._guarded is None
            and client.scope == self._top
            and not (self.stack.doomed and self.stack.waiting())
            and not aborted
        )

    def commit_at_once(self, client: Client, *, aborted: bool) -> bool:
        """Commit where nothing need be sent, the common case of :meth:`commit`, in little time; whether it is done.

        :param aborted: whether the wire is; who ends a transaction at once has just looked at it.
        """
        if (
            client.settings.local
            or (self.rules.deferred_names and (self.facts.deferred != "" or self._deferral_set))
            or not self._may_end_at_once(client, aborted)
        ):
            return False
        self.stack.commit(client)  # which ends the client
        client.settings.saved = []  # of what commit() takes back there is nothing else
        return True

    def commit(self, client: Client) -> Flow:
        """The client commits: kept until the test ends."""
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
        had_local = bool(client.settings.local)
        cursors = list(client.cursors)
        failed = client.failed
        if client.active:
            yield from self.session.ended(client, committed=not failed)
        try:
            yield from self._send(self._steps(self.stack.commit, client))
        finally:
            client.end()
            if failed:
                client.settings.rollback()
            client.settings.commit()
            if had_local:
                self._settings.invalidate()
        if cursors:
            yield from close_cursors(cursors)

    def has_nothing(self, client: Client, *, aborted: bool) -> bool:
        """Whether a rollback of the client would do nothing: no transaction, and nobody's end is to be made up for."""
        return not (
            client.active
            or client.failed
            or client.cursors
            or client.where
            or client.moded
            or client.locks
            or client.warned
            or client.settings.saved
            or client.settings.local
            or self._late is not None
            or self._abandoned
            or client.scope != self._top
            or (self.stack.doomed and self.stack.waiting())
            or aborted
        )

    def rollback_at_once(self, client: Client, *, aborted: bool) -> bool:
        """Roll back where nothing need be sent for it: a transaction that has only read.

        :returns: whether it is done.
        """
        if self.stack.has_work(client) or not self._may_end_at_once(client, aborted):
            return False
        self.stack.rollback(client)
        self._rolled_back(client)
        return True

    def rollback(self, client: Client) -> Flow:
        """The client rolls back: its own work undone, nobody else's."""
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

    def status(self, client: Client) -> str:
        """``idle``, ``active`` or ``failed``: what the client believes of its transaction."""
        if client.each_statement or self._late is client:
            return "idle"
        if client.failed or (self._current is client and client.active and self.wire.aborted()):
            return "failed"
        return "active" if client.active else "idle"

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
                client.where = where(statement.text)
                client.settings.begin()
            if self.rules.savepoints_replace and label in client.labels:
                self.stack.forget(client, label)
            self.stack.savepoint(client, label)
            client.settings.savepoint()
            client.keep_modes()
            return
        if label not in client.labels:
            name, message = self.rules.no_savepoint
            raise self.fail(client, name, message.format(label))
        depth = len(client.labels) - client.labels[::-1].index(label)
        if kind is Kind.RELEASE:
            self.stack.release(client, label)
            client.settings.release(depth)
            client.release_modes(depth)
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
            client.settings.rollback(depth)
            client.restore_modes(depth)
            self.session.rolled_back_to(client, depth)
            self._settings.invalidate()  # a SET without a write leaves nothing to be rolled back by the server
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
        client.settings.rollback()
        client.settings.commit()
        self._settings.invalidate()

    def _recover(self, client: Client) -> Flow:
        """Roll back what an error has aborted, to the savepoint of whoever caused it."""
        late, self._late = self._late, None
        if self.wire.aborted() and self._current is not None:
            culprit = self._current
            self.session.rolled_back_to(culprit, culprit.depth)  # whose locks and the like end with the error
            yield from self._send(self.stack.fail(culprit))
            if culprit is late or culprit.each_statement:  # late: its mode may have changed since
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
                self._settings.invalidate()
            for sql in self.rules.render(steps):
                yield sql
            if any(verb is Verb.ROLLBACK for verb, _ in steps):
                self.session.undone()
                if self._schema_changed:
                    self.facts.forget()
                    yield from self._forget_plans()

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

    def _unguard(self) -> Flow:
        """What comes next may write; the savepoint of a transaction that is read-only lies on top."""
        guarded, self._guarded = self._guarded, None
        if guarded is not None and not self.wire.aborted():
            yield self.rules.end_read_only

    def _forget_plans(self) -> Flow:
        """The schema may have been rolled back: no plan made for it is to be used again."""
        self.plans_doubtful = False
        self.wire.forget_plans()
        if self.rules.plans:
            for (name,) in (yield self.rules.plans):
                yield f'DEALLOCATE "{name}"'

    def _run(self, flow: Flow) -> None:
        """Run a flow on the wire, where nobody else is."""
        try:
            command = next(flow)
            while True:
                command = flow.send(self.wire.run(command))
        except StopIteration:
            return

    def _check_deferred(self, client: Client) -> Flow:
        if not self.rules.deferred_names or not client.checks_deferred or client not in self.stack.unfinished():
            return
        yield from self.facts.load_deferred()
        if not (self.facts.deferred or self._deferral_set):
            return
        others = [c for c in (*self.stack.unfinished(), *self.stack.waiting()) if c is not client]
        guarded = self.rules.error_aborts
        try:
            for sql in self.rules.check_deferred(self.facts.deferred or ""):
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
        self._run(self.facts.load_deferred())
        return bool(self.facts.deferred or self._deferral_set)

    def opened_cursor(self, client: Client, name: str) -> None:
        """The statement that runs has opened a server-side cursor, or a portal, which ends with its transaction."""
        self.stack.hold(client)
        client.cursors[name] = client.depth

    def recover_for(self, client: Client, cursor: str = "", begins: str = "") -> Flow:
        """Before something that sees no new rows, such as ``FETCH`` of a cursor: undo another client's failure.

        :param cursor: which has to be there for it.
        :param begins: its SQL, where the driver would begin a transaction for it.
        """
        if not self.is_open(client):
            if client.scope != POOLED or not self._scopes:
                raise self.note(self._closed(client))
            self.checkout(client)
        if self._current is not client or client.each_statement:
            yield from self._recover(client)
        if self._guarded is not client:
            yield from self._unguard()
        if client.failed:
            raise self._aborted()
        if begins and not client.active and not client.each_statement:
            client.where = where(begins)
            client.settings.begin()
            client.active = True
        if cursor:
            foreign = self.session.has_foreign_cursor(client, cursor)
            if foreign and self.wire.aborted():  # by this client's own last statement: others' are undone above
                raise self._aborted()
            if foreign or (not client.active and not (yield open_cursor(cursor))):
                # said here: an error of the server would abort the transaction of somebody else
                message = f'cursor "{cursor}" does not exist'
                raise (
                    self.fail(client, "InvalidCursorName", message)
                    if client.active
                    else self.wire.error("InvalidCursorName", message)
                )
        if client.active:
            # should it fail, that must not be somebody else's loss
            yield from self._send(self.stack.statement(client, writes=False, looks=False))
            self._current = client


def _and(owners: Iterable[Owner]) -> str:
    return " and ".join(dict.fromkeys(str(owner) for owner in owners)) or "another transaction"
