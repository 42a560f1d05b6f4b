"""Several databases of one env.py, which are one in the tests: each has a version table of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from configparser import RawConfigParser
from typing import Any

from alembic import context
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import Connection

from .redirect import original_url


class VersionTables:
    """The version tables of one run of env.py, which may migrate several databases in one go.

    They are told apart by where their connections would have gone, and by the tokens of Alembic's multidb template.

    :param suffix: what the names end with: two databases of production may be one in the tests.
    """

    def __init__(self, suffix: str = "") -> None:
        self._suffix = suffix
        self._databases: list[tuple[tuple[str, str | None], tuple[str, ...]]] = []

    def tell_apart(self, connection: Connection | None, arguments: dict[str, Any]) -> None:
        """Let the arguments of ``context.configure()`` name a table of the connection's database."""
        table = (arguments.get("version_table", "alembic_version"), arguments.get("version_table_schema"))
        url = original_url(connection) if isinstance(connection, Connection) else ""
        database = (url, arguments.get("upgrade_token", ""))
        known = [other for kept_in, other in self._databases if kept_in == table]
        if database not in known:
            self._databases.append((table, database))
            known.append(database)
        position = known.index(database)
        suffix = self._suffix + (f"_{position + 1}" if position else "")
        if suffix:
            arguments["version_table"] = table[0] + suffix


def version_suffixes(parser: RawConfigParser, section: str) -> dict[str, str]:
    """The names that the multidb template goes through, one by one, with what their version tables' names end with."""
    listed = re.split(r",\s*", parser.get(section, "databases", fallback="").strip())
    names = list(filter(None, listed))
    if not any(parser.has_option(name, "sqlalchemy.url") for name in names):  # env.py has them from elsewhere
        return {}
    return {name: f"_{name}" if len(names) > 1 else "" for name in names}


def each_database(run_env: Callable[[], None]) -> None:
    """Let a command of Alembic execute env.py: once for each database, as the library's own runs do."""
    if context.is_offline_mode():
        run_env()
        return
    config, configure = context.config, EnvironmentContext.configure
    listed = config.get_main_option("databases", "")
    for name, suffix in (version_suffixes(config.file_config, config.config_ini_section) or {"": ""}).items():
        tables = VersionTables(suffix)

        def named(
            self: EnvironmentContext, connection: Connection | None = None, *, tables: Any = tables, **arguments: Any
        ) -> None:
            tables.tell_apart(connection, arguments)
            configure(self, connection, **arguments)

        setattr(EnvironmentContext, "configure", named)  # noqa: B010
        try:
            if name:
                config.set_main_option("databases", name)
            run_env()
        finally:
            setattr(EnvironmentContext, "configure", configure)  # noqa: B010
            if name:
                config.set_main_option("databases", listed)
