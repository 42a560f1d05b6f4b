"""How a test is kept apart from the next one: engines led elsewhere, rolled back or cleaned up after."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .early_uses import early_uses
from .engines import resolve_engines, sync_engine_of
from .interface import Isolation
from .rollback import SandboxIsolation
from .sandbox_run import running_sandbox

if TYPE_CHECKING:
    from .truncating_run import CleanedRecipe, open_truncating_run
    from .truncation import TruncatingIsolation

__all__ = [
    "CleanedRecipe",
    "Isolation",
    "SandboxIsolation",
    "TruncatingIsolation",
    "early_uses",
    "open_truncating_run",
    "resolve_engines",
    "running_sandbox",
    "sync_engine_of",
]

# Loaded when first asked for: not every run needs them.
_LAZY = {
    "CleanedRecipe": "dbtestcase.isolation.truncating_run",
    "TruncatingIsolation": "dbtestcase.isolation.truncation",
    "open_truncating_run": "dbtestcase.isolation.truncating_run",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
