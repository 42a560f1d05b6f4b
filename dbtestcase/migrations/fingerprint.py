"""The digest of everything that decides what the migrations make, without importing Alembic or a revision."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dbtestcase.migrations.layout import Layout

__all__ = ["fingerprint"]

_FORMAT = b"migrations/1"  # change it when the meaning of a template changes
_LEFT_OUT = {"script.py.mako", "README"}


def fingerprint(layout: Layout, *, x_arguments: tuple[str, ...] = ()) -> str:
    """A hex digest over every file below the script folders, the ini, the arguments and Alembic's version.

    Paths count relative to their folder: a project that moved keeps its template.
    """
    digest = hashlib.sha256(_FORMAT)

    def add(*parts: str | bytes) -> None:
        for part in parts:
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            digest.update(b"%d:" % len(data))
            digest.update(data)

    for position, folder in enumerate(layout.folders):
        for name, path in sorted(_files(folder)):
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


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in names:
            if name not in _LEFT_OUT and not name.startswith(".") and not name.endswith((".pyc", ".pyo")):
                path = Path(parent, name)
                yield path.relative_to(folder).as_posix(), path


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
