"""Where a statement comes from: the nearest line that is the application's own.

The walk from a driver's cursor up to the application passes some twenty frames of libraries, for every statement of
every test.  So it reads nothing but ``co_filename``, remembers what it found out about each file, and leaves the number
of the line to be found out when it is shown.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import NamedTuple

import sqlalchemy


class CallSite(NamedTuple):
    """A line of the application, by the instruction that was at work: what its frame has had is not kept alive."""

    code: CodeType
    instruction: int

    @property
    def filename(self) -> str:
        """The absolute path of the file."""
        return self.code.co_filename

    @property
    def lineno(self) -> int:
        """The number of the line, from 1."""
        lines = self.code.co_lines()
        found = next((line for start, end, line in lines if start <= self.instruction < end), None)
        return found or self.code.co_firstlineno

    @property
    def function(self) -> str:
        """The name of the function."""
        return self.code.co_name

    def __str__(self) -> str:
        return f"{_shortest(self.filename)}:{self.lineno} in {self.function}"


def find_call_site(depth: int = 1) -> CallSite | None:
    """Return the nearest line that is neither a library's nor Python's own.

    A library is what lies in a ``site-packages`` folder; an application that is installed there (as tox does) is passed
    by, and the test's line is found instead.

    :param depth: how many frames to leave out; 1 begins with the caller.
    :returns: ``None`` where the whole stack is libraries, as in a thread of a server.
    """
    return call_site_above(sys._getframe(depth))


def call_site_above(frame: FrameType | None) -> CallSite | None:
    """The same, from a frame on."""
    known = _is_application
    while frame is not None:
        code = frame.f_code
        if known[code.co_filename]:
            return _made(CallSite, (code, frame.f_lasti))
        frame = frame.f_back
    for frame in awaiting_frames():
        if known[frame.f_code.co_filename]:
            return CallSite(frame.f_code, frame.f_lasti)
    return None


def is_application(filename: str) -> bool:
    """Whether a file is neither a library's nor Python's own."""
    return _is_application[filename]


def call_site_of(error: BaseException) -> CallSite | None:
    """The application's line that an exception passed first on its way out; ``None`` where there was none."""
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_application(code.co_filename):
            found = CallSite(code, traceback.tb_lasti)
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


class _Files(dict[str, bool]):
    def __missing__(self, filename: str) -> bool:
        self[filename] = found = _classify(filename)
        return found


_is_application = _Files()
_made = tuple.__new__  # sooner than the call of the class
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
