"""The socket of a driver's connection."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any


def descriptor_of(connection: Any) -> int | None:
    """The descriptor of a connection's socket; drivers keep it in different places."""
    for name in ("_usock", "_sock"):  # what pg8000 calls _sock is a file over it
        wire = getattr(connection, name, None)
        if wire is not None:
            return int(wire.fileno())
    fileno = getattr(connection, "fileno", None)
    return int(fileno()) if callable(fileno) else None


def shut_down(descriptor: int) -> None:
    """End the traffic of a socket; whoever reads from it, in whatever thread, finds its end."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
