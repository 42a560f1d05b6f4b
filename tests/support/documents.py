"""The code in the documentation, as a project that can be run.

A page's Python blocks have a caption.  Where it is a file's name, the block is (or continues) that file of the page's
project; anything else names an excerpt that only has to be valid Python.  A comment ``.. runs 3 passed`` says what
becomes of the project's tests, ``.. runs 3 passed under pytest`` under which runner.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.runners import ROOT

DOCS = ROOT / "docs"

_BLOCK = re.compile(r"^\.\. code-block:: *(?P<language>\w+)\n(?P<body>(?:[ ]{3,}.*\n|[ \t]*\n)*)", re.MULTILINE)
_RUNS = re.compile(r"^\.\. runs (.+?)(?: under (\w+))?$", re.MULTILINE)
_FILE = re.compile(r"[\w./-]+\.(py|ini|cfg|toml|mako)")


@dataclass
class Page:
    """One page: its files, its excerpts, and the counts it promises."""

    path: Path
    files: dict[str, str] = field(default_factory=dict)
    excerpts: dict[str, str] = field(default_factory=dict)
    without_caption: list[str] = field(default_factory=list)
    promise: dict[str, int] | None = None
    runner: str = "unittest"

    @property
    def name(self) -> str:
        return str(self.path.relative_to(DOCS))


def read_page(path: Path) -> Page:
    """What ``path`` shows."""
    page = Page(path)
    source = path.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(source):
        text = textwrap.dedent(block["body"])
        options, body = ("", text) if text.startswith("\n") else text.split("\n\n", 1)
        caption = re.search(r"^:caption: *(.+)$", options, re.MULTILINE)
        code = body.strip("\n") + "\n"
        if caption and _FILE.fullmatch(caption[1]):
            before = page.files.get(caption[1])
            page.files[caption[1]] = code if before is None else f"{before}\n\n{code}"
        elif block["language"] == "python":
            if caption:
                page.excerpts[caption[1]] = code
            else:
                page.without_caption.append(code)
    runs = _RUNS.search(source)
    if runs:
        page.runner = runs[2] or "unittest"
        page.promise = {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", runs[1])}
    return page


def all_pages() -> list[Page]:
    """Every page of the documentation, the examples' own files left out."""
    paths = sorted(path for path in DOCS.rglob("*.rst") if not {"examples", "_build"} & set(path.parts))
    return [read_page(path) for path in paths]
