"""URLs as they may be shown: every secret in them is masked, wherever the URL carries it."""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any

from sqlalchemy import URL

# Options of drivers that hold a secret, or name the file that holds it; `odbc_connect` is a whole connection string.
_SECRET = re.compile(
    r"pass(word|wd|phrase|file)?$|passwd|password|secret|token|^pwd$|servicefile|scram_\w+_key|^ssl_?key$|^odbc_connect$"
    r"|read_default_file|option_files|sslkeylogfile|credential",
    re.IGNORECASE,
)
_MASK = "***"


def shown(url: URL) -> str:
    """The URL for a message or a log: its password, and the options of its query that are secrets, as ``***``."""
    masked = url.set(query={key: _MASK if _SECRET.search(key) else value for key, value in url.query.items()})
    return masked.render_as_string(hide_password=True).replace("%2A%2A%2A", _MASK)


def for_driver(url: URL, drivername: str) -> URL:
    """The same database by another driver; pg8000 names PostgreSQL's socket, others its folder and number."""
    url = url.set(drivername=drivername)
    folder, path = url.query.get("host"), url.query.get("unix_sock")
    if drivername.endswith("+pg8000") and isinstance(folder, str) and folder.startswith("/"):
        path = f"{folder}/.s.PGSQL.{url.query.get('port', url.port or 5432)}"
        return url.difference_update_query(["host", "port"]).update_query_dict({"unix_sock": path})
    if not drivername.endswith("+pg8000") and isinstance(path, str):
        folder, _, port = path.partition("/.s.PGSQL.")
        return url.difference_update_query(["unix_sock"]).update_query_dict({"host": folder, "port": port or "5432"})
    return url


def for_psycopg(url: URL) -> tuple[Sequence[str], MutableMapping[str, Any]]:
    """What ``psycopg.connect()`` takes to reach what the URL names, of whatever driver of PostgreSQL it is."""
    plain = for_driver(url, "postgresql+psycopg")
    return plain.get_dialect()().create_connect_args(plain)


def pasteable(url: URL) -> str:
    """The URL without its secrets, for a command that somebody is to paste; they come from the environment then."""
    query = {key: value for key, value in url.query.items() if not _SECRET.search(key)}
    return url.set(query=query)._replace(password=None).render_as_string()  # set() takes None for nothing said


def without_secrets(text: object, url: URL) -> str:
    """What a driver says, in one line and with the secrets of ``url`` masked."""
    secrets = [url.password, *(value for key, value in url.query.items() if _SECRET.search(key))]
    reason = " ".join(str(text).split())
    for secret in secrets:
        for each in (secret,) if isinstance(secret, str) else secret or ():
            if each:
                reason = reason.replace(str(each), _MASK)
    return reason
