"""Cleaning on PostgreSQL: the choice between its two ways.

A superuser gets triggers that note what is touched (``cleaning_triggers``); any other role looks at every table
(``cleaning_scan``), because only a superuser may have event triggers and ``session_replication_role``.
"""

from __future__ import annotations

import logging

from sqlalchemy import URL

from ..cleaners import Cleaner, Reclonable
from . import cleaning_triggers
from .cleaner import connect
from .cleaning_scan import ScanningCleaner
from .connections import Connection

logger = logging.getLogger("dbtestcase.cleaning")


class PostgreSQLBackend:
    """See :class:`dbtestcase.backends.cleaners.Cleaning`."""

    def install(self, url: URL) -> None:
        with connect(url) as connection:
            if _is_superuser(connection):
                cleaning_triggers.install(connection)

    def uninstall(self, url: URL) -> None:
        with connect(url) as connection:
            if _is_superuser(connection):
                cleaning_triggers.uninstall(connection)

    def connect(self, url: URL, database: Reclonable | None) -> Cleaner:
        with connect(url) as connection:
            superuser = _is_superuser(connection)
            if superuser and not cleaning_triggers.is_installed(connection):
                cleaning_triggers.install(connection)
        if superuser:
            return cleaning_triggers.MarkedCleaner(url, database)
        _say_once(
            f"The role {url.username!r} is no superuser of {url.host or url.query.get('host', 'the server')}, so after"
            " each committing test every table is looked at, and rows are put back in the order of the foreign keys."
            " With a superuser this takes half a millisecond however many tables there are."
        )
        return ScanningCleaner(url, database)


BACKEND = PostgreSQLBackend()

_said: set[str] = set()


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        logger.warning(text)


def _is_superuser(connection: Connection) -> bool:
    row = connection.execute(b"select current_setting('is_superuser') = 'on'").fetchone()
    return row is not None and bool(row[0])
