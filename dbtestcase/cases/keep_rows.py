"""``DBTESTCASE_KEEP=fail``: the rows of a failing test are left in a database of their own, and a note says where."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from typing import Any

from sqlalchemy import URL

from ..backends import Kept, copy_rows, fetcher
from ..reporting import for_driver, pasteable, shown
from . import scopes
from .class_run import ClassRun
from .per_class import ClassLifecycle

__unittest = True  # keeps these frames out of the tracebacks of failing tests

MOST_KEPT = 10
"""How many failures of one process keep their rows."""


def keep_rows(of_class: ClassLifecycle, run: ClassRun, test_id: str) -> str:
    """Copy what a failing test sees now to a database of its own; a note that tells of it, or why it was not done."""
    try:
        return _keep(of_class, run, test_id)
    except Exception as error:
        return f"The rows of this test were not kept: {type(error).__name__}: {error}"


def _keep(of_class: ClassLifecycle, run: ClassRun, test_id: str) -> str:
    database = run.isolation.database
    kind = database.url.get_backend_name()
    if kind != "postgresql":
        return f"The rows of this test were not kept: DBTESTCASE_KEEP=fail works on PostgreSQL, not on {kind}."
    kept = scopes.of_run("rows that are kept", lambda: contextlib.nullcontext(list[URL]()))
    if len(kept) >= MOST_KEPT:
        return f"The rows of this test were not kept: {MOST_KEPT} failures of this run have kept theirs."
    copied: list[Kept] = []

    def fill(target: URL) -> None:
        with run.isolation.reading() as connection:
            copied.append(copy_rows(fetcher(connection), target))

    url = database.keep(test_id, fill)
    kept.append(url)
    hours = of_class.keep_server(run.settings)
    return "\n".join(_note(url, copied[0], hours=hours, password=_password_of(of_class.cls, url)))


def _note(url: URL, kept: Kept, *, hours: int, password: str) -> Iterator[str]:
    yield f"The rows of this test are kept ({kept.rows} in all):"
    yield f"    {shown(url)}"
    yield f"    psql {shlex.quote(pasteable(for_driver(url, 'postgresql')))}"
    if password:
        yield f"    The password is that of {password}: export PGPASSWORD=... first."
    if kept.missing:
        yield f"    Not among them is what the test made itself: {', '.join(kept.missing)}."
    until = f"The server stays for {hours} hours, or until" if hours else "They stay for a day, or until"
    yield f"    {until} python -m dbtestcase prune."


def _password_of(cls: Any, url: URL) -> str:
    """Where the password of the URL comes from."""
    if url.password is None:
        return ""
    return f"{cls.__qualname__}.url" if cls.url is not None else "DBTESTCASE_URL"
