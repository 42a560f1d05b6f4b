"""The socket of a driver's connection."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any


def descriptor_of(connection: Any) -> int | None:
    """The descriptor of a connection's socket; drivers keep it in different places."""
    for name in ("_usock", "_sock"):  # what pg8000 calls _sock is a file over it
        wire = getattr(connection, name, None)
        if wire is not None:
            return int(wire.fileno())
    fileno = getattr(connection, "fileno", None)
    return int(fileno()) if callable(fileno) else None


@contextlib.contextmanager
def closing_files(connection: Any) -> Iterator[None]:
    """Close what PyMySQL and pg8000 read from with the socket: in the frames of an error it would keep that open."""
    files = [getattr(connection, name, None) for name in ("_rfile", "_sock")]
    try:
        yield
    finally:
        for file in files:
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()


def arrivals_at(descriptor: int) -> Callable[[], bool]:
    """What tells, without waiting, whether something has arrived at a socket."""
    if not hasattr(select, "poll"):  # eventlet takes it away
        return lambda: bool(select.select([descriptor], [], [], 0)[0])
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return lambda: bool(poller.poll(0))


def shut_down(descriptor: int) -> None:
    """End the traffic of a socket; whoever reads from it, in whatever thread, finds its end."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
