"""Which things of the server's session a statement speaks of: what one session cannot keep apart for many connections.

A look at the words is enough, generously: a statement that only looks like one of these is asked about in vain.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
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


def _compiled_late(*rows: tuple[str, str, Topic]) -> tuple[tuple[str, Callable[[], re.Pattern[str]], Topic], ...]:
    """A word to look for, which takes no time, and what is to stand around it, compiled when it is first found."""
    return tuple((word, cache(partial(re.compile, pattern)), topic) for word, pattern, topic in rows)


_COMMANDS = _compiled_late(
    ("prepare", r"\bprepare\b", Topic.PREPARED),
    ("execute", r"\bexecute\b", Topic.PREPARED),
    ("deallocate", r"\bdeallocate\b", Topic.PREPARED),
    ("listen", r"\b(?:un)?listen\b", Topic.LISTENING),
    ("show", r"\bshow\b", Topic.REPORTING),
    ("constraints", r"\bset\s+constraints\b", Topic.CONSTRAINTS),
    ("declare", r"\bdeclare\b.*\bcursor\b", Topic.CURSORS),
    ("fetch", r"(?:^|;|\*/|\n)\s*fetch\b", Topic.CURSORS),
    ("move", r"(?:^|;|\*/|\n)\s*move\b", Topic.CURSORS),
    ("close", r"(?:^|;|\*/|\n)\s*close\b", Topic.CURSORS),
    ("discard", r"\bdiscard\b", Topic.DISCARD | Topic.TEMPORARY | Topic.PREPARED),
)
_ANYWHERE = {
    "temp": _compiled_late(
        ("temp", r"\btemp(?:orary)?\b", Topic.TEMPORARY),
        (
            "pg_temp",  # in what is made; what only reads there makes nothing
            r"\bcreate\s[\w\s]*\b(?:table|view|sequence)\s+(?:if\s+not\s+exists\s+)?\"?pg_temp\"?\s*\."
            r"|\binto\s+(?:table\s+)?\"?pg_temp\"?\s*\.",
            Topic.TEMPORARY,
        ),
    ),
    "pg_": _compiled_late(
        ("pg_prepared_statements", r"\bpg_prepared_statements\b", Topic.PLANS),
        ("pg_listening_channels", r"\bpg_listening_channels\b", Topic.LISTENING),
        ("advisory", r"\bpg_\w*?advisory_", Topic.ADVISORY),
    ),
    "lock": _compiled_late(
        ("_lock", r"\b(?:get|release|is_free|is_used|release_all)_locks?\b", Topic.ADVISORY),
        ("skip", r"\bskip\s+locked\b", Topic.IMPATIENT),
    ),
    "wait": _compiled_late(("wait", r"\bnowait\b|\bwait\s+\d", Topic.IMPATIENT)),
    "current_setting": _compiled_late(("current_setting", r"\bcurrent_setting\b", Topic.REPORTING)),
    "last_insert_": _compiled_late(("last_insert_", r"\blast_insert_(?:row)?id\s*\(", Topic.LAST_VALUES)),
    "val": _compiled_late(
        ("currval", r"\bcurrval\s*\(", Topic.LAST_VALUES),
        ("lastval", r"\blastval\s*\(", Topic.LAST_VALUES),
        ("setval", r"^\W*select\b[\s\S]*\bsetval\s*\(", Topic.LAST_VALUES),
        ("next", r"^\W*select\b[\s\S]*\bnext(?:val\s*\(|\s+value\s+for\b)", Topic.LAST_VALUES),
    ),
}
"""By what the words have in common: a wide statement is asked for that first."""

_ON_ROWS = re.compile(r"\s*+(?:select|insert|update|delete)\b")
_DOLLAR_QUOTE = re.compile(r"\$(?!\d)")


def _has_no_command(lowered: str) -> bool:
    """Whether it is one statement on rows, with no text in it that the server could run as another one."""
    return (
        _ON_ROWS.match(lowered) is not None
        and ";" not in lowered
        and "'" not in lowered
        and not ("$" in lowered and _DOLLAR_QUOTE.search(lowered))
    )


@lru_cache(maxsize=16)  # a statement is made anew a few times while it is read
def topics_of(text: str) -> Topic:
    """What a string of SQL speaks of."""
    found = Topic.NONE
    lowered = text.lower()
    groups = [words for common, words in _ANYWHERE.items() if common in lowered]
    if not _has_no_command(lowered):
        groups.append(_COMMANDS)
    for words in groups:
        for word, pattern, topic in words:
            if word in lowered and pattern().search(lowered):
                found |= topic
    return found
