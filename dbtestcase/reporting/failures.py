"""What a failing test shows: the statements it ran, and what else is known, as notes of its exception.

A runner turns an exception into text the moment it is caught, so the notes have to be there before: the exception is
met on its way out of ``setUp``, the test method, ``tearDown``, a cleanup or a sub-test.  Notes are part of Python's own
traceback, and so are shown by unittest, nose2, pytest and all that build on them.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TextIO
from unittest import TestCase

from sqlalchemy import URL, Connection

from . import report
from .queries import Query, Recording, recording
from .unittest_internals import is_expected_to_fail

if TYPE_CHECKING:
    from .lock_waits import LockWatch

__unittest = True

_SHOWN = 50  # statements of a failing test; the last ones are nearest to the failure
_ROUND = 4  # different statements that a loop may send in each round
_STATEMENT_LENGTH, _PARAMETERS_LENGTH = 400, 200  # characters


class SQLLog:
    """The statements of each test of a class: begin it with the class, :meth:`begin_test` with each test.

    :param mode: ``"fail"``: for failing tests; ``"all"``: printed for every test; ``"off"``: nothing is recorded.
    :param accept: which connections belong to the test.
    """

    def __init__(
        self,
        mode: Literal["fail", "all", "off"] = "fail",
        accept: Callable[[Connection], bool] = lambda connection: True,
    ) -> None:
        self.mode = mode
        self._records = mode != "off" or report.recorder() is not None
        self._accept = accept
        self._thread = threading.get_ident()
        self.recording: Recording | None = None

    @contextmanager
    def recording_class(self, url: URL | None = None) -> Iterator[SQLLog]:
        """Record until the block ends, and watch who waits for whose locks in the database of a URL."""
        if not self._records:
            yield self
            return
        with recording(self._accept) as self.recording, _lock_watch(url, self.recording):
            try:
                yield self
            finally:
                self.recording = None

    @property
    def entries(self) -> list[Query]:
        """Everything since the test (or the class) began, savepoints and ends of transactions among it."""
        return self.recording.entries if self.recording is not None else []

    def begin_test(self) -> None:
        """Forget the statements of the test before."""
        self._thread = threading.get_ident()
        if self.recording is not None:
            self.recording.clear()

    def end_test(self, test_id: str, stream: TextIO | None = None) -> None:
        """Print the test's statements (to ``sys.stderr``) if all are wanted, and forget them."""
        if self.mode == "all":
            print(f"{test_id}\n{self.text(shown=None)}", file=stream or sys.stderr)
        if self.recording is not None:
            self.recording.clear()

    def text(self, shown: int | None = _SHOWN) -> str:
        """The last statements so far, or all, numbered, with their time in ms and the application's line."""
        entries = self.entries if self.mode != "off" else []
        if not entries:
            return "No statements were sent by this test." if self.mode != "off" else ""
        everything = shown is None or self.mode == "all"
        groups = [[each] for each in _numbered(entries)] if everything else _grouped(_numbered(entries))
        lines = ["Statements of this test (number, ms, SQL, parameters; the line that sent it):"]
        left_out = 0 if everything or shown is None else sum(map(len, groups[: max(len(groups) - shown, 0)]))
        if left_out:
            lines.append(f"     … {left_out} earlier ones left out; DBTESTCASE_SQL=all shows them")
            groups = groups[-shown:] if shown else []
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for group in groups:
            number, query = group[0][0], group[-1][1]  # of a loop its last round: what fails, fails after it
            lines.append(f"{number:>4} {_time([query for _, query in group])}  {_statement(query)}")
            times = f"{len(group)} times, " if len(group) > 1 else ""
            lines.append(f"{'':16}{times}{query.origin or 'no line of yours'}{self._other_thread(query, names)}")
        return "\n".join(lines)

    def _other_thread(self, query: Query, names: dict[int | None, str]) -> str:
        if query.thread == self._thread:
            return ""
        return f", thread {names.get(query.thread, query.thread)}"


def _lock_watch(url: URL | None, recording: Recording) -> AbstractContextManager[object]:
    if url is None or url.get_backend_name() != "postgresql":
        return nullcontext()
    return _lock_watch_class()(url, recording)


@functools.cache  # to look for a module that is there takes longer than the rest of what a class does here
def _lock_watch_class() -> type[LockWatch]:
    from .lock_waits import LockWatch  # which needs psycopg

    return LockWatch


def add_evidence(error: BaseException, evidence: Callable[[BaseException], Iterable[str]]) -> None:
    """Add the notes to an exception that fails a test, once; none to skips and signals."""
    for note in evidence_once(error, evidence):
        error.add_note(note)


def evidence_once(error: BaseException, evidence: Callable[[BaseException], Iterable[str]]) -> Iterator[str]:
    """The notes of an exception when they are first asked for; nothing for signals, and nothing a second time."""
    if not _is_signal(error) and not getattr(error, "_dbtestcase_evidence", False):
        error._dbtestcase_evidence = True  # type: ignore[attr-defined]
        yield from filter(None, evidence(error))


def together(problems: Sequence[Exception], message: str) -> Exception:
    """What is to be raised for all that went wrong at an end: one thing as it is, several as a group."""
    return problems[0] if len(problems) == 1 else ExceptionGroup(message, problems)


class FailureEvidence(TestCase):
    """Mixed into the test cases: what fails a test gets the notes of ``_dbtestcase.evidence(error)`` on its way."""

    _dbtestcase: Any

    def _callSetUp(self) -> None:
        try:
            super()._callSetUp()  # type: ignore[misc]
        except BaseException as error:
            add_evidence(error, self._dbtestcase.evidence)
            raise

    def _callTestMethod(self, method: Callable[[], Any]) -> None:
        try:
            super()._callTestMethod(method)  # type: ignore[misc]
        except BaseException as error:
            _tell(self, error)
            raise

    def _callTearDown(self) -> None:
        try:
            super()._callTearDown()  # type: ignore[misc]
        except BaseException as error:
            add_evidence(error, self._dbtestcase.evidence)
            raise

    def _callCleanup(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        try:
            super()._callCleanup(function, *args, **kwargs)  # type: ignore[misc]
        except BaseException as error:
            add_evidence(error, self._dbtestcase.evidence)
            raise

    @contextmanager
    def subTest(self, *args: Any, **params: Any) -> Iterator[None]:
        # The exception of a sub-test is caught inside of it, so it never reaches the method's end.
        with super().subTest(*args, **params):
            try:
                yield
            except BaseException as error:
                _tell(self, error)
                raise


def _tell(test: FailureEvidence, error: BaseException) -> None:
    """The test method has raised: what fails it is given notes, what it is expected to fail with is looked at."""
    if is_expected_to_fail(test):
        if not _is_signal(error):
            test._dbtestcase.look_at_expected(error)
    else:
        add_evidence(error, test._dbtestcase.evidence)


def _is_signal(error: BaseException) -> bool:
    kind = type(error)
    return (
        isinstance(error, KeyboardInterrupt | GeneratorExit)
        or kind.__module__ == "unittest.case"  # SkipTest, _ShouldStop
        or (kind.__module__ == "builtins" and kind.__name__ in ("Skipped", "XFailed", "Exit"))  # pytest's
    )


def _numbered(entries: list[Query]) -> list[tuple[str, Query]]:
    numbered, number = [], 0
    for query in entries:
        if query.kind == "statement":
            number += 1
        numbered.append((f"{number}." if query.kind == "statement" else "", query))
    return numbered


def _grouped(numbered: list[tuple[str, Query]]) -> list[list[tuple[str, Query]]]:
    """What a loop sent, as one: a line's equal statements in a row, whatever their parameters, or rounds of several."""
    keys = [_key(query) for _, query in numbered]
    groups: list[list[tuple[str, Query]]] = []
    at = 0
    while at < len(keys):
        length, times = 1, 1
        for tried in range(1, _ROUND + 1):
            rounds = 1
            while keys[at : at + tried] == keys[at + rounds * tried : at + (rounds + 1) * tried]:
                rounds += 1
            if rounds >= (2 if tried == 1 else 3) and rounds * tried > length * times:
                length, times = tried, rounds
        groups += [[numbered[at + n * length + first] for n in range(times)] for first in range(length)]
        at += length * times
    return groups


def _key(query: Query) -> object:
    statement = query.statement.rpartition(" ")[0] if query.kind == "savepoint" else query.statement  # without its name
    return statement, str(query.origin), query.thread, query.kind, type(query.error)


def _time(queries: list[Query]) -> str:
    query = queries[0]
    if query.kind == "transaction":
        return f"{'':9}"
    if len(queries) > 1 and all(each.milliseconds is not None for each in queries):
        return f"{sum(each.milliseconds or 0 for each in queries):9.2f}"
    if query.error is not None:
        return f"{'failed':>9}"
    return f"{'running':>9}" if query.milliseconds is None else f"{query.milliseconds:9.2f}"


def _statement(query: Query) -> str:
    text = _shortened(" ".join(query.statement.split()), _STATEMENT_LENGTH)
    if query.error is not None:
        text = f"{text}  {type(query.error).__name__}"
    return f"{text}  {_shortened(repr(query.parameters), _PARAMETERS_LENGTH)}" if query.parameters else text


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"
