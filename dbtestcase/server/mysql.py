"""What ``mysql://`` URLs without a host get: a disposable MariaDB, and a line that says so."""

from __future__ import annotations

from collections.abc import Callable

from ..reporting import say
from ..settings import Settings
from . import mariadb
from .mariadb import MariaDBServer


def start(settings: Settings, meanwhile: Callable[[], object] = lambda: None) -> MariaDBServer:
    """Start a MariaDB; see :func:`dbtestcase.server.disposable_server`."""
    server = mariadb.start(settings, meanwhile)
    say(f"the URL asks for MySQL: a disposable MariaDB {server.version} stands in for it (write mariadb:// to agree)")
    return server
