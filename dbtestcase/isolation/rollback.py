"""Tests kept apart by rollback: one outer transaction, a mark before each test."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from threading import Thread
from typing import Any

import sqlalchemy as sa

from ..drivers import Endpoint
from ..errors import ConfigurationError, DirtyReadWarning, LeakError
from ..sandbox import Client, outer_transaction_ended
from .border import Border
from .class_state import ClassState, SharedTransaction
from .engines import Until
from .interface import Isolation
from .sandbox_run import RENEWAL, SandboxRun


class SandboxIsolation(Isolation):
    """One outer transaction for a class or a module, a mark before each test, one rollback after it.

    ::

        IDLE ── begin_class ──► CLASS ◄──► TEST      begin_test, end_test
          │                       ▲  │       │
          └─ begin_module ► MODULE┘  └► LOST ◄┘      at any moment; begin_class begins the class again

    :param scope: ``"class"``, ``"module"`` or ``"test"``.
    :param aliases: databases whose engines are led as if they were named.
    """

    run: SandboxRun

    def __init__(
        self, run: SandboxRun, scope: str, *, reset_sequences: bool = False, aliases: Iterable[Endpoint] = ()
    ) -> None:
        super().__init__(run, aliases)
        self.scope = scope
        if reset_sequences and not (run.rules.sequences or run.rules.counters_roll_back):
            raise ConfigurationError(
                f"reset_sequences cannot be had on {run.rules.name}: ids go on where they were.",
                cause="a rollback does not set the server's counters back, and what would set them commits",
                remedy="leave it out and do not rely on numbers, or use TruncatingDatabaseTest, where it is always so",
            )
        self.reset_sequences = reset_sequences
        self._state = ClassState.IDLE
        self._module: SharedTransaction | None = None
        self._threads = run.board.left_threads
        self._restore = self._restore_class = ""
        self._marked = False
        self._at_rest = False
        """Whether nobody could use the wire when the test began: if nobody is given a connection, nothing is undone."""
        self._tests = 0
        self._nested: list[tuple[str, frozenset[Thread]]] = []

    @property
    def needs_rebuild(self) -> bool:
        if self._state is ClassState.CLASS and not self._each_test and self.run.look_for_loss():
            self._lose()
        return self._state is ClassState.LOST

    @property
    def _each_test(self) -> bool:
        """Whether each test has an outer transaction of its own."""
        return self.scope == "test" and self._module is None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        with warnings.catch_warnings(), super().reading() as connection:
            warnings.simplefilter("ignore", DirtyReadWarning)  # unfinished writes are to be seen
            yield connection

    def carries(self, connection: sa.Connection) -> bool:
        return self.run.board.client_of(connection) is not None

    def end_loop(self) -> None:
        self.run.board.end_loop()

    @property
    def lost(self) -> str:
        return self.run.wire.gone if self.run.is_lost else ""

    # -- the outer transaction

    def _begin(self, label: str) -> None:
        """Begin the outer transaction, on a new wire if need be; the tables in it where the database exists already."""

        def begin() -> None:
            self.run.make_ready()
            self._rewind_sequences()
            self.run.sandbox.begin(label, mark=not self._each_test)
            if not self.run.database.built:
                with self.own_engine.begin() as connection:
                    self.run.database.create_in(connection)
                self.run.sandbox.pin()

        self._retried(begin)

    def _retried(self, attempt: Callable[[], None], unless: Callable[[], bool] = lambda: False) -> None:
        """Try once more where the wire is lost meanwhile."""
        for last in (False, True):
            try:
                return attempt()
            except Exception:
                if self.run.is_lost and not unless():
                    self.run.lose()
                    if not last:
                        continue
                raise

    def _rewind_sequences(self) -> None:
        if not self.run.database.built:
            return  # they are made anew in each outer transaction
        if self.reset_sequences and self.run.rules.sequences:
            self.run.rewind_sequences()
        else:
            self.run.untouched = False

    def _lose(self) -> None:
        self.run.lose()
        self._at_rest = False
        self._state = ClassState.LOST
        self._marked = False

    # -- a module

    def begin_module(self, label: str) -> None:
        self.run.begin_use()
        self.run.full_disks.found = False
        self._begin(label)
        self._module = SharedTransaction(label)
        self._state = ClassState.MODULE

    def end_module(self) -> None:
        self._module = None
        self._state = ClassState.IDLE
        self._end_outer("module")

    def _mark_in_module(self, module: SharedTransaction, label: str) -> None:
        def mark() -> None:
            if self.run.is_lost:
                self._renew_module(module)
            module.wrote |= self.run.sandbox.wrote
            self._check_before_mark()
            self._restore_class = self._note_sequences()
            self.run.sandbox.mark(label)

        self._retried(mark, unless=lambda: module.is_ruined)

    def _renew_module(self, module: SharedTransaction) -> None:
        """Begin the module's transaction again, if no rows were lost with it."""
        module.is_ruined |= module.wrote
        if module.is_ruined:
            raise LeakError(
                f"The rows that {module.label} was set up with are lost: the connection of the sandbox was closed, or "
                "somebody ended its transaction.",
                cause="an earlier test or class of the module, see its error, or the server",
                remedy="mend that one first; rows that setUpModule() makes cannot be made a second time",
            )
        self._begin(module.label)

    # -- a class

    def begin_class(self, label: str, engines: Iterable[Any], outside: Iterable[Any] = ()) -> None:
        self._label = label
        if self._state is ClassState.LOST:  # the class begins again; its engines are led all the while
            try:
                self._begin_class(engines)
            except BaseException:
                self._lose()
                raise
            return
        self.run.begin_use()
        self.run.full_disks.found = False
        self._tests = 0
        self.run.board.aliases = self._aliases
        self._border = Border(label, self.run.board, self.run.board.endpoints, outside)
        try:
            for engine in engines:
                self.run.board.lead(engine)
            self._begin_class(engines)
        except BaseException:
            with contextlib.suppress(Exception):  # the error that is raised matters more
                self.end_class()
            raise

    def spoil(self) -> None:
        self._lose()

    def abandon_test(self) -> None:
        if self._state is ClassState.TEST:
            self._lose()

    def _begin_class(self, engines: Iterable[Any]) -> None:
        self._marked = False
        if self._module is not None:
            self._mark_in_module(self._module, self._label)
        elif not self._each_test:
            self._begin(self._label)
        self._state = ClassState.CLASS
        self._engines = list(engines)
        if not self._each_test:
            self._greet()
        self._threads.begin_class()

    def _greet(self) -> None:
        """Let the connect events of the engines run now, where what they ask for is too late once rows are written."""
        if self.run.rules.connects_early:
            for engine in self._engines:
                if not engine.dialect.is_async:
                    engine.connect().close()

    def end_class(self, *, test_files: frozenset[str] = frozenset()) -> None:
        has_begun = self._state in (ClassState.CLASS, ClassState.TEST)
        if has_begun and self._border is not None and not self.run.is_lost:
            self._border.raised += self.run.sandbox.raised
        try:
            if not has_begun or self._each_test:
                return
            if self._module is None:
                self._end_outer("class")
                self.run.look_for_policies()
                return
            try:
                if self._marked:
                    self.run.sandbox.drop_mark()
                self.run.sandbox.drop_mark()
                if self._restore_class:
                    with self.run.sandbox.held():
                        self.run.wire.run(self._restore_class)
            except Exception as error:
                self._answer_for_loss(error, "class")
            self.run.look_for_policies()
        finally:
            self._leave_class(test_files)

    def _end_outer(self, what: str) -> None:
        if self.run.is_lost:
            return  # everything was rolled back with the connection
        try:
            self.run.sandbox.end()
        except Exception as error:
            self._answer_for_loss(error, what)

    def _answer_for_loss(self, error: Exception, what: str) -> None:
        """The transaction could not be rolled back: with its connection it is gone, else somebody has ended it."""
        gone = bool(self.run.wire.gone)
        self.run.lose()
        if not gone:
            raise outer_transaction_ended(self._label if what == "class" else f"A {what}") from error

    def _leave_class(self, test_files: frozenset[str]) -> None:
        self._state = ClassState.MODULE if self._module is not None else ClassState.IDLE
        self._marked = False
        self._at_rest = False
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_border, test_files)
            stack.callback(self.run.board.release, Until.CLASS)
            stack.callback(self._threads.end_class)
            self._take_back()

    # -- a test

    def end_class_data(self) -> None:
        if not self._each_test and not self._marked:
            self._check_before_mark()
            self._restore = self._note_sequences()
            self.run.sandbox.mark(self._label)
            self._marked = True

    def begin_test(self, label: str, *, test_files: frozenset[str] = frozenset()) -> None:
        sandbox = self.run.sandbox
        if self._each_test:
            self._begin(label)
            if not self._tests:
                self._greet()
        else:
            self.end_class_data()
            sandbox.relabel(label)
            if not self._at_rest:
                self._at_rest = sandbox.is_at_rest
        sandbox.test_files = test_files
        self._threads.begin_sandboxed_test()
        self._state = ClassState.TEST
        if self._border is not None:
            self._border.in_test = True

    def undo_writes_between_tests(self) -> bool:
        if self._state is not ClassState.CLASS or not self._marked or self.run.is_lost or not self.run.sandbox.wrote:
            return False
        self._undo_test()
        for problem in self._take_back():  # a session that several tests share may be open
            raise problem
        return True

    def _take_back(self) -> list[Exception]:
        """After a rollback: let nothing that was left open reach into what comes next."""
        problems = self.run.open_sessions.roll_back(self.run.sandbox.is_open)
        self.run.board.take_back()
        return problems

    def _note_sequences(self) -> str:
        return self.run.note_sequences() if self.reset_sequences else ""

    def _check_before_mark(self) -> None:
        for problem in self.run.sandbox.problems():
            if isinstance(problem, LeakError):
                raise problem

    def end_test(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        sandbox, border = self.run.sandbox, self._border
        label = sandbox.label or self._label
        self._nested.clear()
        self._threads.end_test(label)
        is_untouched = self._at_rest and not sandbox.handed_out and not sandbox.raised
        self._at_rest = is_untouched
        problems = [] if is_untouched else self._end_undoing(label, failed=failed, test_files=test_files)
        self._state = ClassState.CLASS if self._state is ClassState.TEST else self._state
        if border is not None:
            border.in_test = False
            problems += border.swallowed(label, test_files) if border.raised else ()
        if self.run.board.of_test:
            self.run.board.release(Until.TEST)
        if failed and problems:
            problems = [p for p in problems if not _is_swallowed(p)]
        return problems if is_untouched else problems + self._take_back()

    def _end_undoing(self, label: str, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        """Roll back what the test has done; or lose the wire with it."""
        problems = self._undone(label, test_files, self._undo_test, failed=failed)
        if self.run.full_disks.found:
            if failed:  # of that: a server that had no room for its log has ended, and the connection with it
                problems.clear()
            self._lose()
            try:
                self.run.free_disk()
            except Exception as error:
                problems.append(error)
        return problems

    def _undone(
        self, label: str, test_files: frozenset[str], undo: Callable[[], None], *, failed: bool
    ) -> list[Exception]:
        """Look for what is wrong, then roll back."""
        sandbox = self.run.sandbox
        problems: list[Exception] = []
        with sandbox.held():
            try:
                self.run.wire.settle()
                problems += sandbox.problems(test_files)
                if not failed and not problems and (late := sandbox.deferred_failure()) is not None:
                    problems.append(late)
                if self.run.wire.in_transaction():
                    undo()
                else:
                    self._lose()
            except LeakError as error:  # of the wire's, which is lost
                problems.append(error)
                self._lose()
            except Exception as error:
                if not self.run.wire.gone:
                    problems.append(outer_transaction_ended(label, cause=error))
                elif not problems:
                    problems += sandbox.problems(test_files)
                self._lose()
        return problems

    def _undo_test(self) -> None:
        sandbox = self.run.sandbox
        self._tests += 1
        self.run.count_test()
        if self._each_test:
            sandbox.end()
        elif self._tests % RENEWAL or not sandbox.renew(self._label):
            sandbox.rollback_to_mark(self._label)
        if self._restore:
            self.run.wire.run(self._restore)

    # -- a part of a test

    def begin_nested(self) -> None:
        sandbox = self.run.sandbox
        if self._state is not ClassState.TEST:
            raise LeakError(
                f"A part of {self._label} was to begin after the connection of the sandbox was lost.",
                cause="an earlier part of the test, see its error, or the server",
                remedy="mend that one first",
            )
        self._check_before_mark()
        own = [owner for owner in sandbox.stack.unfinished() if isinstance(owner, Client) and owner.own]
        if own:
            raise ConfigurationError(
                f"A part of {sandbox.label} that is rolled back at its end was to begin while {own[0]} has unfinished "
                "writes.",
                cause="a session_scope() that is open around it: the two would be rolled back and committed as one",
                remedy="end it before the part begins, or open it inside",
            )
        restore = self._note_sequences()
        self._at_rest = False  # what came before the part is undone at the test's end, whatever the part uses
        sandbox.mark(sandbox.label)
        self._nested.append((restore, frozenset(threading.enumerate())))

    def end_nested(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        if self._state is not ClassState.TEST or not self._nested:
            return []  # lost with the connection, which was said where it was noticed
        restore, threads = self._nested.pop()
        sandbox, border = self.run.sandbox, self._border
        label = sandbox.label

        def undo() -> None:
            sandbox.drop_mark()
            if restore:
                self.run.wire.run(restore)

        self._threads.end_test(label, besides=threads)
        problems = self._undone(label, test_files, undo, failed=failed)
        if border is not None and border.raised:
            problems += border.swallowed(label, test_files)
        if failed:
            problems = [p for p in problems if not _is_swallowed(p)]
        # those from before have nothing to lose: with unfinished writes the part would not have begun
        problems += self.run.open_sessions.roll_back(lambda client: False)
        self.run.board.take_back()
        return problems

    def lead(self, engine: Any) -> None:
        self.run.board.lead(engine, until=Until.TEST if self._state is ClassState.TEST else Until.CLASS)


def _is_swallowed(problem: Exception) -> bool:
    return isinstance(problem, LeakError) and problem.of_swallowed_error
