"""psycopg: the answer to a query of the sandbox's own, also in the middle of a pipeline."""

from __future__ import annotations

import contextlib
import functools
import select
import time
from collections.abc import Iterable
from typing import Any

from psycopg import OperationalError, generators
from psycopg import errors as pg_errors
from psycopg.pq import ExecStatus

from ...sandbox import Rows
from .hooks import Gen, sync_only

DRAIN_TIMEOUT = 5.0
"""Seconds that the rest of an answer may take when nobody wants it."""


def drain(pgconn: Any) -> None:
    """Receive whatever the server still sends for what was left in the middle."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    if pgconn.pipeline_status:
        pgconn.pipeline_sync()
    empty = 0
    while empty < 2:  # in a pipeline each statement's results are followed by none; two of them are the end
        if time.monotonic() > deadline:
            raise OperationalError("the server goes on sending")
        while pgconn.flush():
            _wait(pgconn, deadline, writing=True)
        while pgconn.is_busy():
            _wait(pgconn, deadline)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            empty = empty + 1 if pgconn.pipeline_status else 2
            continue
        empty = 0
        if result.status == ExecStatus.COPY_IN:
            pgconn.put_copy_end(b"the test has ended")
        elif result.status in (ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH):
            while (size := pgconn.get_copy_data(1)[0]) >= 0:
                if size == 0:
                    _wait(pgconn, deadline)
                    pgconn.consume_input()
        elif result.status == ExecStatus.PIPELINE_SYNC and not pgconn.is_busy():
            break
    if pgconn.pipeline_status:
        pgconn.exit_pipeline_mode()


def _wait(pgconn: Any, deadline: float, *, writing: bool = False) -> None:
    sockets = [pgconn.socket]
    if not any(select.select(sockets, sockets if writing else [], [], max(deadline - time.monotonic(), 0))):
        raise OperationalError("the server does not answer")


def encoding_of(pgconn: Any) -> str:
    """In which encoding it speaks to the server; a client may have set one that Python does not know."""
    try:
        return str(pgconn._encoding)
    except pg_errors.NotSupportedError:
        return "latin-1"  # what is ours is ASCII, in every encoding that a client can have


def results(pgconn: Any) -> Gen:
    """Receive the answer to a query of ours; the rows of the last result that has any."""
    return rows_of((yield from generators.execute(pgconn)), encoding_of(pgconn))


def results_in_pipeline(pipeline: Any, commands: Iterable[bytes]) -> Gen:
    """Send commands of ours among those of a pipeline and wait for the answer, as :func:`results` gives it."""
    answer = _Answer(encoding_of(pipeline.pgconn))
    for command in commands:
        pipeline.command_queue.append(functools.partial(pipeline.pgconn.send_query_params, command, None))
        pipeline.result_queue.append((answer, None))
    try:
        yield from sync_only(pipeline)
    except pg_errors.Error:
        # an error may come before the rest of its answer, which must not meet whoever asks next
        with contextlib.suppress(pg_errors.Error):
            yield from pipeline._fetch_gen(flush=False)
        raise
    return answer.rows


class _Answer:
    """Stands in for a cursor in the queue in which psycopg keeps whose a pipeline's next results are."""

    def __init__(self, encoding: str) -> None:
        self.rows: Rows = []
        self._encoding = encoding

    def _check_results(self, results: list[Any]) -> None:
        if any(result.status == ExecStatus.PIPELINE_ABORTED for result in results):
            raise pg_errors.PipelineAborted("pipeline aborted")

    def _set_results(self, results: list[Any]) -> None:
        self.rows = rows_of(results, self._encoding) or self.rows


def rows_of(results: list[Any], encoding: str) -> Rows:
    """The rows of the last result that has any.

    :raises psycopg.Error: one of them is an error.
    """
    rows: Rows = []
    failure: Exception | None = None
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            failure = pg_errors.error_from_result(result, encoding=encoding)
        elif result.status == ExecStatus.TUPLES_OK:
            rows = [
                tuple(_text(result.get_value(i, j), encoding) for j in range(result.nfields))
                for i in range(result.ntuples)
            ]
    if failure is not None:
        raise failure
    return rows


def _text(value: bytes | None, encoding: str) -> str | None:
    return None if value is None else bytes(value).decode(encoding)
