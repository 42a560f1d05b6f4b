"""Whether two names of hosts mean one machine: ``localhost``, the machine's own name, an alias in DNS, a socket."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import threading

__all__ = ["LOCAL", "same_host"]

LOCAL = ""
"""What stands for this machine."""

_PATIENCE = 2.0  # seconds for a name server that does not answer; what it does not know cannot be connected to either


def same_host(one: str, other: str) -> bool:
    """Whether two hosts may be one; a socket anywhere may be that of the server that listens on this machine's port."""
    sockets = [name for name in (one, other) if name.startswith(("/", "@"))]
    if len(sockets) == 2:
        return os.path.realpath(one) == os.path.realpath(other)
    if sockets:
        return LOCAL in _addresses(other if sockets == [one] else one)
    return not _addresses(one).isdisjoint(_addresses(other))


def _addresses(name: str) -> frozenset[str]:
    """The addresses of a name; :data:`LOCAL` for each of this machine's own."""
    if name == LOCAL:
        return frozenset([LOCAL])
    found = _resolved(name)
    return found | {LOCAL} if any(map(_is_own, found)) else found


def _is_own(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_unspecified or address in _resolved(socket.gethostname())


@functools.lru_cache(maxsize=256)
def _resolved(name: str) -> frozenset[str]:
    with contextlib.suppress(ValueError):
        return frozenset([str(ipaddress.ip_address(name.strip("[]").partition("%")[0]))])
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            for *_, address in socket.getaddrinfo(name, None):
                found.append(str(address[0]).partition("%")[0])

    thread = threading.Thread(target=ask, name="dbtestcase name server", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return frozenset(found)
