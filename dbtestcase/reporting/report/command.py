"""``python -m dbtestcase report``: parts that nobody has joined, a page made of JSON, and budgets for CI."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from .compare import parse_budgets, worse
from .joining import join, parts_of, read_document
from .writing import summary, write_outputs

_TEXT = "join the parts of a run, write its report, and say what is worse than in an earlier run"


def add_report(commands: Any) -> None:
    """Add the command to the subparsers of ``argparse``."""
    parser = commands.add_parser("report", help=_TEXT, description=_TEXT[0].upper() + _TEXT[1:] + ".")
    parser.add_argument("source", type=Path, help="a folder of parts (report.parts), or a report's .json file")
    parser.add_argument("--output", "-o", type=Path, action="append", default=[], help="a .html or .json file to write")
    parser.add_argument("--against", type=Path, help="the .json file of an earlier run")
    parser.add_argument(
        "--fail-on", default="", help="repeated=20,slower=1.5: exit status 1 where it got worse than that"
    )
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    for output in given.output:
        if output.suffix not in (".html", ".json"):
            raise ConfigurationError(
                f"{output} ends in neither .html nor .json.",
                cause="the ending says what is written",
                remedy="write --output report.html or --output report.json",
            )
    budget = parse_budgets(given.fail_on)
    if given.fail_on and given.against is None:
        raise ConfigurationError(
            "--fail-on needs --against.",
            cause="what got worse is told by an earlier run",
            remedy="give the .json file of an earlier run: --against before.json",
        )
    document = join(parts_of(given.source)) if given.source.is_dir() else read_document(given.source)
    earlier = read_document(given.against) if given.against is not None else None
    write_outputs(document, given.output, earlier)
    for line in summary(document):
        print(line)
    found = worse(document, earlier, budget) if earlier is not None else []
    for test, what in found:
        print(f"worse: {test}: {what}")
    return 1 if found else 0
