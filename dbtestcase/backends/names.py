"""Names of databases: unique on a server that several hosts share, and never longer than the server takes."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import socket
from pathlib import Path

LONGEST = 63  # bytes of a name on PostgreSQL
_BUILDERS = ("backends", "migrations")  # the parts of this library whose code decides what a template holds


@functools.cache
def library_version() -> str:
    """A digest of the library's own code that builds databases: what another version of it made is not used."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for part in _BUILDERS:
        for path in sorted((package / part).rglob("*.py")):
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def database_name(base: str, *, longest: int = LONGEST) -> str:
    """A new name ``<base>_<host>_<pid>_<random>`` of at most ``longest`` bytes of UTF-8, the base cut if it must be."""
    host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:16] or "host"
    tail = f"_{host}_{os.getpid()}_{secrets.token_hex(4)}"
    return (_cut(base, longest - len(tail)) or "test") + tail


def is_database_name(name: str) -> bool:
    """Whether ``name`` has the shape of :func:`database_name`."""
    return re.search(r"_[a-z0-9-]{1,16}_[0-9]+_[0-9a-f]{8}$", name) is not None


def kept_name(base: str, test: str) -> str:
    """A new name ``<base>_kept_<test>_<random>``; its random part is shorter than that of :func:`database_name`."""
    tail = f"_{secrets.token_hex(3)}"
    head = _cut(base, 24) or "test"
    middle = "_kept_" + re.sub(r"\W+", "_", test.rpartition(".")[2]).strip("_").lower()
    return head + _cut(middle, LONGEST - len(head.encode()) - len(tail)) + tail


def is_kept_name(name: str) -> bool:
    """Whether ``name`` has the shape of :func:`kept_name`."""
    return re.search(r"_kept_.*_[0-9a-f]{6}$", name) is not None


def is_template_name(name: str) -> bool:
    """Whether ``name`` has the shape of :func:`template_name`."""
    return re.fullmatch(r"dbtestcase_template_[0-9a-f]{31}", name) is not None


def template_name(*parts: str) -> str:
    """The name of the template that ``parts`` decide: 51 characters, nothing to quote."""
    digest = hashlib.sha256("\0".join((library_version(), *parts)).encode()).hexdigest()
    return f"dbtestcase_template_{digest[:31]}"


def lock_key(name: str) -> int:
    """A signed 32-bit number that stands for ``name`` in an advisory lock."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], signed=True)


def _cut(text: str, longest: int) -> str:
    """As much of ``text`` as ``longest`` bytes of UTF-8 hold."""
    return text.encode()[:longest].decode(errors="ignore")
