"""A report for as long as a run lasts: begun with the first class of a process, written by the last process."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import record
from .summary import summary
from .writing import write_report

__all__ = ["reporting"]


@contextlib.contextmanager
def reporting(outputs: Sequence[Path], worker: str, *, summarize: bool) -> Iterator[None]:
    """Record this process until the block ends; the last process of the run writes ``outputs``.

    :param worker: the process's name among the run's workers.
    :param summarize: whether the last process also writes a few lines to stderr.
    :raises MissingExtra: a page is wanted, and what makes it is not installed: said now, not after the run.
    """
    if any(output.suffix == ".html" for output in outputs):
        importlib.import_module("dbtestcase.reporting.report.page")
    folder = record.parts_folder(outputs) if outputs else _private_folder()
    recorder = record.start(folder, worker)
    try:
        yield
    finally:
        if record.stop():
            document = write_report(folder, outputs)
            if summarize:
                print("\n".join(summary(document)), file=sys.stderr, flush=True)
            if not document["missing"] and (recorder.may_clear or not outputs):
                shutil.rmtree(folder)


def _private_folder() -> Path:
    """Where the processes of one run meet that writes no file; of this user alone."""
    folder = Path(tempfile.gettempdir(), f"dbtestcase-summary-{os.getuid()}-{os.getsid(0)}.parts")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():  # somebody else has taken the name
        return Path(tempfile.mkdtemp(prefix="dbtestcase-summary-", suffix=".parts"))
    return folder
