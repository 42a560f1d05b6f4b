"""What the environment says: every ``DBTESTCASE_*`` variable, read once and checked."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from .errors import ConfigurationError

__all__ = ["VARIABLES", "Settings", "read_once", "read_settings"]

_T = TypeVar("_T")

Keep = Literal["never", "fail"]
Sql = Literal["fail", "all", "off"]


VARIABLES = (
    "DBTESTCASE_CACHE",
    "DBTESTCASE_KEEP",
    "DBTESTCASE_POSTGRES_BIN",
    "DBTESTCASE_REPORT",
    "DBTESTCASE_SQL",
    "DBTESTCASE_STAY",
    "DBTESTCASE_SUMMARY",
    "DBTESTCASE_URL",
)
"""Every variable that means something; another one that begins like these is an error."""


LONGEST_STAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says.

    :ivar url: where the server is (``DBTESTCASE_URL``); ``None`` for a disposable PostgreSQL.
    :ivar postgres_bin: the folder of the server's programs (``DBTESTCASE_POSTGRES_BIN``); ``None`` to look for them.
    :ivar cache: where the stopped clusters are kept between runs (``DBTESTCASE_CACHE``); ``None`` for no cache.
    :ivar cache_is_chosen: whether somebody chose that folder, so that a failure to write there is an error.
        The default below the home folder gives way to the temp folder, for users that have no home.
    :ivar keep: whether the rows of a failing test are kept in a database of their own (``DBTESTCASE_KEEP``).
    :ivar sql: which tests show their statements: failing ones, all, or none (``DBTESTCASE_SQL``).
    :ivar stay: for how many seconds a disposable PostgreSQL waits for the next run (``DBTESTCASE_STAY``); 0: it ends.
    :ivar report: the files that a run writes about itself, ``.html`` and ``.json`` (``DBTESTCASE_REPORT``).
    :ivar summary: whether a run ends with a few lines about itself (``DBTESTCASE_SUMMARY``).
    """

    url: str | None = field(default=None, repr=False)  # may hold a password
    postgres_bin: Path | None = None
    cache: Path | None = None
    cache_is_chosen: bool = False
    keep: Keep = "never"
    sql: Sql = "fail"
    stay: float = 0.0
    report: tuple[Path, ...] = ()
    summary: bool = False


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the variables; one that is set to the empty string counts as not set.

    :param environ: the variables; those of the process by default.
    :raises ConfigurationError: a variable holds something that cannot be used, or there is none of that name.
    """
    return _settings_of_process() if environ is None else _settings_of(environ)


def read_once(read: Callable[[], _T]) -> Callable[[], _T]:
    """Decorate what reads variables of the process: it reads them again where any of them has changed."""
    last: list[tuple[dict[Any, Any], _T]] = []

    @functools.wraps(read)
    def asked() -> _T:
        now = dict(getattr(os.environ, "_data", os.environ))  # to look into os.environ decodes what it finds
        now.pop(_OF_EACH_TEST, None)
        if not last or last[0][0] != now:
            last[:] = [(now, read())]
        return last[0][1]

    return asked


_OF_EACH_TEST = b"PYTEST_CURRENT_TEST"


@read_once
def _settings_of_process() -> Settings:
    return _settings_of(os.environ)


def _settings_of(environ: Mapping[str, str]) -> Settings:
    _refuse_unknown(environ)
    cache, chosen = _cache(environ)
    return Settings(
        url=_url(environ),
        postgres_bin=_postgres_bin(environ),
        cache=cache,
        cache_is_chosen=chosen,
        keep=cast(Keep, _one_of(environ, "DBTESTCASE_KEEP", ("never", "fail"))),
        sql=cast(Sql, _one_of(environ, "DBTESTCASE_SQL", ("fail", "all", "off"))),
        stay=_stay(environ),
        report=_report(environ),
        summary=_one_of(environ, "DBTESTCASE_SUMMARY", ("0", "1")) == "1",
    )


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name in sorted(name for name in environ if name not in VARIABLES and _is_nearly_ours(name)):
        near = min(VARIABLES, key=lambda known: -difflib.SequenceMatcher(None, name.upper(), known).ratio())
        raise ConfigurationError(
            f"The variable {name} is set, but there is none of that name: it would be ignored.",
            cause=f"a misspelling; the nearest name is {near}",
            remedy=f"unset {name}, or call it {near}; there are {', '.join(VARIABLES)}",
        )


def _is_nearly_ours(name: str) -> bool:
    """Whether it is written as one of ours, or with a letter too many or too few."""
    flat = name.upper().replace("_", "").replace("-", "")
    return flat.startswith("DBTESTCASE") or (
        flat.startswith("DBTES") and bool(difflib.get_close_matches(name, VARIABLES, cutoff=0.95))
    )


def _url(environ: Mapping[str, str]) -> str | None:
    text = environ.get("DBTESTCASE_URL", "").strip()
    if not text:
        return None
    try:
        make_url(text)
    except (ArgumentError, ValueError):
        # the text is not shown: it may hold a password, and what cannot be parsed cannot be masked
        raise ConfigurationError(
            "DBTESTCASE_URL is not a database URL.",
            cause="it does not have the form driver://user:password@host:port/database.",
            remedy="write something like postgresql+psycopg://user@localhost:5432/blog, or unset it: "
            "then a disposable PostgreSQL starts by itself.",
        ) from None
    return text


def _postgres_bin(environ: Mapping[str, str]) -> Path | None:
    text = environ.get("DBTESTCASE_POSTGRES_BIN", "").strip()
    if not text:
        return None
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise ConfigurationError(
            f"DBTESTCASE_POSTGRES_BIN names {text!r}, which is not a folder.",
            cause="it was removed or mistyped, or this user may not look into the folders above it.",
            remedy="give the folder that holds initdb and postgres, such as /usr/lib/postgresql/17/bin, or unset it.",
        )
    return folder.absolute()


def _cache(environ: Mapping[str, str]) -> tuple[Path | None, bool]:
    text = environ.get("DBTESTCASE_CACHE", "").strip()
    if text.lower() == "off":
        return None, True
    if text:
        return Path(text).expanduser().absolute(), True
    xdg = environ.get("XDG_CACHE_HOME", "").strip()
    if xdg and os.path.isabs(xdg):  # the XDG specification: relative ones are to be ignored
        return Path(xdg) / "dbtestcase", True
    home = environ.get("HOME", "").strip()
    try:
        return (Path(home) if home else Path.home()) / ".cache" / "dbtestcase", False
    except RuntimeError:  # a user without an entry among the accounts, as containers have them
        return Path("/nonexistent/.cache/dbtestcase"), False


def _stay(environ: Mapping[str, str]) -> float:
    text = environ.get("DBTESTCASE_STAY", "").strip().lower()
    if text in ("", "0", "off"):
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= LONGEST_STAY:
        raise ConfigurationError(
            f"DBTESTCASE_STAY is {environ['DBTESTCASE_STAY']!r}, which is no time.",
            cause="it is a number with a unit: s, m or h; a day at most.",
            remedy="write 90s, 10m or 2h, or unset it: then a server ends with its run.",
        )
    return seconds


def _report(environ: Mapping[str, str]) -> tuple[Path, ...]:
    paths = [piece.strip() for piece in environ.get("DBTESTCASE_REPORT", "").split(",") if piece.strip()]
    for path in paths:
        if Path(path).suffix not in (".html", ".json"):
            raise ConfigurationError(
                f"DBTESTCASE_REPORT names {path!r}, which ends in neither .html nor .json.",
                cause="the ending says what is written.",
                remedy="write report.html or report.json, or both with a comma between them.",
            )
    return tuple(Path(path).absolute() for path in paths)


def _one_of(environ: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    text = environ.get(name, "").strip().lower()
    if not text:
        return values[0]
    if text not in values:
        raise ConfigurationError(
            f"{name} is {environ[name]!r}, which means nothing.",
            cause="it was mistyped.",
            remedy=f"use one of {', '.join(values)}, or unset it (then it is {values[0]}).",
        )
    return text
