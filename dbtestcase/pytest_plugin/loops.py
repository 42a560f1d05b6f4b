"""In which loop a fixture and its test run: refused where that is not the same one, or none of asyncio's."""

from __future__ import annotations

import pytest

from ..errors import ConfigurationError


def refuse_trio(request: pytest.FixtureRequest) -> None:
    if "anyio_backend" in request.fixturenames and "trio" in request.getfixturevalue("anyio_backend"):
        raise ConfigurationError(
            f"{request.node.nodeid} runs on trio, and {request.fixturename!r} is the fixture of an asyncio class.",
            cause="SQLAlchemy's async engines and sessions need asyncio; where trio is installed, anyio runs each test "
            "on both, unless a fixture says on which",
            remedy='a fixture in conftest.py: def anyio_backend(): return "asyncio"',
        )


def refuse_another_loop(request: pytest.FixtureRequest) -> None:
    """Refuse to begin a test in another loop than it runs in: connections of one are of no use in the other."""
    of_test = of_fixture = ""
    mark = request.node.get_closest_marker("asyncio")
    if mark is not None:
        of_test = mark.kwargs.get("loop_scope") or _setting(request, "asyncio_default_test_loop_scope") or "function"
        of_fixture = _setting(request, "asyncio_default_fixture_loop_scope")
        if of_fixture in ("", "fixture-scope"):
            of_fixture = "function"
        remedy = (
            f"asyncio_default_fixture_loop_scope = {of_test} in pytest's configuration, or "
            f'@pytest.mark.asyncio(loop_scope="{of_fixture}")'
        )
    elif request.node.get_closest_marker("anyio") is not None:
        plugins = request.config.pluginmanager.get_plugins()
        if any(getattr(plugin, "__name__", "") == "pytest_asyncio.plugin" for plugin in plugins):
            of_test, of_fixture = "anyio", "pytest-asyncio"
            remedy = "-p no:asyncio, or @pytest.mark.asyncio in the place of @pytest.mark.anyio"
    if of_test != of_fixture:
        raise ConfigurationError(
            f"{request.node.nodeid} runs in a loop of its {of_test}, its fixture {request.fixturename!r} in one of its "
            f"{of_fixture}.",
            cause="pytest-asyncio runs the fixtures that it knows, and has a setting for their loop and another for "
            "that of tests; this one opens connections and awaits hooks in its loop",
            remedy=remedy,
        )


def _setting(request: pytest.FixtureRequest, name: str) -> str:
    try:
        return str(request.config.getini(name) or "")
    except ValueError:  # an earlier pytest-asyncio has no such setting
        return ""
