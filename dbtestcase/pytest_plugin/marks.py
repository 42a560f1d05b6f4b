"""``@pytest.mark.dbtestcase``: what it may say of a test."""

from __future__ import annotations

from typing import Any

import pytest

from ..errors import ConfigurationError, DBTestCaseError

MARK = "dbtestcase"
USES_DATABASE = pytest.StashKey[bool]()
"""Set on a test that uses a fixture of :func:`database_fixture`."""

_OPTIONS = ("reset_sequences",)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Refuse a mark that nothing heeds."""
    if item.get_closest_marker(MARK) is not None and not item.stash.get(USES_DATABASE, False):
        raise ConfigurationError(
            f"{item.nodeid} has the mark {MARK}, and uses no fixture of database_fixture(): the mark does nothing.",
            cause="a test that has lost its fixture, or a test case, whose class has attributes for this",
            remedy="name the fixture among the test's arguments; on a test case write reset_sequences = True",
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Fail a test with the mark ``xfail`` that fails by this library, unless its ``raises=`` names an error of ours."""
    report = yield
    if call.excinfo is None or not hasattr(report, "wasxfail") or call.excinfo.errisinstance(pytest.xfail.Exception):
        return report
    error = call.excinfo.value
    if isinstance(error, DBTestCaseError) and any(map(_names_ours, item.iter_markers("xfail"))):
        return report
    from ..cases import why_not_expected

    leak = why_not_expected(item.nodeid, error, getattr(error, "_dbtestcase_lost", ""))
    if leak is not None or (call.when == "teardown" and _tells_of_ours(error)):
        del report.wasxfail
        report.outcome = "failed"
    if leak is not None:
        report.longrepr = f"{report.longrepr}\n\nLeakError: {leak}"
    return report


def _tells_of_ours(error: BaseException) -> bool:
    """Whether the end of a test tells of what it left behind or swallowed, which is not what it is expected to."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(DBTestCaseError) is not None
    return isinstance(error, DBTestCaseError)


def _names_ours(mark: pytest.Mark) -> bool:
    raises = mark.kwargs.get("raises") or ()
    raises = getattr(raises, "expected_exceptions", raises)  # pytest.RaisesExc
    kinds = raises if isinstance(raises, tuple) else (raises,)
    return any(isinstance(kind, type) and issubclass(kind, DBTestCaseError) for kind in kinds)


def options_of(item: Any, resets_always: bool = False) -> dict[str, bool]:
    """What the marks of a test say.

    :param resets_always: whether ids start from the same number whatever is written.
    :raises ConfigurationError: a mark that is misspelt, or would be ignored.
    """
    mark = item.get_closest_marker(MARK)
    if mark is None:
        return {}
    written = (
        f"@pytest.mark.{MARK}({', '.join([*map(repr, mark.args), *(f'{n}={v!r}' for n, v in mark.kwargs.items())])})"
    )
    unknown = [name for name in mark.kwargs if name not in _OPTIONS]
    if mark.args or unknown or not mark.kwargs:
        raise ConfigurationError(
            f"{item.nodeid} is marked {written}"
            + (f": {unknown[0]} is no argument of it." if unknown else ": it needs an argument by name."),
            cause="a misspelling",
            remedy=f"@pytest.mark.{MARK}(reset_sequences=True)",
        )
    value = mark.kwargs["reset_sequences"]
    if not isinstance(value, bool) or (resets_always and not value):
        raise ConfigurationError(
            f"{item.nodeid} is marked {written}: that cannot be had.",
            cause="in a committing class ids start from the same number in every test"
            if isinstance(value, bool)
            else "a word or a list where yes or no belongs: any word counts as yes",
            remedy="take the mark away" if isinstance(value, bool) else "True or False",
        )
    return {"reset_sequences": value}
