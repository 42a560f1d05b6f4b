"""An Alembic project run against a database: upgrade, downgrade, the current revision.

This module and those that it is imported by import Alembic; ``layout``, ``fingerprint`` and ``recipe`` do not.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from dbtestcase.drivers.endpoints import family_of
from dbtestcase.errors import MigrationError
from dbtestcase.migrations import failures
from dbtestcase.migrations.heads import check_heads
from dbtestcase.migrations.layout import Layout, find_layout, prepended
from dbtestcase.migrations.redirect import Target, as_target, is_led, lead
from dbtestcase.migrations.surroundings import beside_running_loop, loggers_kept
from dbtestcase.migrations.versions import VersionsAtOnce
from dbtestcase.reporting.urls import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Project", "Steps"]

#: What a run of the environment does: given the current heads and the context, the steps to take, one by one.
Steps: TypeAlias = "Callable[[Any, MigrationContext], Iterable[RevisionStep]]"


class Project:
    """The scripts of one Alembic project, and its env.py.

    :param migrations: path of an ``alembic.ini`` or ``pyproject.toml``, or an Alembic ``Config``.
    :param relative_to: where the search for a relative path begins, see :func:`find_layout`.
    :param x_arguments: what ``alembic -x`` would be given, such as ``["tenant=acme"]``.
    """

    def __init__(
        self,
        migrations: str | Path | Config | Layout,
        *,
        relative_to: Path | None = None,
        x_arguments: Sequence[str] = (),
    ) -> None:
        self.layout = migrations if isinstance(migrations, Layout) else find_layout(migrations, relative_to=relative_to)
        self._x_arguments = tuple(x_arguments)

    @cached_property
    def script(self) -> ScriptDirectory:
        """The revisions, imported once.

        :raises MigrationError: a script cannot be imported, or the chain of revisions is broken.
        """
        layout = self.layout
        with prepended(layout.prepend_sys_path), failures.translated(layout):
            script = ScriptDirectory(
                str(layout.script_location),
                version_locations=[str(folder) for folder in layout.version_locations],
                sourceless=layout.parser.get(layout.section, "sourceless", fallback="") == "true",
                recursive_version_locations=layout.recursive,
            )
            script.get_heads()  # imports every revision and checks that they hang together
        return script

    def revisions(self) -> list[Script]:
        """Every revision, each after those that it builds on."""
        return list(self.script.walk_revisions())[::-1]

    def upgrade(self, target: Target | URL | Engine, revision: str = "head") -> None:
        """Upgrade to a revision: an identifier or the beginning of one, ``+1``, ``head``, ``heads``, ``label@head``.

        ``head`` reaches every head of a project whose several lines are told apart by labels or have nothing in common.

        :raises MigrationError: a revision raises, there is no such revision, or a line has two heads.
        """
        if revision == "head":
            revision = self._all_heads()

        def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
            return self.script._upgrade_revs(revision, heads)

        self.run(as_target(target), steps, destination_rev=revision)

    def build(self, target: Target | URL | Engine) -> None:
        """Upgrade an empty database, which is thrown away if that fails, to ``head``.

        :raises MigrationError: a revision raises, or a line has two heads.
        """
        revision = self._all_heads()
        versions = VersionsAtOnce()

        def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
            yield from self.script._upgrade_revs(revision, heads)
            versions.write(context)

        self.run(as_target(target), steps, during=versions, destination_rev=revision)

    def downgrade(self, target: Target | URL | Engine, revision: str) -> None:
        """Downgrade to a revision: an identifier or the beginning of one, ``-1``, ``base``.

        :raises MigrationError: a revision raises, or there is no such revision below the current one.
        """

        def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
            return self.script._downgrade_revs(revision, heads)

        self.run(as_target(target), steps, destination_rev=revision)

    def current_revisions(self, target: Target | URL | Engine) -> tuple[str, ...]:
        """What the version table says: one identifier for each line of revisions, none at base."""
        found: list[str] = []

        def steps(heads: Any, context: MigrationContext) -> Iterable[RevisionStep]:
            found.extend(head for head in context.get_current_heads() if head not in found)
            return []

        self.run(as_target(target), steps, dont_mutate=True)
        return tuple(found)

    def run(
        self,
        target: Target,
        steps: Steps,
        *,
        forced: Mapping[str, Any] | None = None,
        during: AbstractContextManager[object] | None = None,
        **options: Any,
    ) -> None:
        """Run env.py, led to the target, and let it take the steps.

        :param forced: what ``context.configure`` is given whatever env.py gives it.
        :param during: entered while env.py runs, by one thread at a time.
        :param options: for Alembic's ``EnvironmentContext``.
        :raises MigrationError: env.py or a revision raises, or env.py does not migrate the target.
        """
        self.script  # noqa: B018  (before a loop or a connection is involved)
        beside_running_loop(partial(self._run, target, steps, forced or {}, during or nullcontext(), options))

    def _all_heads(self) -> str:
        return "head" if len(check_heads(self.script, self.layout)) == 1 else "heads"

    def _run(
        self,
        target: Target,
        steps: Steps,
        forced: Mapping[str, Any],
        during: AbstractContextManager[object],
        options: dict[str, Any],
    ) -> None:
        names = self._databases()
        for name in names or [""]:
            # In one database, two lines of versions need two tables to keep them in.
            suffix = f"_{name}" if len(names) > 1 else ""
            with lead(target) as own_engine, prepended(self.layout.prepend_sys_path), loggers_kept(), during:
                config = self._config(target, own_engine)
                if name:
                    config.set_main_option("databases", name)
                run = _Run(steps, suffix, forced)
                try:
                    with failures.translated(self.layout, run, contained=target.contained):
                        with run.environment(config, self.script, options):
                            self.script.run_env()
                        run.check_that_it_ran(self.layout)
                finally:
                    _close(config)

    def _databases(self) -> list[str]:
        """The names that the multidb template goes through; they are migrated one by one."""
        parser, section = self.layout.parser, self.layout.section
        names = re.split(r",\s*", parser.get(section, "databases", fallback="").strip())
        return [name for name in names if name and parser.has_option(name, "sqlalchemy.url")]

    def _config(self, target: Target, own_engine: Engine) -> Config:
        layout, given = self.layout, self.layout.config
        config = Config(
            str(layout.ini) if layout.ini else None,
            ini_section=layout.section,
            config_args=given.config_args if given else {},
        )
        config.toml_file_name = str(layout.toml) if layout.toml else None
        attributes = _Attributes(own_engine)
        if given is not None:
            config.output_buffer, config.stdout = given.output_buffer, given.stdout
            for section in given.file_config.sections():
                for name, value in given.file_config.items(section, raw=True):
                    # What the file says already is not set again: a log format is no valid interpolation.
                    if name != "here" and value != config.file_config.get(section, name, raw=True, fallback=None):
                        config.set_section_option(section, name, value)
            attributes.update({k: v for k, v in given.attributes.items() if not _is_connection(v)})
        config.attributes = attributes
        options = dict(vars(given.cmd_opts)) if given and given.cmd_opts else {}
        config.cmd_opts = Namespace(**{**options, "x": [*(options.get("x") or ()), *self._x_arguments]})
        config.set_main_option("script_location", _escaped(str(layout.script_location)))
        for section in {layout.section, *config.file_config.sections()}:
            theirs = layout.parser.get(section, "sqlalchemy.url", fallback=None, raw=True)
            if theirs is not None or section == layout.section:
                url = target.url.set(drivername=_drivername(theirs, target.url))
                config.set_section_option(section, "sqlalchemy.url", _escaped(url.render_as_string(False)))
        return config


class _Run:
    """One run of env.py: looks at what it configures and remembers the step that is being taken.

    Alembic serves ``alembic.context`` from an ``EnvironmentContext`` itself, which cannot be subclassed for it.
    """

    def __init__(self, steps: Steps, suffix: str, forced: Mapping[str, Any]) -> None:
        self.step: RevisionStep | None = None
        self.ours = False
        self._steps = steps
        self._suffix = suffix
        self._forced = forced
        self._ran = False

    def environment(self, config: Config, script: ScriptDirectory, options: dict[str, Any]) -> EnvironmentContext:
        environment = EnvironmentContext(config, script, fn=self._take, **options)
        configure = environment.configure

        def checked(connection: Connection | None = None, **arguments: Any) -> None:
            if isinstance(connection, Connection) and not is_led(connection):
                raise MigrationError(
                    "env.py migrates over a connection that does not go to the test database "
                    f"({shown(connection.engine.url)}).",
                    cause="The connection was open before env.py ran, or goes to another kind of database.",
                    remedy="Let env.py take its connection from an engine: `with engine.connect() as connection: …`.",
                )
            if self._suffix:
                arguments["version_table"] = arguments.get("version_table", "alembic_version") + self._suffix
            configure(connection, **{**arguments, **self._forced})

        environment.configure = checked  # type: ignore[method-assign, assignment]
        return environment

    def check_that_it_ran(self, layout: Layout) -> None:
        if not self._ran:
            raise MigrationError(
                f"{layout.env_py} ended without migrating anything.",
                cause="It returns before `context.run_migrations()`, depending on something that is not set in a test.",
                remedy="Let env.py run its migrations online whenever Alembic loads it.",
            )

    def _take(self, heads: Any, context: MigrationContext) -> Iterator[RevisionStep]:
        self._ran = self.ours = True
        for step in self._steps(heads, context):
            self.step, self.ours = step, False
            yield step
            self.step, self.ours = None, True
        self.ours = False


class _Attributes(dict[str, Any]):
    """``Config.attributes`` with a connection for the env.py that insists on one (``attributes["connection"]``).

    One that asks with ``get("connection")`` is told that there is none, and makes its own engine, which is led.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def __missing__(self, name: str) -> Any:
        if name != "connection":
            raise KeyError(name)
        connection = self._engine.connect()
        connection.info["dbtestcase.migrating"] = True
        self[name] = connection
        return connection


def _close(config: Config) -> None:
    connection = config.attributes.get("connection")
    if connection is not None:
        connection.close()


def _is_connection(value: object) -> bool:
    return isinstance(value, Connection) or hasattr(value, "sync_connection")


def _drivername(theirs: str | None, url: URL) -> str:
    """Keep the driver that the ini names, where it is one of this kind of database and installed."""
    if theirs:
        try:
            named = make_url(theirs)
            if family_of(named.get_backend_name()) == family_of(url.get_backend_name()):
                named.get_dialect().import_dbapi()
                return named.drivername
        except (ArgumentError, NoSuchModuleError, ImportError):
            pass  # the placeholder of `alembic init`, an interpolation, or a driver that is not here
    return url.drivername


def _escaped(value: str) -> str:
    return value.replace("%", "%%")
