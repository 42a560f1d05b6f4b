"""The version table written once, at the end of a build, instead of after each revision.

Alembic updates it after every revision, so that a run that is interrupted can go on: with 200 revisions that is as many
statements as the revisions have themselves.  A database that is built for tests is complete or thrown away.
"""

from __future__ import annotations

from typing import Any

from alembic.runtime import migration
from alembic.runtime.migration import HeadMaintainer, MigrationContext

__all__ = ["VersionsAtOnce"]


class VersionsAtOnce:
    """Holds back the version table's updates, while it is entered, until :meth:`write`."""

    def __init__(self) -> None:
        self._current: _Pending | None = None

    def __enter__(self) -> VersionsAtOnce:
        self._original = migration.HeadMaintainer
        setattr(migration, "HeadMaintainer", self._begin)  # noqa: B010
        return self

    def __exit__(self, *exc_info: object) -> None:
        setattr(migration, "HeadMaintainer", self._original)  # noqa: B010
        self._current = None

    def write(self, context: MigrationContext) -> None:
        """Bring the version table to where the revisions are."""
        if self._current is not None and self._current.context is context:
            with context.begin_transaction(_per_migration=True):
                self._current.write()

    def _begin(self, context: MigrationContext, heads: Any) -> HeadMaintainer:
        """Alembic makes one at the beginning of each run of migrations."""
        self._current = _Pending(context, heads)
        return self._current


class _Pending(HeadMaintainer):
    def __init__(self, context: MigrationContext, heads: Any) -> None:
        super().__init__(context, heads)
        self._written = set(heads)

    def _insert_version(self, version: str) -> None:
        self.heads.add(version)

    def _delete_version(self, version: str) -> None:
        self.heads.remove(version)

    def _update_version(self, from_: str, to_: str) -> None:
        self.heads.remove(from_)
        self.heads.add(to_)

    def write(self) -> None:
        real = HeadMaintainer(self.context, self._written)
        for version in sorted(self._written - self.heads):
            real._delete_version(version)
        for version in sorted(self.heads - self._written):
            real._insert_version(version)
        self._written = set(self.heads)
