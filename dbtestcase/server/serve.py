"""``python -m dbtestcase server``: a disposable server that runs until somebody ends it."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace

from sqlalchemy import make_url

from ..errors import ConfigurationError, ServerError
from ..reporting import shown
from ..settings import Settings
from .disposable import disposable_server

_TITLES = {"postgresql": "PostgreSQL"}


def keep_running(settings: Settings, kind: str | None = None) -> int:
    """Start a server, print its URL alone on stdout, and stop it on Ctrl-C, SIGTERM or SIGHUP; the exit status.

    :param kind: ``postgresql``, ``mariadb`` or ``mysql``; by default the kind that ``DBTESTCASE_URL`` names.
    """
    kind = kind or _named_kind(settings)
    title = _TITLES.get(kind, "MariaDB")

    def ended(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with disposable_server(replace(settings, stay=0.0), kind=kind) as server:
            print(
                f"dbtestcase: {title} {server.version} runs until Ctrl-C; in another shell: "
                f"export DBTESTCASE_URL='{shown(server.url)}'",
                file=sys.stderr,
                flush=True,
            )
            try:
                print(shown(server.url), flush=True)  # last: whoever waits for it may end this at once
                log = server.wait()
            except KeyboardInterrupt:
                server.persist()
                return 0
            raise ServerError(
                f"The disposable {title} {server.version} has ended.",
                cause=f"the server said:\n{log}" if log else "something has killed the process that watches over it.",
                remedy=f"start it again: python -m dbtestcase server --kind {kind}",
            )
    except KeyboardInterrupt:  # while it was starting
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _named_kind(settings: Settings) -> str:
    kind = make_url(settings.url).get_backend_name() if settings.url is not None else "postgresql"
    if kind == "sqlite":
        raise ConfigurationError(
            "DBTESTCASE_URL names SQLite, which has no server.",
            cause="python -m dbtestcase server starts a server of the kind that DBTESTCASE_URL names.",
            remedy="unset DBTESTCASE_URL, or write python -m dbtestcase server --kind postgresql (or mariadb).",
        )
    return kind
