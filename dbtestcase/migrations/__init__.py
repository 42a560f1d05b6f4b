"""Alembic: upgrade, fingerprint, compare, walk.  The only package that imports alembic, and only when it migrates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reporting import lazily
from .commands import commands_led
from .recipe import MigrationRecipe

if TYPE_CHECKING:
    from .compare import compare_models
    from .environment import Config
    from .project import Project, stray_heads
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
__getattr__ = lazily(
    __name__,
    compare="compare_models",
    environment="Config",
    project="Project stray_heads",
    redirect="Target",
    walk="round_trip stairway",
)
