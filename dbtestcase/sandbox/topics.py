"""Which things of the server's session a statement speaks of: what one session cannot keep apart for many connections.

A look at the words is enough, generously: a statement that only looks like one of these is asked about in vain.
"""

from __future__ import annotations

import enum
import re

__all__ = ["Topic", "topics_of"]


class Topic(enum.Flag):
    """What a statement speaks of, beside rows."""

    NONE = 0
    TEMPORARY = enum.auto()
    """It makes temporary tables, or discards them."""
    PREPARED = enum.auto()
    """``PREPARE``, ``EXECUTE``, ``DEALLOCATE``."""
    ADVISORY = enum.auto()
    """It takes or gives back locks by a function."""
    IMPATIENT = enum.auto()
    """``SKIP LOCKED``, ``NOWAIT``: it does not wait for rows that somebody else has locked."""
    LISTENING = enum.auto()
    """``LISTEN``, ``UNLISTEN`` and the list of them."""
    REPORTING = enum.auto()
    """It asks for a setting: ``SHOW``, ``current_setting()``."""
    CONSTRAINTS = enum.auto()
    """``SET CONSTRAINTS``."""
    DISCARD = enum.auto()
    """``DISCARD``: several of these at once."""


_TOPICS = {
    "temp": Topic.TEMPORARY,
    "prepare": Topic.PREPARED,
    "execute": Topic.PREPARED,
    "deallocate": Topic.PREPARED,
    "advisory": Topic.ADVISORY,
    "_lock": Topic.ADVISORY,
    "skip": Topic.IMPATIENT,
    "nowait": Topic.IMPATIENT,
    "wait": Topic.IMPATIENT,
    "listen": Topic.LISTENING,
    "show": Topic.REPORTING,
    "current_setting": Topic.REPORTING,
    "constraints": Topic.CONSTRAINTS,
    "discard": Topic.DISCARD | Topic.TEMPORARY | Topic.PREPARED,
}
_ANY = re.compile(
    r"\b(?:(show|discard|prepare|execute|deallocate|nowait|temp)(?=orary\b|\b)"
    r"|(skip)\s+locked\b|(wait)\s+\d|un(listen)\b|(listen)\b|pg_(listen)ing_channels\b"
    r"|set\s+(constraints)\b|(current_setting)\b|pg_\w*?(advisory)_|(?:get|release|is_free|is_used|release_all)(_lock)s?\b)",
    re.IGNORECASE,
)


def topics_of(text: str) -> Topic:
    """What a string of SQL speaks of."""
    found = Topic.NONE
    for match in _ANY.finditer(text):
        found |= _TOPICS[match[match.lastindex or 0].lower()]
    return found
