"""What is used of Alembic beyond its public interface, in one place.

It is the same from Alembic 1.13 to 1.20: ``ScriptDirectory._version_locations``, ``_upgrade_revs`` and
``_downgrade_revs``, ``RevisionStep``, ``HeadMaintainer``, ``MigrationContext._version`` and ``impl.memo``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import alembic
from alembic.runtime import migration
from alembic.runtime.migration import HeadMaintainer, MigrationContext, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionMap
from sqlalchemy import Connection, text

from ..reporting import require_internals


class SharedScripts(ScriptDirectory):
    """A ``ScriptDirectory`` that shares the revisions with others that look in the same folders (``maps``, by these).

    Each run of env.py has one of its own, as each command of Alembic has: env.py may say where the revisions lie until
    it first asks for them.  Their files are imported once.
    """

    leads_by_itself = True  #: its runs of env.py are led already, see :mod:`.commands`

    def __init__(self, location: str, maps: dict[Any, RevisionMap], **options: Any) -> None:
        self._maps = maps
        self._own_map: RevisionMap | None = None
        super().__init__(location, **options)
        self._own_map = None

    @property
    def revision_map(self) -> RevisionMap:
        if self._own_map is not None:
            return self._own_map
        places = tuple(str(place) for place in self._version_locations)
        key = (places, self.sourceless, self.recursive_version_locations)
        if key not in self._maps:
            self._maps[key] = RevisionMap(self._load_revisions)
        return self._maps[key]

    @revision_map.setter
    def revision_map(self, value: RevisionMap) -> None:
        self._own_map = value


def script_of(context: MigrationContext) -> ScriptDirectory:
    """The scripts as env.py has left them."""
    return cast(ScriptDirectory, context.script)


def version_folders(script: ScriptDirectory) -> list[str]:
    """Where the revisions are looked for."""
    return [str(folder) for folder in script._version_locations]


def upgrade_steps(script: ScriptDirectory, revision: str, heads: Any) -> list[RevisionStep]:
    """The steps from the current heads up to a revision."""
    return script._upgrade_revs(revision, heads)


def downgrade_steps(script: ScriptDirectory, revision: str, heads: Any) -> list[RevisionStep]:
    """The steps from the current heads down to a revision."""
    return script._downgrade_revs(revision, heads)


def step(script: ScriptDirectory, revision: Script, is_upgrade: bool) -> RevisionStep:
    """One revision taken by itself."""
    return RevisionStep(script.revision_map, revision, is_upgrade)


def forget_made_types(context: MigrationContext) -> None:
    """SQLAlchemy remembers the enums that it made in a run, and would not make them again after a downgrade."""
    context.impl.memo.clear()


class replaced_head_maintainer:
    """While it is entered, runs keep the version table's books with what ``make`` returns, if it returns anything."""

    def __init__(self, make: Callable[[MigrationContext, Iterable[str]], HeadMaintainer | None]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._original = migration.HeadMaintainer
        setattr(migration, "HeadMaintainer", self._begin)  # noqa: B010

    def __exit__(self, *exc_info: object) -> None:
        setattr(migration, "HeadMaintainer", self._original)  # noqa: B010

    def _begin(self, context: MigrationContext, heads: Any) -> HeadMaintainer:
        return self._make(context, heads) or self._original(context, heads)


def autocommits(connection: Connection) -> bool:
    """Whether each statement of the connection is committed by itself."""
    level = connection.get_execution_options().get("isolation_level")
    level = level or getattr(connection.dialect, "_on_connect_isolation_level", None)
    if level is not None:
        return str(level).upper() == "AUTOCOMMIT"
    # asyncpg's, after COMMIT as text: SQLAlchemy believes to be in a transaction, and begins none
    in_transaction = getattr(connection.connection.driver_connection, "is_in_transaction", None)
    if in_transaction is not None and connection.in_transaction() and not in_transaction():
        return True
    detect = getattr(connection.dialect, "detect_autocommit_setting", None)
    try:
        return bool(detect and detect(connection.connection.dbapi_connection))
    except NotImplementedError:
        return False


@contextmanager
def in_transaction(context: MigrationContext) -> Iterator[None]:
    """Give a context that commits each statement another connection, where what is done can be rolled back."""
    connection = context.connection
    assert connection is not None
    if not autocommits(connection):
        yield
        return
    level = "READ COMMITTED" if connection.dialect.name == "postgresql" else "SERIALIZABLE"
    with connection.engine.connect().execution_options(isolation_level=level) as other:
        if connection.dialect.name == "postgresql":
            path = connection.scalar(text("SELECT current_setting('search_path')"))
            other.execute(text("SELECT set_config('search_path', :path, false)"), {"path": path})
        context.connection = context.impl.connection = other
        try:
            yield
        finally:
            context.connection = context.impl.connection = connection


def dry_context(context: MigrationContext) -> MigrationContext:
    """A context on the same connection whose ``autocommit_block()`` commits nothing: for what is rolled back."""
    other = MigrationContext(context.dialect, context.connection, context.opts, context.environment_context)
    setattr(other, "autocommit_block", nullcontext)  # noqa: B010
    return other


def compares_with_more_than_alembic() -> bool:
    """Whether somebody else has registered comparisons with Alembic's autogenerate."""
    from alembic.autogenerate import comparators

    def functions(entry: object) -> Iterator[object]:
        if callable(entry) and hasattr(entry, "__module__"):
            yield entry
        elif isinstance(entry, dict):
            for each in entry.values():
                yield from functions(each)
        elif isinstance(entry, (list, tuple, set)):
            for each in entry:
                yield from functions(each)

    found = functions(getattr(comparators, "_registry", {}))
    return any(not str(getattr(each, "__module__", "")).startswith("alembic.") for each in found)


require_internals(
    f"Alembic {alembic.__version__}",
    [
        (ScriptDirectory, ("_upgrade_revs", "_downgrade_revs", "_version_locations")),
        (HeadMaintainer, ("update_to_step",)),
    ],
    "pip install 'alembic>=1.13,<2'",
)
