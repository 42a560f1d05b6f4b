"""What is wrong at the end of a test: each problem as an error that says where it came from."""

from __future__ import annotations

import gc
import inspect
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from ..errors import DBTestCaseError, LeakError
from ..reporting import CallSite, is_application
from .connections import Client, Wire
from .rules import COMMITTING


def find_problems(
    label: str,
    wire: Wire,
    unfinished: Iterable[Client],
    raised: Iterable[DBTestCaseError],
    losses: Iterable[BaseException],
    test_files: frozenset[str],
    *,
    wrote: bool,
) -> list[DBTestCaseError]:
    """Look at the sandbox before it is rolled back.

    :param label: the test, of these files: an error that they catch was expected.
    :param unfinished: the application's connections with unfinished writes.
    :param raised: errors of the sandbox during the test.
    :param losses: errors for a lost connection, which a connection of its own would not have had in production.
    :param wrote: whether it has written anything that can be lost with the connection.
    """
    found: list[DBTestCaseError] = []
    gone = wire.gone
    if gone and (wrote or any(_application_has_caught(error, test_files) for error in losses)):
        found.append(
            LeakError(
                f"{label} lost the connection of the sandbox: {gone}.",
                cause="somebody has stopped the server or ended the connection (pg_terminate_backend(), KILL), or a "
                "signal's handler (a timeout) has raised where the driver cannot go on",
                remedy="nothing of the test was kept; for tests of lost connections " + COMMITTING,
            )
        )
    elif not gone and not wire.in_transaction():
        found.append(outer_transaction_ended(label, wire.ended_by))
    for client in () if gone else unfinished:
        cause = "a commit() was forgotten: in production these rows would be lost"
        remedy = "commit, roll back or close the session or connection where it was opened"
        if isinstance(client.where, CallSite) and client.where.filename in test_files:
            cause = (
                "the test's own file has begun the transaction, and the application has written in it: a commit() of "
                "the application's is missing, or the test uses its session and nothing ends it"
            )
            remedy = "session.commit() in the application; session.remove() (or close()) in setUp() or tearDown()"
        found.append(
            LeakError(
                f"{client.name[0].upper()}{client.name[1:]} was left with unfinished writes by {label}; its "
                f"transaction began at {client.where or 'an unknown place'}.",
                cause=cause,
                remedy=remedy,
            )
        )
    return found + find_swallowed(label, raised, test_files)


def outer_transaction_ended(label: str, by: str = "", *, cause: Exception | None = None) -> LeakError:
    """The error for what went past the sandbox, by a statement if it is known, noticed by an error."""
    leak = LeakError(
        f"{label} ended the outer transaction{f' by {by!r}' if by else ''}: what it wrote may have been committed.",
        cause="a COMMIT or ROLLBACK that the sandbox could not see (a raw PGconn, a statement that commits by itself)",
        remedy="find it in the statements of the test, or " + COMMITTING,
    )
    leak.__cause__ = cause
    return leak


def find_swallowed(label: str, raised: Iterable[DBTestCaseError], test_files: frozenset[str]) -> list[DBTestCaseError]:
    """Errors of ours that the application, and not the test's own files, has caught: each as one that fails it."""
    return [_leak(label, error) for error in raised if _was_swallowed(error, test_files)]


def _leak(label: str, error: DBTestCaseError) -> LeakError:
    leak = LeakError(
        f"{type(error).__name__} was raised and swallowed during {label}: {error.what}",
        cause="an `except Exception` of the application, or a task that nobody awaits: " + _caught_at(error),
        remedy=error.remedy or "see the error",
    )
    leak.of_swallowed_error = True
    return leak


def _was_swallowed(error: DBTestCaseError, test_files: frozenset[str]) -> bool:
    """Whether the error was caught by something else than the test itself (assertRaises strips its traceback off)."""
    if error.__traceback__ is None:
        return False
    frame = error.__traceback__.tb_frame  # the outermost frame that it passed through: where it was caught
    if frame.f_globals.get("__unittest") or str(frame.f_globals.get("__name__")).startswith("_pytest."):
        return False
    if frame.f_code.co_filename not in test_files or error.of_lost_task:
        return True
    return bool(frame.f_code.co_flags & inspect.CO_COROUTINE) and _has_ended_a_task(error)


def _application_has_caught(error: BaseException, test_files: frozenset[str]) -> bool:
    if error.__traceback__ is None:
        return False
    file = error.__traceback__.tb_frame.f_code.co_filename
    return is_application(file) and file not in test_files


def _has_ended_a_task(error: DBTestCaseError) -> bool:
    """Whether a task of the test's own file has failed with it, and nobody has asked what became of the task.

    It is looked for among all objects: tasks in C do not tell the collector of the error that they hold.
    """
    asyncio: Any = sys.modules.get("asyncio")
    return asyncio is not None and any(
        issubclass(type(each), asyncio.Future) and each._exception is error and each._log_traceback
        for each in gc.get_objects()
    )


def _caught_at(error: DBTestCaseError) -> str:
    summary = traceback.extract_tb(error.__traceback__, limit=1)
    return f"{summary[0].filename}:{summary[0].lineno}" if summary else "unknown place"
