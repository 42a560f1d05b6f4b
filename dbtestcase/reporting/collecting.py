"""What the garbage collector need not look at: what imports and builds make stays until the process ends."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import GeneratorType
from typing import Any

_MANY = 100_000  #: objects made and not freed between two looks: some tens of megabytes


@contextmanager
def collecting_less() -> Iterator[None]:
    """Look less often for garbage, and at what was made meanwhile not at all before the next look at everything.

    What an import or a build makes stays, and more than a tenth of the time would go into looking at it.
    """
    before = gc.get_threshold()
    if not gc.isenabled() or not 0 < before[0] < _MANY:  # switched off, or another thread is at it
        yield
        return
    gc.set_threshold(_MANY, *before[1:])
    try:
        yield
    finally:
        if not _is_somebody_freezing():  # else the application has its own idea of what stays
            gc.freeze()
            gc.unfreeze()  # both together make the youngest objects the oldest, without looking at any
        gc.set_threshold(*before)


_frozen = False


def _is_somebody_freezing() -> bool:
    """Asked once where so: to count what is frozen may take some ten milliseconds, and this is asked for each class."""
    global _frozen
    _frozen = _frozen or gc.get_freeze_count() > 0
    return _frozen


def end_at_once() -> None:
    """For the end of the process: let the interpreter not take apart all that its modules hold.

    A short run spends a fifth of its time on that.  Where anything is alive whose end does something (an object with a
    ``__del__``, an open file or socket, a generator that waits, a connection), everything ends as ever.
    """
    if not gc.isenabled() or gc.get_debug():
        return
    if _somebody_has_an_end():
        gc.collect()  # as the interpreter would
        if _somebody_has_an_end():
            return
    gc.freeze()


def _somebody_has_an_end() -> bool:
    objects = gc.get_objects()
    authors = {kind: author for kind in set(map(type, objects)) if (author := _author_of_the_end(kind))}
    standard = set(_standard_streams())
    return any(
        type(each) in authors and id(each) not in standard and not _has_ended(each, authors[type(each)])
        for each in objects
    )


def _author_of_the_end(kind: type) -> str | None:
    """The package that says what an object does at its end."""
    for base in kind.__mro__:
        package = str(base.__module__).partition(".")[0]
        if "__del__" in base.__dict__ or (package, base.__name__) in _SILENT:
            return package
    return None


_SILENT = {
    *(("sqlite3", "Connection"), ("psycopg2", "connection"), ("MySQLdb", "connection"), ("mariadb", "connection")),
    *(("_dbm", "dbm"), ("_gdbm", "gdbm")),
}
"""They are written in C, and do something at their end without a ``__del__``."""


def _standard_streams() -> Iterator[int]:
    for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        part: object = stream
        while part is not None:
            yield id(part)
            part = getattr(part, "buffer", None) or getattr(part, "raw", None)


def _has_ended(each: Any, author: str) -> bool:
    kind = type(each)
    if kind in (io.StringIO, io.BytesIO):
        return True
    if kind is GeneratorType:
        return each.gi_frame is None
    try:
        return author in ("_io", "psycopg", "psycopg2") and bool(each.closed)
    except (AttributeError, ValueError):  # half made, or detached
        return False
