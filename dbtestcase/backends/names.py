"""Names of databases: unique on a server that several hosts share, and never longer than the server takes."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket

__all__ = ["LIBRARY_VERSION", "database_name", "is_database_name", "is_kept_name", "is_template_name", "kept_name"]
__all__ += ["lock_key", "template_name"]

#: The library's version: a template made by another one is not used.  (Asking the installed metadata costs 20 ms.)
LIBRARY_VERSION = "1.0.0"


def database_name(base: str, *, longest: int = 63) -> str:
    """A new name ``<base>_<host>_<pid>_<random>`` of at most ``longest`` bytes; the base is cut where it must be.

    :param longest: in bytes of UTF-8.
    """
    host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:16] or "host"
    tail = f"_{host}_{os.getpid()}_{secrets.token_hex(4)}"
    return (_cut(base, longest - len(tail)) or "test") + tail


def is_database_name(name: str) -> bool:
    """Whether ``name`` has the shape of :func:`database_name`."""
    return re.search(r"_[a-z0-9-]{1,16}_[0-9]+_[0-9a-f]{8}$", name) is not None


def kept_name(base: str, test: str, *, longest: int = 63) -> str:
    """A new name ``<base>_kept_<test>_<random>`` of at most ``longest`` bytes, for the rows of a failing test.

    It never has the shape of :func:`database_name`, whatever the test is called: its random part is shorter.

    :param test: the test's id; its last part is the test's name.
    """
    tail = f"_{secrets.token_hex(3)}"
    head = _cut(base, 24) or "test"
    middle = "_kept_" + re.sub(r"\W+", "_", test.rpartition(".")[2]).strip("_").lower()
    return head + _cut(middle, longest - len(head.encode()) - len(tail)) + tail


def is_kept_name(name: str) -> bool:
    """Whether ``name`` has the shape of :func:`kept_name`."""
    return re.search(r"_kept_.*_[0-9a-f]{6}$", name) is not None


def is_template_name(name: str) -> bool:
    """Whether ``name`` has the shape of :func:`template_name`."""
    return re.fullmatch(r"dbtestcase_template_[0-9a-f]{31}", name) is not None


def template_name(*parts: str) -> str:
    """The name of the template that ``parts`` decide: 51 characters, nothing to quote."""
    digest = hashlib.sha256("\0".join((LIBRARY_VERSION, *parts)).encode()).hexdigest()
    return f"dbtestcase_template_{digest[:31]}"


def lock_key(name: str) -> int:
    """A signed 32-bit number that stands for ``name`` in an advisory lock."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], signed=True)


def _cut(text: str, longest: int) -> str:
    """As much of ``text`` as ``longest`` bytes of UTF-8 hold."""
    return text.encode()[:longest].decode(errors="ignore")
