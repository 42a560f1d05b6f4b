"""Whether two server defaults are the same for PostgreSQL, however they are written."""

from __future__ import annotations

import re

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

__all__ = ["same_default"]

_VARYING = re.compile(r"\b(CURRENT_\w+|LOCALTIME\w*|SESSION_USER|USER)\b|\w\(", re.IGNORECASE)
_ZONES = ("Pacific/Kiritimati", "Pacific/Pago_Pago")  # whose dates always differ


def same_default(connection: Connection, one: str, other: str, type_: str) -> bool:
    """Whether the server comes to the same value.

    Constants are compared as the planner folds them, so that casts and quoting make no difference.  What changes with
    the moment or the session (``now()`` and ``CURRENT_TIMESTAMP``) is evaluated side by side, in two time zones; it is
    never the same as a constant.

    :param one: an expression as the server writes it.
    :param type_: the type of the column.
    """
    if one == other:
        return True
    left, right = _folded(connection, one, type_), _folded(connection, other, type_)
    if left is None or right is None:
        return False
    if left == right:
        return True
    if not (_varies(left) and _varies(right)) or "nextval(" in one + other:  # a sequence is not rolled back
        return False
    question = f"SELECT ({one})::{type_}::text IS NOT DISTINCT FROM ({other})::{type_}::text"
    before = connection.scalar(text("SELECT current_setting('TimeZone')"))
    return all(_evaluated(connection, question, zone, before) for zone in _ZONES)


def _varies(expression: str) -> bool:
    return _VARYING.search(re.sub(r"'(?:[^']|'')*'", "''", expression)) is not None


def _folded(connection: Connection, expression: str, type_: str) -> str | None:
    """The expression, of the column's type, with what is constant in it evaluated."""
    statement = f"EXPLAIN (VERBOSE, COSTS OFF) SELECT ({expression})::{type_}"
    try:
        with connection.begin_nested():
            lines = [str(line) for (line,) in connection.execute(_literal(statement))]
    except SQLAlchemyError:  # an expression that only a column takes
        return None
    return next((line.strip() for line in lines if line.strip().startswith("Output:")), None)


def _evaluated(connection: Connection, question: str, zone: str, before: str | None) -> bool:
    set_zone = text("SELECT set_config('TimeZone', :zone, true)")
    try:
        with connection.begin_nested():
            connection.execute(set_zone, {"zone": zone})
            same = bool(connection.scalar(_literal(question)))
            connection.execute(set_zone, {"zone": before})
            return same
    except SQLAlchemyError:
        return False


def _literal(statement: str) -> TextClause:
    return text(statement.replace(":", "\\:"))
