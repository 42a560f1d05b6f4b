"""What happened, told to whoever listens."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import text

from .db import engine


def announce(what: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_notify('news', :what)"), {"what": what})


class Listener:
    """Hears what is announced from now on."""

    def __enter__(self) -> "Listener":
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection.execute(text("LISTEN news"))
        return self

    def hear(self, timeout: float) -> Iterator[str]:
        """The announcements of the next ``timeout`` seconds, as they come."""
        driver: Any = self._connection.connection.driver_connection
        for notice in driver.notifies(timeout=timeout):
            yield notice.payload

    def __exit__(self, *_: object) -> None:
        self._connection.execute(text("UNLISTEN news"))
        self._connection.close()
