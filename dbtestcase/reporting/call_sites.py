"""Where a statement comes from: the nearest line that is the application's own.

The walk from a driver's cursor up to the application passes some twenty frames of libraries, for every statement of
every test.  So it reads nothing but ``co_filename``, and remembers what it found out about each file.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple

import sqlalchemy


class CallSite(NamedTuple):
    """A line of the application: absolute path of the file, line number (from 1), name of the function."""

    filename: str
    lineno: int
    function: str

    def __str__(self) -> str:
        return f"{_shortest(self.filename)}:{self.lineno} in {self.function}"


def find_call_site(depth: int = 1) -> CallSite | None:
    """Return the nearest line that is neither a library's nor Python's own.

    A library is what lies in a ``site-packages`` folder; an application that is installed there (as tox does) is passed
    by, and the test's line is found instead.

    :param depth: how many frames to leave out; 1 begins with the caller.
    :returns: ``None`` where the whole stack is libraries, as in a thread of a server.
    """
    known = _is_application
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        application = known.get(code.co_filename)
        if application is None:
            application = known[code.co_filename] = _classify(code.co_filename)
        if application:
            return CallSite(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    for frame in awaiting_frames():
        code = frame.f_code
        application = known.get(code.co_filename)
        if application is None:
            application = known[code.co_filename] = _classify(code.co_filename)
        if application:
            return CallSite(code.co_filename, frame.f_lineno, code.co_name)
    return None


def is_application(filename: str) -> bool:
    """Whether a file is neither a library's nor Python's own."""
    if filename not in _is_application:
        _is_application[filename] = _classify(filename)
    return _is_application[filename]


def call_site_of(error: BaseException) -> CallSite | None:
    """The application's line that an exception passed first on its way out; ``None`` where there was none."""
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_application(code.co_filename):
            found = CallSite(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    return found


def awaiting_frames() -> Iterator[FrameType]:
    """The stack below SQLAlchemy's greenlet: its async part runs the driver on a stack of its own."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return
    parent = greenlet.getcurrent().parent
    while parent is not None:
        frame: FrameType | None = parent.gr_frame
        while frame is not None:
            yield frame
            frame = frame.f_back
        parent = parent.parent


_is_application: dict[str, bool] = {}
_LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in {
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))),  # this library
        os.path.dirname(os.path.abspath(sqlalchemy.__file__)),
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        os.path.dirname(os.path.abspath(os.__file__)),
        *(sysconfig.get_path(name) for name in ("purelib", "platlib")),
    }
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def _classify(filename: str) -> bool:
    # "<string>" is what dataclasses, namedtuples and the ORM compile; "<stdin>" and templates are somebody's own.
    if filename.startswith(("<string>", "<frozen ", "<attrs ", "<sqlalchemy ")):
        return False
    return not filename.startswith(_LIBRARIES) and not any(part in filename for part in _INSTALLED)


def _shortest(filename: str) -> str:
    try:
        relative = os.path.relpath(filename)
    except (ValueError, FileNotFoundError):  # another drive; the working folder is gone
        return filename
    return filename if filename.startswith("<") or relative.startswith(os.pardir) else relative
