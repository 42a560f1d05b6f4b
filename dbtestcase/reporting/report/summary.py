"""A run in five lines, for its end: decisions only, no I/O."""

from __future__ import annotations

from .joining import Document

__all__ = ["summary"]

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
