"""What a run leaves: the joined document, written as what the names of the outputs ask for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .joining import Document, join, parts_of

__all__ = ["write_outputs", "write_report"]


def write_report(folder: Path, outputs: Sequence[Path]) -> Document:
    """Join what the processes of a run have left in ``folder``, and write ``outputs``."""
    document = join(parts_of(folder))
    write_outputs(document, outputs)
    return document


def write_outputs(document: Document, outputs: Sequence[Path], earlier: Document | None = None) -> None:
    """Write the document as what the outputs' endings say, each in one step.

    :param earlier: the document of an earlier run, which a page compares with.
    :raises MissingExtra: a page is wanted, and what makes it is not installed.
    """
    for output in outputs:
        if output.suffix == ".json":
            text = json.dumps(document, indent=1)
        else:
            from .page import render  # needs an extra, which the JSON does not

            text = render(document, earlier)
        output.parent.mkdir(parents=True, exist_ok=True)
        unfinished = output.with_name(f".{output.name}.unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(output)
