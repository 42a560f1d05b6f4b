"""A test database made by migrations: what a template is built from, and the fingerprint that it is found by."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection
from sqlalchemy.orm import Session

from ..backends import (
    add_to,
    build_initial_schema,
    connected,
    digest_of,
    files_below,
    load_base_data,
    run_initial_schema,
)
from .layout import Layout, find_layout

if TYPE_CHECKING:
    from alembic.config import Config

    from .project import Project


class MigrationRecipe:
    """Upgrade an empty database to the head of an Alembic project, then load the reference rows.

    :param migrations: path of an ``alembic.ini`` or ``pyproject.toml``, or an Alembic ``Config``.
    :param base_data: called with a session at head; what it adds is committed.
    :param initial_schema: called with a connection to the empty database, before the first revision.
    :param relative_to: where the search for a relative path begins: a test module's file or folder.
    :param x_arguments: what ``alembic -x`` would be given: ``["tenant=acme"]`` or ``{"tenant": "acme"}``.
    :raises ConfigurationError: there is no such project.
    :raises MissingExtra: Alembic is not installed.
    """

    def __init__(
        self,
        migrations: str | Path | Config,
        *,
        base_data: Callable[[Session], object] | None = None,
        initial_schema: Callable[[Connection], object] | None = None,
        relative_to: Path | None = None,
        x_arguments: Sequence[str] | Mapping[str, str] = (),
    ) -> None:
        self.layout: Layout = find_layout(migrations, relative_to=relative_to)
        self.base_data = base_data
        self.initial_schema = initial_schema
        if isinstance(x_arguments, Mapping):
            x_arguments = [f"{name}={value}" for name, value in x_arguments.items()]
        self.x_arguments = tuple(x_arguments)

    def with_hooks(
        self,
        base_data: Callable[[Session], object] | None,
        initial_schema: Callable[[Connection], object] | None = None,
    ) -> MigrationRecipe:
        """The same migrations with other hooks; what was read of their files is not read again."""
        other = copy.copy(self)
        other.base_data, other.initial_schema = base_data, initial_schema
        return other

    @property
    def home(self) -> Path:
        """A folder of the project."""
        return self.layout.script_location

    @property
    def covered(self) -> tuple[Path, ...]:
        """What the fingerprint knows without a build."""
        configs = [path for path in (self.layout.ini, self.layout.toml) if path is not None]
        return (*self.layout.folders, *configs)

    @property
    def label(self) -> str:
        return self.layout.label

    @cached_property
    def project(self) -> Project:
        """The scripts, which imports Alembic."""
        from .project import Project

        return Project(self.layout, x_arguments=self.x_arguments)

    def fingerprint(self) -> str:
        parts = [self._files]
        for hook in (self.initial_schema, self.base_data):
            parts.append(digest_of(hook) if hook is not None else "-")
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @cached_property
    def _files(self) -> str:
        return fingerprint(self.layout, x_arguments=self.x_arguments)

    def prepare(self) -> None:
        self.project  # noqa: B018  imports Alembic

    def build(self, url: URL) -> None:
        build_initial_schema(self.initial_schema, url, self.label)
        self.project.build(url)
        if self.base_data is not None:
            with connected(url) as connection:
                load_base_data(self.base_data, connection, self.label)

    def create_in(self, connection: Connection) -> None:
        """The same inside the sandbox that ``connection`` belongs to, which is neither committed nor rolled back."""
        from .redirect import Target

        run_initial_schema(self.initial_schema, connection, self.label)
        self.project.build(Target(connection.engine.url, contained=True, engine=connection.engine))
        load_base_data(self.base_data, connection, self.label)


_FORMAT = b"migrations/1"  # change it when the meaning of a template changes
_LEFT_OUT = {"script.py.mako", "README"}


def fingerprint(layout: Layout, *, x_arguments: tuple[str, ...] = ()) -> str:
    """A hex digest over every file below the script folders, the ini, the arguments and Alembic's version.

    Paths count relative to their folder: a project that moved keeps its template.
    """
    digest = hashlib.sha256(_FORMAT)

    add = partial(add_to, digest)
    for position, folder in enumerate(layout.folders):
        for name, path in files_below(folder):
            if path.name not in _LEFT_OUT:
                add("file", str(position), name, path.read_bytes())
    for config in (layout.ini, layout.toml):
        if config is not None:
            add("config", config.read_bytes())
    add("section", layout.section)
    if layout.config is not None:
        for section in layout.parser.sections():
            for name, value in layout.parser.items(section, raw=True):
                if name != "here":
                    add("option", section, name, str(value))
    add("x", *x_arguments)
    add("alembic", _alembic_version())
    return digest.hexdigest()


def _alembic_version() -> str:
    module = sys.modules.get("alembic")
    if module is not None:
        return str(module.__version__)
    spec = importlib.util.find_spec("alembic")
    assert spec is not None and spec.origin is not None
    for line in Path(spec.origin).read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.partition("=")[2].strip().strip("\"'")
    return spec.origin
