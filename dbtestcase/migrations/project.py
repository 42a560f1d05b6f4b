"""An Alembic project run against a database: upgrade, downgrade, the current revision, its heads.

This module and those that it is imported by import Alembic; ``layout`` and ``recipe`` do not.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from alembic.config import Config
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionMap
from sqlalchemy import URL, Engine

from ..backends import note_folder
from ..errors import MigrationError
from . import failures
from .environment import Run, Steps, close_connection, make_config, run_env_py
from .internals import SharedScripts, downgrade_steps, script_of, upgrade_steps, version_folders
from .layout import Layout, find_layout, prepended
from .loggers import loggers_kept
from .redirect import Target, as_target, lead
from .several_databases import version_suffixes
from .versions import HeldVersions


class Project:
    """The scripts of one Alembic project, and its env.py; its parameters are those of :class:`MigrationRecipe`."""

    def __init__(
        self,
        migrations: str | Path | Config | Layout,
        *,
        relative_to: Path | None = None,
        x_arguments: Sequence[str] = (),
    ) -> None:
        self.layout = migrations if isinstance(migrations, Layout) else find_layout(migrations, relative_to=relative_to)
        self._x_arguments = tuple(x_arguments)
        self._maps: dict[Any, RevisionMap] = {}

    def upgrade(self, target: Target | URL | Engine, revision: str = "head") -> None:
        """Upgrade to a revision: an identifier or the beginning of one, ``+1``, ``head``, ``heads``, ``label@head``.

        ``head`` reaches every head of a project whose several lines are told apart by labels or have nothing in common.

        :raises MigrationError: a revision raises, there is no such revision, a line has two heads, or none is found.
        """
        self._upgrade(as_target(target), revision, over_commits=False)

    def build(self, target: Target | URL | Engine) -> None:
        """Upgrade an empty database, which is thrown away if that fails, to ``head``."""
        self._upgrade(as_target(target), "head", over_commits=True)

    def _upgrade(self, target: Target, revision: str, *, over_commits: bool) -> None:
        versions = HeldVersions(over_commits=over_commits)

        def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
            script, wanted = script_of(context), revision
            for folder in map(Path, version_folders(script)):
                if not any(folder.is_relative_to(known) for known in self.layout.folders):
                    note_folder(folder)
            if wanted == "head":
                check_heads(script, self.layout)
                wanted = "heads"  # of lines that depend on each other Alembic says that "head" is ambiguous
            yield from upgrade_steps(script, wanted, heads)
            versions.write(context)

        self.run(target, steps, action="upgrade", versions=versions, destination_rev=revision)
        self._check_committed(target, versions)

    def downgrade(self, target: Target | URL | Engine, revision: str) -> None:
        """Downgrade to a revision: an identifier or the beginning of one, ``-1``, ``base``.

        :raises MigrationError: a revision raises, or there is no such revision below the current one.
        """
        versions = HeldVersions(over_commits=False)

        def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
            yield from downgrade_steps(script_of(context), revision, heads)
            versions.write(context)

        self.run(as_target(target), steps, action="downgrade", versions=versions, destination_rev=revision)
        self._check_committed(as_target(target), versions)

    def _check_committed(self, target: Target, versions: HeldVersions) -> None:
        """Raise where env.py has let go of its connection before what was migrated was committed."""
        if versions.committed:  # mostly; else an engine in AUTOCOMMIT mode, say
            return
        if versions.reached != set(found := self.current_revisions(target)):
            raise MigrationError(
                f"{self.layout.env_py} has migrated to {', '.join(sorted(versions.reached)) or 'base'}, and has not "
                f"committed it: the database is at {', '.join(found) or 'base'}.",
                cause="A statement that env.py executes on its connection before `context.configure()` begins a "
                "transaction, which Alembic then leaves to env.py to commit; `alembic upgrade` does nothing there.",
                remedy="Write `connection.commit()` before `context.configure()`, or after `context.run_migrations()`.",
            )

    def current_revisions(self, target: Target | URL | Engine) -> tuple[str, ...]:
        """What the version table says: one identifier for each line of revisions, none at base."""
        found: list[str] = []

        def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
            found.extend(head for head in heads if head not in found)
            return []

        self.run(as_target(target), steps, action="current", dont_mutate=True)
        return tuple(found)

    def script(self, target: Target | URL | Engine) -> ScriptDirectory:
        """The revisions, where env.py says that they lie."""
        found: list[ScriptDirectory] = []

        def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
            found.append(script_of(context))
            return []

        self.run(as_target(target), steps, action="heads", dont_mutate=True)
        return found[0]

    def run(
        self,
        target: Target,
        steps: Steps,
        *,
        action: str,
        forced: Mapping[str, Any] | None = None,
        versions: HeldVersions | None = None,
        **options: Any,
    ) -> None:
        """Run env.py, led to the target, and let it take the steps.

        :param action: the name of Alembic's command that does the same: ``"upgrade"``, ``"downgrade"``, ``"current"``.
        :param forced: what ``context.configure`` is given whatever env.py gives it.
        :param versions: entered while env.py runs, by one thread at a time.
        :raises MigrationError: env.py or a revision raises, or env.py does not migrate the target.
        """
        beside_running_loop(partial(self._run, target, steps, action, forced or {}, versions, options))

    def _run(
        self,
        target: Target,
        steps: Steps,
        action: str,
        forced: Mapping[str, Any],
        versions: HeldVersions | None,
        options: dict[str, Any],
    ) -> None:
        layout = self.layout
        revision = options.get("destination_rev")
        for name, suffix in (version_suffixes(layout.parser, layout.section) or {"": ""}).items():
            with ExitStack() as stack:
                own_engine = stack.enter_context(lead(target))
                stack.enter_context(prepended(layout.prepend_sys_path))
                stack.enter_context(loggers_kept(layout.folders))
                if versions is not None:
                    stack.enter_context(versions)
                config = make_config(
                    layout, target.url, own_engine, x_arguments=self._x_arguments, action=action, revision=revision
                )
                stack.callback(close_connection, config)
                if name:
                    config.set_main_option("databases", name)
                # In one database, two lines of versions need two tables to keep them in.
                run = Run(layout, steps, suffix, forced)
                with failures.translated(layout, run, contained=target.contained):
                    script = self._script()
                    with run.environment(config, script, options):
                        run_env_py(script, config, run)
                    run.check_that_it_ran()

    def _script(self) -> SharedScripts:
        layout = self.layout
        return SharedScripts(
            str(layout.script_location),
            self._maps,
            # As in Alembic none are named by default: an env.py may append to them.
            version_locations=[str(folder) for folder in layout.version_locations] if layout.names_versions else None,
            sourceless=layout.parser.get(layout.section, "sourceless", fallback="") == "true",
            recursive_version_locations=layout.recursive,
        )


def revisions(script: ScriptDirectory) -> list[Script]:
    """Every revision, each after those that it builds on."""
    return list(script.walk_revisions())[::-1]


def stray_heads(script: ScriptDirectory) -> list[Script]:
    """Heads that compete: lines without a common revision, and branches with other labels, may have one each."""
    heads = list(script.get_revisions("heads"))
    if len(heads) < 2:
        return []
    ancestors = {
        head.revision: {revision.revision for revision in script.iterate_revisions(head.revision, "base")}
        for head in heads
    }
    stray: set[str] = set()
    for one, other in combinations(heads, 2):
        related = ancestors[one.revision] & ancestors[other.revision]
        if related and one.branch_labels == other.branch_labels:
            stray.update((one.revision, other.revision))
    return [head for head in heads if head.revision in stray]


def check_heads(script: ScriptDirectory, layout: Layout) -> list[Script]:
    """The heads; :exc:`MigrationError` if two compete."""
    stray = stray_heads(script)
    if stray:
        names = " and ".join(head.revision for head in stray)
        lines = "".join(f"\n  {head.revision}  {head.doc}\n    {head.path}" for head in stray)
        raise MigrationError(
            f"{layout.label} has {len(stray)} heads where one is expected: {names}{lines}",
            cause="Two people added a revision after the same one (the branches were merged in git, not in Alembic).",
            remedy=f"alembic merge -m 'merge heads' {' '.join(head.revision for head in stray)}",
        )
    return list(script.get_revisions("heads"))


T = TypeVar("T")


def beside_running_loop(function: Callable[[], T]) -> T:
    """Call a function; where this thread runs an event loop, in another: an async env.py calls ``asyncio.run``."""
    if not _loop_is_running():
        return function()
    outcome: list[Any] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append((context.run(function), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="dbtestcase migrations")
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        try:
            raise error
        finally:
            outcome.clear()  # the traceback holds this frame
    return value  # type: ignore[no-any-return]


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
