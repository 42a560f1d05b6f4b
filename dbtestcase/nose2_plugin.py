"""nose2's hooks: what belongs to the run ends with the run, and the summary stands at its end.

Tests in a layer begin before the layer's ``testSetUp`` and end after its ``testTearDown``: what these do belongs to the
test.  Everything else works without the plugin.  Turned on by ``unittest.cfg``::

    [unittest]
    plugins = dbtestcase.nose2_plugin

    [dbtestcase]
    always-on = True

or by ``nose2 --plugin dbtestcase.nose2_plugin --database-summary``.
"""

from __future__ import annotations

import os
import sys
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

    _test: Any = None
    _class: Any = None

    def register(self) -> None:
        """Turned on: ask for the summary, in worker processes too."""
        super().register()
        os.environ.setdefault("DBTESTCASE_SUMMARY", "1")

    def registerInSubprocess(self, event: Any) -> None:
        """Follow nose2's mp plugin into its worker processes."""
        event.pluginClasses.append(type(self))

    def afterTestRun(self, event: Any) -> None:
        """Close what the run, or a worker process of it, made, before the runner's own work at the end."""
        self._end_layer()
        close_all()

    stopSubprocess = afterTestRun

    # -- layers: nose2 calls no setUpClass() there

    def startLayerSetup(self, event: Any) -> None:
        """What the layer before has begun is over."""
        self._end_layer()

    def startLayerSetupTest(self, event: Any) -> None:
        """Before the layer's ``testSetUp``: begin the class, if it is its first test, and the test.

        :raises ConfigurationError: the layer's ``setUp`` has used an engine of the class.
        """
        self._end_test()
        test = event.test
        if not hasattr(type(test), "_dbtestcase"):
            self._end_class()
            return
        life = test._dbtestcase
        if life.of_class.run is None:
            life.of_class.refuse_early_use(
                "make the rows in testSetUp() of the layer, which runs in the test's transaction, or in setUpTestData()"
            )
        self._class = life.of_class
        life.hold()
        self._test = test

    def testOutcome(self, event: Any) -> None:
        """Take note of a test that fails: it is not blamed for more."""
        if event.exc_info is not None and event.test is self._test:
            event.test._dbtestcase.failed = True

    def stopLayerTeardownTest(self, event: Any) -> None:
        """After the layer's ``testTearDown``: end the test."""
        self._end_test()

    def stopLayerTeardown(self, event: Any) -> None:
        """After the layer's ``tearDown``: end the class."""
        self._end_layer()

    def _end_test(self) -> None:
        test, self._test = self._test, None
        if test is None:
            return
        try:
            test._dbtestcase.release()
        except Exception:  # it belongs to the test; raised here it would be told of the whole layer
            self.session.testResult.addError(test, sys.exc_info())

    def _end_class(self) -> None:
        running, self._class = self._class, None
        if running is not None:
            running.leave()

    def _end_layer(self) -> None:
        self._end_test()
        self._end_class()
