"""The outer transaction: begun once, marked, rolled back to its marks, never committed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..errors import DBTestCaseError
from .clients import NO_SCOPE
from .connections import Client
from .problems import find_problems
from .savepoints import Scope
from .statement_flows import StatementFlows

_WITNESS = "dbtc_outer"
"""A savepoint right after the outer transaction's begin: gone, if somebody has ended it and begun another."""

_BACK = f"ROLLBACK TO SAVEPOINT {_WITNESS}"

_MARK = "dbtc_mark_"

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _holding_the_wire(method: _Method) -> _Method:
    """Decorate a method of the harness: it runs between the statements of everybody else."""

    @functools.wraps(method)
    def held(self: Sandbox, *args: Any, **kwargs: Any) -> Any:
        is_mine = self.scheduler.seize(self.wire.interrupt, self.wire.cut)
        try:
            return method(self, *args, **kwargs)
        finally:
            if is_mine:
                self.scheduler.free()

    return cast(_Method, held)


class Sandbox(StatementFlows):
    """One outer transaction and the clients in it; see :mod:`dbtestcase.sandbox`."""

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Keep the wire for the harness; whatever statement of another thread runs is over then."""
        return self.scheduler.seized(self.wire.interrupt, self.wire.cut)

    @_holding_the_wire
    def begin(self, label: str, *, mark: bool = False) -> None:
        """Begin the outer transaction, with the first mark in the same round trip if that is wanted."""
        self.wire.reset()
        marks = [f"SAVEPOINT {_MARK}1"] if mark else []
        self.wire.run(self.rules.begin, f"SAVEPOINT {_WITNESS}", *marks)
        self._enter(label, "", above=f"{_MARK}1" if mark else _WITNESS)
        self._is_marked = mark

    @_holding_the_wire
    def mark(self, label: str) -> None:
        """Set a mark in the outer transaction, to which :meth:`rollback_to_mark` comes back."""
        name = f"{_MARK}{len(self._scopes)}"
        if not (self._is_marked and self.is_at_rest):
            self._scopes[-1].wrote |= self._wrote
            self._wrote = False
            self._settle()
            self.wire.run(*([f"RELEASE SAVEPOINT {name}"] if self._is_marked else []), f"SAVEPOINT {name}")
        self._is_marked = False
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
        """Begin a new outer transaction, if nothing was written before the last mark; whether it could be done.

        Dead rows are removed by the server only when the transaction that made them has ended.
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
        """Roll back the outer transaction, which must be the one begun here; no client can be used any more."""
        try:
            if self.wire.in_transaction():
                self._leave([_BACK, self.rules.end])
                self._scopes.clear()
                self._top = NO_SCOPE  # all else is forgotten
        finally:
            if self.begun:
                self.shut()

    def shut(self) -> None:
        """Forget the outer transaction, of which nothing is left to be rolled back; no client can be used any more."""
        self._scopes.clear()
        self._top = NO_SCOPE
        self._forget()

    @property
    def wrote(self) -> bool:
        """Whether anything was written since the last mark."""
        return self._wrote

    @_holding_the_wire
    def restart(self, *statements: str) -> bool:
        """Run statements that must not run in a transaction, if nothing was written in the outer one; whether so."""
        if self._wrote or any(scope.wrote for scope in self._scopes):
            return False
        self._is_marked = False
        marks = [f"SAVEPOINT {scope.name}" for scope in self._scopes if scope.name]
        begin = [self.rules.begin, f"SAVEPOINT {_WITNESS}", *marks] if self._scopes else []
        self.wire.run(*([self.rules.end] if begin else []), *statements, *begin)
        self.stack.clear((self._scopes[-1].name or _WITNESS) if begin else "")
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

    def _enter(self, label: str, name: str, above: str = "") -> None:
        number = next(self._scope_numbers)
        self._labels[number] = label
        self._scopes.append(Scope(number, label, name))
        self._top = number
        self._wrote = self.handed_out = False
        self.stack.clear(above or name)

    def _leave(self, statements: list[str]) -> None:
        self._is_marked = False
        if not self.rules.settings_roll_back:
            statements += self._settings.undo()
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
        self._settings.clear()
        if self._schema_changed:
            self._schema_changed = False
            self.facts.forget()
        self._deferral_set = False
        self._current = self._late = self._guarded = None
        self.raised.clear()
        self.losses.clear()
        self.scheduler.reset()
        for client in list(self.clients):
            client.end()
            client.block = 0
            if client.changed:
                client.retired = True
            if client.settings.touched:
                client.settings = self._new_settings(client.settings.startup)

    def _settle(self) -> None:
        """Before a mark: nothing of the stack is to be rolled back any more."""
        if self.wire.aborted() and self._current is not None:
            self.wire.run(*self.rules.render(self.stack.fail(self._current)))
            self._guarded = None
        self._run(self._unguard())
        self.stack.clear()
        if self._deferral_pending():
            self.wire.run(*self.rules.check_deferred(self.facts.deferred or ""))
            self.session.constraints_checked()
        for client in list(self.clients):
            if client.active:
                self._run(self.session.ended(client, committed=True))
            client.end()

    def problems(self, test_files: frozenset[str] = frozenset()) -> list[DBTestCaseError]:
        """What is wrong at the end of a test, before it is rolled back."""
        return find_problems(
            self.label,
            self.wire,
            [c for c in self.stack.unfinished() if isinstance(c, Client) and self._is_left(c)],
            self.raised,
            self.losses,
            test_files,
            wrote=self._wrote,
        )

    def _is_left(self, client: Client) -> bool:
        """Whether its unfinished writes are ones that the application has left."""
        if client.own or client is self._late:
            return False
        return client.used_by_application or not self.is_the_tests(client.where)

    def deferred_failure(self) -> Exception | None:
        """Check the deferred constraints for what was never committed; to be called with the wire held."""
        checked = any(isinstance(c, Client) and c.checks_deferred for c in self.stack.unfinished())
        if not checked or self.wire.aborted() or not self._deferral_pending():
            return None
        try:
            rows = self.wire.run(*self.rules.check_deferred(self.facts.deferred or ""))
        except Exception as error:
            return error
        violation = self.rules.violation(rows)
        return self.wire.error("IntegrityError", violation) if violation else None
