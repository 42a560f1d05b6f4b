"""The parts of all processes made one document; its form is versioned, and described in the reference."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from ...errors import ConfigurationError
from ..imports import version_of
from .record import LAST, is_alive

SCHEMA_VERSION = 1
"""Raised with every change of the document that a reader of the old form would misread."""

Document: TypeAlias = dict[str, Any]

_LEAST_REPEATED = 3  # equal statements from one line within one test; fewer are no pattern


def parts_of(folder: Path) -> list[Path]:
    """The parts in a folder, oldest name first."""
    parts = sorted(folder.glob("*.jsonl"))
    if not parts:
        raise ConfigurationError(
            f"There are no parts of a report in {folder}.",
            cause="no process with DBTESTCASE_REPORT has run, or the folder is another one",
            remedy="give the folder that lies beside the report and ends in .parts, or a report's .json file",
        )
    return parts


def join(parts: Iterable[Path]) -> Document:
    """One document of all parts; what is missing in them is said in ``missing``."""
    processes: list[Document] = []
    tests: list[Document] = []
    classes: list[Document] = []
    warnings: dict[tuple[str, str], Document] = {}
    statements: dict[tuple[str, str], Document] = {}
    missing: list[str] = []
    for part in parts:
        lines = _lines(part, missing)
        head = next((line for line in lines if line["kind"] == "process"), None)
        if head is None:
            missing.append(f"{part.name} has no beginning: the process ended while it wrote its first line.")
            continue
        worker = head["worker"]
        process = {name: head[name] for name in ("worker", "pid", "began", "python", "run", "folder")}
        process |= {"phases": [], "seconds": 0.0, "whole": False}
        processes.append(process)
        known: dict[int, Document] = {}
        last = ""
        for line in lines:
            kind = line.pop("kind")
            if kind == "statement":
                key = (line["sql"], line["line"])
                known[line["number"]] = statements.setdefault(
                    key, {**dict(zip(("sql", "line"), key, strict=True)), **_NOTHING_YET}
                )
            elif kind in ("test", "class"):
                last = line["id"]
                line["worker"] = worker
                line["signature"] = _signature(line, known)
                line["repeated"] = _account(line, known)
                (tests if kind == "test" else classes).append(line)
                process["seconds"] = max(process["seconds"], line["at"] + line["seconds"])
            elif kind == "phase":
                process["phases"].append(line)
                process["seconds"] = max(process["seconds"], line["at"] + line["seconds"])
            elif kind == "warning":
                found = warnings.setdefault((line["category"], line["line"]), {**line, "count": 0})
                found["count"] += 1
            elif kind == LAST:
                process["whole"], process["seconds"] = True, line["seconds"]
        if not process["whole"]:
            state = "is still running" if is_alive(part) else "ended without saying so (killed, or a crash)"
            missing.append(
                f"The process {worker} (pid {head['pid']}) {state}; the last it told of was {last or 'its start'}."
            )
    runs = {process["run"] for process in processes}
    if len(runs) > 1:
        missing.append(f"{len(runs)} runs wrote into this report at once: what stands here is of all of them.")
    began = min((process["began"] for process in processes), default=time.time())
    for process in processes:
        process["offset"] = round(process["began"] - began, 3)
    return {
        "schema": "dbtestcase-report",
        "version": SCHEMA_VERSION,
        "dbtestcase": version_of("dbtestcase", "unknown"),
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began)),
        "seconds": round(max((p["offset"] + p["seconds"] for p in processes), default=0.0), 3),
        "missing": missing,
        "processes": processes,
        "classes": classes,
        "tests": tests,
        "statements": sorted(statements.values(), key=lambda each: -each["seconds"]),
        "warnings": sorted(warnings.values(), key=lambda each: -each["count"]),
    }


_NOTHING_YET = {"count": 0, "seconds": 0.0, "slowest": 0.0, "slowest_test": "", "tests": 0}


def _account(line: Document, known: dict[int, Document]) -> list[Document]:
    """Add what a test or class sent to the statements; returns what it repeated, most often first."""
    repeated = []
    for number, count, seconds, slowest in line.pop("sent"):
        statement = known.get(number)
        if statement is None:  # its line was cut off with the process
            continue
        statement["count"] += count
        statement["seconds"] = round(statement["seconds"] + seconds, 6)
        statement["tests"] += 1
        if slowest > statement["slowest"]:
            statement["slowest"], statement["slowest_test"] = slowest, line["id"]
        if count >= _LEAST_REPEATED:
            repeated.append({"sql": statement["sql"], "line": statement["line"], "count": count, "seconds": seconds})
    return sorted(repeated, key=lambda each: -each["count"])


def _signature(line: Document, known: dict[int, Document]) -> str:
    """The same for what sends the same statements equally often, in whatever process."""
    sent = sorted((known[number]["sql"], count) for number, count, *_ in line["sent"] if number in known)
    return hashlib.sha256(repr(sent).encode()).hexdigest()[:16]


def _lines(part: Path, missing: list[str]) -> list[Document]:
    found = []
    for number, text in enumerate(part.read_bytes().splitlines(), 1):
        try:
            found.append(json.loads(text))
        except ValueError:
            missing.append(f"Line {number} of {part.name} is cut off.")
    return found


def read_document(path: Path) -> Document:
    """A report that was written as JSON, by this version or an earlier one."""
    try:
        document = json.loads(path.read_bytes())
        known = document["schema"] == "dbtestcase-report" and document["version"] <= SCHEMA_VERSION
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not a report of this library ({type(error).__name__}).",
            cause="another file, or one that was not written to its end",
            remedy="give a file that DBTESTCASE_REPORT=report.json has made",
        ) from error
    if not known:
        raise ConfigurationError(
            f"{path} is a report in a form that this version cannot read ({document['version']!r}).",
            cause="a later version of the library has written it",
            remedy="use the version that has written it, or make the report again",
        )
    return dict(document)
