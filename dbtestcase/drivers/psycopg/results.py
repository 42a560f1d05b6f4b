"""psycopg: the answer to a query of the sandbox's own, also in the middle of a pipeline."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from psycopg import errors as pg_errors
from psycopg import generators
from psycopg.pq import ExecStatus

from ...sandbox.session_settings import Rows
from .hooks import Gen

__all__ = ["results", "results_in_pipeline"]


def results(pgconn: Any) -> Gen:
    """Receive the answer to a query of ours; the rows of the last result that has any."""
    return _rows((yield from generators.execute(pgconn)), pgconn._encoding)


def results_in_pipeline(pipeline: Any, commands: Iterable[bytes]) -> Gen:
    """Send commands of ours among those of a pipeline and wait for the answer, as :func:`results` gives it."""
    answer = _Answer(pipeline.pgconn._encoding)
    for command in commands:
        pipeline.command_queue.append(functools.partial(pipeline.pgconn.send_query_params, command, None))
        pipeline.result_queue.append((answer, None))
    yield from pipeline._sync_gen()
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
        self.rows = _rows(results, self._encoding) or self.rows


def _rows(results: list[Any], encoding: str) -> Rows:
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
