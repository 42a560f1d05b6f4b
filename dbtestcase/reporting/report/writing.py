"""What a run leaves: begun with the first class of a process, joined, written and summed up by the last process."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import ConfigurationError
from ..limits import limit_named_by
from . import record
from .joining import Document, join, parts_of


def write_report(folder: Path, outputs: Sequence[Path]) -> Document:
    """Join what the processes of a run have left in ``folder``, and write ``outputs``."""
    document = join(parts_of(folder))
    write_outputs(document, outputs)
    return document


def write_outputs(document: Document, outputs: Sequence[Path], earlier: Document | None = None) -> None:
    """Write the document, compared with an earlier one, as what the outputs' endings say, each in one step."""
    for output in outputs:
        if output.suffix == ".json":
            text = json.dumps(document, indent=1)
        else:
            from .page import render  # needs an extra, which the JSON does not

            text = render(document, earlier)
        unfinished = output.with_name(f".{output.name}.unfinished")
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(output)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            cause, remedy = limit_named_by(error) or ("a folder that this user may not write to.", "name another file.")
            raise ConfigurationError(
                f"The report {output} cannot be written: {error.strerror}.", cause=cause, remedy=remedy
            ) from error


_MOST = 3


def summary(document: Document) -> list[str]:
    """The lines: start, statements, the slowest by database, the most repeated, warnings and what is missing."""
    tests = document["tests"]
    started = sum(
        phase["seconds"] for process in document["processes"] for phase in process["phases"] if not phase["inner"]
    )
    database = sum(test["database"] for test in tests)
    count = sum(test["statements"] for test in tests)
    workers = len(document["processes"])
    processes = "1 process" if workers == 1 else f"{workers} processes"
    lines = [
        f"dbtestcase: {len(tests)} tests in {document['seconds']:.2f} s, {processes}; "
        f"start and templates {started:.2f} s",
        f"  {count:,} statements in {database:.2f} s, {sum(test['commits'] for test in tests):,} commits",
    ]
    slowest = sorted((test for test in tests if test["statements"]), key=lambda test: -test["database"])[:_MOST]
    if slowest:
        lines.append(
            "  slowest by database: " + ", ".join(f"{t['id']} ({t['database'] * 1000:.1f} ms)" for t in slowest)
        )
    repeated = sorted(
        ({**each, "test": test["id"]} for test in tests for each in test["repeated"]), key=lambda each: -each["count"]
    )
    if repeated:
        worst = repeated[0]
        where = f"{worst['count']} times from {worst['line'] or 'no line of yours'}"
        lines.append(f"  most repeated: {where} in {worst['test']}: {worst['sql'][:80]}")
    if document["warnings"] or document["missing"]:
        told = [f"{each['count']} {each['category']} at {each['line']}" for each in document["warnings"][:_MOST]]
        lines.append("  " + "; ".join([*told, *document["missing"][:_MOST]]))
    return lines


@contextlib.contextmanager
def reporting(outputs: Sequence[Path], worker: str, *, summarize: bool) -> Iterator[None]:
    """Record this process until the block ends; the last one of the run writes ``outputs``, and lines to stderr.

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
