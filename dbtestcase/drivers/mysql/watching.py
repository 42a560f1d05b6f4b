"""Which statements change a session of MySQL or MariaDB, seen at the driver: whoever sends them, and by whatever way.

A connection that was used for rows and tables alone is as new when its transaction has ended.  So the statements that
do that are known here, and any other one counts as a change: ``SET``, ``USE``, ``LOCK TABLES``, ``GET_LOCK()``,
``PREPARE``, ``CALL`` …
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

_LEAD = r"(?:[\s(]+|--(?=\s)[^\n]*\n|#[^\n]*\n|/\*(?!M?!).*?\*/)*"
# compiled when they are first used: who imports this is mostly on another server
_HARMLESS = (
    _LEAD + r"(?:select|insert|update|delete|replace|with|values|begin|start\s+transaction|commit|rollback|savepoint"
    r"|release\s+savepoint|show|explain|describe|desc|truncate|alter|rename"
    r"|create(?!\s+(?:or\s+replace\s+)?temporary)|drop(?!\s+temporary))\b"
)
_INSIDE = r":=|\binto\s*@|/\*M?!|\bget_lock\b|\bnextval\b|\bnext\s+value\b|\blast_insert_id\s*\(\s*[^)\s]|;\s*\S"
_HINTS = (":=", "@", "/*", "get_lock", "next", "last_insert_id", ";")
_METHODS = ("select_db", "set_charset", "set_character_set", "change_user")


def changes_session(statement: str) -> bool:
    """Whether a statement may change something that outlives its transaction in the server's session."""
    if re.match(_HARMLESS, statement, re.IGNORECASE | re.DOTALL) is None:
        return True
    lowered = statement.lower()
    return any(hint in lowered for hint in _HINTS) and re.search(_INSIDE, lowered) is not None


_short = functools.lru_cache(maxsize=2048)(changes_session)


def watch_session(connection: Any, changed: Callable[[], None], sent: Callable[[str], object]) -> bool:
    """Call ``changed`` when a connection changes its session; whether its driver is one that can be watched.

    :param sent: called with each statement.
    """
    if type(connection).__module__.partition(".")[0] not in ("pymysql", "MySQLdb"):
        return False
    query = connection.query

    def watched(sql: Any, *args: Any, **kwargs: Any) -> Any:
        text = sql.decode("latin1") if isinstance(sql, (bytes, bytearray)) else str(sql)
        if (_short if len(text) < 500 else changes_session)(text):
            changed()
        sent(text)
        return query(sql, *args, **kwargs)

    connection.query = watched
    for name in _METHODS:
        if hasattr(connection, name):
            setattr(connection, name, _noting(getattr(connection, name), changed))
    return True


def _noting(method: Callable[..., Any], changed: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def noting(*args: Any, **kwargs: Any) -> Any:
        changed()
        return method(*args, **kwargs)

    return noting
