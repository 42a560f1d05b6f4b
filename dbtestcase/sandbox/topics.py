"""Which things of the server's session a statement speaks of: what one session cannot keep apart for many connections.

A look at the words is enough, generously: a statement that only looks like one of these is asked about in vain.
"""

from __future__ import annotations

import enum
import re
from functools import cache, lru_cache, partial


class Topic(enum.Flag):
    """What a statement speaks of, beside rows."""

    NONE = 0
    TEMPORARY = enum.auto()
    """It makes temporary tables, or discards them."""
    PREPARED = enum.auto()
    """``PREPARE``, ``EXECUTE``, ``DEALLOCATE``."""
    PLANS = enum.auto()
    """It reads the list of what is prepared."""
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
    LAST_VALUES = enum.auto()
    """It asks what its session has numbered last, or numbers something without a write."""
    CURSORS = enum.auto()
    """``DECLARE``, ``FETCH``, ``MOVE``, ``CLOSE``."""


_SPOKEN = tuple(
    (word, cache(partial(re.compile, pattern)), topic)
    for word, pattern, topic in (
        ("temp", r"\btemp(?:orary)?\b", Topic.TEMPORARY),
        ("prepare", r"\bprepare\b", Topic.PREPARED),
        ("execute", r"\bexecute\b", Topic.PREPARED),
        ("deallocate", r"\bdeallocate\b", Topic.PREPARED),
        ("pg_prepared_statements", r"\bpg_prepared_statements\b", Topic.PLANS),
        ("advisory", r"\bpg_\w*?advisory_", Topic.ADVISORY),
        ("_lock", r"\b(?:get|release|is_free|is_used|release_all)_locks?\b", Topic.ADVISORY),
        ("skip", r"\bskip\s+locked\b", Topic.IMPATIENT),
        ("wait", r"\bnowait\b|\bwait\s+\d", Topic.IMPATIENT),
        ("listen", r"\b(?:un)?listen\b|\bpg_listening_channels\b", Topic.LISTENING),
        ("show", r"\bshow\b", Topic.REPORTING),
        ("current_setting", r"\bcurrent_setting\b", Topic.REPORTING),
        ("constraints", r"\bset\s+constraints\b", Topic.CONSTRAINTS),
        ("declare", r"\bdeclare\b.*\bcursor\b", Topic.CURSORS),
        ("fetch", r"(?:^|;|\*/|\n)\s*fetch\b", Topic.CURSORS),
        ("move", r"(?:^|;|\*/|\n)\s*move\b", Topic.CURSORS),
        ("close", r"(?:^|;|\*/|\n)\s*close\b", Topic.CURSORS),
        ("currval", r"\bcurrval\s*\(", Topic.LAST_VALUES),
        ("lastval", r"\blastval\s*\(", Topic.LAST_VALUES),
        ("last_insert_", r"\blast_insert_(?:row)?id\s*\(", Topic.LAST_VALUES),
        ("setval", r"^\W*select\b[\s\S]*\bsetval\s*\(", Topic.LAST_VALUES),
        ("next", r"^\W*select\b[\s\S]*\bnext(?:val\s*\(|\s+value\s+for\b)", Topic.LAST_VALUES),
        ("discard", r"\bdiscard\b", Topic.DISCARD | Topic.TEMPORARY | Topic.PREPARED),
    )
)
"""A word to look for, which takes no time, and what is to stand around it, compiled when it is first found."""


@lru_cache(maxsize=16)  # a statement is made anew a few times while it is read
def topics_of(text: str) -> Topic:
    """What a string of SQL speaks of."""
    found = Topic.NONE
    lowered = text.lower()
    for word, pattern, topic in _SPOKEN:
        if word in lowered and pattern().search(lowered):
            found |= topic
    return found
