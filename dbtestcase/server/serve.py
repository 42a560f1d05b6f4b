"""``python -m dbtestcase server``: a disposable server that runs until somebody ends it."""

from __future__ import annotations

import signal
import sys

from dbtestcase.errors import ServerError
from dbtestcase.reporting.urls import shown
from dbtestcase.server.postgresql import start
from dbtestcase.settings import Settings

__all__ = ["keep_running"]


def keep_running(settings: Settings) -> int:
    """Start a server, print its URL alone on stdout, and stop it on Ctrl-C, SIGTERM or SIGHUP.

    :returns: the exit status: 0, since being ended is how this ends.
    :raises ServerError: it does not start, or it has ended of itself.
    """

    def ended(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with start(settings) as server:
            print(shown(server.url), flush=True)
            print(
                f"dbtestcase: PostgreSQL {server.version} runs until Ctrl-C; in another shell: "
                f"export DBTESTCASE_URL='{shown(server.url)}'",
                file=sys.stderr,
                flush=True,
            )
            try:
                log = server.wait()
            except KeyboardInterrupt:
                server.persist()
                return 0
            raise ServerError(
                f"The disposable PostgreSQL {server.version} has ended.",
                cause=f"the server said:\n{log}" if log else "something has killed the process that watches over it.",
                remedy="start it again: python -m dbtestcase server",
            )
    except KeyboardInterrupt:  # while it was starting
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
