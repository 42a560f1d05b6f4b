"""A test's life, no SQL: what is done is done by the workers, here it is composed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .async_migrated import AsyncMigratedDatabaseTest
    from .async_truncating import AsyncTruncatingDatabaseTest
    from .asynchronous import AsyncDatabaseTest
    from .base import DatabaseTest
    from .life import AsyncLife, Life
    from .lifecycle import is_ours
    from .migrated import MigratedDatabaseTest, MigrationChecks
    from .nested import each_example_alone
    from .per_class import source_files_of
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
]

# Loaded when first asked for: not every run needs them.
_LAZY = {
    "AsyncMigratedDatabaseTest": "dbtestcase.cases.async_migrated",
    "AsyncTruncatingDatabaseTest": "dbtestcase.cases.async_truncating",
    "AsyncDatabaseTest": "dbtestcase.cases.asynchronous",
    "DatabaseTest": "dbtestcase.cases.base",
    "AsyncLife": "dbtestcase.cases.life",
    "Life": "dbtestcase.cases.life",
    "is_ours": "dbtestcase.cases.lifecycle",
    "MigratedDatabaseTest": "dbtestcase.cases.migrated",
    "MigrationChecks": "dbtestcase.cases.migrated",
    "each_example_alone": "dbtestcase.cases.nested",
    "source_files_of": "dbtestcase.cases.per_class",
    "close_all": "dbtestcase.cases.scopes",
    "TruncatingDatabaseTest": "dbtestcase.cases.truncating",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
