"""Warnings of the library: given at the application's line, and told in the report."""

from __future__ import annotations

import os
import warnings
from typing import Any

from . import report

__all__ = ["warn_at"]


def warn_at(message: str, category: type[Warning], filename: str, lineno: int, source: Any = None) -> None:
    """Give a warning that belongs to a line, as Python's own filters want it: ignored, once, as an error.

    :param source: the object that the warning is about.
    """
    recorder = report.recorder()
    if recorder is not None:  # before the warning, which may be an error
        where = os.path.relpath(filename) if filename.startswith(os.getcwd()) else filename
        recorder.write("warning", category=category.__name__, line=f"{where}:{lineno}", text=message)
    warnings.warn_explicit(message, category, filename, lineno, source=source)
