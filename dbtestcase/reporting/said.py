"""What a server has said, as the error of whichever driver has it: by its code, or by its words."""

from __future__ import annotations

from collections.abc import Collection

_DEPTH = 4  # SQLAlchemy's error, that of an async driver's adapter, the driver's


def says(error: BaseException | None, codes: Collection[object], words: Collection[str] = ()) -> bool:
    """Whether an error, or the one inside of SQLAlchemy's, is one of those.

    :param codes: SQLSTATEs, and MySQL's numbers.
    :param words: in lower case; libpq gives no code of a connection that was refused.
    """
    for _ in range(_DEPTH):
        if not isinstance(error, BaseException):  # what an application calls `orig` may be anything
            break
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        first = error.args[0] if error.args else None
        if isinstance(first, dict):  # pg8000
            code, first = first.get("C"), first.get("M")
        if code in codes or (isinstance(first, int) and first in codes):
            return True
        if words:  # an application's may have no text
            text = str(first if isinstance(first, str) else error).lower()
            if any(word in text for word in words):
                return True
        error = getattr(error, "orig", None)
    return False
