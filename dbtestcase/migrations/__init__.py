"""Alembic: upgrade, fingerprint, compare, walk.  The only package that imports alembic, and only when it migrates."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .commands import commands_led
from .recipe import MigrationRecipe

if TYPE_CHECKING:
    from .compare import compare_models
    from .environment import Config
    from .heads import stray_heads
    from .project import Project
    from .redirect import Target
    from .walk import round_trip, stairway

__all__ = [
    "Config",
    "MigrationRecipe",
    "Project",
    "Target",
    "commands_led",
    "compare_models",
    "round_trip",
    "stairway",
    "stray_heads",
]

# Loaded when first asked for: not every run needs them.
_LAZY = {
    "Config": "dbtestcase.migrations.environment",
    "compare_models": "dbtestcase.migrations.compare",
    "stray_heads": "dbtestcase.migrations.heads",
    "Project": "dbtestcase.migrations.project",
    "Target": "dbtestcase.migrations.redirect",
    "round_trip": "dbtestcase.migrations.walk",
    "stairway": "dbtestcase.migrations.walk",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
