"""In which order tables are emptied and filled where foreign keys are checked.  Decisions only, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping


def with_referrers(touched: Iterable[int], references: Mapping[int, Collection[int]]) -> set[int]:
    """The tables and all that refer to them, however far: emptying one removes, or is refused for, the rows that do."""
    found = set(touched)
    pending = list(found)
    while pending:
        target = pending.pop()
        for table, targets in references.items():
            if target in targets and table not in found:
                found.add(table)
                pending.append(table)
    return found


def filling_order(tables: Collection[int], references: Mapping[int, Collection[int]]) -> list[list[int]]:
    """``tables`` in groups, each after those it refers to; a group of several refer to each other in a circle.

    Tarjan's algorithm: a group is complete when everything that it refers to is.
    """
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    groups: list[list[int]] = []

    def visit(table: int) -> None:
        index[table] = low[table] = len(index)
        stack.append(table)
        for target in references.get(table, ()):
            if target not in tables:
                continue
            if target not in index:
                visit(target)
                low[table] = min(low[table], low[target])
            elif target in stack:
                low[table] = min(low[table], index[target])
        if low[table] == index[table]:
            start = stack.index(table)
            groups.append(sorted(stack[start:]))
            del stack[start:]

    for table in sorted(tables):
        if table not in index:
            visit(table)
    return groups
