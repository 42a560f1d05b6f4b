"""nose2's hooks: what belongs to the run ends with the run, and the summary stands at its end.

Everything works without it.  Turned on by ``unittest.cfg``::

    [unittest]
    plugins = dbtestcase.nose2_plugin

    [dbtestcase]
    always-on = True

or by ``nose2 --plugin dbtestcase.nose2_plugin --database-summary``.
"""

from __future__ import annotations

import os
from typing import Any

from .cases import close_all
from .errors import MissingExtra

try:
    from nose2.events import Plugin
except ImportError as error:
    raise MissingExtra("nose2", "nose2", "dbtestcase.nose2_plugin") from error

__all__ = ["DatabaseSummary"]


class DatabaseSummary(Plugin):  # type: ignore[misc]  # nose2 is not typed
    """The plugin; its section in the configuration is ``[dbtestcase]``."""

    configSection = "dbtestcase"
    commandLineSwitch = (None, "database-summary", "Say at the end what the tests' databases did (dbtestcase)")

    def register(self) -> None:
        """Turned on: ask for the summary, in worker processes too."""
        super().register()
        os.environ.setdefault("DBTESTCASE_SUMMARY", "1")

    def registerInSubprocess(self, event: Any) -> None:
        """Follow nose2's mp plugin into its worker processes."""
        event.pluginClasses.append(type(self))

    def stopSubprocess(self, event: Any) -> None:
        """Close what a worker process made."""
        close_all()

    def afterTestRun(self, event: Any) -> None:
        """Close what the run made, before the runner's own work at the end."""
        close_all()
