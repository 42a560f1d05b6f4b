"""What lasts from test to test in a run of pytest: the class that has begun; and what pytest says of the tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import DBTestCaseError

if TYPE_CHECKING:
    from ..cases import DatabaseTest, Life

TEST: pytest.StashKey[DatabaseTest] = pytest.StashKey()
_ERROR = pytest.StashKey[BaseException]()


class Kept:
    """The class that has begun and goes on from test to test; and what pytest says of the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.life: Life[Any] | None = None
        files = (getattr(plugin, "__file__", None) or "" for plugin in config.pluginmanager.get_plugins())
        self.conftest_files = frozenset(file for file in files if os.path.basename(file) == "conftest.py")

    def end(self) -> None:
        life, self.life = self.life, None
        if life is not None:
            life.end_class()

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Any:
        """After pytest, which ends a test here that Ctrl-C or ``pytest.exit()`` has stopped."""
        try:
            return (yield)
        finally:
            self.end()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """The statements of a failing test, in a section of its report."""
        notes: list[str] = []
        if call.when == "teardown" and call.excinfo is not None and isinstance(call.excinfo.value, DBTestCaseError):
            notes = list(getattr(call.excinfo.value, "__notes__", ()))
            call.excinfo.value.__notes__ = []
        report = yield
        report.sections.extend(("Database (dbtestcase)", note) for note in notes)
        test = item.stash.get(TEST, None)
        if test is not None and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            from ..reporting import evidence_once

            error, life = call.excinfo.value, test._dbtestcase
            for note in evidence_once(error, life.evidence):
                report.sections.append(("Database (dbtestcase)", note))
            if _is_expected(item, report, error):
                life.failed = False  # nothing else tells of what it swallowed or left behind
            elif call.when != "teardown":
                item.stash[_ERROR] = error
        return report


def _is_expected(item: pytest.Item, report: pytest.TestReport, error: BaseException) -> bool:
    """Whether a test has failed as its mark says, and not because of this library."""
    from ..cases import why_not_expected

    lost = getattr(error, "_dbtestcase_lost", "")
    return hasattr(report, "wasxfail") and why_not_expected(item.nodeid, error, lost) is None


def kept_of(config: pytest.Config) -> Kept:
    """That of a run; made, and told to pytest, when it is first asked for."""
    name = "dbtestcase-fixtures"
    found = config.pluginmanager.get_plugin(name)
    if found is None:
        found = Kept(config)
        config.pluginmanager.register(found, name)
    assert isinstance(found, Kept)
    return found


def failure_of(node: pytest.Item) -> BaseException | None:
    """What the test has failed with, this time: a plugin may run it again."""
    error = node.stash.get(_ERROR, None)
    if error is not None:
        del node.stash[_ERROR]
    return error
