"""How a test is kept apart from the next one: engines led elsewhere, rolled back or cleaned up after."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .early_uses import early_uses
from .engines import resolve_engines, sync_engine_of
from .rollback import Isolation, SandboxIsolation
from .sandbox_run import running_sandbox

if TYPE_CHECKING:
    from .truncation import CleanedRecipe, TruncatingIsolation, truncating_run

__all__ = [
    "CleanedRecipe",
    "Isolation",
    "SandboxIsolation",
    "TruncatingIsolation",
    "early_uses",
    "resolve_engines",
    "running_sandbox",
    "sync_engine_of",
    "truncating_run",
]

# Loaded when first asked for: not every run needs them.
_LAZY = {
    "CleanedRecipe": "dbtestcase.isolation.truncation",
    "TruncatingIsolation": "dbtestcase.isolation.truncation",
    "truncating_run": "dbtestcase.isolation.truncation",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
