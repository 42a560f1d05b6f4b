"""A part of a test that is undone at its end: the block of ``rolled_back()``, and each example of Hypothesis."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import object_session

from ..data import restore, settle
from ..reporting import add_evidence, together
from .class_run import RunningTest

__unittest = True  # keeps these frames out of the tracebacks of failing tests

_Block = Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def rolled_back(life: RunningTest, *, shows: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """The block of :meth:`DatabaseTest.rolled_back`; ``shows`` says whether its error is given the evidence."""
    isolation = life.isolation
    sessions = life.own_sessions()
    held = [(session, life.run_on_session(functools.partial(settle, session))) for session in sessions]
    run = life.of_class.run
    assert run is not None  # the test runs, or its isolation would not have been given
    data = run.data
    has_class_data = data is not None and bool(data.given_to(life.test))
    connection = life.given("connection")
    if isinstance(connection, Connection):
        connection.commit()
    isolation.begin_nested()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        if shows():
            add_evidence(error, life.evidence)
    problems = isolation.end_nested(failed=failure is not None, test_files=life.source_files)
    try:
        if data is not None and not has_class_data:
            data.forget(life.test)  # asked for in the part: made anew when they are asked for again
        class_data = data.given_to(life.test) if data is not None else []
        for session, instances in held:
            mine = [each for each in class_data if object_session(each) is session]
            life.run_on_session(functools.partial(restore, session, [*instances, *mine]))
        for session in life.own_sessions():
            if session not in sessions:  # made in the block, and goes on after it
                life.run_on_session(functools.partial(restore, session, []))
        if isinstance(connection, Connection):
            connection.rollback()
    except Exception as error:  # a listener of the application's
        problems.append(error)
    if failure is not None:
        for problem in problems:
            failure.add_note(f"After it: {type(problem).__name__}: {problem}")
        raise failure
    if problems:
        raise together(problems, f"{life.test.id()}: a part of it left {len(problems)} problems behind")


@contextlib.contextmanager
def each_example_alone(
    function: Any, runner: Any, block: _Block, finish: Callable[[Any], Any] | None = None
) -> Iterator[None]:
    """Have each example that Hypothesis gives to a test start from the same rows, while this block runs.

    :param function: the test; where it is none of Hypothesis's, nothing is done.
    :param runner: what the test is a method of; ``None`` for a function.
    :param finish: what to do with what an example gives back: where there is a loop, awaits it.
    """
    function = getattr(function, "__func__", function)
    if not getattr(function, "is_hypothesis_test", False):
        yield
        return
    if runner is None:
        handle, inner = function.hypothesis, function.hypothesis.inner_test
        handle.inner_test = _in_block(inner, block)
        try:
            yield
        finally:
            handle.inner_test = inner
        return
    execute = _executor(runner)

    def execute_example(example: Callable[[], Any]) -> Any:
        with block():
            given_back = execute(example)
            return finish(given_back) if finish is not None else given_back

    own = vars(runner).get("execute_example", runner)
    runner.execute_example = execute_example
    try:
        yield
    finally:
        if own is runner:
            del runner.execute_example
        else:
            runner.execute_example = own


def is_last_example() -> bool:
    """Whether the example that runs is the one that Hypothesis reports, not one of its way there."""
    control = sys.modules.get("hypothesis.control")
    return bool(getattr(control and control.current_build_context(), "is_final", False))


def _in_block(inner: Callable[..., Any], block: _Block) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(inner):

        @functools.wraps(inner)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with block():
                return await inner(*args, **kwargs)

        return awaited

    @functools.wraps(inner)
    def called(*args: Any, **kwargs: Any) -> Any:
        with block():
            return inner(*args, **kwargs)

    return called


def _executor(runner: Any) -> Callable[[Callable[[], Any]], Any]:
    """What the user has written about examples, as Hypothesis reads it: it runs in the block too."""
    if hasattr(runner, "execute_example"):
        written: Callable[[Callable[[], Any]], Any] = runner.execute_example
        return written
    set_up = getattr(runner, "setup_example", None)
    tear_down = getattr(runner, "teardown_example", None)

    def execute(example: Callable[[], Any]) -> Any:
        token = set_up() if set_up is not None else None
        try:
            return example()
        finally:
            if tear_down is not None:
                tear_down(token)

    return execute
