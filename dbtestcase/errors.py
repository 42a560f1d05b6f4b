"""Every exception and warning of the library.

::

    DBTestCaseError
    ├── ConfigurationError        a class attribute, an environment variable, an order of calls
    │   ├── MissingExtra          an optional dependency is not installed (also an ImportError)
    │   ├── NotRunning            the database was asked for outside of a test (also an AttributeError)
    │   └── OutsideDatabase       an engine or driver was about to reach a database that is not the test's
    ├── ServerError               a database server
    │   ├── ProgramsNotFound      no server programs on this machine
    │   ├── ServerStartFailed     the programs are there, the server did not start
    │   └── ServerUnreachable     nobody answers, or the role is refused
    ├── DatabaseError             one database of a server
    │   ├── CannotCreateDatabase  the role may not create databases
    │   ├── UnsafeDatabase        the database is not ours to change
    │   └── SchemaError           the tables could not be made or inspected
    ├── MigrationError            Alembic could not do what was asked
    ├── SandboxError              one connection cannot imitate several any further
    │   ├── SandboxConflict       a rollback would undo another transaction's rows
    │   ├── SandboxEscape         a statement that would leave the outer transaction
    │   ├── SandboxBusy           the wire is in the middle of a COPY, a stream or a pipeline
    │   ├── SandboxTimeout        waited too long for another thread, task or lock holder
    │   └── SandboxClosed         the connection belongs to a test that has ended
    ├── LeakError                 found at the end of a test: what it left open or swallowed
    └── CleaningError             committed rows could not be put back

    DBTestCaseWarning (UserWarning)
    ├── LeftoverConnectionWarning a committing test left a connection open
    ├── DirtyReadWarning          a statement may see another transaction's unfinished writes
    └── RowSecurityWarning        policies do not bind the role that the tests run as

A message has three parts: what happened, the likely cause, and what to do.  None of them is a DBAPI error, so that
SQLAlchemy does not wrap them and an application's ``except DBAPIError`` does not swallow them.
"""

from __future__ import annotations

__all__ = [
    "CannotCreateDatabase",
    "CleaningError",
    "ConfigurationError",
    "DBTestCaseError",
    "DBTestCaseWarning",
    "DatabaseError",
    "DirtyReadWarning",
    "LeakError",
    "LeftoverConnectionWarning",
    "MigrationError",
    "MissingExtra",
    "NotRunning",
    "OutsideDatabase",
    "ProgramsNotFound",
    "RowSecurityWarning",
    "SandboxBusy",
    "SandboxClosed",
    "SandboxConflict",
    "SandboxError",
    "SandboxEscape",
    "SandboxTimeout",
    "SchemaError",
    "ServerError",
    "ServerStartFailed",
    "ServerUnreachable",
    "UnsafeDatabase",
]


class DBTestCaseError(Exception):
    """The base of the tree.

    :param what: what happened, with real names (never a password).
    :param cause: the likely cause.
    :param remedy: what to do about it.
    """

    of_lost_task = False  # a task has ended with it, and nobody asked what became of the task

    def __init__(self, what: str, *, cause: str = "", remedy: str = "") -> None:
        super().__init__(what, cause, remedy)
        self.what = what
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.cause:
            lines.append(f"Likely cause: {self.cause}")
        if self.remedy:
            lines.append(f"What to do: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Parallel runners send results between processes; the default would call __init__ with args.
        return (_restore, (type(self), self.args, self.__dict__))


def _restore(cls: type[DBTestCaseError], args: tuple[object, ...], state: dict[str, object]) -> DBTestCaseError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(DBTestCaseError):
    """A class attribute, an environment variable or an order of calls that cannot work."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional dependency is not installed.

    :param module: the module that could not be imported.
    :param extra: the extra of this distribution that brings it.
    :param purpose: what it is needed for, a noun phrase.
    """

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the module {module!r}, which is not installed.",
            cause=f"dbtestcase was installed without its [{extra}] extra.",
            remedy=f"pip install 'dbtestcase[{extra}]'",
        )


class NotRunning(ConfigurationError, AttributeError):
    """The database was asked for outside of a test; an AttributeError too, so that runners may look at a class."""


class OutsideDatabase(ConfigurationError):
    """An engine or a driver was about to reach a database that is not the test's, and that nobody has named."""


class ServerError(DBTestCaseError):
    """Something is wrong with a database server."""


class ProgramsNotFound(ServerError):
    """No server programs were found on this machine."""


class ServerStartFailed(ServerError):
    """The server's programs are there, but it did not start."""


class ServerUnreachable(ServerError):
    """Nobody answers at the URL, or the role is refused."""


class DatabaseError(DBTestCaseError):
    """Something is wrong with one database of a server."""


class CannotCreateDatabase(DatabaseError):
    """The role may not create databases."""


class UnsafeDatabase(DatabaseError):
    """The database is neither empty, nor marked as ours, nor named like a test database."""


class SchemaError(DatabaseError):
    """The tables could not be made or inspected."""


class MigrationError(DBTestCaseError):
    """Alembic could not do what was asked."""


class SandboxError(DBTestCaseError):
    """One connection cannot imitate several any further."""


class SandboxConflict(SandboxError):
    """A rollback would undo another transaction's rows (or two threads wait for each other)."""


class SandboxEscape(SandboxError):
    """A statement that would leave the outer transaction; refused before it is sent."""


class SandboxBusy(SandboxError):
    """The wire is in the middle of a COPY, a stream or a pipeline of another connection."""


class SandboxTimeout(SandboxError):
    """Waited too long for another thread, another task or the holder of a lock."""


class SandboxClosed(SandboxError):
    """The connection belongs to a test that has ended, or to the process that this one was forked from."""


class LeakError(DBTestCaseError):
    """Found at the end of a test: something it left open, lost or swallowed."""

    of_swallowed_error = False


class CleaningError(DBTestCaseError):
    """Committed rows could not be put back.

    ``by_others``: because somebody went on working in the database.
    """

    by_others = False


class DBTestCaseWarning(UserWarning):
    """The base of the library's warnings."""


class LeftoverConnectionWarning(DBTestCaseWarning):
    """A committing test left a connection open, which did no harm; it was ended."""


class DirtyReadWarning(DBTestCaseWarning):
    """A statement may see another transaction's unfinished writes, which production would not show."""


class RowSecurityWarning(DBTestCaseWarning):
    """The database has policies of row-level security that do not bind the role that the tests run as."""
