"""Which folder knows which dialect: how its databases are made and how they are cleaned; imported when needed."""

from __future__ import annotations

import importlib
from typing import Any

from sqlalchemy import URL

from ..errors import ConfigurationError
from ..reporting import shown
from .cleaners import Cleaning
from .interface import Backend

_FOLDERS = {
    "postgresql": "dbtestcase.backends.postgresql",
    "sqlite": "dbtestcase.backends.sqlite",
    "mysql": "dbtestcase.backends.mysql",
    "mariadb": "dbtestcase.backends.mysql",
}


def register(name: str, folder: str) -> None:
    """Name the package that knows a dialect (the part of a URL before ``+``).

    :param folder: has a module ``databases``, whose ``BACKEND`` is a :class:`Backend`, and perhaps a module
        ``cleaning``, whose ``BACKEND`` is a :class:`Cleaning`.
    """
    _FOLDERS[name] = folder


def dialects() -> list[str]:
    """The names of the dialects that have a backend."""
    return sorted(_FOLDERS)


def backend_for(url: URL) -> Backend:
    """What makes the databases of the dialect of ``url``."""
    name = url.get_backend_name()
    if name not in _FOLDERS:
        raise ConfigurationError(
            f"Databases of the dialect {name!r} cannot be made ({shown(url)}).",
            cause=f"the dialects known are {', '.join(dialects())}.",
            remedy="correct the URL, or name a package for the dialect with dbtestcase.backends.register().",
        )
    backend: Backend = _module(name, "databases").BACKEND
    return backend


def cleaning_for(url: URL) -> Cleaning:
    """What cleans the databases of the dialect of ``url``."""
    name = url.get_backend_name()
    module = _module(name, "cleaning") if name in _FOLDERS else None
    if module is None:
        raise ConfigurationError(
            f"Committed rows of {name} databases cannot be cleaned.",
            cause=f"nothing that is registered does; the dialects known are {', '.join(dialects())}.",
            remedy="use DatabaseTest, which never commits.",
        )
    cleaning: Cleaning = module.BACKEND
    return cleaning


def _module(dialect: str, part: str) -> Any:
    """A module of the dialect's folder; None where the folder has none of that name."""
    name = f"{_FOLDERS[dialect]}.{part}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
