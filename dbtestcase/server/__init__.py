"""A disposable server: found, initialised once, copied, started, watched, thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reporting import lazily
from .disposable import disposable_server, register
from .folders import private_folder
from .interface import Server
from .room import MIB, is_out_of_room, what_fills
from .staying import KEEP_HOURS

if TYPE_CHECKING:
    from .doctor import examine
    from .prepare import prepare_cache
    from .process import refuse_unwatched
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
    "refuse_unwatched",
    "register",
    "what_fills",
]

# Loaded when first asked for: not every run needs them.
__getattr__ = lazily(
    __name__,
    doctor="examine",
    prepare="prepare_cache",
    process="refuse_unwatched",
    prune="prune_machine",
    serve="keep_running",
)
