"""Files that decide what a recipe builds and that only show when it is built: they belong to its fingerprint too.

An env.py may say while it runs where its revisions lie, a revision or a hook may read an SQL file.  What a build has
read is written down in the cache beside the fingerprint that was known before (as compilers' caches do it); the next
run asks whether those files are what they were.  Files count that lie in the project and are not Python modules.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import io
import json
import os
import site
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..settings import Settings
from .recipes import DerivedRecipe, Recipe

_MARKS = ("pyproject.toml", "setup.cfg", "setup.py", ".git")
_KEPT = 20  #: of one recipe's versions; the oldest are forgotten
_known: dict[str, list[tuple[list[str], str]]] = {}  #: manifests of this process, should the cache not take them
_read: ContextVar[set[str] | None] = ContextVar("dbtestcase inputs", default=None)


def note_folder(folder: str | Path) -> None:
    """Say that everything in a folder decides what is being built."""
    found = _read.get()
    if found is not None:
        found.add(str(folder))


def template_fingerprint(recipe: Recipe, settings: Settings) -> str:
    """The recipe's fingerprint with the files in it that its last build has read."""
    own = recipe.fingerprint()
    if isinstance(recipe, DerivedRecipe):
        inner = recipe.inner.fingerprint()
        complete = template_fingerprint(recipe.inner, settings)
        return own if inner == complete else _joined(own, complete)
    root = _root(recipe)
    for names, digest in _manifest(settings, own):
        if _digest(root, names) == digest:
            return _joined(own, digest)
    return own


@contextlib.contextmanager
def recorded(recipe: Recipe, settings: Settings) -> Iterator[None]:
    """Take down which files are read while the recipe is built; not where the build fails."""
    found: set[str] = set()
    token = _read.set(found)
    try:
        with _watched():
            yield
    finally:
        _read.reset(token)
    root = _root(recipe)
    covered: tuple[Path, ...] = getattr(recipe, "covered", ())
    paths = [path for path in map(Path, found) if not any(path.is_relative_to(each) for each in covered)]
    names = sorted({os.path.relpath(path, root) for path in paths if _counts(path, root)})
    if names and settings.cache is not None:
        own = recipe.fingerprint()
        entries = [(names, _digest(root, names)), *_manifest(settings, own)][:_KEPT]
        _known[own] = entries
        _write(_manifest_file(settings, own), entries)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    original = builtins.open

    def watching(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        opened = original(file, mode, *arguments, **options)
        found = _read.get()
        if found is not None and not set(mode) & set("wax+") and isinstance(file, (str, os.PathLike)):
            found.add(os.path.abspath(os.fspath(file)))
        return opened

    builtins.open = io.open = watching
    try:
        yield
    finally:
        builtins.open = io.open = original


def _root(recipe: Recipe) -> Path:
    """The folder of the recipe's project: what lies outside of it is not its own."""
    try:
        home: Path = getattr(recipe, "home", None) or Path.cwd()
    except FileNotFoundError as error:
        raise ConfigurationError(
            "The current folder of this process is not there any more.",
            cause="a test or a class before has changed to a folder, and removed it",
            remedy="change back before: `with contextlib.chdir(folder): …`, or addCleanup(os.chdir, os.getcwd()).",
        ) from error
    for folder in (home, *home.parents):
        if any((folder / mark).exists() for mark in _MARKS):
            return folder
    return home


def _counts(path: Path, root: Path) -> bool:
    if path.is_dir():
        return True  # named by note_folder()
    if path.suffix in (".py", ".pyc", ".so") or not path.is_relative_to(root) or not path.is_file():
        return False
    foreign = {sys.prefix, sys.base_prefix, *site.getsitepackages()} - {str(root)}
    return not any(path.is_relative_to(folder) for folder in foreign if not root.is_relative_to(folder))


def _digest(root: Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        if path.is_dir():
            for below, file in files_below(path):
                add_to(digest, name, below, file.read_bytes())
        else:
            add_to(digest, name, path.read_bytes() if path.is_file() else "is not there")
    return digest.hexdigest()


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files that may decide something, by their paths below the folder, always in the same order."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each != "__pycache__" and not each.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo")):
                path = Path(parent, name)
                yield path.relative_to(folder).as_posix(), path


def add_to(digest: Any, *parts: str | bytes) -> None:
    """Let a digest tell these parts from any others."""
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%d:" % len(data) + data)


def _joined(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _manifest_file(settings: Settings, fingerprint: str) -> Path:
    assert settings.cache is not None
    return settings.cache / "inputs" / f"{fingerprint[:40]}.json"


def _manifest(settings: Settings, fingerprint: str) -> list[tuple[list[str], str]]:
    if settings.cache is None:
        return []
    if fingerprint in _known:
        return _known[fingerprint]
    try:
        found = json.loads(_manifest_file(settings, fingerprint).read_bytes())
        return [(list(names), str(digest)) for names, digest in found]
    except (OSError, ValueError):  # none yet, or spoilt: what was built is built again
        return []


def _write(file: Path, entries: list[Any]) -> None:
    with contextlib.suppress(OSError):  # where the cache cannot be written to, the next run builds again
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(entries), encoding="utf-8")
        half.replace(file)
