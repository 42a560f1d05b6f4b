"""A URL that somebody wrote, checked before anything is done with it: its form, its dialect, its driver."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ..errors import ConfigurationError
from ..reporting import shown
from .registry import dialects

_EXAMPLES = "postgresql+psycopg://user@localhost:5432/blog, mariadb+pymysql://…, mysql+pymysql://…, sqlite://"

# What other tools call a dialect, or people do.
_OTHER_NAMES = {
    "postgres": "postgresql",
    "psql": "postgresql",
    "pgsql": "postgresql",
    "pg": "postgresql",
    "psycopg": "postgresql",
    "psycopg2": "postgresql",
    "mysql2": "mysql",
    "sqlite3": "sqlite",
}


def names_a_server(url: URL) -> bool:
    """Whether a URL says where its server is; without a host it asks for a disposable one of its kind."""
    where = {"host", "unix_socket", "service"}
    return url.get_backend_name() == "sqlite" or bool(url.host) or not where.isdisjoint(url.query)


def checked_url(given: object, where: str) -> URL:
    """The URL, if a database can be had by it.

    :param where: where it was written, such as ``BlogTest.url``.
    :raises ConfigurationError: it has no URL's form, or names a dialect or a driver that is not there.
    """
    if isinstance(given, str | URL) and given in _checked:
        return _checked[given]
    if not isinstance(given, str | URL):
        raise ConfigurationError(
            f"{where} is {type(given).__name__}, not a string or a URL.",
            cause="an engine, a setting or a function where the server's URL belongs",
            remedy=f"write one of {_EXAMPLES}; the application's engines go into `engines`",
        )
    try:
        if isinstance(given, str) and given != given.strip():
            raise ValueError(given)
        url = make_url(given)
    except (ArgumentError, ValueError):
        # the text is not shown: it may hold a password, and what cannot be parsed cannot be masked
        raise ConfigurationError(
            f"{where} is not a database URL.",
            cause="it does not have the form driver://user:password@host:port/database, without blanks around it",
            remedy=f"write one of {_EXAMPLES}",
        ) from None
    _check_dialect(url, where)
    _checked[given] = url
    return url


_checked: dict[str | URL, URL] = {}
"""Those that were found to be right: every class asks, mostly for the same one."""


def _check_dialect(url: URL, where: str) -> None:
    name, _, driver = url.drivername.partition("+")
    meant = _OTHER_NAMES.get(name)
    if meant is not None:
        right = (
            f"{meant}+{driver or ('psycopg' if meant == 'postgresql' else 'pymysql')}" if meant != "sqlite" else meant
        )
        raise ConfigurationError(
            f"{where} is {shown(url)}, but SQLAlchemy has no dialect {name!r}.",
            cause=f"another tool's word for {meant!r}",
            remedy=f"write {shown(url.set(drivername=right))}",
        )
    if name not in dialects():
        raise ConfigurationError(
            f"{where} is {shown(url)}: the dialect {name!r} is not supported.",
            cause=f"test databases are made of {', '.join(dialects())}",
            remedy=f"write one of {_EXAMPLES}; or name a package for the dialect with dbtestcase.backends.register()",
        )
    try:
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise ConfigurationError(
            f"{where} is {shown(url)}: SQLAlchemy has no driver {driver!r} for {name!r}.",
            cause="a misspelling, or a dialect's package that is not installed",
            remedy=f"write one of {_EXAMPLES}",
        ) from None
    except ImportError as error:
        raise ConfigurationError(
            f"{where} is {shown(url)}, but its driver is not installed: {error}.",
            cause="this environment lacks what the application's has"
            if driver
            else f"without +driver SQLAlchemy takes {url.get_driver_name()!r}",
            remedy=f"pip install {error.name or driver}, or name a driver that is there: one of {_EXAMPLES}",
        ) from error
