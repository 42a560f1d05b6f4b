"""A disposable server: found, initialised once, copied, started, watched, thrown away."""

from __future__ import annotations

from .disposable import Server, disposable_server, register

__all__ = ["Server", "disposable_server", "register"]
