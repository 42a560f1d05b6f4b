"""pytest: test functions and plain classes with the life of a test case, by a fixture.

.. code-block:: python

    # conftest.py
    from .. import DatabaseTest
    from . import database_fixture
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

from ..errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:  # pytest loads this module in every run of an environment: the rest loads where a fixture is made
    from ..cases import DatabaseTest, Life

try:
    import pytest
except ImportError as error:
    raise MissingExtra("pytest", "pytest", "dbtestcase.pytest_plugin") from error

from .kept import TEST, failure_of, kept_of
from .loops import refuse_another_loop, refuse_trio
from .marks import MARK, USES_DATABASE, options_of
from .marks import pytest_runtest_call as pytest_runtest_call  # hooks of this plugin
from .marks import pytest_runtest_makereport as pytest_runtest_makereport

__all__ = ["DatabaseFixture", "database_fixture"]

C = TypeVar("C", bound="DatabaseTest")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark; where ``-p dbtestcase.pytest_plugin`` was written, ask for the summary."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(reset_sequences): for one test with a database_fixture(): whether ids start from the same number",
    )
    if __name__ in config.known_args_namespace.plugins:
        os.environ.setdefault("DBTESTCASE_SUMMARY", "1")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Any:
    """What a fixture around a test case writes when that has ended is undone with it, before the next one begins."""
    try:
        return (yield)
    finally:
        life = getattr(getattr(item, "cls", None), "_dbtestcase", None)
        if (run := getattr(life, "run", None)) is not None:  # a stand-in for a life may have none
            run.isolation.undo_writes_between_tests()


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
    from ..cases import AsyncLife, Life

    lives = _Lives(case, Life)
    is_async = hasattr(case, "asyncSetUp")
    if is_async:
        from ..cases import AsyncTruncatingDatabaseTest

        if issubclass(case, AsyncTruncatingDatabaseTest) or _has_async_hooks(case):
            return cast(DatabaseFixture[C], _async_fixture(_Lives(case, AsyncLife), name, autouse))

    # Async cases too: in the sandbox nothing waits for a loop, so one fixture serves every plugin that brings one.
    @pytest.fixture(name=name, autouse=autouse)
    def database(request: pytest.FixtureRequest) -> Iterator[C]:
        if is_async:
            refuse_trio(request)
        life = lives.begin_class(request)
        test = life.begin_test(request.node.nodeid, files=_files_of(request))
        try:
            with _given(test, request):
                yield test
        finally:
            life.end_test(failure_of(request.node))

    return cast(DatabaseFixture[C], database)


def _async_fixture(lives: _Lives[C], name: str | None, autouse: bool) -> Any:
    """For what has to be awaited in the test's own loop: pytest-asyncio, in both of its modes, or anyio."""
    fixture: Any = pytest.fixture
    if importlib.util.find_spec("pytest_asyncio") is not None:
        import pytest_asyncio

        fixture = pytest_asyncio.fixture

    async def database(request: pytest.FixtureRequest) -> AsyncIterator[C]:
        refuse_trio(request)
        refuse_another_loop(request)
        life: Any = lives.begin_class(request)
        test = await life.begin_test(request.node.nodeid, files=_files_of(request))
        try:
            with _given(test, request):
                yield test
        finally:
            await life.end_test(failure_of(request.node))

    return fixture(name=name, autouse=autouse)(database)


def _has_async_hooks(case: type[DatabaseTest]) -> bool:
    from ..cases import is_ours

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
        kept = kept_of(request.config)
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
        said = options_of(request.node, resets_always=resets_always)
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
    from ..cases import each_example_alone

    node = request.node
    node.stash[TEST], node.stash[USES_DATABASE] = test, True
    function = getattr(node, "obj", None)
    if not _is_awaited(function):
        test._dbtestcase.is_awaited = False
    try:
        with each_example_alone(function, request.instance, test.rolled_back):
            yield
    finally:
        del node.stash[TEST]


def _files_of(request: pytest.FixtureRequest) -> frozenset[str]:
    """Where a test, its class and the fixtures of ``conftest.py`` are written."""
    from ..cases import source_files_of

    own = frozenset([str(request.node.path)])
    if request.cls is not None:
        own |= source_files_of(request.cls)
    return own | kept_of(request.config).conftest_files


def _is_awaited(function: Any) -> bool:
    if not callable(function):
        return True  # nothing is known of it: a doctest, a test of another plugin's
    if getattr(function, "is_hypothesis_test", False):
        function = function.hypothesis.inner_test
    return inspect.iscoroutinefunction(inspect.unwrap(function))
