"""A place that is full in the middle of a run: the error says where, how large and what fills it, and what to do.

What the test has written is rolled back, and its pages stay in the files; so the database is made anew after it, and
neither the next test nor the next class has to do with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, event

from ..reporting import says, shown
from ..server import MIB, is_out_of_room, what_fills

_CODES = {"53100", 1021, 1114}  # PostgreSQL's disk_full, MySQL's ER_DISK_FULL and ER_RECORD_FILE_FULL
_OURS = "dbtestcase-"
_DONE = "The database is made anew for the next test."
_WORDS = ("no space left on device", "database or disk is full", "disk full")


class FullDisks:
    """Looks at the errors of statements while it is entered; ``found``: whether one was of a full disk."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self.found = False

    def __enter__(self) -> FullDisks:
        event.listen(Engine, "handle_error", self._look)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(Engine, "handle_error", self._look)

    def _look(self, context: Any) -> None:
        error = context.original_exception
        if context.dialect.name != self._url.get_backend_name():
            return
        if not says(error, _CODES, _WORDS) and not (context.is_disconnect and self._has_ended_for_want_of_room()):
            return
        self.found = True
        for each in (context.sqlalchemy_exception, error):
            if each is not None and not any(_DONE in note for note in getattr(each, "__notes__", ())):
                each.add_note(self._note())

    def _has_ended_for_want_of_room(self) -> bool:
        """PostgreSQL ends, and recovers, where it is the log that cannot be written."""
        folder = self._folder()
        return folder is not None and is_out_of_room(folder)

    def _note(self) -> str:
        folder = self._folder()
        if folder is None:
            return (
                f"The disk of the server {shown(self._url)} is full.\n"
                f"What to do: make room there; python -m dbtestcase prune drops what earlier runs have kept.\n{_DONE}"
            )
        info = os.statvfs(folder)
        place = (folder if folder.name.startswith(_OURS) else folder.parent).parent
        held = what_fills(folder) or "little"
        others = what_fills(place, most=3)
        return (
            f"The place of the server's data is full: {place} ({info.f_blocks * info.f_frsize // MIB} MiB, "
            f"{info.f_bavail * info.f_frsize // MIB} MiB free).  {folder} holds {held}"
            + (f"; in all of {place}: {others}" if others else "")
            + ".\nWhat to do: write fewer rows, or give it more room (docker run --shm-size=1g, a larger TMPDIR)."
            f"\n{_DONE}"
        )

    def _folder(self) -> Path | None:
        """The folder of a server that is ours (or of SQLite's file)."""
        found = self._url.query.get("host") or self._url.query.get("unix_socket") or self._url.database or ""
        path = Path(str(found))
        folder = path if path.is_dir() else path.parent
        ours = folder.name.startswith(_OURS) or folder.parent.name.startswith(_OURS)
        return folder if folder.is_absolute() and ours else None
