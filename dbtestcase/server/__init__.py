"""A disposable server: found, initialised once, copied, started, watched, thrown away."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .disposable import disposable_server, register
from .folders import private_folder
from .interface import Server
from .kept_servers import KEEP_HOURS
from .room import MIB, is_out_of_room, what_fills

if TYPE_CHECKING:
    from .doctor import examine
    from .prepare import prepare_cache
    from .prune import prune_machine
    from .serve import keep_running

__all__ = [
    "KEEP_HOURS",
    "MIB",
    "Server",
    "disposable_server",
    "examine",
    "is_out_of_room",
    "keep_running",
    "prepare_cache",
    "private_folder",
    "prune_machine",
    "register",
    "what_fills",
]

# Loaded when first asked for: not every run needs them.
_LAZY = {
    "examine": "dbtestcase.server.doctor",
    "prepare_cache": "dbtestcase.server.prepare",
    "prune_machine": "dbtestcase.server.prune",
    "keep_running": "dbtestcase.server.serve",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
