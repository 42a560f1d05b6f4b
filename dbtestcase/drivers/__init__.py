"""A DBAPI on the wire: its connections and cursors as virtual ones."""

from __future__ import annotations

from .wires import KEEPALIVES, LOCK_TIMEOUT, WireFactory, connect_virtual, open_wire, register

__all__ = ["KEEPALIVES", "LOCK_TIMEOUT", "WireFactory", "connect_virtual", "open_wire", "register"]
