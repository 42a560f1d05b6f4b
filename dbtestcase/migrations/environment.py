"""One run of env.py: what it is given, what it configures, and which revision is being taken."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from alembic import command
from alembic.config import Config as Config  # the door shows it
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ..drivers import family_of
from ..errors import MigrationError
from ..reporting import shown
from . import failures
from .internals import version_folders
from .layout import Layout
from .redirect import is_led
from .several_databases import VersionTables

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a run of the environment does: given the current heads and the context, the steps to take, one by one.
Steps: TypeAlias = "Callable[[Any, MigrationContext], Iterable[RevisionStep]]"

_GIVEN = "dbtestcase_given"


def given_options(context: MigrationContext) -> frozenset[str]:
    """The names of what env.py itself gave to ``context.configure()``."""
    found: frozenset[str] = context.opts.get(_GIVEN, frozenset())
    return found


class Run:
    """One run of env.py: looks at what it configures and remembers the step that is being taken.

    Alembic serves ``alembic.context`` from an ``EnvironmentContext`` itself, which cannot be subclassed for it.

    :param suffix: what the names of version tables end with: two databases of production may be one in the tests.
    :param forced: what ``context.configure`` is given whatever env.py gives it.
    """

    def __init__(self, layout: Layout, steps: Steps, suffix: str, forced: Mapping[str, Any]) -> None:
        self.step: RevisionStep | None = None
        self.ours = False
        self.configured = False
        self._layout = layout
        self._steps = steps
        self._version_tables = VersionTables(suffix)
        self._forced = forced
        self._begun = self._ended = 0  # calls of context.run_migrations()

    def environment(self, config: Config, script: ScriptDirectory, options: dict[str, Any]) -> EnvironmentContext:
        """What ``alembic.context`` stands for in env.py."""
        environment = EnvironmentContext(config, script, fn=self._take, **options)
        configure = environment.configure

        def checked(connection: Connection | None = None, **arguments: Any) -> None:
            self.configured = True
            if isinstance(connection, Connection) and not is_led(connection):
                raise MigrationError(
                    "env.py migrates over a connection that does not go to the test database "
                    f"({shown(connection.engine.url)}).",
                    cause="The connection was open before env.py ran, goes to another kind of database, or is that of "
                    "an engine that the class names in `outside`.",
                    remedy="Let env.py take its connection from an engine: `with engine.connect() as connection: …`.",
                )
            given = frozenset(arguments)
            self._version_tables.tell_apart(connection, arguments)
            configure(connection, **{**arguments, **self._forced, _GIVEN: given})

        environment.configure = checked  # type: ignore[method-assign, assignment]
        return environment

    def check_that_it_ran(self) -> None:
        """Raise if env.py has not come to ``context.run_migrations()``, or has caught what was raised there."""
        if not self._begun:
            raise MigrationError(
                f"{self._layout.env_py} ended without migrating anything.",
                cause="It returns before `context.run_migrations()`, depending on something that is not set in a test.",
                remedy="Let env.py run its migrations online whenever Alembic loads it.",
            )
        if self._ended < self._begun:
            where = f"revision {self.step.revision.revision}" if self.step is not None else "the last revision"
            raise MigrationError(
                f"{self._layout.env_py} ended as if all had gone well, though {where} had not come to its end.",
                cause="env.py catches what context.run_migrations() raises: `alembic upgrade` ends with status 0, "
                "and the database stays where it was.",
                remedy="Let env.py raise it again after it has written it to its log.",
            )

    def _take(self, heads: Any, context: MigrationContext) -> Iterator[RevisionStep]:
        self._begun += 1
        self.ours = True
        script = context.script
        assert script is not None
        with failures.translated(self._layout):
            if not script.get_heads():  # imports every revision and checks that they hang together
                raise _no_revisions(self._layout, script)
        for step in self._steps(heads, context):
            self.step, self.ours = step, False
            yield step
            self.step, self.ours = None, True
        self._ended += 1
        self.ours = False


def _no_revisions(layout: Layout, script: ScriptDirectory) -> MigrationError:
    looked = []
    for folder in version_folders(script):
        path = Path(folder)
        if not path.is_dir():
            looked.append(f"{folder} (there is no such folder)")
            continue
        files = [each for each in path.rglob("*.py") if each.parent != path and "__pycache__" not in each.parts]
        if files and not script.recursive_version_locations:
            inside = sorted({str(each.parent) for each in files})[0]
            looked.append(f"{folder} (which has none, but its folder {inside} has .py files)")
        else:
            looked.append(f"{folder} (which has none)")
    return MigrationError(
        f"{layout.label} has no revisions: nothing would be migrated.\n  looked in: " + ", ".join(looked),
        cause="The revisions lie elsewhere: `version_locations` is not set, misses a folder, or is relative to another "
        "one (`recursive_version_locations` looks in the folders below, too).",
        remedy="Correct `version_locations` in the ini or in env.py, or write the first revision: "
        "`alembic revision --autogenerate -m …`.",
    )


class _Attributes(dict[str, Any]):
    """``Config.attributes`` with a connection for the env.py that insists on one (``attributes["connection"]``).

    One that asks with ``get("connection")`` is told that there is none, and makes its own engine, which is led; where
    that is an error to it, it is offered one.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self.was_asked = False
        self.offers = False

    def get(self, name: str, default: Any = None) -> Any:
        if name == "connection":
            self.was_asked = True
            if self.offers:
                return self[name]
        return super().get(name, default)

    def __missing__(self, name: str) -> Any:
        if name != "connection":
            raise KeyError(name)
        connection = self._engine.connect()
        connection.info["dbtestcase.migrating"] = True
        self[name] = connection
        return connection


def run_env_py(script: ScriptDirectory, config: Config, run: Run) -> None:
    """Let Alembic execute env.py: once more with what it has asked for, and failed of: a ready connection, a loop."""
    attributes = config.attributes
    try:
        script.run_env()
    except Exception as error:
        if run.configured:
            raise
        if isinstance(error, RuntimeError) and "no current event loop" in str(error) and sys.version_info < (3, 14):
            _run_with_loop(script)  # the main thread of a process that has had none has one there
            return
        if not isinstance(attributes, _Attributes) or not attributes.was_asked:
            raise
        attributes.offers = True
        script.run_env()


def _run_with_loop(script: ScriptDirectory) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        script.run_env()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def close_connection(config: Config) -> None:
    """Close the connection that env.py has found among the attributes."""
    connection = config.attributes.get("connection")
    if connection is not None:
        connection.close()


def make_config(
    layout: Layout, url: URL, own_engine: Engine, *, x_arguments: Sequence[str], action: str, revision: str | None
) -> Config:
    """The ``Config`` that env.py finds: the project's own, with the target's URL in it.

    :param own_engine: an engine to the target, for an env.py that wants a ready connection.
    :param action: the name of Alembic's command that would do the same: ``"upgrade"``.
    """
    given = layout.config
    config = Config(
        str(layout.ini) if layout.ini else None,
        ini_section=layout.section,
        config_args=given.config_args if given else {},
    )
    setattr(config, "toml_file_name", str(layout.toml) if layout.toml else None)  # noqa: B010  (Alembic 1.16)
    attributes = _Attributes(own_engine)
    if given is not None:
        config.output_buffer, config.stdout = given.output_buffer, given.stdout
        for section in given.file_config.sections():
            for name, value in given.file_config.items(section, raw=True):
                # What the file says already is not set again: a log format is no valid interpolation.
                if name != "here" and value != config.file_config.get(section, name, raw=True, fallback=None):
                    config.set_section_option(section, name, value)
        config.__class__ = type(given)
        for name, value in vars(given).items():
            vars(config).setdefault(name, value)  # what the application has put on it
        attributes.update({k: v for k, v in given.attributes.items() if not _is_connection(v)})
    config.attributes = attributes
    config.cmd_opts = _command_line(layout, x_arguments, action, revision)
    config.set_main_option("script_location", _escaped(str(layout.script_location)))
    for section in {layout.section, *config.file_config.sections()}:
        theirs = layout.parser.get(section, "sqlalchemy.url", fallback=None, raw=True)
        if theirs is not None or section == layout.section:
            text = url.set(drivername=_drivername(theirs, url)).render_as_string(False)
            config.set_section_option(section, "sqlalchemy.url", _escaped(text))
    return config


def _command_line(layout: Layout, x_arguments: Sequence[str], action: str, revision: str | None) -> Namespace:
    """What env.py finds in ``config.cmd_opts``: as from Alembic's own command line."""
    given = layout.config
    options: dict[str, Any] = {
        "config": str(layout.ini or layout.toml or "alembic.ini"),
        "name": layout.section,
        "raiseerr": False,
        "cmd": (getattr(command, action), ["revision"] if revision is not None else [], []),
    }
    if revision is not None:
        options.update(revision=revision, sql=False, tag=None)
    if given is not None and given.cmd_opts is not None:
        options.update(vars(given.cmd_opts))
    return Namespace(**{**options, "x": [*(options.get("x") or ()), *x_arguments]})


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
