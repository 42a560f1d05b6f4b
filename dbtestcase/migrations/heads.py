"""Whether the revisions end where they should: in one head, or one for each line that is meant to be one."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from dbtestcase.errors import MigrationError

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

    from dbtestcase.migrations.layout import Layout

__all__ = ["check_heads", "stray_heads"]


def stray_heads(script: ScriptDirectory) -> list[Script]:
    """Heads that compete: lines without a common revision, and branches with other labels, may have one each."""
    heads = list(script.get_revisions("heads"))
    if len(heads) < 2:
        return []
    ancestors = {
        head.revision: {revision.revision for revision in script.iterate_revisions(head.revision, "base")}
        for head in heads
    }
    stray: set[str] = set()
    for one, other in combinations(heads, 2):
        related = ancestors[one.revision] & ancestors[other.revision]
        if related and one.branch_labels == other.branch_labels:
            stray.update((one.revision, other.revision))
    return [head for head in heads if head.revision in stray]


def check_heads(script: ScriptDirectory, layout: Layout) -> list[Script]:
    """The heads; :exc:`MigrationError` if two compete."""
    stray = stray_heads(script)
    if stray:
        names = " and ".join(head.revision for head in stray)
        lines = "".join(f"\n  {head.revision}  {head.doc}\n    {head.path}" for head in stray)
        raise MigrationError(
            f"{layout.label} has {len(stray)} heads where one is expected: {names}{lines}",
            cause="Two people added a revision after the same one (the branches were merged in git, not in Alembic).",
            remedy=f"alembic merge -m 'merge heads' {' '.join(head.revision for head in stray)}",
        )
    return list(script.get_revisions("heads"))
