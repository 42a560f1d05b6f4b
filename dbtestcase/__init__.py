"""unittest base classes that test SQLAlchemy applications on the database they really use.

No assertion of this package is pytest's to rewrite, whoever imports it first: PYTEST_DONT_REWRITE.
"""

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
    OutsideDatabase,
    ProgramsNotFound,
    RowSecurityWarning,
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
    from .cases import (
        AsyncDatabaseTest,
        AsyncLife,
        AsyncMigratedDatabaseTest,
        AsyncTruncatingDatabaseTest,
        DatabaseTest,
        Life,
        MigratedDatabaseTest,
        MigrationChecks,
        TruncatingDatabaseTest,
    )
    from .data import Factories, FactoryManager, async_session_scope, session_scope

__all__ = [
    "AsyncDatabaseTest",
    "AsyncLife",
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
    "Factories",
    "FactoryManager",
    "LeakError",
    "LeftoverConnectionWarning",
    "Life",
    "MigratedDatabaseTest",
    "MigrationChecks",
    "MigrationError",
    "MissingExtra",
    "NotRunning",
    "OutsideDatabase",
    "ProgramsNotFound",
    "RowSecurityWarning",
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
    "AsyncDatabaseTest": "dbtestcase.cases",
    "AsyncLife": "dbtestcase.cases",
    "AsyncMigratedDatabaseTest": "dbtestcase.cases",
    "AsyncTruncatingDatabaseTest": "dbtestcase.cases",
    "DatabaseTest": "dbtestcase.cases",
    "Life": "dbtestcase.cases",
    "MigratedDatabaseTest": "dbtestcase.cases",
    "MigrationChecks": "dbtestcase.cases",
    "TruncatingDatabaseTest": "dbtestcase.cases",
    "Factories": "dbtestcase.data",
    "FactoryManager": "dbtestcase.data",
    "async_session_scope": "dbtestcase.data",
    "session_scope": "dbtestcase.data",
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
    from .reporting import collecting_less

    with collecting_less():
        value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
