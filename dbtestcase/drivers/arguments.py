"""What an engine gives to its driver's ``connect()``: for each keyword, whether it holds, is harmless, or is refused.

A virtual connection is not connected, so what says where a server is, who one is there, how the wire is encrypted and
how long to wait for it has no meaning for it.  What changes how the connection behaves must hold for it as it would in
production; what can do neither is refused by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..errors import ConfigurationError
from ..sandbox import COMMITTING
from .endpoints import service_of

_LIBPQ = frozenset(
    """
    host hostaddr port dbname database user password passfile service servicefile connect_timeout sslmode requiressl
    sslcompression sslcert sslkey sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni sslnegotiation
    ssl_min_protocol_version ssl_max_protocol_version min_protocol_version max_protocol_version requirepeer require_auth
    channel_binding krbsrvname gsslib gssencmode gssdelegation keepalives keepalives_idle keepalives_interval
    keepalives_count tcp_user_timeout target_session_attrs load_balance_hosts scram_client_key scram_server_key
    sslkeylogfile oauth_issuer oauth_client_id oauth_client_secret oauth_scope
    """.split()  # noqa: SIM905
)
_MYSQL = frozenset(
    """
    host user username password passwd database db port unix_socket bind_address
    connect_timeout read_timeout write_timeout
    ssl ssl_ca ssl_cert ssl_key ssl_key_password ssl_disabled ssl_verify_cert ssl_verify_identity ssl_mode
    server_public_key auth_plugin_map auth_plugin program_name named_pipe pipe compress local_infile max_allowed_packet
    binary_prefix read_default_file read_default_group loop no_delay echo
    """.split()  # noqa: SIM905
)

HARMLESS: Mapping[str, frozenset[str]] = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    "asyncpg": frozenset(
        """
        host port user password passfile service servicefile database loop timeout ssl direct_tls krbsrvname gsslib
        target_session_attrs statement_cache_size max_cached_statement_lifetime max_cacheable_statement_size
        prepared_statement_cache_size prepared_statement_name_func async_fallback
        """.split()  # noqa: SIM905
    ),
    "pg8000": frozenset(
        "user host database port password source_address unix_sock ssl_context timeout tcp_keepalive sock".split()  # noqa: SIM905
    ),
    "pymysql": _MYSQL,
    "mysqldb": _MYSQL,
    "aiomysql": _MYSQL,
    "asyncmy": _MYSQL,
    "pysqlite": frozenset(("database", "timeout", "check_same_thread", "cached_statements", "uri")),
    "aiosqlite": frozenset(
        ("database", "timeout", "check_same_thread", "cached_statements", "uri", "iter_chunk_size", "loop")
    ),
}
"""Keywords that mean nothing to a virtual connection, by SQLAlchemy's name of the driver."""

_SWITCHES = {"S": "work_mem", "O": "allow_system_table_mods"}
_ENCODING_OF_PYTHON = re.compile("[^a-z0-9]")


@dataclass
class Asked:
    """What an engine asks for: settings of the server, and keywords of the driver's own."""

    settings: dict[str, str] = field(default_factory=dict)
    driver: dict[str, Any] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    """What libpq would say that it was given, besides where the server is and who one is there."""


def refused(driver: str, keyword: str, why: str = "") -> ConfigurationError:
    """The error for a keyword that a virtual connection can neither honour nor do without."""
    return ConfigurationError(
        f"An engine gives {keyword!r} to the connect() of {driver}, which a connection of the sandbox cannot honour"
        f"{f': {why}' if why else ''}.",
        cause="connect_args, or the query of the engine's URL; in the sandbox all connections share a physical one",
        remedy=f"leave it out of the engine that the tests use, or {COMMITTING}",
    )


def asked_of(driver: str, args: Sequence[Any], parameters: Mapping[str, Any]) -> Asked:
    """What ``connect(*args, **parameters)`` of a driver of PostgreSQL would make of a connection."""
    reader = {"psycopg": _libpq, "psycopg2": _libpq, "asyncpg": _asyncpg, "pg8000": _pg8000}[driver]
    return reader(driver, args, dict(parameters))


def settings_of_options(options: str) -> dict[str, str]:
    """The settings of a server's command line, as libpq's ``options`` has it."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", options)]
    found: dict[str, str] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word.startswith("--"):
            assignment = word[2:]
        elif word[:2] in ("-c", "-S"):
            assignment = word[2:]
            if not assignment and position < len(words):
                assignment = words[position]
                position += 1
            if word[1] == "S":
                assignment = f"{_SWITCHES['S']}={assignment}"
        elif word == "-O":
            assignment = f"{_SWITCHES['O']}=on"
        else:
            raise refused("the driver", "options", f"the switch {word!r} is no setting of a connection")
        name, equals, value = assignment.partition("=")
        if not equals:
            raise refused("the driver", "options", f"{word} {assignment!r} needs a value: -c name=value")
        found[name.replace("-", "_").lower()] = value
    return found


def _libpq(driver: str, args: Sequence[Any], parameters: dict[str, Any]) -> Asked:
    given: dict[str, Any] = {}
    for text in (*args, parameters.pop("conninfo", None), parameters.pop("dsn", None)):
        if text:
            given |= _parsed(str(text))
    given |= parameters
    own = _OWN[driver]
    asked = Asked(driver={name: given.pop(name) for name in own if name in given})
    for name, variable in _ENVIRONMENT.items():
        if given.get(name) is None and os.environ.get(variable):
            given[name] = os.environ[variable]
    _refuse_other_server(driver, str(given.get("target_session_attrs") or "any"))
    asked.given = {name: str(value) for name, value in given.items() if value is not None and name not in _PLACES}
    service = str(given.get("service") or os.environ.get("PGSERVICE") or "")
    for name, value in {**service_of(service), **given}.items():
        if value is None or name in HARMLESS[driver]:
            continue
        if name == "options":
            asked.settings |= settings_of_options(str(value))
        elif name == "application_name" or (name == "fallback_application_name" and not given.get("application_name")):
            asked.settings["application_name"] = str(value)
        elif name == "client_encoding":
            asked.driver["client_encoding"] = str(value)
        elif name in ("async", "async_"):
            if value:
                raise refused(driver, name, "what polls a connection of its own cannot take turns with others")
        elif name != "fallback_application_name":
            raise refused(driver, name, "replication is no transaction" if name == "replication" else "")
    return asked


_ENVIRONMENT = {
    "application_name": "PGAPPNAME",
    "client_encoding": "PGCLIENTENCODING",
    "options": "PGOPTIONS",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
"""What libpq takes from the environment where it is not told otherwise."""

_PLACES = frozenset(
    "host hostaddr port dbname database user password passfile service servicefile sslpassword async async_".split()  # noqa: SIM905
)


def _refuse_other_server(driver: str, wanted: str) -> None:
    if wanted in ("any", "read-write", "primary", "prefer-standby"):
        return
    why = f"{wanted!r} is none of any, read-write, primary, read-only, standby and prefer-standby"
    if wanted in ("read-only", "standby"):
        why = f"the test database is no {wanted} server; 'prefer-standby' takes one where there is one"
    raise refused(driver, "target_session_attrs", why)


_OWN = {
    "psycopg": ("autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"),
    "psycopg2": ("connection_factory", "cursor_factory"),
}


def _parsed(text: str) -> dict[str, Any]:
    from psycopg.conninfo import conninfo_to_dict

    return dict(conninfo_to_dict(text))


def _asyncpg(driver: str, args: Sequence[Any], parameters: dict[str, Any]) -> Asked:
    settings = dict(parameters.pop("server_settings", None) or {})
    dsn = next((text for text in (*args, parameters.pop("dsn", None)) if text), "")
    for name, value in parse_qsl(urlsplit(str(dsn)).query):
        if name not in HARMLESS["asyncpg"] | _LIBPQ:  # what asyncpg does not know itself it gives to the server
            settings.setdefault(name, value)
    asked = Asked(settings_of_options(str(settings.pop("options", ""))))
    asked.settings |= {name.lower(): str(value) for name, value in settings.items()}
    for name, value in parameters.items():
        if name == "command_timeout":
            asked.driver[name] = value
        elif name in ("connection_class", "record_class"):
            if str(getattr(value, "__module__", "")).partition(".")[0] != "asyncpg":
                raise refused(driver, name, f"{value!r} is a class of its own")
        elif name not in HARMLESS["asyncpg"]:
            raise refused(driver, name)
    return asked


def _pg8000(driver: str, args: Sequence[Any], parameters: dict[str, Any]) -> Asked:
    asked = Asked()
    startup = {_text(name): _text(value) for name, value in (parameters.pop("startup_params", None) or {}).items()}
    options = startup.pop("options", "")
    asked.settings |= settings_of_options(options) | {name.lower(): value for name, value in startup.items()}
    for name, value in parameters.items():
        if name == "application_name":
            if value is not None:
                asked.settings[name] = _text(value)
        elif name not in HARMLESS["pg8000"] and value is not None:
            raise refused(driver, name)
    return asked


def settings_beyond(settings: Mapping[str, str], startup: Mapping[str, str]) -> dict[str, object]:
    """The settings that a physical connection that was opened with some of its own has not yet."""
    return {name: value for name, value in settings.items() if startup.get(name) != value}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def same_encoding(one: str, other: str) -> bool:
    """Whether two names are those of one encoding, as PostgreSQL compares them."""
    names = {_ENCODING_OF_PYTHON.sub("", name.lower()) for name in (one, other)}
    return len(names) == 1 or names <= {"utf8", "unicode"}


def known(driver: str, parameters: Mapping[str, Any], honoured: Iterable[str]) -> dict[str, Any]:
    """The keywords to be honoured; :exc:`ConfigurationError` where one is neither that nor harmless."""
    honoured = frozenset(honoured)
    for name in parameters:
        if name not in honoured and name not in HARMLESS[driver]:
            raise refused(driver, name)
    return {name: value for name, value in parameters.items() if name in honoured}
