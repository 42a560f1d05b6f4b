"""The version table written once, at the end of a run, instead of after each revision.

Alembic updates it after every revision: with 200 revisions that is as many statements as the revisions have themselves.
Within one transaction nobody can see the difference but a statement of the run that names the table, and before that it
is written.  A commit in the middle (``transaction_per_migration``, ``autocommit_block()``) writes it too, so that a run
that fails later leaves what it leaves in production; a database that is being built is complete or thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from alembic.runtime.migration import HeadMaintainer, MigrationContext
from sqlalchemy import Connection, event

from .internals import replaced_head_maintainer
from .redirect import is_commit


class HeldVersions:
    """Holds back updates of the version table until :meth:`write`, or where the run commits unless ``over_commits``."""

    def __init__(self, *, over_commits: bool) -> None:
        self._over_commits = over_commits
        self._held: dict[MigrationContext, _Held] = {}
        self.reached: set[str] = set()
        """Where the revisions have ended."""
        self.committed = True
        """Whether SQLAlchemy has committed since the last step and the last write."""

    def __enter__(self) -> HeldVersions:
        self._stack = ExitStack()
        self._stack.enter_context(replaced_head_maintainer(self._begin))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()
        self._held.clear()

    def write(self, context: MigrationContext) -> None:
        """Bring the version table to where the revisions are: to be called when the last step is done."""
        held = self._held.pop(context, None)
        if held is not None:
            self.reached |= held.heads
            with context.begin_transaction(_per_migration=True):
                held.write()

    def _begin(self, context: MigrationContext, heads: Iterable[str]) -> HeadMaintainer | None:
        """Alembic makes one at the beginning of each run of migrations."""
        connection = context.connection
        if context.as_sql or not isinstance(connection, Connection) or context.opts.get("dont_mutate"):
            return None
        held = self._held[context] = _Held(context, heads, self)

        def before_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if held.pending and (
                context.version_table in statement or (not self._over_commits and is_commit(statement))
            ):
                held.write()

        def before_commit(_connection: Any) -> None:
            if not self._over_commits:
                held.write()
            self.committed = True

        self._listen(connection, "before_cursor_execute", before_statement)
        self._listen(connection, "commit", before_commit)
        return held

    def _listen(self, connection: Connection, name: str, listener: Any) -> None:
        event.listen(connection, name, listener)
        self._stack.callback(event.remove, connection, name, listener)


class _Held(HeadMaintainer):
    def __init__(self, context: MigrationContext, heads: Any, versions: HeldVersions) -> None:
        super().__init__(context, heads)
        self._versions = versions
        self._written = set(heads)
        self._writing = False

    @property
    def pending(self) -> bool:
        return not self._writing and self.heads != self._written

    def _insert_version(self, version: str) -> None:
        self._versions.committed = False
        self.heads.add(version)

    def _delete_version(self, version: str) -> None:
        self._versions.committed = False
        self.heads.remove(version)

    def _update_version(self, from_: str, to_: str) -> None:
        self._versions.committed = False
        self.heads.remove(from_)
        self.heads.add(to_)

    def write(self) -> None:
        if not self.pending:
            return
        gone, new = sorted(self._written - self.heads), sorted(self.heads - self._written)
        real = HeadMaintainer(self.context, self._written)
        self._writing = True
        self._versions.committed = False
        try:
            for from_, to_ in zip(gone, new, strict=False):
                real._update_version(from_, to_)
            for version in gone[len(new) :]:
                real._delete_version(version)
            for version in new[len(gone) :]:
                real._insert_version(version)
        finally:
            self._writing = False
        self._written = set(self.heads)
