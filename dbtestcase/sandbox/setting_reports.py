"""``SHOW`` and ``current_setting()``: what a connection is told of settings that the session cannot have for it.

The isolation level is that of the client's transaction.  A setting of the application's own that another connection,
perhaps in another test, has made known to the session is unknown, as it would be on a connection of its own.
"""

from __future__ import annotations

import re

from .session_settings import literal
from .statements import Statement
from .topics import Topic

__all__ = ["UnknownSetting", "report"]

_LEVEL = re.compile(r"(\s*show\s+)transaction(?:_|\s+)isolation(?:\s+level)?\s*;?\s*$", re.IGNORECASE)
_SHOW = re.compile(r"(\s*show\s+)\"?([\w.]+)\"?\s*;?\s*$", re.IGNORECASE)
_CALL = re.compile(
    r"(?:pg_catalog\s*\.\s*)?\bcurrent_setting\s*\(\s*(?:'([^']*)'|([^(),']+?))((?:\s*::\s*\w+)?)\s*(?:,\s*([^(),]+?)\s*)?\)",
    re.IGNORECASE,
)


class UnknownSetting(Exception):
    """A connection of its own would not know a setting, and say so."""


def report(statement: Statement, level: str, unknown: set[str], *, deferrable: bool = False) -> str | None:
    """The statement that asks for the same with another answer; None where the session's own is right.

    :param unknown: settings that a connection of its own would not know.
    :raises UnknownSetting: the server would not know what to answer.
    """
    text = statement.text
    if Topic.REPORTING not in statement.topics:
        return None
    if _LEVEL.match(text):
        return f"SELECT {literal(level)} AS transaction_isolation"
    shown = _SHOW.match(text)
    own = {"transaction_isolation": level, "transaction_deferrable": "on" if deferrable else "off"}
    if shown is not None:
        if shown[2].lower() in own:
            return f"SELECT {literal(own[shown[2].lower()])} AS {shown[2].lower()}"
        if shown[2].lower() in unknown:
            raise UnknownSetting(shown[2])
        return None

    def answer(call: re.Match[str]) -> str:
        name = (call[1] or "").lower()
        if name in own:
            return f"(SELECT {literal(own[name])} AS current_setting)"
        if name in unknown:
            if call[4] is None or call[4].lower() in ("false", "'f'", "'false'"):
                raise UnknownSetting(call[1])
            return f"(SELECT {call[0]} WHERE false)"
        if call[2] is not None and unknown:
            return f"(SELECT nullif(current_setting, '') AS current_setting FROM {call[0]})"
        return call[0]

    replaced = _CALL.sub(answer, text)
    return replaced if replaced != text else None
