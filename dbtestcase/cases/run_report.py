"""The report of a run, as a thing of the run: recorded from the first class on, written when the process ends."""

from __future__ import annotations

from ..reporting import report
from ..settings import Settings
from . import scopes

__all__ = ["record_run"]


def record_run(settings: Settings) -> None:
    """Record what this process does, if the settings ask for a report or a summary; does nothing a second time."""
    if settings.report or settings.summary:
        scopes.enter(
            "run",
            "report",  # the first thing of the run, and so the last that ends
            lambda: report.reporting(settings.report, scopes.worker_name(), summarize=settings.summary),
        )
