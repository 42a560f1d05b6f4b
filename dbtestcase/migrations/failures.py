"""What went wrong in a migration, in the project's own terms: which revision, which file and line, what to do."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from alembic.util.exc import CommandError
from sqlalchemy.exc import DBAPIError

from ..errors import DBTestCaseError, MigrationError
from ..reporting import says

if TYPE_CHECKING:
    from alembic.runtime.migration import RevisionStep

    from .layout import Layout

_NO_TRANSACTION = "25001"  # active_sql_transaction: VACUUM, CREATE DATABASE, …
_NEW_ENUM_VALUE = "55P04"  # unsafe_new_enum_value_usage
_MISSING = re.compile(
    r"""(?:relation|schema|type|function|table|sequence|role|extension)\s"?(?P<postgresql>[\w.]+)"?.*\sdoes\snot\sexist
    | no\ssuch\stable:\s(?P<sqlite>[\w.]+)
    | Table\s'(?P<mysql>[^']+)'\sdoesn't\sexist""",
    re.VERBOSE,
)


class _Run(Protocol):
    step: RevisionStep | None  #: the revision that is being taken
    ours: bool  #: whether this library's own code is running, between two steps


@contextmanager
def translated(layout: Layout, run: _Run | None = None, *, contained: bool = False) -> Iterator[None]:
    """Raise what Alembic, env.py or a revision raises as a :class:`MigrationError`, and our own errors as they are."""
    try:
        yield
    except DBTestCaseError:
        raise
    except Exception as error:
        if run is not None and run.ours and not isinstance(error, CommandError):
            raise
        step = run.step if run is not None else None
        if step is not None:
            raise _failed_revision(layout, step, error, contained) from error
        if isinstance(error, CommandError):
            raise _refused_by_alembic(layout, error) from error
        raise _failed_script(layout, error) from error


def _failed_revision(layout: Layout, step: RevisionStep, error: Exception, contained: bool) -> MigrationError:
    script = step.revision
    function = "upgrade()" if step.is_upgrade else "downgrade()"
    name = f"{script.revision} ({script.doc})" if script.doc else script.revision
    place = _place(error, layout) or script.path
    what = f"Revision {name} failed in {function}: {first_line(error)}\n  {place}"
    if isinstance(error, DBAPIError) and error.statement:
        what += f"\n  statement: {' '.join(error.statement.split())[:500]}"
    if contained and says(error, {_NO_TRANSACTION, _NEW_ENUM_VALUE}):  # it would do it outside of one
        return MigrationError(
            what,
            cause=_why_not_in_a_transaction(error),
            remedy=f"Test this revision in a TruncatingDatabaseTest (with `migrations = {layout.label!r}`), "
            "where it runs for real.",
        )
    if says(error, {_NEW_ENUM_VALUE}):
        return MigrationError(
            what,
            cause=_why_not_in_a_transaction(error),
            remedy="Add the value in `with op.get_context().autocommit_block():`, which commits it before it is used.",
        )
    if contained and "run_async with a sync engine" in str(error):
        return MigrationError(
            what,
            cause="In a test env.py has the one connection of the sandbox, whose driver is another one than env.py's.",
            remedy="Let the class use env.py's driver: url = 'postgresql+asyncpg://', or the application's async "
            "engine in `engines`.",
        )
    missing = _never_made(step, error)
    if missing:
        return MigrationError(
            what,
            cause=f"{missing} was there before the first revision: no revision up to {script.revision} makes it.",
            remedy="Make it where the database of the tests is made, before the first revision:\n"
            "    @classmethod\n    def load_initial_schema(cls, connection): ...\n"
            f"If a revision was to make {missing}, correct that one.",
        )
    return MigrationError(
        what,
        cause="The revision does not fit the schema or the rows that the revisions before it leave.",
        remedy=f"Correct {function} in {script.path}.",
    )


def _never_made(step: RevisionStep, error: Exception) -> str | None:
    """What an upgrade misses and no revision before it can have made, by its name."""
    found = _MISSING.search(str(error.orig)) if isinstance(error, DBAPIError) else None
    if found is None or not step.is_upgrade:
        return None
    name = next(name for name in found.groups() if name).rpartition(".")[2]
    word = re.compile(rf"\b{re.escape(name)}\b")
    for revision in step.revision_map.iterate_revisions(step.revision.revision, "base"):
        path = getattr(revision, "path", "")
        if revision is not step.revision and word.search(Path(path).read_text(encoding="utf-8", errors="replace")):
            return None
    return name


def _refused_by_alembic(layout: Layout, error: CommandError) -> MigrationError:
    text = str(error)
    if "Can't locate revision" in text:
        cause = "The name is misspelt, or the database is at a revision that no script has (any more)."
        remedy = f"`alembic history` lists the revisions of {layout.label}."
    elif "Multiple head" in text:
        cause = "Two revisions follow the same one."
        remedy = "alembic merge heads"
    else:
        cause = "The request does not fit the chain of revisions."
        remedy = f"`alembic history` shows the revisions of {layout.label}."
    return MigrationError(f"{layout.label}: {text}", cause=cause, remedy=remedy)


def _failed_script(layout: Layout, error: Exception) -> MigrationError:
    place = _place(error, layout)
    name = Path(place).name.split(":")[0] if place else layout.label
    what = f"{name} failed: {first_line(error)}"
    if place:
        what += f"\n  {place}"
    if name == "env.py" and isinstance(error, KeyError):
        return MigrationError(
            what,
            cause=f"env.py reads {error.args[0]!r} from the environment or a settings file, and it is not there.",
            remedy="Set it to any valid value: wherever it points, env.py is led to the test database.",
        )
    if name == "env.py" and "application context" in what:
        return MigrationError(
            what,
            cause="env.py asks Flask for the current application, as that of Flask-Migrate does, and there is none.",
            remedy="Make it current before super().setUpClass(): `context = create_app().app_context()`, "
            "`context.push()`, `cls.addClassCleanup(context.pop)`.",
        )
    if name == "env.py":
        return MigrationError(
            what,
            cause="env.py needs something (a setting, a module, a driver) that is not there in the tests.",
            remedy="Make `alembic current` work with the same environment. A database URL that env.py reads may be any "
            "valid one: it is led to the test database.",
        )
    return MigrationError(
        what,
        cause="The file cannot be imported, or does not fit the other revisions.",
        remedy=f"Correct {place or layout.script_location}; `alembic history` imports every revision.",
    )


def _why_not_in_a_transaction(error: BaseException) -> str:
    if says(error, {_NEW_ENUM_VALUE}):
        return "PostgreSQL cannot use an enum value in the transaction that added it."
    return "PostgreSQL refuses this statement inside a transaction, and a DatabaseTest is one transaction."


def _place(error: BaseException, layout: Layout) -> str:
    """``file:line`` of the innermost frame that lies in the project's scripts."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if any(Path(frame.filename).is_relative_to(folder) for folder in layout.folders):
            return f"{frame.filename}:{frame.lineno}"
    return ""


def first_line(error: BaseException) -> str:
    """What the server or Python says, in one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).strip()
    return f"{type(cause).__name__}: {text.splitlines()[0] if text else ''}"
