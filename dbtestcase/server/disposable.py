"""A disposable server: found, initialised once, copied, started, watched, thrown away.

:func:`disposable_server` is the door.  Each kind of server is a module with a function ``start``, found through
:func:`register`::

    with disposable_server(read_settings()) as server:
        engine = sqlalchemy.create_engine(server.url)

What happens in a warm start of PostgreSQL: the programs are found (:mod:`.programs`), a folder in RAM is made and
locked (:mod:`.folders`), the cached cluster is copied into it (:mod:`.cache`), and a small process of its own starts
the server and watches over it and over its owner (:mod:`.watcher`, :mod:`.process`): when the owner ends in
whatever way, the server is stopped and its folder removed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ..errors import ConfigurationError
from ..settings import Settings
from .interface import Server

_MODULES = {
    "postgresql": "dbtestcase.server.postgresql",
    "mariadb": "dbtestcase.server.mariadb",
    "mysql": "dbtestcase.server.mysql",
}


def register(kind: str, module: str) -> None:
    """Name the module that starts a kind of server, by ``start(settings: Settings, meanwhile) -> Server``."""
    _MODULES[kind] = module


def disposable_server(
    settings: Settings,
    *,
    kind: str = "postgresql",
    meanwhile: Callable[[], object] = lambda: None,
    on_demand: bool = False,
) -> Server:
    """Start a server of this process's own, as a context manager.

    :param meanwhile: what this process can do while others copy and start, such as importing what it will need.
    :param on_demand: whoever clones a template there calls :meth:`Server.fetch` before; otherwise all are there.
    :raises ConfigurationError: nothing can start a server of this kind.
    :raises ProgramsNotFound: there are no programs for it on this machine.
    :raises ServerStartFailed: the programs are there, but it does not start.
    :raises ServerError: its folder or its cache cannot be made or written.
    """
    if kind not in _MODULES:
        raise ConfigurationError(
            f"A disposable server of the kind {kind!r} cannot be started.",
            cause=f"the kinds known are {', '.join(sorted(_MODULES))}.",
            remedy="set DBTESTCASE_URL (or the class attribute url) to a server that is there.",
        )
    server: Server = importlib.import_module(_MODULES[kind]).start(settings, meanwhile)
    if not on_demand:
        try:
            server.fetch_all()
        except BaseException:
            server.close()
            raise
    return server
