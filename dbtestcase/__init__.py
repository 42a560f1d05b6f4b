"""unittest base classes that test SQLAlchemy applications on the database they really use."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from .errors import (
    CannotCreateDatabase,
    CleaningError,
    ConfigurationError,
    DatabaseError,
    DBTestCaseError,
    DBTestCaseWarning,
    DirtyReadWarning,
    LeakError,
    LeftoverConnectionWarning,
    MigrationError,
    MissingExtra,
    NotRunning,
    ProgramsNotFound,
    SandboxBusy,
    SandboxClosed,
    SandboxConflict,
    SandboxError,
    SandboxEscape,
    SandboxTimeout,
    SchemaError,
    ServerError,
    ServerStartFailed,
    ServerUnreachable,
    UnsafeDatabase,
)

if TYPE_CHECKING:
    from .async_cases import AsyncDatabaseTest
    from .async_migrated_cases import AsyncMigratedDatabaseTest
    from .async_truncating_cases import AsyncTruncatingDatabaseTest
    from .cases import DatabaseTest
    from .factories import FactoryManager
    from .migrated_cases import MigratedDatabaseTest, MigrationChecks
    from .sessions import async_session_scope, session_scope
    from .truncating_cases import TruncatingDatabaseTest

__all__ = [
    "AsyncDatabaseTest",
    "AsyncMigratedDatabaseTest",
    "AsyncTruncatingDatabaseTest",
    "CannotCreateDatabase",
    "CleaningError",
    "ConfigurationError",
    "DBTestCaseError",
    "DBTestCaseWarning",
    "DatabaseError",
    "DatabaseTest",
    "DirtyReadWarning",
    "FactoryManager",
    "LeakError",
    "LeftoverConnectionWarning",
    "MigratedDatabaseTest",
    "MigrationChecks",
    "MigrationError",
    "MissingExtra",
    "NotRunning",
    "ProgramsNotFound",
    "SandboxBusy",
    "SandboxClosed",
    "SandboxConflict",
    "SandboxError",
    "SandboxEscape",
    "SandboxTimeout",
    "SchemaError",
    "ServerError",
    "ServerStartFailed",
    "ServerUnreachable",
    "TruncatingDatabaseTest",
    "UnsafeDatabase",
    "async_session_scope",
    "session_scope",
]

# Loaded when first asked for, so that `import dbtestcase` costs nothing and works without any extra.
_LAZY: dict[str, str] = {
    "AsyncDatabaseTest": "async_cases",
    "AsyncMigratedDatabaseTest": "async_migrated_cases",
    "AsyncTruncatingDatabaseTest": "async_truncating_cases",
    "DatabaseTest": "cases",
    "MigratedDatabaseTest": "migrated_cases",
    "MigrationChecks": "migrated_cases",
    "TruncatingDatabaseTest": "truncating_cases",
    "FactoryManager": "factories",
    "async_session_scope": "sessions",
    "session_scope": "sessions",
}

# What a lazy name cannot do without: the module to find, and the extra that brings it.
_NEEDS: dict[str, tuple[str, str]] = {
    "AsyncDatabaseTest": ("greenlet", "asyncio"),
    "AsyncMigratedDatabaseTest": ("alembic", "migrations"),
    "AsyncTruncatingDatabaseTest": ("greenlet", "asyncio"),
    "MigratedDatabaseTest": ("alembic", "migrations"),
    "MigrationChecks": ("alembic", "migrations"),
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _NEEDS:
        module, extra = _NEEDS[name]
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(module, extra, name)
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
