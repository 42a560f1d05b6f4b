"""pytest: test functions and plain classes with the life of a test case, by a fixture.

.. code-block:: python

    # conftest.py
    from dbtestcase import DatabaseTest
    from dbtestcase.pytest_plugin import database_fixture
    from blog import db, models

    class Blog(DatabaseTest):
        metadata = models.Base.metadata
        engines = [db.engine]

    blog = database_fixture(Blog)

    # test_blog.py
    def test_publish(blog):
        publish("Hello")
        blog.assertRowCount(models.Post, 1)

``@pytest.mark.dbtestcase(reset_sequences=True)`` is for one test.  Where the library is installed pytest loads this by
itself, for the mark.  Test cases run under pytest without any of this.  ``-p dbtestcase.pytest_plugin`` asks for a
summary.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .errors import ConfigurationError, DBTestCaseError, MissingExtra

if TYPE_CHECKING:  # pytest loads this module in every run of an environment: the rest loads where a fixture is made
    from .cases import DatabaseTest, Life

try:
    import pytest
except ImportError as error:
    raise MissingExtra("pytest", "pytest", "dbtestcase.pytest_plugin") from error

__all__ = ["DatabaseFixture", "database_fixture"]

C = TypeVar("C", bound="DatabaseTest")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark; where ``-p dbtestcase.pytest_plugin`` was written, ask for the summary."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(reset_sequences): for one test with a database_fixture(): whether ids start from the same number",
    )
    if __name__ in config.known_args_namespace.plugins:
        os.environ.setdefault("DBTESTCASE_SUMMARY", "1")


_MARK = "dbtestcase"
_USES_DATABASE = pytest.StashKey[bool]()
"""Set on a test that uses a fixture of :func:`database_fixture`."""

_OPTIONS = ("reset_sequences",)
_TEST: pytest.StashKey[DatabaseTest] = pytest.StashKey()
_ERROR = pytest.StashKey[BaseException]()


class DatabaseFixture(Generic[C]):
    """For type checkers: a fixture of pytest whose value is a ``C``.  When it runs it is pytest's own object."""


def database_fixture(case: type[C], *, name: str | None = None, autouse: bool = False) -> DatabaseFixture[C]:
    """A fixture whose value is what ``self`` is in a test of ``case``.

    The class begins with the first test that uses the fixture and ends with the run, or when another class begins: its
    data are made once, its instances are fresh in each test.  A leak or a forgotten commit is an error of the teardown
    of the test that did it.  Each example that Hypothesis gives to a test starts from the same rows.

    :param case: a class of this library's, with the attributes and hooks that say what the database is like.  ``setUp``
        and ``tearDown`` run around each test.
    :param name: the fixture's name, where it is another than that of the variable.
    :param autouse: whether all tests that see the fixture use it.
    :raises ConfigurationError: ``case`` is something else, or has hooks that nobody would await.
    """
    from .cases import AsyncLife, Life

    lives = _Lives(case, Life)
    if hasattr(case, "asyncSetUp"):
        from .cases import AsyncTruncatingDatabaseTest

        if issubclass(case, AsyncTruncatingDatabaseTest) or _has_async_hooks(case):
            return cast(DatabaseFixture[C], _async_fixture(_Lives(case, AsyncLife), name, autouse))

    # Async cases too: in the sandbox nothing waits for a loop, so one fixture serves every plugin that brings one.
    @pytest.fixture(name=name, autouse=autouse)
    def database(request: pytest.FixtureRequest) -> Iterator[C]:
        life = lives.begin_class(request)
        test = life.begin_test(request.node.nodeid)
        try:
            with _given(test, request):
                yield test
        finally:
            life.end_test(request.node.stash.get(_ERROR, None))

    return cast(DatabaseFixture[C], database)


def _async_fixture(lives: _Lives[C], name: str | None, autouse: bool) -> Any:
    """For what has to be awaited in the test's own loop: pytest-asyncio, in both of its modes, or anyio."""
    fixture: Any = pytest.fixture
    if importlib.util.find_spec("pytest_asyncio") is not None:
        import pytest_asyncio

        fixture = pytest_asyncio.fixture

    async def database(request: pytest.FixtureRequest) -> AsyncIterator[C]:
        life: Any = lives.begin_class(request)
        test = await life.begin_test(request.node.nodeid)
        try:
            with _given(test, request):
                yield test
        finally:
            await life.end_test(request.node.stash.get(_ERROR, None))

    return fixture(name=name, autouse=autouse)(database)


def _has_async_hooks(case: type[DatabaseTest]) -> bool:
    from .cases import is_ours

    hooks = ("asyncSetUp", "asyncTearDown")
    return any(
        name in vars(base)
        for base in case.__mro__
        for name in hooks
        if not is_ours(base) and base.__module__ != "unittest.async_case"
    )


class _Lives(Generic[C]):
    """The life of a class, and of the same with what a mark says of it."""

    def __init__(self, case: type[C], kind: type[Life[Any]]) -> None:
        self._case = case
        self._kind = kind
        self._lives: dict[tuple[tuple[str, bool], ...], Life[C]] = {(): kind(case)}

    def begin_class(self, request: pytest.FixtureRequest) -> Life[C]:
        """Have the class begun, and the one before ended."""
        if request.scope != "function":
            raise ConfigurationError(
                f"The fixture of {self._case.__qualname__} has the scope {request.scope!r}.",
                cause="a test's life is as long as the test",
                remedy="leave the scope out; rows for several tests belong to setUpTestData() of the class",
            )
        life = self._life_for(request)
        life.refuse_inside_a_test()
        kept = _kept(request.config)
        if kept.life is not life:
            kept.end()
        of_class = life.case._dbtestcase
        if of_class.run is None:
            of_class.refuse_early_use(
                f"let the fixture there take `{request.fixturename}` as an argument, so that it runs in the "
                f"test; rows for all tests belong to setUpTestData() of {self._case.__qualname__}"
            )
        if life.begin_class():
            kept.life = life
        return life

    def _life_for(self, request: pytest.FixtureRequest) -> Life[C]:
        plain = self._lives[()].case
        resets_always = plain._dbtestcase.resets_ids and not plain.reset_sequences
        said = _options_of(request.node, resets_always=resets_always)
        changed = (
            {} if resets_always else {name: value for name, value in said.items() if getattr(plain, name) != value}
        )
        key = tuple(sorted(changed.items()))
        if key not in self._lives:
            own = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, **changed}
            self._lives[key] = self._kind(type(plain.__name__, (plain,), own))
        return self._lives[key]


@contextmanager
def _given(test: DatabaseTest, request: pytest.FixtureRequest) -> Iterator[None]:
    """A test runs with the fixture's value."""
    from .cases import each_example_alone

    node = request.node
    node.stash[_TEST], node.stash[_USES_DATABASE] = test, True
    function = getattr(node, "obj", None)
    if not _is_awaited(function):
        test._dbtestcase.is_awaited = False
    try:
        with each_example_alone(function, request.instance, test.rolled_back):
            yield
    finally:
        del node.stash[_TEST]


def _is_awaited(function: Any) -> bool:
    if not callable(function):
        return True  # nothing is known of it: a doctest, a test of another plugin's
    if getattr(function, "is_hypothesis_test", False):
        function = function.hypothesis.inner_test
    return inspect.iscoroutinefunction(inspect.unwrap(function))


class _Kept:
    """The class that has begun and goes on from test to test; and what pytest says of the tests."""

    def __init__(self) -> None:
        self.life: Life[Any] | None = None

    def end(self) -> None:
        life, self.life = self.life, None
        if life is not None:
            life.end_class()

    def pytest_sessionfinish(self) -> None:
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
        test = item.stash.get(_TEST, None)
        if test is not None and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            if call.when != "teardown":
                item.stash[_ERROR] = call.excinfo.value
            from .reporting import evidence_once

            for note in evidence_once(call.excinfo.value, test._dbtestcase.evidence):
                report.sections.append(("Database (dbtestcase)", note))
        return report


def _kept(config: pytest.Config) -> _Kept:
    name = "dbtestcase-fixtures"
    found = config.pluginmanager.get_plugin(name)
    if found is None:
        found = _Kept()
        config.pluginmanager.register(found, name)
    assert isinstance(found, _Kept)
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Refuse a mark that nothing heeds."""
    if item.get_closest_marker(_MARK) is not None and not item.stash.get(_USES_DATABASE, False):
        raise ConfigurationError(
            f"{item.nodeid} has the mark {_MARK}, and uses no fixture of database_fixture(): the mark does nothing.",
            cause="a test that has lost its fixture, or a test case, whose class has attributes for this",
            remedy="name the fixture among the test's arguments; on a test case write reset_sequences = True",
        )


def _options_of(item: Any, resets_always: bool = False) -> dict[str, bool]:
    """What the marks of a test say.

    :param resets_always: whether ids start from the same number whatever is written.
    :raises ConfigurationError: a mark that is misspelt, or would be ignored.
    """
    mark = item.get_closest_marker(_MARK)
    if mark is None:
        return {}
    written = (
        f"@pytest.mark.{_MARK}({', '.join([*map(repr, mark.args), *(f'{n}={v!r}' for n, v in mark.kwargs.items())])})"
    )
    unknown = [name for name in mark.kwargs if name not in _OPTIONS]
    if mark.args or unknown or not mark.kwargs:
        raise ConfigurationError(
            f"{item.nodeid} is marked {written}"
            + (f": {unknown[0]} is no argument of it." if unknown else ": it needs an argument by name."),
            cause="a misspelling",
            remedy=f"@pytest.mark.{_MARK}(reset_sequences=True)",
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
