"""The document as one page that needs nothing else: no network, no file beside it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from ...errors import MissingExtra
from .compare import Budget, worse
from .joining import Document

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
except ImportError as error:
    raise MissingExtra("jinja2", "report", "DBTESTCASE_REPORT=….html") from error

MOST_TESTS, MOST_STATEMENTS, MOST_OTHERS = 1000, 300, 100
"""Rows of the page's tables: what is left out is said there, and stands in the JSON."""

_WIDTH, _ROW, _LEFT = 1000.0, 34, 90  # of the picture, in its own units
_KINDS = ("start", "template", "class", "clean", "python", "database")


def render(document: Document, earlier: Document | None = None) -> str:
    """The page's HTML, compared with an earlier run if there is one."""
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0], "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ms"] = lambda seconds: f"{seconds * 1000:,.1f}"
    environment.filters["place"] = place
    tests = sorted(document["tests"], key=lambda test: -test["seconds"])
    return environment.get_template("page.html").render(
        document=document,
        folder=next((process["folder"] for process in document["processes"]), ""),
        totals=totals(document),
        picture=picture(document),
        repeated=repeated(document)[:MOST_OTHERS],
        tests=tests[:MOST_TESTS],
        left_out=tests[MOST_TESTS:],
        statements=document["statements"][:MOST_STATEMENTS],
        statements_left_out=len(document["statements"]) - MOST_STATEMENTS,
        classes=sorted(document["classes"], key=lambda each: -each["seconds"])[:MOST_OTHERS],
        shared=shareable(document)[:MOST_OTHERS],
        busy=[test for test in sorted(tests, key=lambda test: -test["commits"]) if test["commits"] > 3][:MOST_OTHERS],
        held=[test for test in sorted(tests, key=lambda test: -test["longest"][0]) if test["longest"][0] > 0.05][
            :MOST_OTHERS
        ],
        templates=[
            {**phase, "worker": process["worker"]}
            for process in document["processes"]
            for phase in process["phases"]
            if phase["name"] == "template"
        ],
        compared=compared(document, earlier) if earlier is not None else None,
    )


def totals(document: Document) -> dict[str, float]:
    """Seconds of all processes together by what they were spent on; the rest is what no line tells of."""
    found = dict.fromkeys(_KINDS, 0.0)
    for process in document["processes"]:
        for phase in process["phases"]:
            found[phase["name"]] += 0.0 if phase["inner"] else phase["seconds"]
    found["clean"] += sum(test["cleaning"] for test in document["tests"])
    found["class"] += sum(each["seconds"] - each["waited"] for each in document["classes"])
    found["database"] = sum(test["database"] for test in document["tests"])
    found["python"] = sum(max(test["seconds"] - test["database"], 0.0) for test in document["tests"])
    spent = sum(process["seconds"] for process in document["processes"])
    found["other"] = max(spent - sum(found.values()), 0.0)
    found["all"] = spent
    return found


def repeated(document: Document) -> list[dict[str, Any]]:
    """Statements that one line sends again and again within a test, the worst test of each, most often first."""
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    for test in document["tests"]:
        for each in test["repeated"]:
            found = worst.setdefault((each["sql"], each["line"]), {**each, "test": test["id"], "tests": 0})
            found["tests"] += 1
            if each["count"] > found["count"]:
                found |= {**each, "test": test["id"]}
    return sorted(worst.values(), key=lambda each: (-each["count"], -each["seconds"]))


def shareable(document: Document) -> list[dict[str, Any]]:
    """Classes of one module whose set-up sends the same statements: ``setUpModule`` could do it once for all."""
    groups: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for each in document["classes"]:
        if each["statements"]:
            groups[each["id"].rpartition(".")[0], each["signature"]].append(each)
    found = [
        {"module": module, "classes": [each["id"] for each in group], "seconds": sum(e["seconds"] for e in group[1:])}
        for (module, _), group in groups.items()
        if len({each["id"] for each in group}) > 1
    ]
    return sorted(found, key=lambda each: -float(each["seconds"]))


def compared(document: Document, earlier: Document) -> dict[str, Any]:
    """What the page says of an earlier run."""
    before = {test["id"]: test for test in earlier["tests"]}
    now = {test["id"]: test for test in document["tests"]}
    return {
        "began": earlier["began"],
        "seconds": document["seconds"] - earlier["seconds"],
        "statements": _sent(document) - _sent(earlier),
        "new": len(now.keys() - before.keys()),
        "gone": len(before.keys() - now.keys()),
        "worse": worse(document, earlier, Budget(repeated=3, slower=1.5))[:MOST_OTHERS],
    }


def _sent(document: Document) -> int:
    return sum(test["statements"] for test in document["tests"])


def place(line: str, folder: str) -> dict[str, str]:
    """``app.py:14 in save`` taken apart, the file with its whole path, for a link."""
    found = re.fullmatch(r"(.+):(\d+)(?: in .*)?", line)
    if found is None:
        return {"text": line, "file": "", "number": ""}
    return {"text": line, "file": str(PurePath(folder, found[1])), "number": found[2]}


def picture(document: Document) -> dict[str, Any]:
    """The run over time: a row for each process, in it what it was busy with, from left to right."""
    whole = document["seconds"] or 1.0
    rows = []
    for number, process in enumerate(document["processes"]):
        spans = [(phase["at"], phase["seconds"], phase["name"], phase["label"]) for phase in process["phases"]]
        for each in (each for each in document["classes"] if each["worker"] == process["worker"]):
            spans.append((each["at"], each["seconds"], "class", each["id"]))
        for test in (test for test in document["tests"] if test["worker"] == process["worker"]):
            python = max(test["seconds"] - test["database"], 0.0)
            spans.append((test["at"], python, "python", test["id"]))
            spans.append((test["at"] + python, test["database"], "database", test["id"]))
            spans.append((test["at"] + test["seconds"], test["cleaning"], "clean", test["id"]))
        rows.append(
            {"y": number * (_ROW + 8), "worker": process["worker"], "bars": _bars(spans, process["offset"], whole)}
        )
    steps = [whole * step / 5 for step in range(6)]
    return {
        "width": _WIDTH + _LEFT,
        "height": len(rows) * (_ROW + 8) + 24,
        "left": _LEFT,
        "row": _ROW,
        "rows": rows,
        "ticks": [
            {"x": _LEFT + step / whole * _WIDTH, "text": f"{step:.{1 if whole > 5 else 2}f} s"} for step in steps
        ],
    }


def _bars(spans: Iterable[tuple[float, float, str, str]], offset: float, whole: float) -> list[dict[str, Any]]:
    """Bars of at least half a unit: what is shorter is put together with its neighbours, each kind with its share."""
    bars: list[dict[str, Any]] = []
    cells: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for at, seconds, kind, label in sorted(spans):
        x, width = (offset + at) / whole * _WIDTH, seconds / whole * _WIDTH
        if width >= 1.0:
            bars.append(
                {
                    "x": _LEFT + x,
                    "width": width,
                    "kind": kind,
                    "label": f"{label}: {seconds * 1000:,.1f} ms",
                    "y": 0.0,
                    "height": float(_ROW),
                }
            )
        else:
            cells[int(x)][kind] += width
    for x, kinds in sorted(cells.items()):
        y, filled = float(_ROW), max(sum(kinds.values()), 1.0)
        for kind in _KINDS:
            if kinds.get(kind):
                height = kinds[kind] / filled * _ROW
                y -= height
                bars.append({"x": _LEFT + x, "width": 1.0, "kind": kind, "label": kind, "y": y, "height": height})
    return bars
