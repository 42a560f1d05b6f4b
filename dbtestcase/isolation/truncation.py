"""How committing tests are kept apart: real connections to a real database, of which only what was touched is put back.

::

    run = TruncatingRun(database, url)        # once per process
    isolation = TruncatingIsolation(run)
    isolation.begin_class("bank", [engine])   # the engine's pool opens connections to the test database from now on
    isolation.begin_test("deposit")
    ...
    problems = isolation.end_test(failed=False, test_files=frozenset())
    isolation.end_class()
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..backends import cleaning
from ..drivers import Endpoint, endpoints_of_url
from ..errors import CleaningError, ConfigurationError, LeakError, LeftoverConnectionWarning
from ..reporting import warn_at
from .border import Border
from .engines import Until
from .interface import Isolation
from .open_sessions import OpenSessions
from .pool_checkouts import checkout_of
from .truncating_run import TruncatingRun

READING_PATIENCE = 2  # seconds to wait for a lock, when the rows of a failing test are read


class TruncatingIsolation(Isolation):
    """Real transactions; after each test what it committed is put back."""

    run: TruncatingRun

    def __init__(self, run: TruncatingRun, *, aliases: Iterable[Endpoint] = ()) -> None:
        super().__init__(run, aliases)
        self._lasting: frozenset[int] = frozenset()
        self._first = True
        self._lost = False
        self._restless: list[str] = []
        self._told: set[str] = set()  # the tests that have failed for threads which they left
        self._sessions = OpenSessions(checkout_of)
        self._watch = contextlib.ExitStack()

    @property
    def needs_rebuild(self) -> bool:
        return self._lost

    def begin_module(self, label: str) -> None:
        raise ConfigurationError(
            f"{label}: enterModule() was called on a committing class.",
            cause="rows for a whole module live in one outer transaction, and a committing class has none",
            remedy="make the rows in setUpTestData() of each class, or in load_base_data()",
        )

    def begin_class(self, label: str, engines: Iterable[Any], outside: Iterable[Any] = ()) -> None:
        self._label = label
        self.run.begin_use()
        self._watch.close()
        self._watch.enter_context(self._sessions)
        again, self._lost = self._lost, False
        self._first = True
        if self.run.is_bloated:
            self.run.make_anew()
        elif self.run.database.renew_lease():
            self.run.database.reclone()
        self._lasting = self._others()
        self.run.checkouts.left_threads.begin_test()
        self.run.checkouts.begin_test()
        if again:
            self.run.cleaner.forget()  # the rows of the class are made again
        self._clean(cleaning.Look.EXACT if again else None)  # what was written between the classes
        self.run.cleaner.accept_server()
        self.run.look_for_policies()
        if again:
            return  # its engines are led all the while
        self.run.rerouting.aliases = self._aliases
        self._border = Border(label, self.run.rerouting, endpoints_of_url(self.run.url), outside)
        try:
            for engine in engines:
                self.run.rerouting.lead(engine)
        except BaseException:
            self._close_border(frozenset())
            self.run.rerouting.release(Until.CLASS)
            raise

    def spoil(self) -> None:
        self._lost = True

    def end_class_data(self) -> None:
        if self._first:
            self._first = False
            self.run.checkouts.users.clear()
            self.run.checkouts.roll_back_own()
            self.run.cleaner.keep()
            if self.run.checkouts.of_server:
                self.run.cleaner.accept_server()
            self._lasting = self._others()

    def begin_test(self, label: str, *, test_files: frozenset[str] = frozenset()) -> None:
        self.end_class_data()
        self._label = label
        self._in_test(True)
        self._restless.clear()
        self.run.checkouts.left_threads.begin_test()
        self.run.checkouts.begin_test()

    def end_test(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        report, given_back = cleaning.Report(), list[cleaning.Session]()
        try:
            if self.run.full_disks.found and self.run.is_bloated:
                self.run.make_anew()
                self._lost = True
            else:
                given_back, report = self._put_back()
                self.run.full_disks.found = False
        except BaseException:
            self._lost = True  # the next test begins on a database that is as it should be, or fails in its turn
            raise
        finally:
            if self.run.checkouts.asynchronous:
                self.run.forget_loop()
            self._in_test(False)
            if self.run.rerouting.of_test:
                self.run.rerouting.release(Until.TEST)
            self.run.checkouts.users.clear()  # who is given a connection from now on is between two tests
        return self._problems(given_back, report, failed=failed, test_files=test_files)

    def undo_writes_between_tests(self) -> bool:
        if self._first or self._lost or not self.run.checkouts.users:
            return False
        return _has_changed(self._put_back()[1])

    def begin_nested(self) -> None:
        if self._lost:
            raise _loss("lost the rows of its class in an earlier part of it", self._label)
        if self.run.asynchronous():
            raise ConfigurationError(
                f"A part of {self._label} was to be rolled back at its end, with connections of an event loop.",
                cause="a committing class has real connections, which only the loop can end",
                remedy="use AsyncDatabaseTest, or TruncatingDatabaseTest with synchronous engines",
            )
        given_back, report = self._put_back()
        if _has_changed(report):
            raise ConfigurationError(
                f"A part of {self._label} that is put back at its end was to begin after the test had written "
                f"({', '.join(report.restored or report.altered) or 'other things'}).",
                cause="a committing class puts back what was there when the test began, so these rows would be lost",
                remedy="make them in setUpTestData(), or in the part itself; or use DatabaseTest, which rolls back",
            )
        problems = self._problems(given_back, report, failed=False, test_files=frozenset())
        if problems:
            raise problems[0]
        self.run.checkouts.begin_test()

    def end_nested(self, *, failed: bool, test_files: frozenset[str]) -> list[Exception]:
        given_back, report = self._put_back()
        self.run.checkouts.begin_test()
        return self._problems(given_back, report, failed=failed, test_files=test_files)

    def _put_back(self) -> tuple[list[cleaning.Session], cleaning.Report]:
        """End what the test has left open and clean; what was given back to its pool, and what the cleaning did."""
        given_back = self._give_back()
        report = self._clean()
        statements = self.run.checkouts.of_server
        return given_back, report._replace(of_server=self._server_changes(statements)) if statements else report

    def _server_changes(self, statements: Sequence[str]) -> tuple[str, ...]:
        """What was changed on the server itself, and stays; on a disposable one what can be is put back."""
        self.run.checkouts.retire(None)  # sessions that began meanwhile have begun with its settings
        return self.run.cleaner.server_changes("\n".join(statements) if self.run.database.crowded else None)

    def _problems(
        self, given_back: list[cleaning.Session], report: cleaning.Report, *, failed: bool, test_files: frozenset[str]
    ) -> list[Exception]:
        problems: list[Exception] = [_loss(report.broke, self._label)] if report.broke else []
        problems += [_of_server(report.of_server, self._label)] if report.of_server else []
        restless, self._restless = self._restless, []
        problems += [_restless(restless, self._label)] if restless else []
        for session in (*given_back, *report.ended):
            if session.holds:
                problems.append(_leak(session, self._label))
                continue
            try:
                _warn(session, self._label, given_back=session in given_back)
            except LeftoverConnectionWarning as warning:  # python -W error
                problems.append(warning)
        if self._border is not None and self._border.raised:
            swallowed = self._border.swallowed(self._label, test_files)
            problems += () if failed else swallowed
        if problems:
            self._told.add(self._label)
        return problems

    def _give_back(self) -> list[cleaning.Session]:
        """Roll back what the test has left open and give it back to its pool; as the server saw it before."""
        left = self.run.checkouts.left_open()
        sessions = self.run.cleaner.left(left) if left else []
        if sessions:
            self._sessions.roll_back(lambda checkout: checkout.pid not in left)
            self.run.checkouts.give_back({session.pid for session in sessions})
        return sessions

    def end_class(self, *, test_files: frozenset[str] = frozenset()) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_border, test_files)
            stack.callback(self.run.rerouting.release, Until.CLASS)
            stack.callback(self._watch.close)
            self.run.checkouts.left_threads.begin_test()
            self.run.checkouts.begin_test()
            self.run.cleaner.forget()
            self._clean(cleaning.Look.EXACT)
            refused = dict(self.run.checkouts.left_threads.refused)
            self.run.checkouts.left_threads.end_class()
            self.run.end_use()
            if self._restless:
                raise _restless(self._restless, f"The class {self._label}")
            told, self._told = self._told, set()
            late = {name: label for name, label in refused.items() if label not in told}
            if late:
                raise _restless(list(late), ", ".join(sorted({*late.values()})))
            found = () if self.run.database.crowded else self.run.cleaner.server_changes(None)
            if found:
                raise _of_server(found, f"A test of {self._label}")

    def _in_test(self, is_running: bool) -> None:
        if self._border is not None:
            self._border.in_test = is_running

    def lead(self, engine: Any) -> None:
        in_test = self._border is not None and self._border.in_test
        self.run.rerouting.lead(engine, until=Until.TEST if in_test else Until.CLASS)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        with super().reading() as connection:
            if self.run.url.get_backend_name() == "postgresql":
                # a transaction that the test has left open may hold a table
                connection.cursor().execute(f"SET LOCAL lock_timeout = '{READING_PATIENCE}s'")
            yield connection

    async def close_pools(self) -> None:
        """Close what the asynchronous pools hold, in the event loop that they belong to and that is about to end."""
        from sqlalchemy.ext.asyncio import AsyncEngine

        for engine in self.run.asynchronous():
            await AsyncEngine(engine).dispose()

    def _others(self) -> frozenset[int]:
        """The connections that are there now and wait in no pool: the class's own, which a test does not answer for."""
        pooled = {checkout.pid for checkout in self.run.checkouts.known() if checkout.thread is None}
        return frozenset(session.pid for session in self.run.cleaner.others()) - pooled

    def _clean(self, look: cleaning.Look | None = None) -> cleaning.Report:
        """Put the database back; threads of the test that do not come to rest meanwhile send nothing more."""
        checkouts, barred = self.run.checkouts, {threading.get_ident()}
        report: cleaning.Report | None = None
        checkouts.meanwhile = set()
        try:
            while True:
                refused, at_work = None, set[int | None]()
                busy = checkouts.left_threads.new_jobs() & checkouts.users
                try:
                    found_now = self._clean_once(look)
                    report = report.joined(found_now) if report else found_now
                    at_work |= {each.opened.thread for each in report.ended if each.holds and each.opened is not None}
                except CleaningError as error:
                    if not error.by_others:
                        raise
                    refused = error
                    at_work |= checkouts.meanwhile | {each.thread for each in checkouts.known()}
                restless, waited = self._restless_threads(barred)
                found = {ident for ident in at_work | (restless & checkouts.users) if ident is not None} - barred
                names = checkouts.left_threads.bar(found | restless, self._label) if found | restless else {}
                if refused is not None and not found:
                    raise refused
                told = set() if refused is not None else at_work  # their connections are told of
                # what has not used the database yet is refused when it does
                self._restless += [name for ident, name in names.items() if ident in found and ident not in told]
                # those that have ended may have written after the cleaning
                waited |= not busy | checkouts.meanwhile <= checkouts.left_threads.at_work()
                if report and not (refused or waited or found & (restless | checkouts.meanwhile)):
                    return report
                barred |= found | restless
                checkouts.left_threads.let_arrive(found | restless)
                checkouts.meanwhile.clear()
        finally:
            checkouts.meanwhile = None

    def _restless_threads(self, besides: set[int]) -> tuple[set[int], bool]:
        """The threads that go on by themselves with what the test has begun; whether any had to be waited for."""
        left = self.run.checkouts.left_threads
        suspects = left.new_jobs() - besides
        return left.restless(suspects, self.run.checkouts.users) if suspects else (suspects, False)

    def _clean_once(self, look: cleaning.Look | None) -> cleaning.Report:
        checkouts = self.run.checkouts
        cleaner = self.run.cleaner
        standing, seen = checkouts.settle(self._label, self._lasting, all_of_them=cleaner.changes_sessions)
        report = cleaner.clean(standing, look or seen)
        self._lost |= report.lost
        gone = {session.pid for session in report.ended} | set(report.absent)
        if gone or report.recloned:
            checkouts.retire(None if report.recloned else gone)
        return report


def _has_changed(report: cleaning.Report) -> bool:
    return bool(report.restored or report.large_objects or report.altered or report.recloned)


def _leak(session: cleaning.Session, test: str) -> LeakError:
    own = session.opened is not None
    return LeakError(
        f"{test} left behind a {session}. It held locks or had written, so it was ended and its work rolled back.",
        cause="a session or connection that was neither committed nor closed"
        if own
        else "a thread, a process or a connection of the test's own that was still at work",
        remedy="close it in the test (with a `with` block, or addCleanup); wait for threads and processes to end",
    )


def _restless(threads: Sequence[str], test: str) -> LeakError:
    return LeakError(
        f"{test} left {', '.join(map(repr, threads))} at work, which would have gone on in the next test. "
        "It gets no other connection.",
        cause="a thread that the test did not wait for",
        remedy="stop and join it before the test ends, with addCleanup",
    )


def _loss(what: str, test: str) -> LeakError:
    return LeakError(
        f"{test} {what}. The database was made anew.",
        cause="KILL or pg_terminate_backend() for every connection, or a server that was stopped or killed",
        remedy="end only the connections that the test has opened; their numbers are known to who opens them",
    )


def _of_server(changes: Sequence[str], who: str) -> LeakError:
    return LeakError(
        f"{who} changed what belongs to the server and to no database, and it stays: {'; '.join(changes)}.",
        cause="it is put back on a disposable server alone, and not where something else needs it",
        remedy="undo it in the test, with addCleanup; what a whole class needs is made in setUpClass",
    )


def _warn(session: cleaning.Session, test: str, *, given_back: bool) -> None:
    done = "rolled back and given back to its pool" if given_back else "ended"
    message = (
        f"{test} left behind a {session}. It was {done}; close it in the test (with a `with` block, or addCleanup)."
    )
    where, _, line = str(session.opened.where).partition(" in ")[0].rpartition(":") if session.opened else ("", "", "")
    if where and line.isdigit():
        warn_at(message, LeftoverConnectionWarning, os.path.abspath(where), int(line))
    else:
        warnings.warn(message, LeftoverConnectionWarning, stacklevel=3)
