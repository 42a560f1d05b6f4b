"""A test's life, no SQL: what is done is done by the workers, here it is composed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reporting import lazily

if TYPE_CHECKING:
    from .asynchronous import AsyncDatabaseTest, AsyncMigratedDatabaseTest, AsyncTruncatingDatabaseTest
    from .base import DatabaseTest
    from .bases import is_ours, source_files_of
    from .hints import why_not_expected
    from .life import AsyncLife, Life
    from .migrated import MigratedDatabaseTest, MigrationChecks
    from .nested import each_example_alone
    from .scopes import close_all
    from .truncating import TruncatingDatabaseTest

__all__ = [
    "AsyncDatabaseTest",
    "AsyncLife",
    "AsyncMigratedDatabaseTest",
    "AsyncTruncatingDatabaseTest",
    "DatabaseTest",
    "Life",
    "MigratedDatabaseTest",
    "MigrationChecks",
    "TruncatingDatabaseTest",
    "close_all",
    "each_example_alone",
    "is_ours",
    "source_files_of",
    "why_not_expected",
]

# Loaded when first asked for: not every run needs them.
__getattr__ = lazily(
    __name__,
    asynchronous="AsyncDatabaseTest AsyncMigratedDatabaseTest AsyncTruncatingDatabaseTest",
    base="DatabaseTest",
    bases="is_ours source_files_of",
    hints="why_not_expected",
    life="AsyncLife Life",
    migrated="MigratedDatabaseTest MigrationChecks",
    nested="each_example_alone",
    scopes="close_all",
    truncating="TruncatingDatabaseTest",
)
