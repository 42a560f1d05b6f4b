"""How a test is kept apart from the next one: engines led elsewhere, rolled back or cleaned up after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reporting import lazily
from .early_uses import early_uses
from .engines import engines_among, engines_of_class, is_engine, resolve_engines
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
    "engines_among",
    "engines_of_class",
    "is_engine",
    "open_truncating_run",
    "resolve_engines",
    "running_sandbox",
]

# Loaded when first asked for: not every run needs them.
__getattr__ = lazily(__name__, truncating_run="CleanedRecipe open_truncating_run", truncation="TruncatingIsolation")
