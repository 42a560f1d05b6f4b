"""Where an Alembic project keeps its files, found without importing Alembic.

A warm run only needs the fingerprint of the scripts.  Importing Alembic (0.1 s) for it would cost more than the rest of
the run, so that the ini file is read here with the parser that Alembic itself uses.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from alembic.config import Config

_PROJECT_MARKS = ("pyproject.toml", "setup.cfg", "setup.py", ".git")
_SEPARATORS = {"space": " ", "newline": "\n", "os": os.pathsep, ":": ":", ";": ";"}


@dataclass(frozen=True)
class Layout:
    """What an ``alembic.ini`` (or the ``[tool.alembic]`` of a ``pyproject.toml``) says, with absolute paths."""

    label: str  #: a short name for messages
    ini: Path | None
    toml: Path | None
    section: str  #: the main section of the ini, ``alembic`` unless ``-n`` names another
    script_location: Path
    version_locations: tuple[Path, ...]
    recursive: bool  #: whether version locations are searched recursively
    prepend_sys_path: tuple[str, ...]
    parser: configparser.ConfigParser = field(repr=False)
    config: Config | None = field(default=None, repr=False)  #: the object that the layout was read from
    names_versions: bool = True  #: whether it says where the revisions lie, or leaves it to Alembic

    @property
    def env_py(self) -> Path:
        return self.script_location / "env.py"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that holds scripts, none inside another."""
        found: list[Path] = []
        for folder in (self.script_location, *self.version_locations):
            if not any(folder.is_relative_to(known) for known in found):
                found.append(folder)
        return tuple(found)


def find_layout(migrations: str | Path | Config, *, relative_to: Path | None = None) -> Layout:
    """Read where a project's scripts lie.

    :param migrations: path of an ``alembic.ini`` or ``pyproject.toml``, or an Alembic ``Config``.
    :param relative_to: the folder (or a file in it) where the search for a relative path begins; it goes on in the
        folders above, up to the project's own, and ends in the current folder.
    :raises ConfigurationError: there is no such file, or it does not say where the scripts are.
    :raises MissingExtra: Alembic is not installed.
    """
    require_alembic()
    if isinstance(migrations, (str, Path)):
        path = _find_file(Path(migrations), relative_to)
        toml = path if path.suffix == ".toml" else _neighbour(path.with_name("pyproject.toml"))
        ini = None if path.suffix == ".toml" else path
        return _layout(path.name, ini, toml, "alembic", _read_ini(ini), None)
    ini = Path(migrations.config_file_name).absolute() if migrations.config_file_name else None
    if ini is not None and not ini.is_file():
        ini = _find_file(ini, None)
    toml_name: str | None = getattr(migrations, "toml_file_name", None)  # Alembic 1.16
    toml = _neighbour(Path(toml_name).absolute()) if toml_name else None
    label = (ini or toml or Path("Config()")).name
    return _layout(label, ini, toml, migrations.config_ini_section, migrations.file_config, migrations)


def require_alembic() -> None:
    """Say which extra is missing, without importing what is there."""
    if "alembic" not in sys.modules and importlib.util.find_spec("alembic") is None:
        raise MissingExtra("alembic", "migrations", "MigratedDatabaseTest")


@contextmanager
def prepended(paths: tuple[str, ...]) -> Iterator[None]:
    """Put folders in front of ``sys.path``; afterwards it is as it was, whatever env.py appended."""
    before = list(sys.path)
    sys.path[:0] = [path for path in paths if path not in sys.path]
    try:
        yield
    finally:
        sys.path[:] = before


def _find_file(path: Path, relative_to: Path | None) -> Path:
    candidates = [path] if path.is_absolute() else [folder / path for folder in _search_path(relative_to)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(str(candidate.parent) for candidate in candidates)
    raise ConfigurationError(
        f"There is no {str(path)!r} to migrate with (looked in {looked}).",
        cause="`migrations` names a file that does not exist, or is relative to another folder.",
        remedy="Set `migrations` to the path of the alembic.ini (`alembic init migrations` writes a first).",
    )


def _search_path(relative_to: Path | None) -> list[Path]:
    folders: list[Path] = []
    if relative_to is not None:
        start = relative_to.absolute()
        if start.is_file():
            start = start.parent
        for folder in (start, *start.parents):
            folders.append(folder)
            if any((folder / mark).exists() for mark in _PROJECT_MARKS):
                break  # the project ends here: what lies above belongs to somebody else
        else:
            del folders[1:]  # no project around it, so nothing above it is known to be ours
    current = Path.cwd()
    return folders if current in folders else [*folders, current]


def _neighbour(path: Path) -> Path | None:
    return path if path.is_file() else None


def _read_ini(ini: Path | None) -> configparser.ConfigParser:
    parser = configparser.ConfigParser({"here": (ini.parent if ini else Path.cwd()).as_posix()})
    if ini is not None:
        try:
            parser.read_string(ini.read_text(encoding="utf-8"), str(ini))
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{ini} cannot be read: {error}",
                cause="It is not an ini file as `alembic init` writes it.",
                remedy="Correct the line, or name another file in `migrations`.",
            ) from error
    return parser


def _layout(
    label: str,
    ini: Path | None,
    toml: Path | None,
    section: str,
    parser: configparser.ConfigParser,
    config: Config | None,
) -> Layout:
    table = _read_toml(toml)
    here = (ini or toml or Path.cwd() / "x").parent

    def option(name: str) -> Any:
        try:
            if parser.has_option(section, name):
                return parser.get(section, name)
        except configparser.InterpolationError as error:
            raise ConfigurationError(
                f"{label}: the option {name!r} cannot be read: {error}",
                cause="A percent sign in an ini file begins a reference to another option.",
                remedy="Write it twice (%%) where it is meant as it stands.",
            ) from error
        return _expand(table.get(name), here)

    location = option("script_location")
    if not location and ini is not None and (ini.parent / "env.py").is_file():
        location = "."  # Flask-Migrate's ini lies among its scripts, and leaves it to Flask-Migrate to say so
    if not location:
        where = f"[{section}] of {ini}" if ini else f"[tool.alembic] of {toml}" if toml else "the Config"
        raise ConfigurationError(
            f"{where} has no 'script_location'.",
            cause="It is not Alembic's configuration, or the section has another name.",
            remedy="Write `script_location = %(here)s/migrations` there, or pass Config(..., ini_section=...).",
        )
    path_separator = partial(_separator, parser, section)
    prepend = tuple(
        str(_resolve_folder(part, here))
        for part in _split(option("prepend_sys_path"), path_separator("path_separator"), r", *|(?: +)|\:")
    )
    with prepended(prepend):
        scripts = _resolve(location, here)
        if not scripts.is_dir():
            raise ConfigurationError(
                f"{label}: the folder of migration scripts {str(scripts)!r} does not exist.",
                cause=f"`script_location = {location}` is read relative to {here}.",
                remedy="Correct script_location (`%(here)s` stands for the ini's own folder).",
            )
        version_separator = path_separator("path_separator") or path_separator("version_path_separator")
        versions = tuple(
            _resolve(part, here) for part in _split(option("version_locations"), version_separator, r", *|(?: +)")
        )
    return Layout(
        label=label,
        ini=ini,
        toml=toml,
        section=section,
        script_location=scripts,
        version_locations=versions or (scripts / "versions",),
        recursive=option("recursive_version_locations") in ("true", True),
        prepend_sys_path=prepend,
        parser=parser,
        config=config,
        names_versions=bool(versions),
    )


def _read_toml(toml: Path | None) -> Mapping[str, Any]:
    if toml is None:
        return {}
    try:
        table = tomllib.loads(toml.read_text(encoding="utf-8")).get("tool", {}).get("alembic", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{toml} cannot be read: {error}", cause="It is not valid TOML.", remedy="Correct the line."
        ) from error
    return table if isinstance(table, dict) else {}


def _expand(value: Any, here: Path) -> Any:
    if isinstance(value, str):
        return value.replace("%(here)s", here.as_posix())
    if isinstance(value, list):
        return [_expand(part, here) for part in value]
    return value


def _separator(parser: configparser.ConfigParser, section: str, name: str) -> str | None:
    value = parser.get(section, name, fallback=None)
    if value is not None:
        value = value.partition("#")[0].strip()  # Alembic 1.7 to 1.15 wrote a comment into the line
    if value is not None and value not in _SEPARATORS:
        raise ConfigurationError(
            f"{value!r} is not a separator that `{name}` can name.",
            cause="A slip in the ini file.",
            remedy=f"Use one of {', '.join(_SEPARATORS)}.",
        )
    return _SEPARATORS[value] if value is not None else None


def _split(value: Any, separator: str | None, legacy: str) -> list[str]:
    if not value:
        return []
    if isinstance(value, list):
        return [str(part) for part in value]
    parts = re.split(legacy, value) if separator is None else value.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _resolve(location: str, here: Path) -> Path:
    if not os.path.isabs(location) and ":" in location:
        package, *parts = location.split(":")
        return _package_folder(package).joinpath(*parts)
    return _resolve_folder(location, here)


def _resolve_folder(location: str, here: Path) -> Path:
    folder = Path(os.path.normpath(here / location))
    if not folder.exists():
        # An ini in a folder of its own is often written for `alembic -c deploy/alembic.ini` in the project's folder.
        current = Path(os.path.normpath(Path.cwd() / location))
        if current.exists():
            return current
    return folder


def _package_folder(package: str) -> Path:
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"The package {package!r} of `script_location` cannot be found.",
            cause="It is not installed, and no folder of `prepend_sys_path` holds it.",
            remedy="Add `prepend_sys_path = %(here)s` to the ini, or install the package.",
        )
    return Path(next(iter(spec.submodule_search_locations)))
