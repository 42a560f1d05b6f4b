"""nose2's hooks: what belongs to the run ends with the run, and a line at the end says what the databases did.

Everything works without it.  Turned on by ``unittest.cfg``::

    [unittest]
    plugins = dbtestcase.nose2_plugin

    [dbtestcase]
    always-on = True
    slowest = 3

or by ``nose2 --plugin dbtestcase.nose2_plugin --database-summary``.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from .backends import Database
from .cases import scopes
from .errors import MissingExtra
from .reporting.queries import recording
from .server import Server

try:
    from nose2.events import Plugin
except ImportError as error:
    raise MissingExtra("nose2", "nose2", "dbtestcase.nose2_plugin") from error

__all__ = ["DatabaseSummary"]

# Where a worker of nose2's mp plugin puts a test's figures, for the main process to find.
_KEY = "dbtestcase"


@dataclass(frozen=True)
class _Figures:
    """What one test did: plain values, because they cross to another process."""

    statements: int
    seconds: float
    resources: tuple[str, ...]


class DatabaseSummary(Plugin):  # type: ignore[misc]  # nose2 is not typed
    """The plugin; its section in the configuration is ``[dbtestcase]``.

    ``slowest``: how many of the slowest tests, by the time that their statements took, are named (default 3).
    """

    configSection = "dbtestcase"
    commandLineSwitch = (None, "database-summary", "Say at the end what the tests' databases did (dbtestcase)")

    def __init__(self) -> None:
        self.slowest: int = self.config.as_int("slowest", 3)
        self._tests: dict[str, _Figures] = {}
        self._recording = ExitStack()
        self._queries: Any = ()

    def startTest(self, event: Any) -> None:
        """Begin to record the statements of a test."""
        self._recording.close()
        self._queries = self._recording.enter_context(recording())

    def stopTest(self, event: Any) -> None:
        """Keep what the test did; what a worker process found out arrives with the event."""
        figures = event.metadata.get(_KEY)
        if figures is None:
            seconds = sum(query.milliseconds or 0.0 for query in self._queries) / 1000
            figures = _Figures(len(self._queries), seconds, tuple(_resources()))
            event.metadata[_KEY] = figures
        self._recording.close()
        self._queries = ()
        self._tests[event.test.id()] = figures

    def registerInSubprocess(self, event: Any) -> None:
        """Follow nose2's mp plugin into its worker processes."""
        event.pluginClasses.append(type(self))

    def stopSubprocess(self, event: Any) -> None:
        """Close what a worker process made."""
        scopes.close_all()

    def afterTestRun(self, event: Any) -> None:
        """Close what the run made, before the runner's own work at the end."""
        scopes.close_all()

    def afterSummaryReport(self, event: Any) -> None:
        """Print the line, where there was a database at all."""
        for line in summary(self._tests, self.slowest):
            event.stream.writeln(line)


def _resources() -> list[str]:
    """The servers and databases of this process, in words."""
    names = []
    for thing in scopes.live():
        if isinstance(thing, Server):
            names.append(f"{thing.url.get_backend_name()} {thing.version} (disposable)")
        elif isinstance(thing, Database):
            names.append(f"database {thing.name}")
    return names


def summary(tests: dict[str, _Figures], slowest: int) -> list[str]:
    """The lines at the end of the report; none where no test used a database."""
    resources = sorted({name for figures in tests.values() for name in figures.resources})
    if not resources:
        return []
    statements = sum(figures.statements for figures in tests.values())
    seconds = sum(figures.seconds for figures in tests.values())
    lines = [f"dbtestcase: {'; '.join(resources)}; {statements} statements in {seconds:.3f} s"]
    by_time = sorted((item for item in tests.items() if item[1].statements), key=lambda item: -item[1].seconds)
    for name, figures in by_time[:slowest]:
        lines.append(f"  {figures.seconds * 1000:8.1f} ms  {figures.statements:5} statements  {name}")
    return lines
